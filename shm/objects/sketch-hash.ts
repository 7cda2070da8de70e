/**
 * The hash of sketches: HalfSipHash-1-3 with 64-bit output, as two words (Aumasson and Bernstein, "SipHash: a fast
 * short-input PRF", 2012; hash.ts has the 32-bit output). Row *i* of a sketch takes `first + i * second`, which is as good as
 * independent hashes (Kirsch and Mitzenmacher, "Less Hashing, Same Performance", 2006).
 *
 * **The seed.** Keys are chosen by attackers, so the hash is keyed; but the cells of a sketch are shared, so the key must be
 * the same at all members, unlike the arena's own secret. It is derived from the `seed` text of the object's options:
 *
 * - left out, the key follows from the kind and the parameters alone. Then it is public: whoever reads this file can choose
 *   packets that meet in one cell. That inflates counts; nothing is corrupted.
 * - to make it secret, the operator gives every member the same text, `state.sketch_seed`, of at least 128 random bits
 *   (`openssl rand -hex 16`). Middleboxes get it as `shared.seed` when they declare their state, and pass it on.
 *
 * The text itself is nowhere but in the configuration: what enters the object's parameters, and so the layout hash that
 * members compare in every message, is a fingerprint of it. Members with different seeds refuse each other.
 */

import { createHash } from 'node:crypto';

const INIT_2 = 0x6c796765;
const INIT_3 = 0x74656462;
const WIDE = 0xee;
const SECOND_HALF = 0xdd;

export interface Seeded<P> {
  /** For the state definition: the parameters and a fingerprint of the seed. */
  readonly parameters: P & { readonly seed: string };
  readonly hash: () => SketchHash;
}

/** Derives the hash of a sketch from its declaration; see the head of this file. */
export function seeded<P extends object>(kind: string, parameters: P, seed: string): Seeded<P> {
  const fingerprint = seed === '' ? 'public' : createHash('sha256').update(`fingerprint ${seed}`).digest('hex');
  const key = createHash('sha256')
    .update(JSON.stringify(['sketch key', kind, parameters, seed]))
    .digest();
  return {
    parameters: { ...parameters, seed: fingerprint.slice(0, 16) },
    hash: () => new SketchHash(key.readInt32LE(0), key.readInt32LE(4)),
  };
}

/** Hashes into its own two fields: nothing is allocated. */
export class SketchHash {
  /** Both signed 32-bit. */
  first = 0;
  second = 0;
  private readonly k0: number;
  private readonly k1: number;

  constructor(k0: number, k1: number) {
    this.k0 = k0 | 0;
    this.k1 = k1 | 0;
  }

  /** Hash of the words `a`, `b`; equals `hash` of the same. The round is written out: in a loop it takes twice as long. */
  hash2(a: number, b: number): void {
    let v0 = this.k0;
    let v1 = this.k1 ^ WIDE;
    let v2 = INIT_2 ^ this.k0;
    let v3 = INIT_3 ^ this.k1 ^ a;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= a;

    v3 ^= b;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= b;

    v3 ^= 0x08000000; // eight bytes
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= 0x08000000;

    v2 ^= WIDE;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);

    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);

    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);

    this.first = v1 ^ v3;

    v1 ^= SECOND_HALF;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);

    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);

    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);

    this.second = v1 ^ v3;
  }

  /** Hash of `words[at … at + count)`: the words, the length in the top byte, three rounds to each half of the output. */
  hash(words: Int32Array, at: number, count: number): void {
    let v0 = this.k0;
    let v1 = this.k1 ^ WIDE;
    let v2 = INIT_2 ^ this.k0;
    let v3 = INIT_3 ^ this.k1;
    for (let i = 0; i <= count; i++) {
      const word = i < count ? words[at + i] : count << 26;
      v3 ^= word;
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= word;
    }
    v2 ^= WIDE;
    for (let i = 0; i < 3; i++) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    this.first = v1 ^ v3;
    v1 ^= SECOND_HALF;
    for (let i = 0; i < 3; i++) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    this.second = v1 ^ v3;
  }
}
