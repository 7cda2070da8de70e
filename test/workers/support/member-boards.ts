/**
 * What a site without threads sees of the other members: the boards that its receive thread would
 * write, written by hand.
 */

import { AckBoard, createAckBoard, PeerRecord, VectorRecord } from '../../../shm/ack-board.js';
import { createMemberTable, MemberTableWriter, Role, type SlotEntry } from '../../../shm/members.js';
import { createMembers, type Members } from '../../../workers/api/members.js';

export const SILENT_MS = 5000;
export const KEEPALIVE_MS = 1000;

export class MemberBoards {
  readonly board: AckBoard;
  private readonly ackBoard: SharedArrayBuffer;
  private readonly table: SharedArrayBuffer;
  private readonly writer: MemberTableWriter;
  private readonly entries: SlotEntry[];
  private readonly self: number;

  constructor(self: number, members: number, objects: number) {
    this.self = self;
    this.ackBoard = createAckBoard(objects, members, 1);
    this.board = new AckBoard(this.ackBoard);
    this.table = createMemberTable(members);
    this.writer = new MemberTableWriter(this.table);
    this.entries = Array.from({ length: members }, (_, slot) => ({
      role: Role.MEMBER,
      id: slot + 1,
      name: 'abcdefgh'[slot],
      address: `10.255.0.${slot + 1}`,
      port: 1,
      dead: 0,
    }));
    this.writer.write(1, this.entries);
  }

  open(objects: readonly number[], clock: () => number): Members {
    const { ackBoard, table: members, self } = this;
    return createMembers({ ackBoard, members, self, silentMs: SILENT_MS, keepaliveMs: KEEPALIVE_MS, objects, clock });
  }

  /** A message of a member came. */
  hear(slot: number, nowMs: number, flags = 0): void {
    const peer = new PeerRecord();
    peer.incarnation = 2;
    peer.heardAt = nowMs;
    peer.flags = flags;
    this.board.writePeer(slot, peer);
  }

  /** What we have of a member's records of one object, of those that it said it has sent. */
  receive(object: number, slot: number, contiguous: number, highest: number, excluded = 0): void {
    const vector = new VectorRecord();
    vector.incarnation = 2;
    vector.contiguous = contiguous;
    vector.highest = highest;
    vector.setExcluded(excluded, 0);
    this.board.writeReception(object, slot, vector);
  }

  /** Changes a member's entry in the list. */
  list(slot: number, change: Partial<SlotEntry>): void {
    this.entries[slot] = { ...this.entries[slot], ...change };
    this.writer.write(2, this.entries);
  }
}
