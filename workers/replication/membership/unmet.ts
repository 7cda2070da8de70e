/**
 * Members that may have state that this instance lacks. They were not heard when it began without a
 * member's state, or the donor of its snapshot lacked their state. Once such a member is heard and
 * has state, the instance needs a snapshot of it: units that every member had while this instance
 * was away were pruned, so they are not sent again. A member that is joining has no state, but it
 * may take the state of its former incarnation from others. Until then, this instance lacks it, and
 * says so to members that ask for a snapshot. An evicted member may come back with its state if
 * only its lease had lapsed.
 */

import { type AckBoard, PeerRecord } from '../../../shm/ack-board.js';
import { type MemberTable, Role } from '../../../shm/members.js';

export class Unmet {
  readonly slots: Set<number>;
  private readonly peer = new PeerRecord();

  constructor(slots: Iterable<number>) {
    this.slots = new Set(slots);
  }

  /**
   * The slots among these that are heard for the first time and have state; each is returned once.
   * `now`: `monotonicMs()`.
   */
  met(board: AckBoard, members: MemberTable, silentMs: number, now: number): number[] {
    const { slots, peer } = this;
    const met: number[] = [];
    for (const slot of slots) {
      peer.floats.fill(0);
      board.readPeer(slot, peer);
      if (members.role(slot) === Role.EVICTED) continue;
      if (members.isMember(slot) && (peer.incarnation === 0 || now - peer.heardAt > silentMs)) continue;
      if (members.isMember(slot) && peer.isJoining) continue;
      slots.delete(slot);
      if (members.isMember(slot)) met.push(slot);
    }
    return met;
  }
}
