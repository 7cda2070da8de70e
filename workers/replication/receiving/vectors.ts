/**
 * Writes to the board what the members report as received, from the entries of their messages.
 * Entries about us are acknowledgements. Entries about each other tell a member when an origin's
 * units are safe without it. Entries about a frozen incarnation (closing.ts) have cells of their
 * own: the member may name the next incarnation in the same message.
 *
 * While neither member restarts, what a member has only grows, in whatever order its messages
 * arrive. The ranges are those of its latest message.
 */

import { type AckBoard, VectorRecord } from '../../../shm/ack-board.js';
import { VECTOR_RETAINS } from '../../../shm/board-records.js';
import { type MessageReader, RETAINS } from '../wire/message.js';

export class Vectors {
  private readonly board: AckBoard;
  /** Scratch. */
  private readonly record = new VectorRecord();

  constructor(board: AckBoard) {
    this.board = board;
  }

  /**
   * Reads the current entry, of `member` about `origin`. Returns whether it was used: an entry that
   * is not later than the last one heard is ignored.
   */
  take(reader: MessageReader, member: number, origin: number): boolean {
    const { board, record } = this;
    const { object } = reader;
    record.incarnation = 0;
    record.ranges = 0;
    record.datagram = 0;
    board.readVector(object, member, origin, record);
    if (!takeEntry(reader, record)) return false;
    board.writeVector(object, member, origin, record);
    return true;
  }

  /**
   * The same for an entry about a frozen incarnation. Returns whether the member has more of it
   * than it said before.
   */
  takeFormer(reader: MessageReader, member: number, origin: number): boolean {
    const { board, record } = this;
    const { object } = reader;
    record.clear();
    board.readFormerVector(object, member, origin, record);
    const known = record.incarnation === reader.originIncarnation ? record.last : -1;
    const contiguous = known < 0 ? -1 : record.contiguous;
    if (!takeEntry(reader, record)) return false;
    board.writeFormerVector(object, member, origin, record);
    return record.contiguous > contiguous || record.last > known;
  }

  /**
   * The number through which every member for which `takesPart` is true has everything of this
   * incarnation of the origin.
   */
  safeThrough(object: number, origin: number, incarnation: number, takesPart: (member: number) => boolean): number {
    const { board, record } = this;
    let through = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < board.members; member++) {
      if (member === origin || !takesPart(member)) continue;
      record.incarnation = 0;
      board.readVector(object, member, origin, record);
      through = Math.min(through, record.incarnation === incarnation ? record.contiguous : 0);
    }
    return through;
  }

  /**
   * Clears the vectors of a member that restarted: it has nothing, and its datagram numbers start
   * again.
   */
  forget(member: number): void {
    const { board, record } = this;
    record.clear();
    for (let object = 0; object < board.objects; object++)
      for (let origin = 0; origin < board.members; origin++) {
        if (board.vectorVersion(object, member, origin) !== 0) board.writeVector(object, member, origin, record);
        if (board.formerVectorVersion(object, member, origin) !== 0)
          board.writeFormerVector(object, member, origin, record);
      }
  }
}

function takeEntry(reader: MessageReader, record: VectorRecord): boolean {
  if (reader.datagram <= record.datagram) return false;
  if (record.incarnation !== reader.originIncarnation) record.clear();
  record.incarnation = reader.originIncarnation;
  record.flags = (reader.entryFlags & RETAINS) === 0 ? 0 : VECTOR_RETAINS;
  record.datagram = reader.datagram;
  record.contiguous = Math.max(record.contiguous, reader.contiguous);
  let ranges = 0;
  for (let i = 0; i < reader.ranges; i++)
    if (reader.rangeStart(i) > record.contiguous) record.setRange(ranges++, reader.rangeStart(i), reader.rangeEnd(i));
  record.ranges = ranges;
  return true;
}
