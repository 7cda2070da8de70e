/**
 * Which incarnations of the members a donor knows. A snapshot carries this beside the donor's
 * vectors, so that its loader believes, refuses and repairs as the donor would. Without it, an
 * incarnation that has ended could be taken for a new one.
 */

import type { AckBoard } from '../../../shm/ack-board.js';
import { LIFE_FLOATS, LifeRecord } from '../../../shm/board-records.js';

/**
 * Per slot, the numbers of its `LifeRecord`. Call it at the barrier. `self` is the slot of the
 * donor, whose own incarnation is the present one to other members.
 */
export function readLives(board: AckBoard, self: number): number[][] {
  return Array.from({ length: board.members }, (_, slot) => {
    const life = new LifeRecord();
    board.readLife(slot, life);
    if (slot === self) {
      // For our own slot, the former incarnation as our own donor knew it: a loader takes part in
      // its repair, as we do. All earlier ones have ended.
      life.current = board.incarnation;
      life.pending = 0;
      if (life.former === 0) life.closedThrough = Math.max(life.closedThrough, board.incarnation - 1);
    }
    life.frozenAt = 0;
    return [...life.floats];
  });
}

/**
 * Writes them to the board of the instance that loaded the snapshot, while no receive thread runs,
 * or before its `reload`. Incarnations that this instance heard and the donor did not are believed
 * when they are heard again.
 */
export function writeLives(board: AckBoard, lives: readonly (readonly number[])[], self: number, now: number): void {
  const life = new LifeRecord();
  for (let slot = 0; slot < board.members; slot++) {
    if (lives[slot].length !== LIFE_FLOATS) throw new RangeError(`lives of ${lives[slot].length} numbers`);
    life.floats.set(lives[slot]);
    life.frozenAt = now;
    // For our own slot, keep the former incarnation: other members may pass on what the donor did
    // not have of it.
    if (slot === self) life.current = 0;
    board.writeLife(slot, life);
  }
}
