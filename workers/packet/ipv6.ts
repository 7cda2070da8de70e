/**
 * IPv6 (RFC 8200).
 *
 *     0   version, class, flow label   4        7   hop limit      1
 *     4   payload length               2        8   source        16
 *     6   next header                  1        24  destination   16
 *
 * Extension headers: next header (1), length in 8-byte units beyond the first 8 bytes (1), contents. The authentication
 * header counts in 4-byte units beyond 8 bytes (RFC 4302 §2.2), the fragment header is always 8 bytes.
 */

export const IPV6_BYTES = 40;

export const Ipv6At = { payloadLength: 4, nextHeader: 6, hopLimit: 7, source: 8, destination: 24 };

export const Extension = { HOP_BY_HOP: 0, ROUTING: 43, FRAGMENT: 44, AUTHENTICATION: 51, DESTINATION: 60 } as const;

/** A longer chain is nobody's honest packet: RFC 8504 §5.3 lets a node limit it, and names 8. */
export const EXTENSIONS_MAX = 8;

export function isExtension(header: number): boolean {
  return (
    header === Extension.HOP_BY_HOP ||
    header === Extension.ROUTING ||
    header === Extension.FRAGMENT ||
    header === Extension.AUTHENTICATION ||
    header === Extension.DESTINATION
  );
}
