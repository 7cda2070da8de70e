import { strict as assert } from 'node:assert';
import { createSocket } from 'node:dgram';
import type { Delivery } from '../../../shm/objects/core/object.js';
import { RejectTable } from '../../../shm/reject-table.js';
import { SealBoard, type SealKey } from '../../../shm/seal-board.js';
import { replicationSettings } from '../../../workers/replication/settings.js';
import { newKey } from '../../../workers/replication/wire/cluster-key.js';
import { freePort } from '../../support/ports.js';
import { RECEIVE, SEND } from './agent-thread.js';
import { sleep, TestInstance, until } from './test-instance.js';

const DELIVERIES: readonly Delivery[] = ['any-order', 'in-order'];
const NUMBERS = 6000;
/** Numbers between two moments in which the threads have the processor. */
const PAUSE_AFTER = 100;
const KEY = newKey(1);
const NEXT = newKey(2);

interface Cluster {
  readonly instances: readonly TestInstance[];
  /**
   * Every datagram that reached the port of the instance, in order, if it was asked to be recorded.
   */
  readonly recorded: Buffer[];
}

/**
 * Instances on loopback, each with its keys. What is sent to the one at `record` passes through a
 * socket of the test, which keeps a copy: the other instances know its port as that member's.
 */
async function withCluster(
  keys: readonly (readonly SealKey[] | null)[],
  record: number | null,
  body: (cluster: Cluster) => Promise<void>,
): Promise<void> {
  const members: { id: number; name: string; address: string; port: number }[] = [];
  for (let i = 0; i < keys.length; i++)
    members.push({ id: 10 * (i + 1), name: `site-${i}`, address: '127.0.0.1', port: await freePort() });
  const tap = createSocket('udp4');
  const recorded: Buffer[] = [];
  let up = false;
  tap.on('message', (datagram) => {
    // What an instance sends before the other listens is lost, and so would be new when it is
    // replayed.
    if (!up) return;
    recorded.push(Buffer.from(datagram));
    tap.send(datagram, members[record ?? 0].port, '127.0.0.1');
  });
  await new Promise<void>((resolve) => tap.bind(0, '127.0.0.1', resolve));
  const instances = keys.map((each, i) => {
    const seen = members.map((member, k) =>
      k === record && i !== k ? { ...member, port: tap.address().port } : member,
    );
    const settings = replicationSettings({
      clusterId: process.pid,
      self: members[i].id,
      members: seen,
      keepaliveMs: 100,
      retransmitMsInitial: 100,
    });
    return new TestInstance(settings, DELIVERIES, NUMBERS, null, each);
  });
  try {
    for (const instance of instances) await instance.start();
    up = true;
    await body({ instances, recorded });
  } finally {
    await Promise.all(instances.map((instance) => instance.stop()));
    await new Promise<void>((resolve) => tap.close(() => resolve()));
  }
}

function appliedOnce(instance: TestInstance, from: number, to: number): void {
  for (const { counts } of instance.tallies)
    for (let number = from; number < to; number++)
      if (Atomics.load(counts, number) !== 1)
        assert.fail(`number ${number} was applied ${Atomics.load(counts, number)} times`);
}

function setKeys(instance: TestInstance, keys: readonly SealKey[]): void {
  new SealBoard(instance.buffers.sealBoard as SharedArrayBuffer).writeKeys(keys);
}

const rejected = (instance: TestInstance, reason: string): number => instance.metrics.total(`state_rejected_${reason}`);

/** Everything refused, whatever the reason. */
function refused(instance: TestInstance): number {
  return instance.metrics.catalogue.metrics
    .filter(({ name }) => name.startsWith('state_rejected_'))
    .reduce((sum, { name }) => sum + instance.metrics.total(name), 0);
}

/** Sends the datagrams to the instance; returns when it has looked at all of them. */
async function replayed(instance: TestInstance, datagrams: readonly Uint8Array[]): Promise<void> {
  const end = instance.metrics.total('state_rx_messages') + datagrams.length;
  const { port } = instance.settings.members[1];
  const socket = createSocket('udp4');
  try {
    for (const [i, datagram] of datagrams.entries()) {
      socket.send(datagram, port, '127.0.0.1');
      if (i % 20 === 0) await sleep(1);
    }
    await until(() => instance.metrics.total('state_rx_messages') === end, 'arrival of the replays');
  } finally {
    await new Promise<void>((resolve) => socket.close(() => resolve()));
  }
}

describe('sealed send and receive threads', () => {
  it('replicate with one key; who has another, or none, neither changes nor learns anything, and is counted', async () => {
    await withCluster([[KEY], [KEY], [newKey(1)], [NEXT], null], null, async ({ instances }) => {
      const [a, b, wrongSecret, otherKey, unsealed] = instances;
      await Promise.all(instances.map((instance, i) => instance.logNumbers(i * 1000, (i + 1) * 1000, PAUSE_AFTER)));
      const have = (instance: TestInstance, from: number): boolean =>
        instance.tallies.every(({ counts }) => {
          for (let number = from; number < from + 1000; number++) if (Atomics.load(counts, number) === 0) return false;
          return true;
        });
      await until(() => have(a, 1000) && have(b, 0), 'replication between the two that have the key');
      for (const instance of [a, b])
        await until(
          () => ['seal_forged', 'seal_key', 'unsealed'].every((reason) => rejected(instance, reason) >= 5),
          'rejections of the other three',
        );
      appliedOnce(a, 1000, 2000);
      appliedOnce(b, 0, 1000);
      for (const instance of [a, b])
        for (const { counts } of instance.tallies)
          for (let number = 2000; number < 5000; number++) assert.equal(Atomics.load(counts, number), 0);
      for (const instance of [wrongSecret, otherKey, unsealed])
        for (const { counts } of instance.tallies) assert.ok(counts.every((count) => count === 0));
      const rows = new RejectTable(a.buffers.rejects).rows();
      assert.deepEqual(
        rows.map(({ address, inherited }) => [address, inherited]),
        [['127.0.0.1', 0]],
      );
      assert.ok(rows[0].count >= 15 && rows[0].count <= refused(a));
    });
  });

  it('lose nothing when the key changes under load, a thread dying between the steps', async () => {
    await withCluster([[KEY], [KEY]], null, async ({ instances }) => {
      const [a, b] = instances;
      const steps = [[KEY], [KEY, NEXT], [NEXT, KEY], [NEXT]];
      let number = 0;
      for (const [step, keys] of steps.entries()) {
        const next = number + NUMBERS / steps.length;
        const load = a.logNumbers(number, next, PAUSE_AFTER);
        setKeys(b, keys);
        await sleep(20);
        setKeys(a, keys);
        if (step === 1) {
          await a.kill(SEND);
          await a.startThread(SEND);
        }
        if (step === 2) {
          await b.kill(RECEIVE);
          await b.startThread(RECEIVE);
        }
        await load;
        await until(() => a.settled, `acknowledgement in step ${step}`);
        number = next;
      }
      for (const { counts } of b.tallies)
        for (let i = 0; i < NUMBERS; i++) assert.ok(Atomics.load(counts, i) >= 1, `${i} is lost`);
      assert.equal(new SealBoard(b.buffers.sealBoard as SharedArrayBuffer).keyOf(0), NEXT.id);
      assert.equal(rejected(b, 'seal_forged'), 0);
    });
  });

  it('refuse everything that was recorded on the network, also after they were started again', async () => {
    await withCluster([[KEY], [KEY]], 1, async ({ instances, recorded }) => {
      const [a, b] = instances;
      await a.logNumbers(0, 2000, PAUSE_AFTER);
      await until(() => a.settled, 'acknowledgement of everything');
      appliedOnce(b, 0, 2000);
      await a.kill(SEND);
      const received = (): number => b.metrics.total('state_rx_messages');
      await until(() => received() === recorded.length, 'arrival of everything that was recorded');
      assert.equal(rejected(b, 'seal_replay'), 0);
      assert.ok(recorded.length >= 20, `${recorded.length} datagrams were recorded`);
      await replayed(b, recorded);
      await b.kill(RECEIVE);
      await b.startThread(RECEIVE);
      await replayed(b, recorded);
      assert.equal(rejected(b, 'seal_replay'), 2 * recorded.length);
      appliedOnce(b, 0, 2000);
    });
  });
});
