/**
 * The two ends of a packet as four raw words each, for both IP versions. An IPv4 address has the
 * form that IPv6 gives it (RFC 4291 §2.5.5.2), so that one table holds both.
 */

import { type Batch, formatIpv4, formatIpv6, NONE, packetKeys } from '../../api/api.js';

/** Offsets of the ends in `words`. */
export const SOURCE = 0;
export const DESTINATION = 4;
/** Offset of the link of both ends. The link is 0 unless a wire has VLANs (see `Batch.link`). */
export const LINK = 8;
export const END_WORDS = 9;
export const ADDRESS_WORDS = 4;
/** A source is an address and its link. */
export const SOURCE_WORDS = ADDRESS_WORDS + 1;
/** The bytes 00 00 ff ff before an IPv4 address. */
const MAPPED = 0xffff_0000 | 0;
/** First octets from this one on are multicast groups and broadcast. */
const MULTICAST_IPV4 = 224;
const MULTICAST_IPV6 = 0xff;

export interface Ends {
  /** The ends of the packet loaded last. */
  readonly words: Int32Array;
  load(i: number): void;
}

export function createEnds(batch: Batch): Ends {
  const words = new Int32Array(END_WORDS);
  const { version, source, destination, link } = batch;
  const keys = packetKeys(batch);

  function load(i: number): void {
    words[LINK] = link[i];
    if (version[i] === 6) {
      keys.ipv6Source(i, words, SOURCE);
      keys.ipv6Destination(i, words, DESTINATION);
    } else {
      putIpv4(words, SOURCE, source[i]);
      putIpv4(words, DESTINATION, destination[i]);
    }
  }

  return { words, load };
}

export function putIpv4(words: Int32Array, at: number, raw: number): void {
  words[at] = 0;
  words[at + 1] = 0;
  words[at + 2] = MAPPED;
  words[at + 3] = raw;
}

export function isIpv4(words: Int32Array, at: number): boolean {
  return words[at + 2] === MAPPED && words[at] === 0 && words[at + 1] === 0;
}

/** Returns true for a multicast or broadcast address. Nobody answers for a group. */
export function isMulticast(words: Int32Array, at: number): boolean {
  return isIpv4(words, at) ? (words[at + 3] & 0xff) >= MULTICAST_IPV4 : (words[at] & 0xff) === MULTICAST_IPV6;
}

/** Not on the packet path. */
export function formatEnd(words: Int32Array, at: number): string {
  if (isIpv4(words, at)) return formatIpv4(words[at + 3]);
  return formatIpv6(new Uint8Array(words.slice(at, at + ADDRESS_WORDS).buffer));
}

/** Returns the ids of the VLANs of a link, the outer one first, as EVE lists them. */
export function vlansOf(link: number): number[] {
  return link >>> 12 === 0 ? [link] : [link >>> 12, link & 0xfff];
}

/**
 * Parses `10` or `10.20`, outer and inner VLAN. Returns the link, or `NONE` if the text is neither.
 */
export function parseLink(text: string): number {
  const [, outer, inner] = /^(\d{1,4})(?:\.(\d{1,4}))?$/.exec(text) ?? [];
  const ids = [outer, inner].filter((id) => id !== undefined).map(Number);
  if (ids.length === 0 || ids.some((id) => id < 1 || id > 4094)) return NONE;
  return ids.reduce((link, id) => (link << 12) | id, 0);
}
