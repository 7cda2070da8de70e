/**
 * The hash of sketches: HalfSipHash-1-3 with 64-bit output, as two words (hash.ts). Row *i* of a
 * sketch uses `first + i * second`, which is as good as independent hashes (Kirsch and
 * Mitzenmacher, "Less Hashing, Same Performance", 2006).
 *
 * **The seed.** Attackers choose keys, so the hash is keyed. But the cells of a sketch are shared,
 * so its key must be the same at all members, unlike the arena's own secret. It is derived from the
 * `seed` text of the object's options:
 *
 * - If it is left out, the key follows from the kind and the parameters alone. Then it is public:
 *   any reader of this file can choose packets that meet in one cell. That inflates counts, but
 *   corrupts nothing.
 * - To make it secret, the operator gives every member the same text, `state.sketch_seed`, of at
 *   least 128 random bits (`openssl rand -hex 16`). Middleboxes get it as `shared.seed` when they
 *   declare their state, and pass it on.
 *
 * The text itself is only in the configuration. The object's parameters contain a fingerprint of
 * it, and so does the meaning hash that members compare in every message. Members with different
 * seeds refuse each other's messages.
 */

import { createHash } from 'node:crypto';
import { wide2, wideWords } from '../../hash.js';

interface Seeded<P> {
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

/** Writes hashes to its own two fields, so that nothing is allocated. */
export class SketchHash {
  /** The hash: both words are signed 32-bit numbers. */
  first = 0;
  second = 0;
  private readonly k0: number;
  private readonly k1: number;

  constructor(k0: number, k1: number) {
    this.k0 = k0 | 0;
    this.k1 = k1 | 0;
  }

  /** Hash of the words `a`, `b`. Equal to `hash` of the same words. */
  hash2(a: number, b: number): void {
    wide2(this.k0, this.k1, a, b, this);
  }

  /** Hash of `words[at … at + count)`. */
  hash(words: Int32Array, at: number, count: number): void {
    wideWords(this.k0, this.k1, words, at, count, this);
  }
}
