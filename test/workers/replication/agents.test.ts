import { strict as assert } from 'node:assert';
import { AckBoard } from '../../../shm/ack-board.js';
import type { Delivery } from '../../../shm/objects/core/object.js';
import { monotonicMs } from '../../../workers/base/monotonic.js';
import { readPeers } from '../../../workers/replication/membership/peers.js';
import {
  type ReplicationOptions,
  type ReplicationSettings,
  replicationSettings,
} from '../../../workers/replication/settings.js';
import { freePort } from '../../support/ports.js';
import { RECEIVE, SEND } from './agent-thread.js';
import { TestInstance, until } from './test-instance.js';

const DELIVERIES: readonly Delivery[] = ['any-order', 'in-order'];
const NUMBERS = 20_000;
/** Numbers between two moments in which the threads have the processor. */
const PAUSE_AFTER = 1000;

async function settings(kind: 'unicast' | 'multicast', count: number): Promise<ReplicationSettings[]> {
  const members: { id: number; name: string; address: string; port: number }[] = [];
  for (let i = 0; i < count; i++)
    members.push({ id: 10 * (i + 1), name: `site-${i}`, address: '127.0.0.1', port: await freePort() });
  const transport: ReplicationOptions['transport'] =
    kind === 'unicast'
      ? { kind }
      : { kind, group: '239.83.1.0', port: await freePort(), interface: '127.0.0.1', ttl: 0, loopback: true };
  return members.map(({ id }) =>
    replicationSettings({ clusterId: process.pid, self: id, members, transport, keepaliveMs: 200 }),
  );
}

function checkOnce(instance: TestInstance, others: number): void {
  for (const { counts } of instance.tallies)
    for (let number = 0; number < NUMBERS; number++)
      if (Atomics.load(counts, number) !== others)
        assert.fail(`number ${number} was applied ${Atomics.load(counts, number)} times, not ${others}`);
}

async function withInstances(
  plans: readonly ReplicationSettings[],
  loss: number,
  body: (instances: readonly TestInstance[]) => Promise<void>,
): Promise<void> {
  const instances = plans.map((plan, i) => {
    const faults = loss > 0 ? { seed: i + 1, loss, duplicate: 0.02, delay: 0.05, delayMsMax: 10 } : null;
    return new TestInstance(plan, DELIVERIES, NUMBERS, faults);
  });
  try {
    for (const instance of instances) await instance.start();
    await body(instances);
  } finally {
    await Promise.all(instances.map((instance) => instance.stop()));
  }
}

describe('send and receive threads', () => {
  for (const kind of ['unicast', 'multicast'] as const)
    for (const [members, loss] of [
      [2, 0],
      [2, 0.05],
      [3, 0.05],
    ])
      it(`replicate every operation exactly once: ${members} instances, ${kind}, ${loss * 100} % loss`, async () => {
        await withInstances(await settings(kind, members), loss, async (instances) => {
          await Promise.all(instances.map((instance) => instance.logNumbers(0, NUMBERS, PAUSE_AFTER)));
          await until(() => instances.every((instance) => instance.settled), 'acknowledgement of everything');
          for (const instance of instances) {
            checkOnce(instance, members - 1);
            assert.equal(instance.metrics.total('state_tx_records'), NUMBERS * DELIVERIES.length);
            assert.equal(instance.metrics.total('state_tx_errors'), 0);
            assert.equal(instance.metrics.total('state_rx_errors'), 0);
            if (loss === 0) assert.equal(instance.metrics.total('state_rejected_checksum'), 0);
            for (const peer of readPeers(new AckBoard(instance.buffers.ackBoard), instance.settings, monotonicMs())) {
              assert.equal(peer.state, 'heard');
              assert.equal(peer.unacknowledged, 0);
              assert.ok(peer.rttMs !== null && peer.rttMs.minimum > 0);
            }
          }
        });
      });

  it('lose nothing when they die and are started again', async () => {
    await withInstances(await settings('unicast', 2), 0.02, async ([a, b]) => {
      const step = NUMBERS / 10;
      for (let i = 0; i < 10; i++) {
        await a.logNumbers(i * step, (i + 1) * step, PAUSE_AFTER);
        const [victim, thread] = [a, b][i % 2] === a ? [a, SEND] : [b, SEND];
        await victim.kill(thread);
        await victim.startThread(thread);
      }
      await until(() => a.settled, 'acknowledgement of everything');
      for (const { counts } of b.tallies)
        for (let number = 0; number < NUMBERS; number++)
          assert.ok(Atomics.load(counts, number) >= 1, `${number} is lost`);
      await b.kill(RECEIVE);
      await a.logNumbers(0, 1, PAUSE_AFTER);
      await b.startThread(RECEIVE);
      await until(() => a.settled, 'acknowledgement after the receive thread came back');
    });
  });

  it('say which address they cannot use', async () => {
    const [plan] = await settings('unicast', 2);
    const members = plan.members.map((member) => ({ ...member, address: '192.0.2.1' }));
    const instance = new TestInstance({ ...plan, members }, DELIVERIES, 1, null);
    await assert.rejects(instance.startThread(RECEIVE), /cannot listen for state messages on 192\.0\.2\.1 port/);
    const [multicast] = await settings('multicast', 2);
    if (multicast.transport.kind !== 'multicast') throw new Error('multicast was asked for');
    const transport = { ...multicast.transport, interface: '192.0.2.1' };
    const other = new TestInstance({ ...multicast, transport }, DELIVERIES, 1, null);
    await assert.rejects(
      other.startThread(RECEIVE),
      /cannot join group 239\.83\.1\.0 port \d+ on interface 192\.0\.2\.1/,
    );
    await assert.rejects(other.startThread(SEND), /cannot send multicast on interface 192\.0\.2\.1/);
  });
});
