/**
 * Holds, as a middlebox asks for them: packets wait until other members have the state they belong
 * to. plane/holds.ts does it.
 */

import type { HeldEntries } from '../../shm/objects/table/held-entries.js';

/** Longest hold of a packet, in milliseconds. */
export const HOLD_MS_MAX = 10_000;

export interface Holds {
  /**
   * Holds packet `i` until `members` other members have acknowledged everything that this worker
   * has logged by the end of the batch, or until `milliseconds` have passed. The time limit also
   * applies if fewer members are heard. A later middlebox can still drop the packet. If `members`
   * is 0, the packet does not wait.
   */
  untilAcknowledged(i: number, members: number, milliseconds: number): void;
  /**
   * Holds the next entry that this worker makes in the table of `entries`: until `members` other
   * members have acknowledged its record, or for `milliseconds`. If `members` is 0, the entry is
   * not held.
   */
  holdNext(entries: HeldEntries, members: number, milliseconds: number): void;
  /**
   * Packet `i` belongs to the entry in `slot`. It waits as long as that entry is held. `now` is in
   * coarse seconds.
   */
  withEntry(i: number, entries: HeldEntries, slot: number, now: number): void;
}
