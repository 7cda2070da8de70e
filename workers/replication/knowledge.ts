/**
 * Which lives of the members a donor knows: what a snapshot carries beside the donor's vectors, so
 * that who loads it believes, refuses and repairs as the donor would. Without it a life that is
 * over could be taken for a new one.
 */

import type { AckBoard } from '../../shm/ack-board.js';
import { LIFE_FLOATS, LifeRecord } from '../../shm/board-records.js';

/**
 * Per slot, as numbers. At the barrier: `self` is the donor, of whom others know its present life.
 */
export function readLives(board: AckBoard, self: number): number[][] {
  return Array.from({ length: board.members }, (_, slot) => {
    const life = new LifeRecord();
    board.readLife(slot, life);
    if (slot === self) {
      // Of our own slot, the former incarnation as our own donor knew it: whoever loads this takes
      // part in its repair, as we do. All earlier ones have ended.
      life.current = board.incarnation;
      life.pending = 0;
      if (life.former === 0) life.closedThrough = Math.max(life.closedThrough, board.incarnation - 1);
    }
    life.frozenAt = 0;
    return [...life.floats];
  });
}

/**
 * Onto the board of who has loaded the snapshot, while no receive thread runs, or before its
 * `reload`. Lives that we heard of and the donor did not are believed when they are heard again.
 */
export function writeLives(board: AckBoard, lives: readonly (readonly number[])[], self: number, now: number): void {
  const life = new LifeRecord();
  for (let slot = 0; slot < board.members; slot++) {
    if (lives[slot].length !== LIFE_FLOATS) throw new RangeError(`lives of ${lives[slot].length} numbers`);
    life.floats.set(lives[slot]);
    life.frozenAt = now;
    // Of our own we need to know what our former life left: others may pass on what the donor did
    // not have of it.
    if (slot === self) life.current = 0;
    board.writeLife(slot, life);
  }
}
