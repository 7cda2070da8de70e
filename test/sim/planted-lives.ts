/** Checks that runs with a planted bug break an invariant, and that runs without one do not. */

import { strict as assert } from 'node:assert';
import { drawPlan } from './draw.js';
import type { PlantedBug } from './planted.js';
import type { Invariant } from './violation.js';
import { World } from './world.js';

const FIRST_SEED = 5_000_000;

/**
 * The first of `lives` runs that breaks an invariant, counted from 1, and which one it breaks; null
 * if none does.
 */
function firstBroken(profile: string, lives: number): { life: number; invariant: Invariant; message: string } | null {
  for (let life = 1; life <= lives; life++) {
    const { violation } = new World(drawPlan(FIRST_SEED + life, profile)).run();
    if (violation !== null) return { life, invariant: violation.invariant, message: violation.message };
  }
  return null;
}

/**
 * Demands that the runs in which these bugs are looked for keep all invariants without the bugs.
 */
export function assertClean(bugs: readonly PlantedBug[]): void {
  const most = new Map<string, number>();
  for (const { profile, lives } of bugs) most.set(profile, Math.max(lives, most.get(profile) ?? 0));
  for (const [profile, lives] of most) assert.equal(firstBroken(profile, lives), null, profile);
}

/** Demands that the bug is found, and that it breaks one of the invariants that it should. */
export function assertSeen({ profile, lives, plant, shows }: PlantedBug): void {
  const uproot = plant();
  let broken: ReturnType<typeof firstBroken>;
  try {
    broken = firstBroken(profile, lives);
  } finally {
    uproot();
  }
  assert.ok(broken !== null, 'not seen');
  assert.ok(shows.includes(broken.invariant), `seen as ${broken.invariant}: ${broken.message}`);
}
