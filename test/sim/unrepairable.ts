/**
 * Finds ended incarnations that can no longer be repaired. Some member has a number that another
 * one lacks, and no living member keeps a unit with it. This happens if the only member that has it
 * took it from a snapshot, which contains the effect of units but not the units, and both the
 * origin and the members that kept them died. If it merged the snapshot, even its own vector does
 * not have the number. The members raise an alarm, and the digest watch then
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
          if (
            !slots.has(origin) &&
            (isLost(has, lacks, origin, alive, witness) || isMergedOnly(has, lacks, origin, alive))
          )
            slots.add(origin);
  return slots;
}

/**
 * Whether `lacks` can never get some number of an ended incarnation of `origin` whose effect `has`
 * merged.
 */
function isMergedOnly(has: Instance, lacks: Instance, origin: number, alive: readonly Instance[]): boolean {
  const theirs = new VectorRecord();
  for (const { object, origin: slot, incarnation, contiguous, ranges } of has.upkeep.merged.values()) {
    if (slot !== origin || origin === lacks.member) continue;
    theirs.clear();
    lacks.board.readFormer(object, origin, theirs);
    if (theirs.incarnation !== incarnation) continue;
    for (let i = -2; i < ranges.length; i += 2)
      for (
        let number = i < 0 ? theirs.contiguous + 1 : ranges[i];
        number <= (i < 0 ? contiguous : ranges[i + 1]);
        number++
      )
        if (!theirs.has(number) && !alive.some((one) => one.keeps(object, origin, incarnation, number))) return true;
  }
  return false;
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
        const taker = alive.find(
          (one) => !one.hasEvicted.has(lacks.member) && witness.hasTaken(one, object, life.former, number),
        );
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
