/**
 * What the members say they have, taken from the entries of their messages into the board: of us,
 * which are acknowledgements, and of each other, which is how a member knows when an origin's units
 * are safe without it. What is said of a frozen life (closing.ts) has cells of its own: the member
 * may speak of the next one in the same message.
 *
 * Within a life of both, what a member has only grows, whatever order its messages come in; ranges
 * are those of its latest.
 */

import { type AckBoard, type PeerRecord, VectorRecord } from '../../shm/ack-board.js';
import { VECTOR_HOLDS } from '../../shm/board-records.js';
import type { MemberTable } from '../../shm/members.js';
import { HOLDS, type MessageReader } from './message.js';

export class Vectors {
  private readonly board: AckBoard;
  /** Scratch. */
  private readonly record = new VectorRecord();

  constructor(board: AckBoard) {
    this.board = board;
  }

  /**
   * Takes in the entry the reader stands at, of `member` about `origin`. Returns whether it told
   * anything: an entry from before the last one heard does not.
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
   * The same, of an entry about a frozen life. Returns whether the member has more of it than it
   * said before.
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
   * Every member that takes part and was heard has everything of this life of the origin through
   * the number returned.
   */
  safeThrough(
    object: number,
    origin: number,
    incarnation: number,
    members: MemberTable,
    peers: readonly PeerRecord[],
  ): number {
    const { board, record } = this;
    let through = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < peers.length; member++) {
      if (member === origin || !members.isMember(member) || peers[member].incarnation === 0) continue;
      record.incarnation = 0;
      board.readVector(object, member, origin, record);
      through = Math.min(through, record.incarnation === incarnation ? record.contiguous : 0);
    }
    return through;
  }

  /** The member started again: it has nothing, and its datagrams are numbered anew. */
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
  record.flags = (reader.entryFlags & HOLDS) === 0 ? 0 : VECTOR_HOLDS;
  record.datagram = reader.datagram;
  record.contiguous = Math.max(record.contiguous, reader.contiguous);
  let ranges = 0;
  for (let i = 0; i < reader.ranges; i++)
    if (reader.rangeStart(i) > record.contiguous) record.setRange(ranges++, reader.rangeStart(i), reader.rangeEnd(i));
  record.ranges = ranges;
  return true;
}
