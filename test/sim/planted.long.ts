/** Like planted.test.ts, for bugs whose runs take minutes to compute. */

import { PLANTED } from './planted.js';
import { assertClean, assertSeen } from './planted-lives.js';

const bugs = PLANTED.filter(({ isLong }) => isLong === true);

describe('planted bugs, in costly lives', function () {
  this.timeout(1_800_000);

  it('are not there when they are not planted', () => assertClean(bugs));

  for (const bug of bugs) it(`${bug.name}: seen within ${bug.lives} ${bug.profile} lives`, () => assertSeen(bug));
});
