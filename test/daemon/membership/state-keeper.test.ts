/** Which state file a start may restore, and what becomes of one that it may not. */

import { strict as assert } from 'node:assert';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bootId } from '../../../daemon/host/boot.js';
import { StateKeeper } from '../../../daemon/membership/state-keeper.js';
import { AckBoard } from '../../../shm/ack-board.js';
import { MemberTable } from '../../../shm/members.js';
import { monotonicMs } from '../../../workers/base/monotonic.js';
import { shapeOf } from '../../../workers/snapshot/fork.js';
import type { Circle } from '../../../workers/snapshot/handshake.js';
import { Landing } from '../../../workers/snapshot/landing.js';
import { type Saver, writeStateFile } from '../../../workers/snapshot/state-file.js';
import { readVectors } from '../../../workers/snapshot/vectors.js';
import { Still } from '../../workers/snapshot/still.js';

const HOUR_MS = 3_600_000;

describe('the state file of an instance', () => {
  let folder: string;
  let file: string;
  let lines: string[];
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'state-keeper-'));
    file = join(folder, 'state');
    lines = [];
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const say = (text: unknown): void => void lines.push(String(text));
  const log = { info: say, warn: say, error: say } as never;

  function circleOf({ site: { instance } }: Still): Circle {
    const { clusterId } = instance.plan.replication;
    return { clusterId, meaningHash: instance.arena.meaningHash, keys: [] };
  }

  function keeperOf(still: Still, more: { file?: string; restoreWithinS?: number; circle?: Circle } = {}): StateKeeper {
    const { instance } = still.site;
    const members = new MemberTable(instance.buffers.members);
    return new StateKeeper({ file, restoreWithinS: 600, instance, circle: circleOf(still), members, log, ...more });
  }

  it('is restored into the next start of the same member', async () => {
    const before = await Still.create(2);
    before.count(3, 5);
    before.add(77);
    before.tell();
    const { bytes } = await keeperOf(before).saveStopped(before.site.objects);
    assert.ok(bytes > shapeOf(before.site.instance).arenaBytes);
    const after = await Still.create(2);
    const keeper = keeperOf(after);
    await keeper.find();
    assert.equal(keeper.candidate?.member, 2);
    const head = await keeper.read(new Landing(after.site.instance, false).place);
    assert.equal(head.donor, 1);
    assert.deepEqual(
      after.site.instance.openObjects(null).map((object) => object.digest()),
      before.site.objects.map((object) => object.digest()),
    );
  });

  /** Writes a file that the wall clock says is so old. It was saved in another boot by default. */
  function writeOf(still: Still, changes: Partial<Saver>, ageMs: number, circle = circleOf(still)): Promise<number> {
    const { instance, objects } = still.site;
    const vectors = readVectors(new AckBoard(instance.buffers.ackBoard), objects, 1);
    const arena = Buffer.from(new Uint8Array(instance.buffers.arena));
    const saver: Saver = { member: 2, slot: 1, incarnation: 5, members: [1, 2, 3], boot: 'another', monotonicMs: 0 };
    return writeStateFile(file, circle, { ...saver, ...changes }, shapeOf(instance), {
      head: { donor: 1, unixMs: Date.now() - ageMs, vectors, lacks: [] },
      copy: {
        async *pieces() {
          yield arena;
        },
      },
    });
  }

  it('is as old as the monotonic clock says within one boot, and as the wall clock says after it', async () => {
    const still = await Still.create(2);
    const boot = bootId();
    assert.match(boot, /^[0-9a-f-]{36}$/);
    const now = Math.trunc(monotonicMs());
    for (const [clock, wallMs, said] of [
      [{ boot, monotonicMs: now }, -HOUR_MS, /saved .*Z, \d s ago/],
      [{ boot, monotonicMs: now }, 10 * HOUR_MS, /saved .*Z, \d s ago/],
      [{ boot, monotonicMs: now - 5_000 }, 0, /was saved \d s ago, and .* is 3/],
      // The monotonic clock began anew, though the boot says that it did not.
      [{ boot, monotonicMs: now + HOUR_MS }, -HOUR_MS, /in the future/],
      [{ boot: '', monotonicMs: now }, -HOUR_MS, /in the future/],
      [{ boot: 'another', monotonicMs: now }, -HOUR_MS, /in the future/],
      [{ boot: 'another', monotonicMs: now - 5_000 }, 0, /saved .*Z, \d s ago/],
    ] as const) {
      lines = [];
      await writeOf(still, clock, wallMs);
      await keeperOf(still, { restoreWithinS: 3 }).find();
      assert.match(lines.join('\n'), said);
    }
  });

  it('is refused, kept under another name, and said why, if it may not be restored', async () => {
    const still = await Still.create(2);
    const write = (changes: Partial<Saver>, ageMs: number, circle = circleOf(still)) =>
      writeOf(still, changes, ageMs, circle);
    const cases: [string, () => Promise<unknown>, RegExp, object?][] = [
      ['another member’s', () => write({ member: 3 }, 0), /is of member 3 in slot 1; this is member 2 in slot 1/],
      ['another slot’s', () => write({ slot: 0 }, 0), /is of member 2 in slot 0; this is member 2 in slot 1/],
      ['too old', () => write({}, HOUR_MS), /was saved 360\d s ago, and state.restore_within_s is 600/],
      ['never restored', () => write({}, 5_000), /was saved \d+ s ago, and .* is 0/, { restoreWithinS: 0 }],
      ['of the future', () => write({}, -HOUR_MS), /which is in the future; check the clock/],
      ['another cluster’s', () => write({}, 0, { ...circleOf(still), clusterId: 9 }), /is of another cluster/],
      ['of another layout', () => write({}, 0, { ...circleOf(still), meaningHash: [1, 2] }), /another configuration/],
      ['something else', async () => writeFileSync(file, 'x'.repeat(100)), /is something else/],
    ];
    for (const [what, prepare, reason, more] of cases) {
      lines = [];
      await prepare();
      const keeper = keeperOf(still, more);
      await keeper.find();
      assert.equal(keeper.candidate, null, what);
      assert.match(lines.join('\n'), reason);
      assert.match(lines.join('\n'), /it is kept as .*state\.refused$/);
      assert.deepEqual(readdirSync(folder), ['state.refused']);
    }
  });

  it('cannot be in a folder that is missing, and is not saved without a name', async () => {
    const still = await Still.create(1);
    await assert.rejects(
      keeperOf(still, { file: join(folder, 'nowhere', 'state') }).find(),
      /state\.file: nothing can be written to .*nowhere: ENOENT/,
    );
    const none = new StateKeeper({
      ...{ file: null, restoreWithinS: 600, instance: still.site.instance, circle: circleOf(still), log },
      members: new MemberTable(still.site.instance.buffers.members),
    });
    await none.find();
    assert.equal(none.candidate, null);
    await assert.rejects(none.saveStopped(still.site.objects), /state\.file is not set/);
  });
});
