/**
 * What a middlebox can know of the other members: whether each is heard, and how long ago
 * everything that it had logged about this middlebox's objects had arrived here. The data comes
 * from the acknowledgement board and the member table, which other threads write.
 *
 * | state    | meaning                                                                            |
 * | -------- | ---------------------------------------------------------------------------------- |
 * | CURRENT  | everything it had logged up to `behindMs` ago is here                              |
 * | UNHEARD  | none of its messages came since this thread started, or within the silence timeout |
 * | DETACHED | it does not send us its units as they come; what we lack is a backlog              |
 * | JOINING  | it has no state yet                                                                |
 *
 * `refresh` reads the boards. All other methods are about the last `refresh`. They are meant for
 * timers, a few times a second, not for the packet path.
 */

import { AckBoard, PeerRecord, VectorRecord } from '../../shm/ack-board.js';
import { MemberTable } from '../../shm/members.js';
import { monotonicMs } from '../base/monotonic.js';

export const MemberState = { CURRENT: 0, UNHEARD: 1, DETACHED: 2, JOINING: 3 } as const;
export type MemberState = (typeof MemberState)[keyof typeof MemberState];

export interface Members {
  /** Our slot, and the number of slots. */
  readonly self: number;
  readonly slots: number;
  /** Number of members, without us. 0: this instance is alone. */
  readonly others: number;
  /**
   * The largest `behindMs` of a member that is heard and has nothing to send: two and a half
   * keepalives.
   */
  readonly quietMs: number;
  refresh(): void;
  /** Whether another member has the slot. */
  isMember(slot: number): boolean;
  state(slot: number): MemberState;
  name(slot: number): string;
  /**
   * How long ago, in milliseconds, everything that the member had logged by then had arrived here.
   * Infinite if that was never the case. Records that the member still keeps back for a bandwidth
   * limit are unknown here.
   */
  behindMs(slot: number): number;
  /** The largest `behindMs` of all members. 0 if the instance is alone. */
  mostBehindMs(): number;
  /**
   * The longest round trip of state messages to expect, in milliseconds (RFC 6298 §2). -1 before
   * the first measurement.
   */
  longestRoundTripMs(slot: number): number;
  /** Whether every member is CURRENT and at most `behindMsMax` behind. */
  isComplete(behindMsMax: number): boolean;
  /** Which members are not, and why, as a sentence. Not for the packet path. */
  lacking(behindMsMax: number): string;
}

interface MembersParts {
  readonly ackBoard: SharedArrayBuffer;
  readonly members: SharedArrayBuffer;
  readonly self: number;
  readonly silentMs: number;
  /** Read at each use, because a reload changes it. */
  readonly keepaliveMs: number;
  /** Ids of the objects to judge by. */
  readonly objects: readonly number[];
  /** Monotonic milliseconds. Tests pass their own. */
  readonly clock?: () => number;
}

export function createMembers(parts: MembersParts): Members {
  const { ackBoard, members, self, silentMs, objects, clock = monotonicMs } = parts;
  const board = new AckBoard(ackBoard);
  const table = new MemberTable(members);
  const peer = new PeerRecord();
  const vector = new VectorRecord();
  const present = new Uint8Array(table.slots);
  const states = new Uint8Array(table.slots);
  const roundTrips = new Float64Array(table.slots);
  /** By member: the latest time by which everything it had logged is here. */
  const completeAt = new Float64Array(table.slots).fill(Number.NEGATIVE_INFINITY);
  const versions = new Float64Array(table.slots * objects.length).fill(-1);
  const missing = new Uint8Array(table.slots * objects.length);
  let others = 0;
  let nowMs = 0;

  function refresh(): void {
    nowMs = clock();
    table.refresh();
    others = 0;
    for (let slot = 0; slot < table.slots; slot++) {
      peer.floats.fill(0);
      if (slot !== self && table.isMember(slot)) board.readPeer(slot, peer);
      const dead = table.dead(slot);
      present[slot] = slot !== self && table.isMember(slot) && (dead === 0 || peer.incarnation > dead) ? 1 : 0;
      if (present[slot] === 0) {
        completeAt[slot] = Number.NEGATIVE_INFINITY;
        continue;
      }
      others++;
      look(slot);
    }
  }

  function look(slot: number): void {
    roundTrips[slot] = peer.samples > 0 ? peer.longestRoundTrip : -1;
    const isHeard = peer.incarnation !== 0 && nowMs - peer.heardAt <= silentMs;
    let isWhole = true;
    let isDetached = false;
    for (let n = 0; n < objects.length; n++) {
      const cell = slot * objects.length + n;
      const version = board.receptionVersion(objects[n], slot);
      if (version !== versions[cell]) {
        versions[cell] = version;
        vector.clear();
        board.readReception(objects[n], slot, vector);
        missing[cell] = (vector.missing(vector.highest) > 0 ? 1 : 0) | (vector.excludes(self) ? 2 : 0);
      }
      if (missing[cell] !== 0) isWhole = false;
      if ((missing[cell] & 2) !== 0) isDetached = true;
    }
    // The last message was sent up to a round trip before it was heard.
    if (isWhole && peer.incarnation !== 0) completeAt[slot] = peer.heardAt - (peer.samples > 0 ? peer.smoothed : 0);
    states[slot] = !isHeard
      ? MemberState.UNHEARD
      : peer.isJoining
        ? MemberState.JOINING
        : isDetached
          ? MemberState.DETACHED
          : MemberState.CURRENT;
  }

  function behindMs(slot: number): number {
    return Math.max(0, nowMs - completeAt[slot]);
  }

  function isCurrent(slot: number, behindMsMax: number): boolean {
    return states[slot] === MemberState.CURRENT && behindMs(slot) <= behindMsMax;
  }

  function reason(slot: number): string {
    const seconds = Number.isFinite(completeAt[slot]) ? `${(behindMs(slot) / 1000).toFixed(1)} s` : 'ever';
    const name = table.name(slot);
    switch (states[slot]) {
      case MemberState.UNHEARD:
        return `${name} is not heard (${seconds})`;
      case MemberState.JOINING:
        return `${name} is joining`;
      case MemberState.DETACHED:
        return `${name} has detached us and sends a backlog`;
      default:
        return `${name} is ${seconds} behind`;
    }
  }

  refresh();
  return {
    self,
    slots: table.slots,
    get others() {
      return others;
    },
    get quietMs() {
      return 2.5 * parts.keepaliveMs;
    },
    refresh,
    isMember: (slot) => present[slot] === 1,
    state: (slot) => states[slot] as MemberState,
    name: (slot) => table.name(slot),
    behindMs,
    mostBehindMs() {
      let most = 0;
      for (let slot = 0; slot < present.length; slot++) if (present[slot] === 1) most = Math.max(most, behindMs(slot));
      return most;
    },
    longestRoundTripMs: (slot) => roundTrips[slot],
    isComplete(behindMsMax) {
      for (let slot = 0; slot < present.length; slot++)
        if (present[slot] === 1 && !isCurrent(slot, behindMsMax)) return false;
      return true;
    },
    lacking(behindMsMax) {
      const reasons: string[] = [];
      for (let slot = 0; slot < present.length; slot++)
        if (present[slot] === 1 && !isCurrent(slot, behindMsMax)) reasons.push(reason(slot));
      return reasons.join(', ');
    },
  };
}

/** The members of an instance that is alone. */
export const ALONE: Members = {
  self: 0,
  slots: 1,
  others: 0,
  quietMs: 0,
  refresh: () => {},
  isMember: () => false,
  state: () => MemberState.CURRENT,
  name: () => '',
  behindMs: () => 0,
  mostBehindMs: () => 0,
  longestRoundTripMs: () => -1,
  isComplete: () => true,
  lacking: () => '',
};
