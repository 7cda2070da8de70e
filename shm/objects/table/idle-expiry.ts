/**
 * The expiry of an entry that lives while its packets arrive at most `timeout` seconds apart.
 *
 * **The rule.** At no site does an entry expire earlier than `timeout` after the last packet with
 * which any site refreshed it.
 *
 * **The promise.** Not every packet is worth a record. So a refresh promises more than it needs.
 * The expiry that it writes, here and in its record, also covers the packets of the next eighth of
 * the timeout. These change nothing and cost one load. The first packet that the expiry does not
 * cover is the next refresh. All members have the same expiry, so digests, merges and snapshots
 * need no special case, and no site can expire an entry that another still promises.
 *
 * **The truncated second.** `now` is truncated to a whole second, and so is the time that is
 * compared with an expiry. A packet 0.9 s after `now` must find its entry `timeout` seconds later,
 * which is in the coarse second `now + timeout`. So the expiry is after that second.
 *
 *     packet, at most 1 s after now                    covered packets              the last of them + timeout
 *     ├─ now ─┼────────────────────── timeout ─────────┼─ 1 s ─┼─ timeout / 8 ──────┤ expires
 *
 * **The slack.** An entry expires at least `timeout`, and at most `timeout + timeout / 8 + 1 s`,
 * after its last packet.
 */

import { expiryAfter } from '../../clock.js';

const COVERED_SHIFT = 3;

/**
 * The expiry of an entry that a packet at `now` creates or refreshes. Pass it to `add`. `refresh`
 * computes it by itself.
 */
export function idleExpiry(now: number, timeout: number): number {
  return expiryAfter(now, timeout) + (timeout >>> COVERED_SHIFT);
}

/** Whether an expiry covers a packet at `now`. If so, no refresh is needed. */
export function coversPacket(expires: number, now: number, timeout: number): boolean {
  return expires > now + timeout;
}
