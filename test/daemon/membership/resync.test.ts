import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { type Slot, ThreadSupervisor } from '../../../daemon/lifecycle/threads.js';
import { Resync } from '../../../daemon/membership/resync.js';
import { coarseSeconds } from '../../../shm/clock.js';
import { Phase, ThreadState } from '../../../shm/control.js';
import { BUILD_ID } from '../../../workers/engine/build-id.js';
import type { ThreadTask } from '../../../workers/engine/thread.js';
import { newKey } from '../../../workers/replication/wire/cluster-key.js';
import { forkState, shapeOf } from '../../../workers/snapshot/fork.js';
import { SnapshotServer } from '../../../workers/snapshot/server.js';
import { freePort } from '../../support/ports.js';
import { soon } from '../../support/process.js';
import { BusySite, member } from '../../workers/snapshot/busy-site.js';

describe('an instance that lacks what nobody can send it any more', () => {
  it('takes a snapshot and joins it with what it has, for records skipped before it began to look, too', async () => {
    const members = [member(1, await freePort()), member(2, await freePort())];
    const small = { members, cells: 20_000, unitLogBytes: 64 << 10, backlogBytes: 0 };
    const donor = await BusySite.create({ self: 1, ...small, workers: 1, packetsPerSecond: 20_000 });
    const late = await BusySite.create({ self: 2, ...small, workers: 1 });
    const { instance } = late;
    const { plan, buffers, slots, control } = instance;
    const lines: string[] = [];
    const note = (text: string): void => void lines.push(text);
    const log = Object.assign(pino({ enabled: false }), { info: note, warn: note });
    const supervisor = new ThreadSupervisor({
      file: new URL('../../../workers/engine/thread.js', import.meta.url),
      slots: Array.from({ length: slots.count }, (_, thread): Slot => {
        const task: ThreadTask = { build: BUILD_ID, thread, plan, buffers };
        return { thread, name: slots.name(thread), task, restartable: true };
      }),
      control,
      recover: () => {},
      onEvent: (_, text) => note(text),
      onFatal: (error) => note(String(error)),
    });
    const circle = { clusterId: 1, meaningHash: instance.arena.meaningHash, keys: [newKey(1)] };
    const resync = new Resync({ instance, supervisor, circle, log: log as never });
    let server: SnapshotServer | null = null;
    try {
      // The donor makes far more than its log holds, and all of it before the other is there.
      await donor.start();
      await sleep(1500);
      await donor.quiet();
      server = await SnapshotServer.listen({
        host: '127.0.0.1',
        port: members[0].port,
        self: 1,
        circle,
        shape: shapeOf(donor.instance),
        fork: () => forkState(donor.instance, donor.objects),
        log: (_, text) => note(text),
      });
      // Records are skipped before it begins to look: the donor's floor moved while a snapshot was
      // loaded.
      await supervisor.start(({ thread }) => thread >= slots.workers);
      assert.ok(await soon(() => instance.metrics.total('state_rx_records_skipped') > 0, 20_000), 'it lacks records');
      // It began without the donor, and hears that it has state.
      resync.start([0]);
      const joined = (): boolean =>
        lines.some((line) => /joined the state of m1 with ours: [1-9]\d* entries/.test(line));
      assert.ok(await soon(joined, 30_000), lines.join('\n'));
      const digests = (site: BusySite): string[] => site.digests(coarseSeconds(Date.now()));
      assert.ok(
        await soon(() => digests(late).join() === digests(donor).join() && resync.state === null, 20_000),
        `${digests(late)} ${digests(donor)} ${resync.state}\n${lines.join('\n')}`,
      );
      assert.equal(control.state(slots.receive), ThreadState.READY);
      assert.equal(
        lines.filter((line) => /began without the state of a member that is heard now/.test(line)).length,
        1,
      );

      // Memory that went wrong, as a comparison of digests finds it.
      instance.arena.region(0).i32().fill(0);
      assert.notEqual(digests(late).join(), digests(donor).join());
      resync.want('an object differs', [0]);
      assert.ok(
        await soon(() => digests(late).join() === digests(donor).join() && resync.state === null, 20_000),
        `${digests(late)} ${digests(donor)} ${resync.state}\n${lines.join('\n')}`,
      );
    } finally {
      await resync.close();
      await server?.close();
      control.setPhase(Phase.STOP);
      await supervisor.stop();
      await donor.stop();
    }
  }).timeout(90_000);
});
