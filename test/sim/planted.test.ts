/**
 * Shows that the simulator finds bugs: known bugs are planted one at a time, and each is found
 * within a stated number of runs.
 */

import { PLANTED } from './planted.js';
import { assertClean, assertSeen } from './planted-lives.js';

const bugs = PLANTED.filter(({ isLong }) => isLong === undefined);

describe('planted bugs', function () {
  this.timeout(1_200_000);

  it('are not there when they are not planted', () => assertClean(bugs));

  for (const bug of bugs) it(`${bug.name}: seen within ${bug.lives} ${bug.profile} lives`, () => assertSeen(bug));
});
