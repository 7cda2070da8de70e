/**
 * IPv6 (RFC 8200).
 *
 *     0   version, class, flow label   4        7   hop limit      1
 *     4   payload length               2        8   source        16
 *     6   next header                  1        24  destination   16
 *
 * Extension headers: next header (1), length in 8-byte units beyond the first 8 bytes (1),
 * contents. The authentication header counts 4-byte units beyond 8 bytes (RFC 4302 §2.2). The
 * fragment header always has 8 bytes.
 */

import { isIPv6 } from 'node:net';

export const IPV6_BYTES = 40;

export const Ipv6At = { payloadLength: 4, nextHeader: 6, hopLimit: 7, source: 8, destination: 24 };

export const Extension = { HOP_BY_HOP: 0, ROUTING: 43, FRAGMENT: 44, AUTHENTICATION: 51, DESTINATION: 60 } as const;

/** Most extension headers that are accepted. RFC 8504 §5.3 lets a node limit them, and names 8. */
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

/** The third word of ::ffff:0:0/96. */
const MAPPED = 0xffff_0000 | 0;

/**
 * Whether the address whose first word is `words[at]` is a single host's and valid beyond one link:
 * not unspecified, loopback, link-local, multicast, or an IPv4 address (::ffff:0:0/96).
 */
export function isHostIpv6(words: Int32Array, at: number): boolean {
  const first = words[at];
  if ((first & 0xff) === 0xff || isLinkLocal(words, at)) return false;
  if (first !== 0 || words[at + 1] !== 0) return true;
  const third = words[at + 2];
  return third === 0 ? (words[at + 3] & ~0x0100_0000) !== 0 : third !== MAPPED;
}

/** Whether the address whose first word is `words[at]` is link-local (fe80::/10). */
export function isLinkLocal(words: Int32Array, at = 0): boolean {
  return (words[at] & 0xc0ff) === 0x80fe;
}

/**
 * Reads an address into its four raw words (see batch.ts). Throws a RangeError that quotes the
 * text.
 */
export function parseIpv6(text: string): Int32Array {
  const wrong = (): never => {
    throw new RangeError(`"${text}" is not an IPv6 address`);
  };
  if (!isIPv6(text) || text.includes('%')) return wrong();
  // An IPv4 address at the end becomes two groups.
  const groups = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => `${pair(a, b)}:${pair(c, d)}`);
  const [head, tail] = groups.split('::').map((part) => (part === '' ? [] : part.split(':')));
  const zeros = tail === undefined ? [] : new Array(8 - head.length - tail.length).fill('0');
  const all = [...head, ...zeros, ...(tail ?? [])].map((group) => Number.parseInt(group, 16));
  const bytes = Uint8Array.from(all.flatMap((group) => [group >> 8, group & 0xff]));
  return new Int32Array(bytes.buffer);
}

function pair(high: string, low: string): string {
  return ((Number(high) << 8) | Number(low)).toString(16);
}

/** Formats 16 bytes as RFC 5952 says. */
export function formatIpv6(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i] << 8) | bytes[2 * i + 1]);
  let [from, length] = [0, 1];
  for (let at = 0; at < 8; at++) {
    let end = at;
    while (end < 8 && groups[end] === 0) end++;
    if (end - at > length) [from, length] = [at, end - at];
  }
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  return length < 2 ? text(groups) : `${text(groups.slice(0, from))}::${text(groups.slice(from + length))}`;
}
