/**
 * ICMP (RFC 792), and what ICMPv6 (RFC 4443) shares with it.
 *
 *     0   type       1        4   queries: identifier        2
 *     1   code       1        6   queries: sequence number   2
 *     2   checksum   2        8   errors: the packet they are about, its header and at least 8 bytes
 */

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

export const Icmpv6Type = { ECHO: 128, ECHO_REPLY: 129 } as const;

/** Queries carry an identifier, which a NAT treats as a port (RFC 5508 §3). */
export function isQuery(type: number): boolean {
  return (
    type === IcmpType.ECHO ||
    type === IcmpType.ECHO_REPLY ||
    type === IcmpType.TIMESTAMP ||
    type === IcmpType.TIMESTAMP_REPLY
  );
}
