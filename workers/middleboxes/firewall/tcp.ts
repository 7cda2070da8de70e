/**
 * TCP as a firewall sees it that may see one direction only.
 *
 * | segment                | connection, by rank                                       |
 * | ---------------------- | --------------------------------------------------------- |
 * | SYN                    | none: NEW, if the rules accept it; CLOSING or CLOSED: the same, a new life; else it stays |
 * | ACK without SYN        | NEW becomes ESTABLISHED                                   |
 * | FIN                    | NEW and ESTABLISHED become CLOSING                        |
 * | RST                    | ESTABLISHED and CLOSING become CLOSED; NEW stays          |
 * | anything else          | it stays                                                  |
 *
 * Each row needs nothing but the segment and the rank, which only grows and is joined with what other sites saw: so it is the
 * same whichever site sees which direction, and in whatever order they hear of it. SYN and SYN-ACK alone establish nothing, so a flood of
 * SYNs, answered or refused, stays within the quota of half-open connections.
 */

import { Rank, TcpFlag } from '../../api.js';

const { ACK, FIN, RST, SYN } = TcpFlag;
const { NEW, ESTABLISHED, CLOSING, CLOSED } = Rank;
const URG = 0x20;

/**
 * Whether a combination of flags is one that TCP knows (RFC 9293); others are made to find out what a stack or a filter does
 * with them. PSH, ECE and CWR may come with any.
 */
export const LEGAL_FLAGS: Uint8Array = Uint8Array.from({ length: 256 }, (_, flags) => {
  const kind = flags & (SYN | FIN | RST | ACK | URG);
  if ((kind & SYN) !== 0) return Number(kind === SYN || kind === (SYN | ACK) || kind === (SYN | URG));
  if ((kind & RST) !== 0) return Number((kind & (FIN | URG)) === 0);
  return Number((kind & ACK) !== 0);
});

/** The rank of a connection of rank `rank` after a segment that belongs to it and begins no new life. */
export function rankAfter(rank: number, flags: number): number {
  if ((flags & RST) !== 0) return rank === NEW ? NEW : CLOSED;
  if ((flags & FIN) !== 0) return rank > CLOSING ? rank : CLOSING;
  if ((flags & (SYN | ACK)) === ACK) return rank > ESTABLISHED ? rank : ESTABLISHED;
  return rank;
}

/** Whether a segment begins a connection anew where an old one is ending. */
export function isReopening(rank: number, flags: number): boolean {
  return rank >= CLOSING && (flags & (SYN | ACK)) === SYN;
}
