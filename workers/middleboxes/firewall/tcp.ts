/**
 * TCP for a firewall that may see one direction only.
 *
 * | segment         | connection, by rank                                                                    |
 * | --------------- | -------------------------------------------------------------------------------------- |
 * | SYN             | none: NEW, if the rules accept it; CLOSING or CLOSED: NEW again in a new generation     |
 * | any other       | NEW: see opening.ts; it needs both ends to leave that rank                              |
 * | FIN             | ESTABLISHED becomes CLOSING                                                            |
 * | RST             | ESTABLISHED and CLOSING become CLOSED                                                  |
 * | anything else   | no change                                                                              |
 *
 * Past NEW a row needs only the segment and the rank. The rank only grows and is joined with what
 * other sites saw, so the result does not depend on which site sees which direction, or on the
 * order of their records.
 */

import { Rank, TcpFlag } from '../../api.js';

const { ACK, FIN, RST, SYN } = TcpFlag;
const { NEW, ESTABLISHED, CLOSING, CLOSED } = Rank;
const URG = 0x20;

/**
 * Whether a combination of flags is one that TCP knows (RFC 9293); others are made to find out what
 * a stack or a filter does with them. PSH, ECE and CWR may come with any.
 */
export const LEGAL_FLAGS: Uint8Array = Uint8Array.from({ length: 256 }, (_, flags) => {
  const kind = flags & (SYN | FIN | RST | ACK | URG);
  if ((kind & SYN) !== 0) return Number(kind === SYN || kind === (SYN | ACK) || kind === (SYN | URG));
  if ((kind & RST) !== 0) return Number((kind & (FIN | URG)) === 0);
  return Number((kind & ACK) !== 0);
});

/** The rank after a segment; of a connection of rank NEW, where both of its ends are known. */
export function rankAfter(rank: number, flags: number): number {
  if ((flags & RST) !== 0) return rank === NEW ? NEW : CLOSED;
  if ((flags & FIN) !== 0) return rank > CLOSING ? rank : CLOSING;
  if ((flags & (SYN | ACK)) === ACK) return rank > ESTABLISHED ? rank : ESTABLISHED;
  return rank;
}

/** Whether a segment begins a new connection where an old one is ending. */
export function isReopening(rank: number, flags: number): boolean {
  return rank >= CLOSING && (flags & (SYN | ACK)) === SYN;
}
