/**
 * SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), a pseudorandom
 * function for values that others see, such as ports. HalfSipHash (hash.ts) is only for hash
 * tables, whose values are never visible outside.
 *
 * JavaScript has no 64-bit integers that need no allocation, so each state word is two 32-bit
 * variables, `l` and `h`. The rounds are unrolled from one text when the module is loaded, as in
 * hash.ts.
 */

import type { WideHash } from './hash.js';

/** Words of a key. */
export const SIPHASH_KEY_WORDS = 4;

/** v[a] += v[b]. The low half has carried if it is smaller than the added value. */
const add = (a: number, b: number): string =>
  `l${a} = (l${a} + l${b}) | 0; h${a} = (h${a} + h${b} + ((l${a} >>> 0) < (l${b} >>> 0) ? 1 : 0)) | 0;`;
const xor = (a: number, b: number): string => `l${a} ^= l${b}; h${a} ^= h${b};`;
/** Rotates v[a] left by `n` bits. */
const rotate = (a: number, n: number): string =>
  n === 32
    ? `t = l${a}; l${a} = h${a}; h${a} = t;`
    : `t = l${a}; l${a} = (t << ${n}) | (h${a} >>> ${32 - n}); h${a} = (h${a} << ${n}) | (t >>> ${32 - n});`;
const mix = (a: number, b: number, n: number): string => add(a, b) + rotate(b, n) + xor(b, a);

const ROUND = mix(0, 1, 13) + rotate(0, 32) + mix(2, 3, 16) + mix(0, 3, 21) + mix(2, 1, 17) + rotate(2, 32);
const absorb = (low: string, high: string): string =>
  `l3 ^= ${low}; h3 ^= ${high}; ${ROUND.repeat(2)} l0 ^= ${low}; h0 ^= ${high};`;
/** The last block of a message of eight bytes: its length in the top byte. */
const LENGTH = String(8 << 24);

/**
 * The hash of the eight bytes of `a` and `b` in little-endian order, under `key[0 … 4)`. Writes 64
 * bits to `out`, the low word first.
 */
export const sipHash2 = new Function(
  'key',
  'a',
  'b',
  'out',
  `let l0 = key[0] ^ 0x70736575, h0 = key[1] ^ 0x736f6d65, l1 = key[2] ^ 0x6e646f6d, h1 = key[3] ^ 0x646f7261,
    l2 = key[0] ^ 0x6e657261, h2 = key[1] ^ 0x6c796765, l3 = key[2] ^ 0x79746573, h3 = key[3] ^ 0x74656462, t = 0;
  ${absorb('a', 'b')} ${absorb('0', LENGTH)}
  l2 ^= 0xff; ${ROUND.repeat(4)}
  out.first = l0 ^ l1 ^ l2 ^ l3; out.second = h0 ^ h1 ^ h2 ^ h3;`,
) as (key: Int32Array, a: number, b: number, out: WideHash) => void;
