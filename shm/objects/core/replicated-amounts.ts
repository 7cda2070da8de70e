/**
 * How much of an object's counts has been replicated: an amount per cell. Only the send thread
 * writes it, except for `adjust`.
 *
 * It is in instance-local memory, outside the snapshot. So a send thread that dies after it counted
 * a cell as replicated, and before the record is safe in the unit log, loses nothing: the log ring
 * still holds its marks, and the undo notes restore the amounts of the last cut. The marks then
 * yield the same records again.
 *
 *     head         undo count, checkpoints, replicated volume (f64)
 *     undo         (cell, pad, old amount f64) of every change since the last cut, noted before it
 *     checkpoints  (sequence number f64, replicated volume f64): how much was replicated up to which record
 *     amounts      f64 per cell
 *
 * | transition         | who                     | how                                                                  |
 * | ------------------ | ----------------------- | -------------------------------------------------------------------- |
 * | replicated → more  | `advance`               | undo note, its count, then the amount                                |
 * | noted → settled    | `settle`, after the cut | undo count 0; a death just before sends the round's records twice,    |
 * |                    |                         | which only increments notice (as with any object, see workers/engine/send.ts) |
 * | noted → taken back | `takeBack`, by a successor | amounts restored in reverse order                                 |
 */

import type { Region } from '../../region.js';
import { BYTES_PER_LINE, LINE, roundUp, struct } from '../../struct.js';

const HEAD = struct({ undo: LINE, checkpoints: 1, volume: 2 });
/**
 * Maximum changes between two cuts that can be taken back. `advance` throws beyond them, so the
 * object must check `isFull` and replicate the rest later.
 */
export const UNDO_NOTES = 8192;
const CHECKPOINTS = 256;
const NOTE_BYTES = 16;

export function replicatedBytes(cells: number): number {
  return roundUp(HEAD.bytes + (UNDO_NOTES + CHECKPOINTS) * NOTE_BYTES + cells * 8, BYTES_PER_LINE);
}

export class ReplicatedAmounts {
  private readonly head: Int32Array;
  private readonly volumeAt: Float64Array;
  private readonly undoCells: Int32Array;
  private readonly undoAmounts: Float64Array;
  private readonly checkpoints: Float64Array;
  private readonly amounts: Float64Array;

  constructor(region: Region, cells: number) {
    this.head = region.i32(0, HEAD.words);
    this.volumeAt = region.f64(HEAD.at.volume * 4, 1);
    this.undoCells = region.i32(HEAD.bytes, UNDO_NOTES * 4);
    this.undoAmounts = region.f64(HEAD.bytes, UNDO_NOTES * 2);
    this.checkpoints = region.f64(HEAD.bytes + UNDO_NOTES * NOTE_BYTES, CHECKPOINTS * 2);
    this.amounts = region.f64(ReplicatedAmounts.amountsAt, cells);
  }

  /** Byte offset of the amounts in the region. Each cell has 8 bytes. */
  static readonly amountsAt = HEAD.bytes + (UNDO_NOTES + CHECKPOINTS) * NOTE_BYTES;

  amount(cell: number): number {
    return this.amounts[cell];
  }

  /** Amount replicated since the start, over all cells. */
  get volume(): number {
    return this.volumeAt[0];
  }

  /** Whether no further change can be noted until the next `settle`. Send thread only. */
  get isFull(): boolean {
    return this.head[HEAD.at.undo] === UNDO_NOTES;
  }

  /**
   * The cell's total is now `total`. Returns the difference to the amount replicated last. Send
   * thread only. A change is noted before it is made, so it can always be taken back. If the last
   * note is about the same cell, that note has the older amount and is enough, so an object of one
   * cell is never full. Throws if the notes are full.
   */
  advance(cell: number, total: number): number {
    const replicated = this.amounts[cell];
    if (total === replicated) return 0;
    const count = this.head[HEAD.at.undo];
    if (count === 0 || this.undoCells[4 * (count - 1)] !== cell) {
      if (count === UNDO_NOTES) throw new RangeError(`${UNDO_NOTES} changes since the last cut, and one more`);
      this.undoCells[4 * count] = cell;
      this.undoAmounts[2 * count + 1] = replicated;
      this.head[HEAD.at.undo] = count + 1;
    }
    this.amounts[cell] = total;
    this.volumeAt[0] += total - replicated;
    return total - replicated;
  }

  /**
   * Everything replicated so far is safe in the unit log, in records up to number `sequence`. Send
   * thread only.
   */
  settle(sequence: number): void {
    const { head, checkpoints } = this;
    if (head[HEAD.at.undo] === 0) return;
    head[HEAD.at.undo] = 0;
    let count = head[HEAD.at.checkpoints];
    if (count === CHECKPOINTS) count = this.thin();
    checkpoints[2 * count] = sequence;
    checkpoints[2 * count + 1] = this.volumeAt[0];
    head[HEAD.at.checkpoints] = count + 1;
  }

  /**
   * The amount that the records up to number `sequence` certainly contain; never too much. Any
   * thread may call it. A thread that reads while the send thread writes may get too little.
   */
  volumeUpTo(sequence: number): number {
    for (let i = this.head[HEAD.at.checkpoints] - 1; i >= 0; i--)
      if (this.checkpoints[2 * i] <= sequence) return this.checkpoints[2 * i + 1];
    return 0;
  }

  /** Counts an amount as replicated that came with a snapshot. */
  adjust(cell: number, by: number): void {
    this.amounts[cell] += by;
    for (let i = this.head[HEAD.at.undo] - 1; i >= 0; i--)
      if (this.undoCells[4 * i] === cell) this.undoAmounts[2 * i + 1] += by;
  }

  /**
   * Deletes every second checkpoint. Answers about the past get coarser, always on the careful
   * side.
   */
  private thin(): number {
    for (let i = 1; i < CHECKPOINTS; i += 2) {
      this.checkpoints[i - 1] = this.checkpoints[2 * i];
      this.checkpoints[i] = this.checkpoints[2 * i + 1];
    }
    this.head[HEAD.at.checkpoints] = CHECKPOINTS / 2;
    return CHECKPOINTS / 2;
  }

  /**
   * Undoes what a dead send thread had replicated since the last cut, and passes each such cell to
   * `each`. A send thread must call it before anything else.
   */
  takeBack(each: (cell: number) => void): void {
    for (let i = this.head[HEAD.at.undo] - 1; i >= 0; i--) {
      const cell = this.undoCells[4 * i];
      const old = this.undoAmounts[2 * i + 1];
      this.volumeAt[0] += old - this.amounts[cell];
      this.amounts[cell] = old;
      each(cell);
    }
    this.head[HEAD.at.undo] = 0;
  }
}
