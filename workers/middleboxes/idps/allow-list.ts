/** Prefixes of those who are never suspected: their packets are no evidence, and they are not blocked. */

import { parseIpv4, parseIpv6 } from '../../api.js';
import { ADDRESS_WORDS, putIpv4 } from './ends.js';

/** Per prefix: address words, then mask words. */
export type AllowList = Int32Array;

const PREFIX_WORDS = 2 * ADDRESS_WORDS;

/** Reads prefixes of either family, such as `10.0.0.0/8 2001:db8::1`. Throws a RangeError that quotes what is wrong. */
export function parseAllowList(text: string): AllowList {
  const prefixes = text.split(/[\s,]+/).filter((word) => word !== '');
  const list = new Int32Array(prefixes.length * PREFIX_WORDS);
  for (const [i, prefix] of prefixes.entries()) {
    const [address, bits = '', more] = prefix.split('/');
    const is6 = address.includes(':');
    const at = i * PREFIX_WORDS;
    if (is6) list.set(parseIpv6(address), at);
    else putIpv4(list, at, parseIpv4(address));
    const most = is6 ? 128 : 32;
    const given = prefix.includes('/') ? Number(bits) : most;
    if (more !== undefined || !/^\d*$/.test(bits) || (prefix.includes('/') && bits === '') || given > most)
      throw new RangeError(`allow: "${prefix}" is not a prefix such as 10.0.0.0/8 or 2001:db8::/32`);
    putMask(list, at + ADDRESS_WORDS, given + (is6 ? 0 : 96));
    for (let word = 0; word < ADDRESS_WORDS; word++)
      if ((list[at + word] & ~list[at + ADDRESS_WORDS + word]) !== 0)
        throw new RangeError(`allow: "${prefix}" has bits set behind its ${bits} bits of prefix`);
  }
  return list;
}

/** The mask of so many bits over four raw words, whose bytes lie as in the packet. */
export function putMask(words: Int32Array, at: number, bits: number): void {
  const bytes = new Uint8Array(4 * ADDRESS_WORDS);
  for (let bit = 0; bit < bits; bit++) bytes[bit >> 3] |= 0x80 >> (bit & 7);
  words.set(new Int32Array(bytes.buffer), at);
}

export function isAllowed(list: AllowList, words: Int32Array, at: number): boolean {
  for (let i = 0; i < list.length; i += PREFIX_WORDS)
    if (
      (words[at] & list[i + 4]) === list[i] &&
      (words[at + 1] & list[i + 5]) === list[i + 1] &&
      (words[at + 2] & list[i + 6]) === list[i + 2] &&
      (words[at + 3] & list[i + 7]) === list[i + 3]
    )
      return true;
  return false;
}
