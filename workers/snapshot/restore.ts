/**
 * What a state file means to the incarnation that restores it: the vectors of the file, as this
 * start has to take them.
 *
 * The file's saver is an incarnation of our own slot that has ended. To the others and to us it is
 * a *former* incarnation: its records are in the state that is restored, under its numbers, and
 * this start numbers its own from 1. So nobody takes a record of it for one of ours, and members
 * that have more of it than the file pass that on (closing.ts).
 *
 * Of the other members the file has what they had sent under incarnations of theirs. If one of
 * these is still present, it goes on from there. If not, it ends when the next one is heard, as any
 * does.
 */

import { LifeRecord } from '../../shm/board-records.js';
import type { StateFileHead } from './state-file.js';
import type { OriginVector, SnapshotVectors } from './vectors.js';

const NOTHING: OriginVector = { incarnation: 0, contiguous: 0, ranges: [] };

/** `memberIn`: id of the member that has a slot now; 0: none is known. */
export function restoredVectors(
  { present, former, lives }: SnapshotVectors,
  { slot: self, incarnation, members }: Pick<StateFileHead, 'slot' | 'incarnation' | 'members'>,
  memberIn: (slot: number) => number,
): SnapshotVectors {
  // Another member has the slot by now: it begins with nothing, as when the member table changes.
  const isAnothers = (slot: number): boolean =>
    memberIn(slot) !== 0 && (members[slot] ?? 0) !== 0 && memberIn(slot) !== members[slot];
  return {
    present: present.map((vectors) =>
      vectors.map((vector, slot) => (slot === self || isAnothers(slot) ? NOTHING : vector)),
    ),
    former: former.map((vectors, object) =>
      vectors.map((vector, slot) => (slot === self ? present[object][self] : isAnothers(slot) ? NOTHING : vector)),
    ),
    lives: lives.map((numbers, slot) => {
      const life = new LifeRecord();
      if (isAnothers(slot)) return [...life.floats];
      if (slot !== self) return [...numbers];
      life.former = incarnation;
      life.isClosed = true;
      life.closedThrough = incarnation;
      return [...life.floats];
    }),
  };
}
