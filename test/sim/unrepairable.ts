/**
 * Whether what a dead life left is beyond repair: some member has a number of it that another lacks, and no member that lives
 * keeps a unit with it. That is so where the only one that has it took it from a snapshot, which brings what units did and not
 * the units, and both the origin and whoever kept them died. Members say so with an alarm, and then a snapshot is needed.
 */

import { LifeRecord, VectorRecord } from '../../shm/board-records.js';
import type { Instance } from './instance.js';

export function isUnrepairable(alive: readonly Instance[]): boolean {
  return alive.some((has) => alive.some((lacks) => lacks !== has && isLost(has, lacks, alive)));
}

/** Whether `lacks` can never get something that `has` has. */
function isLost(has: Instance, lacks: Instance, alive: readonly Instance[]): boolean {
  const life = new LifeRecord();
  const theirs = new VectorRecord();
  const ours = new VectorRecord();
  for (let origin = 0; origin < has.board.members; origin++) {
    life.floats.fill(0);
    has.board.readLife(origin, life);
    if (life.former === 0 || origin === lacks.member) continue;
    for (let object = 0; object < has.board.objects; object++) {
      ours.clear();
      has.board.readFormer(object, origin, ours);
      theirs.clear();
      lacks.board.readFormer(object, origin, theirs);
      if (ours.incarnation !== life.former || theirs.incarnation !== life.former) continue;
      for (let number = theirs.contiguous + 1; number <= ours.last; number++)
        if (ours.has(number) && !theirs.has(number))
          if (!alive.some((keeper) => keeper.keeps(object, origin, life.former, number))) return true;
    }
  }
  return false;
}
