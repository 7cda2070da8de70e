/**
 * Which incarnations of the members a donor knows. A snapshot carries this beside the donor's
 * vectors, so that its loader believes, refuses and repairs as the donor would. Without it, an
 * incarnation that has ended could be taken for a new one.
 */

import type { AckBoard } from '../../../shm/ack-board.js';
import { INCARNATIONS_FLOATS, SlotIncarnations } from '../../../shm/board-records.js';

/**
 * Per slot, the numbers of its `SlotIncarnations`. Call it at the barrier. `self` is the slot of
 * the donor, whose own incarnation is the present one to other members.
 */
export function readAllIncarnations(board: AckBoard, self: number): number[][] {
  return Array.from({ length: board.members }, (_, slot) => {
    const incarnations = new SlotIncarnations();
    board.readIncarnations(slot, incarnations);
    if (slot === self) {
      // For our own slot, the former incarnation as our own donor knew it: a loader takes part in
      // its repair, as we do. All earlier ones have ended.
      incarnations.current = board.incarnation;
      incarnations.pending = 0;
      if (incarnations.former === 0)
        incarnations.closedThrough = Math.max(incarnations.closedThrough, board.incarnation - 1);
    }
    incarnations.frozenAt = 0;
    return [...incarnations.floats];
  });
}

/**
 * Writes them to the board of the instance that loaded the snapshot, while no receive thread runs,
 * or before its `reload`. Incarnations that this instance heard and the donor did not are believed
 * when they are heard again.
 */
export function writeAllIncarnations(
  board: AckBoard,
  known: readonly (readonly number[])[],
  self: number,
  now: number,
): void {
  const incarnations = new SlotIncarnations();
  for (let slot = 0; slot < board.members; slot++) {
    if (known[slot].length !== INCARNATIONS_FLOATS)
      throw new RangeError(`incarnations of ${known[slot].length} numbers`);
    incarnations.floats.set(known[slot]);
    incarnations.frozenAt = now;
    // For our own slot, keep the former incarnation: other members may pass on what the donor did
    // not have of it.
    if (slot === self) incarnations.current = 0;
    board.writeIncarnations(slot, incarnations);
  }
}
