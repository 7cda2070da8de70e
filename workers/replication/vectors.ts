/**
 * What the members say they have, taken from the entries of their messages into the board: of us, which are
 * acknowledgements, and of each other, which is how a member knows when an origin's units are safe without it.
 *
 * Within a life of both, what a member has only grows, whatever order its messages come in; ranges are those of its latest.
 */

import { type AckBoard, VectorRecord } from '../../shm/ack-board.js';
import type { MessageReader } from './message.js';

export class Vectors {
  private readonly board: AckBoard;
  /** Scratch. */
  private readonly record = new VectorRecord();

  constructor(board: AckBoard) {
    this.board = board;
  }

  /**
   * Takes in the entry the reader stands at, of `member` about `origin`. Returns whether it told anything: an entry from
   * before the last one heard does not.
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

  /** The member started again: it has nothing, and its datagrams are numbered anew. */
  forget(member: number): void {
    const { board, record } = this;
    record.clear();
    for (let object = 0; object < board.objects; object++)
      for (let origin = 0; origin < board.members; origin++)
        if (board.vectorVersion(object, member, origin) !== 0) board.writeVector(object, member, origin, record);
  }
}

function takeEntry(reader: MessageReader, record: VectorRecord): boolean {
  if (reader.datagram <= record.datagram) return false;
  if (record.incarnation !== reader.originIncarnation) record.clear();
  record.incarnation = reader.originIncarnation;
  record.datagram = reader.datagram;
  record.contiguous = Math.max(record.contiguous, reader.contiguous);
  let ranges = 0;
  for (let i = 0; i < reader.ranges; i++)
    if (reader.rangeStart(i) > record.contiguous) record.setRange(ranges++, reader.rangeStart(i), reader.rangeEnd(i));
  record.ranges = ranges;
  return true;
}
