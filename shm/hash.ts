/**
 * Keyed hash of attacker-chosen keys: HalfSipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast
 * short-input PRF", 2012; the 32-bit variant of their reference code, which Linux uses for its hash
 * tables on 32-bit machines), over whole 32-bit words in little-endian order. Without the key,
 * nobody can choose keys that collide.
 *
 * It is pure 32-bit integer arithmetic on locals: nothing is allocated, and V8 keeps the four state
 * words in registers. That requires all rounds in one function, unrolled: a loop takes twice as
 * long, and calls take longer still. So the functions are generated here from one text of the round
 * when the module is loaded.
 */

const ROUND = `
  v0 = (v0 + v1) | 0; v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0; v0 = (v0 << 16) | (v0 >>> 16);
  v2 = (v2 + v3) | 0; v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
  v0 = (v0 + v3) | 0; v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
  v2 = (v2 + v1) | 0; v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2; v2 = (v2 << 16) | (v2 >>> 16);`;
const FINISH = ROUND.repeat(3);

/**
 * Constants for the two output widths. `start` is mixed into `v1` at the start, `finish` into `v2`
 * before the finish.
 */
const NARROW = { start: 0, finish: 0xff };
const WIDE = { start: 0xee, finish: 0xee };
/** Mixed into `v1` before the second half of wide output. */
const SECOND_HALF = 0xdd;

const absorb = (word: string): string => `v3 ^= ${word}; ${ROUND} v0 ^= ${word};`;

/** All rounds from the key `k0`, `k1` to the end of the finish. The output is `v1 ^ v3`. */
const rounds = (words: string, { start, finish }: typeof NARROW): string => `
  let v0 = k0 | 0, v1 = k1 ^ ${start}, v2 = 0x6c796765 ^ k0, v3 = 0x74656462 ^ k1;
  ${words} v2 ^= ${finish}; ${FINISH}`;
/**
 * The same for words in variables. The top byte of the last absorbed word is their length in bytes.
 */
const ofVariables = (names: readonly string[], width: typeof NARROW): string =>
  rounds([...names, String(names.length << 26)].map(absorb).join(''), width);
/** The same for `words[at … at + count)`. */
const ofArray = (width: typeof NARROW): string =>
  rounds(
    `for (let i = 0; i <= count; i++) { const word = i < count ? words[at + i] : count << 26; ${absorb('word')} }`,
    width,
  );

const toBoth = `out.first = v1 ^ v3; v1 ^= ${SECOND_HALF}; ${FINISH} out.second = v1 ^ v3;`;

function compile<T>(parameters: string, body: string): T {
  return new Function(...parameters.split(' '), body) as T;
}

/** Hash of the two words `a`, `b` under the key `k0`, `k1`. A signed 32-bit number. */
export const hash2 = compile<(k0: number, k1: number, a: number, b: number) => number>(
  'k0 k1 a b',
  `${ofVariables(['a', 'b'], NARROW)} return v1 ^ v3;`,
);

/** Hash of four words. Equal to `hashWords` of them, but twice as fast. */
export const hash4 = compile<(k0: number, k1: number, a: number, b: number, c: number, d: number) => number>(
  'k0 k1 a b c d',
  `${ofVariables(['a', 'b', 'c', 'd'], NARROW)} return v1 ^ v3;`,
);

/** Hash of `words[at … at + count)` under the key `k0`, `k1`. A signed 32-bit number. */
export const hashWords = compile<(k0: number, k1: number, words: Int32Array, at: number, count: number) => number>(
  'k0 k1 words at count',
  `${ofArray(NARROW)} return v1 ^ v3;`,
);

/**
 * Returns a function that writes `hash2` of `a[i]`, `b[i]` to `out[i]` for i < `count`. One call
 * per batch is used because a call per key would cost half as much as the hash. The arrays are
 * bound at creation for the reason given in flow-lookup.ts.
 */
export const hasher2 = compile<
  (k0: number, k1: number, a: Int32Array, b: Int32Array, out: Int32Array) => (count: number) => void
>(
  'k0 k1 a b out',
  `return (count) => { for (let i = 0; i < count; i++) {
    const first = a[i], second = b[i]; ${ofVariables(['first', 'second'], NARROW)} out[i] = v1 ^ v3;
  } };`,
);

/** The same for keys of four words each, stored one after the other in `keys`. */
export const hasher4 = compile<(k0: number, k1: number, keys: Int32Array, out: Int32Array) => (count: number) => void>(
  'k0 k1 keys out',
  `return (count) => { for (let i = 0; i < count; i++) {
    const at = i << 2, a = keys[at], b = keys[at + 1], c = keys[at + 2], d = keys[at + 3];
    ${ofVariables(['a', 'b', 'c', 'd'], NARROW)} out[i] = v1 ^ v3;
  } };`,
);

/** 64 bits of output, as two signed words. */
export interface WideHash {
  first: number;
  second: number;
}

/** Wide hash of two words, into `out`. Equal to `wideWords` of them. */
export const wide2 = compile<(k0: number, k1: number, a: number, b: number, out: WideHash) => void>(
  'k0 k1 a b out',
  ofVariables(['a', 'b'], WIDE) + toBoth,
);

/** Wide hash of `words[at … at + count)`, into `out`. */
export const wideWords = compile<
  (k0: number, k1: number, words: Int32Array, at: number, count: number, out: WideHash) => void
>('k0 k1 words at count out', ofArray(WIDE) + toBoth);
