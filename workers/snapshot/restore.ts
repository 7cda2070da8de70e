/**
 * The vectors of a state file, as the incarnation that restores it has to take them.
 *
 * The file was saved by an incarnation of our own slot that has ended. To the other members and to
 * us, it is a *former* incarnation. Its records are in the restored state under its numbers, and
 * this start numbers its own records from 1. So no member takes a record of it for one of ours, and
 * members that have more of it than the file pass that on (closing.ts).
 *
 * Of the other members, the file has what they had sent under their incarnations. If such an
 * incarnation is still present, its reception resumes from there. If not, it ends when the next one
 * is heard, as any does.
 */

import { SlotIncarnations } from '../../shm/board-records.js';
import type { StateFileHead } from './state-file.js';
import type { OriginVector, SnapshotVectors } from './vectors.js';

const NOTHING: OriginVector = { incarnation: 0, contiguous: 0, ranges: [] };

/** `memberIn`: the id of the member that has a slot now; 0: not known. */
export function restoredVectors(
  { present, former, incarnations }: SnapshotVectors,
  { slot: self, incarnation, members }: Pick<StateFileHead, 'slot' | 'incarnation' | 'members'>,
  memberIn: (slot: number) => number,
): SnapshotVectors {
  // Another member has the slot by now: its vectors start empty, as when the member table changes.
  const isAnothers = (slot: number): boolean =>
    memberIn(slot) !== 0 && (members[slot] ?? 0) !== 0 && memberIn(slot) !== members[slot];
  return {
    present: present.map((vectors) =>
      vectors.map((vector, slot) => (slot === self || isAnothers(slot) ? NOTHING : vector)),
    ),
    former: former.map((vectors, object) =>
      vectors.map((vector, slot) => (slot === self ? present[object][self] : isAnothers(slot) ? NOTHING : vector)),
    ),
    incarnations: incarnations.map((numbers, slot) => {
      const incarnations = new SlotIncarnations();
      if (isAnothers(slot)) return [...incarnations.floats];
      if (slot !== self) return [...numbers];
      incarnations.former = incarnation;
      incarnations.isClosed = true;
      incarnations.closedThrough = incarnation;
      return [...incarnations.floats];
    }),
  };
}
