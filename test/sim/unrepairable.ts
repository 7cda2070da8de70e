/**
 * Finds ended incarnations that can no longer be repaired. Some member has a number that another
 * one lacks, and no living member keeps a unit with it. This happens if the only member that has it
 * took it from a snapshot, which contains the effect of units but not the units, and both the
 * origin and the members that kept them died. The members raise an alarm, and the digest watch then
 * makes them take a snapshot.
 */

import { SlotIncarnations, VectorRecord } from '../../shm/board-records.js';
import type { Instance } from './instance.js';
import { demand } from './violation.js';
import type { Witness } from './witness.js';

/**
 * Slots of the members with such incarnations. Demands that no living member received the unit
 * itself: it would keep the unit for the others.
 */
export function unrepairable(alive: readonly Instance[], witness: Witness): Set<number> {
  const slots = new Set<number>();
  for (const has of alive)
    for (const lacks of alive)
      if (lacks !== has)
        for (let origin = 0; origin < has.board.members; origin++)
          if (!slots.has(origin) && isLost(has, lacks, origin, alive, witness)) slots.add(origin);
  return slots;
}

/** Whether `lacks` can never get some number of `origin` that `has` has. */
function isLost(has: Instance, lacks: Instance, origin: number, alive: readonly Instance[], witness: Witness): boolean {
  const life = new SlotIncarnations();
  const theirs = new VectorRecord();
  const ours = new VectorRecord();
  has.board.readIncarnations(origin, life);
  if (life.former === 0 || origin === lacks.member) return false;
  for (let object = 0; object < has.board.objects; object++) {
    ours.clear();
    has.board.readFormer(object, origin, ours);
    theirs.clear();
    lacks.board.readFormer(object, origin, theirs);
    if (ours.incarnation !== life.former || theirs.incarnation !== life.former) continue;
    for (let number = theirs.contiguous + 1; number <= ours.last; number++)
      if (ours.has(number) && !theirs.has(number)) {
        if (alive.some((keeper) => keeper.keeps(object, origin, life.former, number))) continue;
        const taker = alive.find((one) => witness.hasTaken(one, object, life.former, number));
        demand(
          taker === undefined,
          'kept-for-others',
          () =>
            `${taker?.name}, object ${object}: took number ${number} of member ${origin}, which died, and keeps it no more; ${lacks.name} lacks it`,
        );
        return true;
      }
  }
  return false;
}
