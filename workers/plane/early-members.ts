/**
 * Whether early replies wait at all, and for how long. Both depend on which other members are
 * heard, and on their round-trip times.
 */

import { MemberState, type Members } from '../api/members.js';

/** Added to the longest wait on the path, for the delays inside the two sites. */
const MARGIN_MS = 50;

interface EarlyMembers {
  /** Whether another member is heard. */
  readonly isActive: boolean;
  /** The longest wait, in milliseconds. 0 if no other member is heard. */
  readonly waitMs: number;
  isHeard(slot: number): boolean;
  /** Called a few times a second. */
  look(): void;
}

/**
 * `msMaxNow` gives the upper bound of the wait, which is also the wait before any round trip is
 * measured. Made once per data plane.
 */
export function createEarlyMembers(members: Members, msMaxNow: () => number): EarlyMembers {
  const heard = new Uint8Array(members.slots);
  let isActive = false;
  let waitMs = 0;

  function look(): void {
    members.refresh();
    let most = 0;
    let isMeasured = true;
    isActive = false;
    for (let slot = 0; slot < members.slots; slot++) {
      heard[slot] = members.isMember(slot) && members.state(slot) !== MemberState.UNHEARD ? 1 : 0;
      if (heard[slot] === 0) continue;
      isActive = true;
      const ms = members.longestRoundTripMs(slot);
      if (ms < 0) isMeasured = false;
      else if (ms > most) most = ms;
    }
    const msMax = msMaxNow();
    // Two round trips, so that a record that is lost once and retransmitted arrives in time.
    waitMs = isActive ? Math.min(msMax, isMeasured ? 2 * most + MARGIN_MS : msMax) : 0;
  }

  look();
  return {
    get isActive() {
      return isActive;
    },
    get waitMs() {
      return waitMs;
    },
    isHeard: (slot) => heard[slot] === 1,
    look,
  };
}
