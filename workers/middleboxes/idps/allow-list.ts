/**
 * Prefixes that are never suspected. Their packets are no evidence, and blocks do not apply to
 * them. The list is a text that can be replaced while the instance runs: prefixes separated by
 * spaces, commas or line ends. `#` begins a comment.
 *
 *     program   count; by prefix: address words, mask words
 */

import { NONE, parseIpv4, parseIpv6, type RuleEntry, type RuleProblem, type RulesCompiler } from '../../api/api.js';
import { ADDRESS_WORDS, putIpv4 } from './ends.js';

const PREFIX_WORDS = 2 * ADDRESS_WORDS;
/** Limit on prefixes. The search is linear, for every contact. */
const PREFIXES_MAX = 1024;
/**
 * Errors quote only such words. By mistake the path may lead to a file with a secret, whose words
 * must not be shown.
 */
const ADDRESS_LIKE = /^[0-9a-f]{0,4}([.:][0-9a-f]{0,4}){1,8}(\/[0-9]{0,3})?$/i;
const NO_PREFIX = 'what stands here is not a prefix such as 10.0.0.0/8 or 2001:db8::/32';

/** A compiled list: `words[base …]`. */
interface AllowList {
  readonly words: Int32Array;
  readonly base: number;
}

export const compileAllowList: RulesCompiler = (text) => {
  const entries: RuleEntry[] = [];
  const problems: RuleProblem[] = [];
  const prefixes: Int32Array[] = [];
  for (const [n, whole] of text.split('\n').entries())
    for (const { 0: word, index } of whole.replace(/#.*/, '').matchAll(/[^\s,]+/g)) {
      const line = n + 1;
      try {
        prefixes.push(parsePrefix(word));
        entries.push({ line, text: word });
      } catch (error) {
        const message = ADDRESS_LIKE.test(word) ? (error as Error).message : NO_PREFIX;
        problems.push({ line, column: index + 1, message });
      }
      if (prefixes.length === PREFIXES_MAX + 1)
        problems.push({ line, column: index + 1, message: `more than ${PREFIXES_MAX} prefixes` });
    }
  if (problems.length > 0) return { problems };
  const words = new Int32Array(1 + prefixes.length * PREFIX_WORDS);
  words[0] = prefixes.length;
  for (const [i, prefix] of prefixes.entries()) words.set(prefix, 1 + i * PREFIX_WORDS);
  return { words, entries };
};

/**
 * Returns address and mask of a prefix of either IP version, such as `10.0.0.0/8` or `2001:db8::1`.
 * Throws a RangeError that quotes what is wrong.
 */
export function parsePrefix(prefix: string): Int32Array {
  const [address, bits = '', more] = prefix.split('/');
  const is6 = address.includes(':');
  const list = new Int32Array(PREFIX_WORDS);
  if (is6) list.set(parseIpv6(address), 0);
  else putIpv4(list, 0, parseIpv4(address));
  const most = is6 ? 128 : 32;
  const given = prefix.includes('/') ? Number(bits) : most;
  if (more !== undefined || !/^\d*$/.test(bits) || (prefix.includes('/') && bits === '') || given > most)
    throw new RangeError(`"${prefix}" is not a prefix such as 10.0.0.0/8 or 2001:db8::/32`);
  putMask(list, ADDRESS_WORDS, given + (is6 ? 0 : 96));
  for (let word = 0; word < ADDRESS_WORDS; word++)
    if ((list[word] & ~list[ADDRESS_WORDS + word]) !== 0)
      throw new RangeError(`"${prefix}" has bits set behind its ${bits} bits of prefix`);
  return list;
}

/** Writes the mask of this many bits over four raw words. Their bytes are in packet order. */
export function putMask(words: Int32Array, at: number, bits: number): void {
  const bytes = new Uint8Array(4 * ADDRESS_WORDS);
  for (let bit = 0; bit < bits; bit++) bytes[bit >> 3] |= 0x80 >> (bit & 7);
  words.set(new Int32Array(bytes.buffer), at);
}

/** Returns the index of the first prefix that contains the address at `ends[at …]`, or `NONE`. */
export function findAllowed({ words, base }: AllowList, ends: Int32Array, at: number): number {
  const count = words[base];
  for (let i = 0, prefix = base + 1; i < count; i++, prefix += PREFIX_WORDS)
    if (
      (ends[at] & words[prefix + 4]) === words[prefix] &&
      (ends[at + 1] & words[prefix + 5]) === words[prefix + 1] &&
      (ends[at + 2] & words[prefix + 6]) === words[prefix + 2] &&
      (ends[at + 3] & words[prefix + 7]) === words[prefix + 3]
    )
      return i;
  return NONE;
}
