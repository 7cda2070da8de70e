/** Shows that the simulator sees: known bugs, planted one at a time, are each caught within a stated number of lives. */

import { strict as assert } from 'node:assert';
import { drawPlan } from './draw.js';
import { PLANTED, type PlantedBug } from './planted.js';
import type { Invariant } from './violation.js';
import { World } from './world.js';

const FIRST_SEED = 5_000_000;

/** Number of the first life, from 1, that breaks a promise, and which; null: none of `lives`. */
function firstBroken(profile: string, lives: number): { life: number; invariant: Invariant; message: string } | null {
  for (let life = 1; life <= lives; life++) {
    const { violation } = new World(drawPlan(FIRST_SEED + life, profile)).run();
    if (violation !== null) return { life, invariant: violation.invariant, message: violation.message };
  }
  return null;
}

describe('planted bugs', function () {
  this.timeout(120_000);

  it('are not there when they are not planted', () => {
    const most = new Map<string, number>();
    for (const { profile, lives } of PLANTED) most.set(profile, Math.max(lives, most.get(profile) ?? 0));
    for (const [profile, lives] of most) assert.equal(firstBroken(profile, lives), null, profile);
  });

  for (const bug of PLANTED) it(`${bug.name}: seen within ${bug.lives} ${bug.profile} lives`, () => check(bug));
});

function check({ profile, lives, plant, shows }: PlantedBug): void {
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
