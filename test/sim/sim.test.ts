import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { drawPlan } from './draw.js';
import { PROFILES } from './profiles.js';
import { Tally } from './tally.js';
import { UNREACHED } from './unreached.js';
import { World } from './world.js';

/**
 * Runs of each profile, and of each costly profile. `npm run sim:ci` does many more, with fresh
 * seeds.
 */
const LIVES = 3;
const LIVES_COSTLY = 1;
/** Profiles at least this rare are left out: one such run takes longer than all others here. */
const RAREST = 400;
/** Not the seeds with which a sweep starts by default. */
const FIRST_SEED = 1_000_000;

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url));

/** Seeds that showed faults of the core, or of these checks, which no unit test repeats. */
const SHOWED_FAULTS = [
  // A newcomer was sent the floor of another member's backlog and took that member's snapshot,
  // which left a gap.
  ['debtors', 1_125_104_313],
  // A newcomer took the snapshot of a member that had started without state, and continued its
  // totals from too small a base.
  ['alone', 1_125_096_519],
  // A member learned only after the healing that it was evicted, from one that had taken another
  // member's state, and restarted: the members that must converge are those that run then.
  ['evictions', 2_081_974_170],
  ['evictions', 2_081_979_402],
  // Recordings of another incarnation ended one that lived: it had not answered a newcomer yet, or
  // had been cut off from it.
  ['misclock', 410_482_306],
  ['misclock', 410_485_618],
  // A joining member that fell silent began without state, and was taken for one that takes a
  // snapshot.
  ['alone', 556_000_699],
  ['alone', 556_000_184],
  // A half kept nothing for the members of the other half, which it had evicted.
  ['evictions', 1_812_468_150],
  // A member began without the members that its etcd had evicted, and said so.
  ['evictions', 1_812_469_478],
  // All members had skipped records, and said so: the one that was kept could lack any.
  ['evictions', 1_812_468_373],
  // The only donor had begun without a member that knew more of the newcomer's totals.
  ['alone', 1_556_242_695],
  // One member knew an author of which nothing was left to compare.
  ['mixed', 1_556_242_631],
  // The donor of a newcomer did not know yet that the newcomer's former incarnation had ended.
  ['misclock', 1_947_682_882],
  // A newcomer took the state of a member that had never heard the newcomer's former incarnation.
  ['alone', 410_482_671],
  // A member had operations of an ended incarnation from a merged snapshot only, and nothing found
  // that before the digest watch.
  ['alone', 410_485_167],
  // Units that waited for their turn in receive threads that ended were lost when their origin
  // died.
  ['succession', 410_486_803],
  // Members began together while one was evicted, which then came back with its state.
  ['evictions', 865_812_330],
  ['evictions', 865_813_026],
  // A member heard of another one's next incarnation in a short acknowledgement before it heard
  // what the others had of the former one, and closed that with less.
  ['alone', 865_811_583],
  // A member took what another one had said of a living incarnation for what that one still had
  // after two had ended, and did not report the loss.
  ['alone', 865_810_863],
  // Members were taken to have converged before their receive threads read that two were evicted.
  ['crash', 865_811_815],
  // A newcomer knew a member that it had not heard from its snapshot, and did not report that this
  // one was away while two incarnations of a third one ended.
  ['owed', 865_812_422],
] as const;

function live(name: string, seeds: number, from = FIRST_SEED): void {
  for (let seed = from; seed < from + seeds; seed++) {
    const { violation } = new World(drawPlan(seed, name)).run();
    assert.ok(
      violation === null,
      `${violation?.invariant}: ${violation?.message}\n  npm run sim -- --seeds 1 --from ${seed} --profile ${name}`,
    );
  }
}

function run(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8' });
}

describe('simulated lives keep all promises', function () {
  this.timeout(600_000);

  for (const [name, { help, oneIn = 1 }] of Object.entries(PROFILES))
    if (oneIn < RAREST) it(`${name}: ${help}`, () => live(name, oneIn === 1 ? LIVES : LIVES_COSTLY));

  for (const [name, seed] of SHOWED_FAULTS) it(`${name}: seed ${seed}, which once did not`, () => live(name, 1, seed));
});

describe('a sweep', () => {
  const reached = (names: readonly string[]): Tally => {
    const tally = new Tally();
    const counters = new Map(names.map((name) => [name, 1]));
    tally.add('lossy', { ...new World(drawPlan(1, 'lossy')).run(), counters });
    return tally;
  };
  const all = reached([]).neverReached;

  it('fails if a counter is reached by no life, and no reason is given', () => {
    const reachable = all.filter((name) => !(name in UNREACHED));
    assert.deepEqual(reached(reachable).misjudged, []);
    assert.deepEqual(reached(reachable.slice(1)).misjudged, [`${reachable[0]}: no life reached it`]);
  });

  it('fails if a counter is reached that has a reason why it is not', () =>
    assert.deepEqual(
      reached(all).misjudged.toSorted(),
      ['state_rx_records_full', 'state_rx_units_overlap'].map((name) => `${name}: reached, and listed in unreached.ts`),
    ));
});

describe('the simulator', function () {
  this.timeout(600_000);

  it('lives the same life again from the same seed', () => {
    for (const [seed, profile] of [
      [7, 'mixed'],
      // With a NAT, whose ports are drawn.
      [1013, 'threads'],
      [1028, 'crash'],
    ] as const) {
      const [one, other] = [1, 2].map(() => new World(drawPlan(seed, profile)).run());
      assert.deepEqual(one, other);
      assert.ok(one.datagrams > 100);
    }
    assert.ok(drawPlan(1013, 'threads').objects.includes('nat'));
  });

  it('says the same on one thread and on several', () => {
    const [one, several] = [1, 3].map((jobs) => run('--seeds', '5', '--from', '31', '--jobs', `${jobs}`));
    const told = (text: string): string => text.replace(/.* s simulated in .*\n/, '');
    assert.equal(one.status, 0);
    assert.equal(told(several.stdout), told(one.stdout));
  });

  it('says how it is used, and what is wrong with how it was', () => {
    const help = run('--help');
    assert.equal(help.status, 0);
    assert.match(help.stdout, /--seeds <n>[\s\S]*orderly/);
    for (const wrong of [['--seeds', 'x'], ['--profile', 'none'], ['--replay', '/nowhere'], ['--what']]) {
      const { status, stderr } = run(...wrong);
      assert.equal(status, 2, wrong.join(' '));
      assert.match(stderr, /wanted|there is no|no such|unknown option/);
    }
  });

  it('sums up what happened', () => {
    const { status, stdout } = run('--seeds', '3', '--profile', 'lossy');
    assert.equal(status, 0);
    assert.match(stdout, /\d+ {2}lost\n/);
    assert.match(stdout, /never reached, with a reason:\n[\s\S]* {2}state_rx_records_full: /);
    assert.match(stdout, /3 lives, 0 divergent, 0 excused; equal only after snapshots: 0, after restarts: 0\n$/);
  });
});
