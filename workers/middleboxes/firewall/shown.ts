/** Connections as `show flows` prints them. */

import { type FlowView, formatIpv4, formatIpv6, Protocol, portNumber } from '../../api/api.js';

const STATES = ['new', 'established', 'closing', 'closed'];
/**
 * Offsets in an entry: generation, expires, rank, then the key, then the value with the initiator's
 * side.
 */
const EXPIRES = 1;
const RANK = 2;
const KEY = 3;

/**
 * Converts an entry of the IPv4 table (`words` is 1) or the IPv6 table (4). The initiator is shown
 * as inside.
 */
export function shownConnection(entry: Int32Array, words: 1 | 4): FlowView {
  const pair = entry[KEY + 2 * words];
  const protocol = entry[KEY + 2 * words + 1] & 0xff;
  const isIcmp = protocol === Protocol.ICMP || protocol === Protocol.ICMPV6;
  const began = entry[KEY + 2 * words + 2] & 1;
  const ends = [0, 1].map((side) => ({
    address: addressText(entry.subarray(KEY + side * words, KEY + (side + 1) * words)),
    // Both ends of an ICMP query have its identifier.
    port: portNumber(side === 0 || isIcmp ? pair & 0xffff : pair >>> 16),
  }));
  return {
    protocol,
    inside: ends[began],
    remote: ends[1 - began],
    state: protocol === Protocol.TCP || entry[RANK] < 2 ? STATES[entry[RANK]] : STATES[1],
    expires: entry[EXPIRES],
  };
}

function addressText(words: Int32Array): string {
  if (words.length === 1) return formatIpv4(words[0]);
  const raw = Int32Array.from(words);
  return formatIpv6(new Uint8Array(raw.buffer));
}
