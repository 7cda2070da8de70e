/**
 * IPv4 (RFC 791).
 *
 *     0   version, header words   1        8   time to live       1
 *     1   service                 1        9   protocol           1
 *     2   total length            2        10  header checksum    2
 *     4   identification          2        12  source             4
 *     6   flags, fragment offset  2        16  destination        4
 */

export const IPV4_BYTES_MIN = 20;

/** Byte offsets from the header's start. */
export const Ipv4At = { totalLength: 2, fragment: 6, ttl: 8, protocol: 9, checksum: 10, source: 12, destination: 16 };

/** Masks of the flags and fragment offset field, in host order. */
export const Ipv4Fragment = { DONT: 0x4000, MORE: 0x2000, OFFSET: 0x1fff } as const;

export const Protocol = { ICMP: 1, TCP: 6, UDP: 17, DCCP: 33, ICMPV6: 58, SCTP: 132, UDP_LITE: 136 } as const;

/** Whether the first four bytes of the protocol's header are the source and destination port. */
export function hasPorts(protocol: number): boolean {
  return (
    protocol === Protocol.TCP ||
    protocol === Protocol.UDP ||
    protocol === Protocol.SCTP ||
    protocol === Protocol.UDP_LITE ||
    protocol === Protocol.DCCP
  );
}

/** The big-endian 16-bit number in bytes 2 and 3 of a raw word. */
export function upperNumber(word: number): number {
  return ((word >>> 8) & 0xff00) | (word >>> 24);
}

/** Converts a 16-bit number between raw and host order. */
export function swap16(raw: number): number {
  return ((raw & 0xff) << 8) | ((raw >>> 8) & 0xff);
}

/** Reads a dotted address into a raw word. Throws a RangeError that quotes the text. */
export function parseIpv4(text: string): number {
  const parts = text.split('.');
  const bytes = parts.map((part) => (/^(0|[1-9]\d{0,2})$/.test(part) ? Number(part) : 256));
  if (bytes.length !== 4 || bytes.some((byte) => byte > 255)) throw new RangeError(`"${text}" is not an IPv4 address`);
  return bytes[0] | (bytes[1] << 8) | (bytes[2] << 16) | (bytes[3] << 24);
}

export function formatIpv4(raw: number): string {
  return `${raw & 0xff}.${(raw >>> 8) & 0xff}.${(raw >>> 16) & 0xff}.${raw >>> 24}`;
}

/**
 * Whether a raw address is a single host's: not "this network", loopback, multicast, reserved or
 * broadcast (RFC 1812 §5.3.7).
 */
export function isHost(raw: number): boolean {
  const first = raw & 0xff;
  return first !== 0 && first !== 127 && first < 224;
}
