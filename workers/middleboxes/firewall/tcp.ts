/**
 * TCP states for a firewall that may see one direction only.
 *
 * | segment       | connection, by rank                                                                 |
 * | ------------- | ----------------------------------------------------------------------------------- |
 * | SYN           | none: NEW, if the rules accept it; CLOSING or CLOSED: NEW again in a new generation |
 * | any other     | NEW: see opening.ts; it needs both ends to leave that rank                          |
 * | FIN           | ESTABLISHED becomes CLOSING                                                         |
 * | RST           | ESTABLISHED and CLOSING become CLOSED                                               |
 * | anything else | no change                                                                           |
 *
 * Past NEW, a row depends only on the segment and the rank. The rank only grows, and is merged with
 * what other sites saw. So the result does not depend on which site sees which direction, or on the
 * order of their records.
 */

import { Rank, TcpFlag } from '../../api/api.js';

const { ACK, FIN, RST, SYN } = TcpFlag;
const { NEW, ESTABLISHED, CLOSING, CLOSED } = Rank;
const URG = 0x20;

/**
 * Table of legal combinations of TCP flags (RFC 9293), indexed by the flags byte: 1 is legal.
 * Others are sent to probe how a stack or a filter reacts. PSH, ECE and CWR may come with any.
 */
export const LEGAL_FLAGS: Uint8Array = Uint8Array.from({ length: 256 }, (_, flags) => {
  const kind = flags & (SYN | FIN | RST | ACK | URG);
  if ((kind & SYN) !== 0) return Number(kind === SYN || kind === (SYN | ACK) || kind === (SYN | URG));
  if ((kind & RST) !== 0) return Number((kind & (FIN | URG)) === 0);
  return Number((kind & ACK) !== 0);
});

/** Returns the rank after a segment. A connection of rank NEW must have both of its ends known. */
export function rankAfter(rank: number, flags: number): number {
  if ((flags & RST) !== 0) return rank === NEW ? NEW : CLOSED;
  if ((flags & FIN) !== 0) return rank > CLOSING ? rank : CLOSING;
  if ((flags & (SYN | ACK)) === ACK) return rank > ESTABLISHED ? rank : ESTABLISHED;
  return rank;
}

/** Returns true if a segment begins a new connection where an old one is ending. */
export function isReopening(rank: number, flags: number): boolean {
  return rank >= CLOSING && (flags & (SYN | ACK)) === SYN;
}
