/**
 * ICMP (RFC 792), and its fields that ICMPv6 (RFC 4443) shares.
 *
 *     0   type       1        4   queries: identifier        2
 *     1   code       1        6   queries: sequence number   2
 *     2   checksum   2        8   errors: the original packet's header and at least 8 bytes
 */

import { Protocol } from './ipv4.js';

export const ICMP_BYTES = 8;

export const IcmpAt = { checksum: 2, identifier: 4, nextHopMtu: 6 };

export const IcmpType = {
  ECHO_REPLY: 0,
  UNREACHABLE: 3,
  ECHO: 8,
  TIME_EXCEEDED: 11,
  PARAMETER_PROBLEM: 12,
  TIMESTAMP: 13,
  TIMESTAMP_REPLY: 14,
} as const;

/**
 * RFC 4443; multicast listeners: RFC 2710, RFC 3810; neighbour discovery: RFC 4861. Types below 128
 * are errors.
 */
export const Icmpv6Type = {
  UNREACHABLE: 1,
  PACKET_TOO_BIG: 2,
  TIME_EXCEEDED: 3,
  PARAMETER_PROBLEM: 4,
  ECHO: 128,
  ECHO_REPLY: 129,
  LISTENER_QUERY: 130,
  LISTENER_REPORT: 131,
  LISTENER_DONE: 132,
  ROUTER_SOLICITATION: 133,
  ROUTER_ADVERTISEMENT: 134,
  NEIGHBOUR_SOLICITATION: 135,
  NEIGHBOUR_ADVERTISEMENT: 136,
  REDIRECT: 137,
  LISTENER_REPORT_2: 143,
} as const;

/**
 * Whether an ICMP or ICMPv6 message (`protocol`) of this type has an identifier. The parser and
 * `Quoted` both use it.
 */
export function hasIdentifier(protocol: number, type: number): boolean {
  return protocol === Protocol.ICMP ? isQuery(type) : type === Icmpv6Type.ECHO || type === Icmpv6Type.ECHO_REPLY;
}

/** Queries carry an identifier, which a NAT treats as a port (RFC 5508 §3). */
export function isQuery(type: number): boolean {
  return (
    type === IcmpType.ECHO ||
    type === IcmpType.ECHO_REPLY ||
    type === IcmpType.TIMESTAMP ||
    type === IcmpType.TIMESTAMP_REPLY
  );
}
