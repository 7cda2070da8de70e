import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { AckBoard } from '../../../shm/ack-board.js';
import { BarrierError } from '../../../shm/barrier.js';
import { coarseSeconds } from '../../../shm/clock.js';
import { ThreadState } from '../../../shm/control.js';
import { CounterVector } from '../../../shm/objects/counting/counters.js';
import { monotonicMs } from '../../../workers/base/monotonic.js';
import { readPeers } from '../../../workers/replication/membership/peers.js';
import { newKey } from '../../../workers/replication/wire/cluster-key.js';
import { fetchSnapshot } from '../../../workers/snapshot/client.js';
import { type Fork, forkState, shapeOf } from '../../../workers/snapshot/fork.js';
import { Landing } from '../../../workers/snapshot/landing.js';
import { loadSnapshot } from '../../../workers/snapshot/load.js';
import { SnapshotServer } from '../../../workers/snapshot/server.js';
import { freePort } from '../../support/ports.js';
import { children, openDescriptors, soon } from '../../support/process.js';
import { BusySite, member } from './busy-site.js';

/**
 * On a busy machine a thread may be kept from its core for longer than packets are to stand still:
 * then once more.
 */
async function forkAtLast(site: BusySite): Promise<Fork> {
  for (let tries = 1; ; tries++) {
    try {
      return forkState(site.instance, site.objects);
    } catch (error) {
      if (!(error instanceof BarrierError) || tries === 200) throw error;
      await sleep(5);
    }
  }
}

function sum(object: unknown): number {
  assert.ok(object instanceof CounterVector);
  let total = 0;
  for (let i = 0; i < object.length; i++) total += object.value(i);
  return total;
}

describe('a snapshot of a busy instance', () => {
  const sites: BusySite[] = [];
  let server: SnapshotServer | null = null;
  afterEach(async () => {
    await server?.close();
    server = null;
    await Promise.all(sites.splice(0).map((site) => site.stop()));
  });

  async function site(...options: Parameters<typeof BusySite.create>): Promise<BusySite> {
    const made = await BusySite.create(...options);
    sites.push(made);
    return made;
  }

  it('is of one moment between two batches, again and again, and leaves nothing behind', async () => {
    const busy = await site({ workers: 2, cells: 4096, packetsPerSecond: 40_000 });
    await busy.start();
    const copy = await site({ workers: 1, cells: 4096 });
    const descriptors = openDescriptors().length;
    let earlier = 0;
    for (let round = 0; round < 5; round++) {
      await sleep(30);
      const { copy: child, done } = await forkAtLast(busy);
      const into = new Uint8Array(copy.instance.buffers.arena);
      let at = 0;
      for await (const piece of child.pieces()) {
        into.set(piece, at);
        at += piece.length;
      }
      assert.equal(at, into.length);
      await done();
      const [totals, increments] = copy.objects.map((object, id) => (id < 2 ? sum(object) : 0));
      // Increments that found the log full have no number yet, and are not in the snapshot.
      const unnumbered = busy.objects[1].describe(0)['log_full'];
      const missing = totals - increments;
      assert.ok(missing >= 0 && missing <= unnumbered, `${totals} and ${increments}: both were counted, or neither`);
      assert.ok(totals > earlier, 'and more than the last time');
      earlier = totals;
    }
    assert.ok(await soon(() => openDescriptors().length <= descriptors));
    assert.deepEqual(
      Object.values(children()).filter((state) => state === 'Z'),
      [],
    );
  });

  it('with what came after makes a newcomer equal, under load, whatever form counts have', async () => {
    const ports = [await freePort(), await freePort()];
    const members = [member(1, ports[0]), member(2, ports[1])];
    const donor = await site({ self: 1, members, workers: 2, packetsPerSecond: 5_000 });
    const newcomer = await site({ self: 2, members, workers: 1 });
    await donor.start();
    await sleep(300);
    const circle = { clusterId: 1, meaningHash: donor.instance.arena.meaningHash, keys: [newKey(1)] };
    const log: string[] = [];
    server = await SnapshotServer.listen({
      host: '127.0.0.1',
      port: 0,
      self: 1,
      circle,
      shape: shapeOf(donor.instance),
      fork: () => forkState(donor.instance, donor.objects),
      log: (_, text) => log.push(text),
    });
    const fetch = async (): Promise<void> => {
      const { instance, objects } = newcomer;
      const head = await fetchSnapshot({
        client: 2,
        server: 1,
        address: '127.0.0.1',
        port: server?.port ?? 0,
        circle,
        shape: shapeOf(instance),
        place: new Landing(instance, false).place,
        log: () => {},
      });
      loadSnapshot(instance, objects, head);
    };
    for (let tries = 1; ; tries++)
      try {
        await fetch();
        break;
      } catch (error) {
        if (tries === 100 || !/barrier|come|settle/.test(String(error))) throw error;
        await sleep(5);
      }
    const { slots } = newcomer.instance;
    await newcomer.start([slots.receive, slots.send]);
    await sleep(200);
    await donor.quiet();
    const caughtUp = (): boolean => {
      const { buffers, plan } = donor.instance;
      return readPeers(new AckBoard(buffers.ackBoard), plan.replication, monotonicMs()).every(
        (peer) => peer.unacknowledged === 0,
      );
    };
    assert.ok(await soon(caughtUp, 20_000), 'the newcomer has everything');
    const now = coarseSeconds(Date.now());
    assert.deepEqual(newcomer.digests(now), donor.digests(now));
    assert.equal(sum(newcomer.objects[0]), donor.packets.taken);
    assert.equal(sum(newcomer.objects[1]), donor.packets.taken, 'each increment once');
    assert.ok(log.some((text) => /all stood still for \d+ µs/.test(text)));
  });

  it('fails cleanly while a worker is dead, and works when it is back', async () => {
    const busy = await site({ workers: 2, packetsPerSecond: 10_000 });
    await busy.start();
    const dead = 0;
    await busy.kill(dead);
    busy.instance.control.setState(dead, ThreadState.FAILED);
    const before = openDescriptors().length;
    assert.throws(() => forkState(busy.instance, busy.objects), /thread worker-0 is failed/);
    assert.ok(openDescriptors().length <= before);
    await busy.start([dead]);
    // A thread has descriptors of its own, more or fewer by Node's version.
    const descriptors = openDescriptors().length;
    const { copy } = await forkAtLast(busy);
    await copy.end();
    assert.ok(await soon(() => openDescriptors().length <= descriptors));
  });
});
