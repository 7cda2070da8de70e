/** The outlet: where messages go, as the core sees it. The transports implement it. */

import type { Datagram } from '../wire/message.js';

/** As a destination: every other member. */
export const EVERYONE = -1;

/**
 * Where messages go. The core composes messages in the outlet's memory and knows nothing of
 * sockets.
 */
export interface Outlet {
  /**
   * Memory for one message, or null while all of it is under way. A claimed datagram must be sent.
   */
  claim(): Datagram | null;
  /**
   * Sends the first `bytes` bytes of a claimed datagram, about `object`, to `member` (a slot) or
   * `EVERYONE`. The message has nothing for members whose bits are set in `spareLow` (slots 0–31)
   * and `spareHigh` (slots 32–63): they may be left out.
   */
  send(datagram: Datagram, bytes: number, object: number, member: number, spareLow: number, spareHigh: number): void;
}
