/**
 * Shows that the simulator sees: known bugs, planted one at a time, are each caught within a stated
 * number of lives.
 */

import { PLANTED } from './planted.js';
import { assertClean, assertSeen } from './planted-lives.js';

const bugs = PLANTED.filter(({ isLong }) => isLong === undefined);

describe('planted bugs', function () {
  this.timeout(1_200_000);

  it('are not there when they are not planted', () => assertClean(bugs));

  for (const bug of bugs) it(`${bug.name}: seen within ${bug.lives} ${bug.profile} lives`, () => assertSeen(bug));
});
