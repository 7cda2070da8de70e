/**
 * Whether a key was seen before: a Bloom filter ("Space/time trade-offs in hash coding with
 * allowable errors", 1970), local to an instance. Nothing is logged or replicated. All threads of
 * the instance share it. An added key is always found. A key that was not added is found with at
 * most the chosen probability, up to the capacity.
 *
 *     counts   rare events
 *     bits     2^n
 *
 * The size is the next power of two above Bloom's formula. A key sets as few bits as then give the
 * rate. For speed, that is often fewer than would make errors rarest.
 *
 * **Concurrent writers.** Bits are set with an atomic or, after a plain read that finds which are
 * already set. A filter needs no recovery: a writer that dies in `add` has set some bits, which at
 * most adds to the false positives.
 *
 * The hash is keyed with the arena's secret, because a local object need not hash alike everywhere.
 */

import { BYTES_PER_WORD, LINE, powerOfTwo, struct } from '../../struct.js';
import { Applied, type OpenContext, type StateDefinition, type StateObject } from '../core/object.js';
import { SketchHash } from './sketch-hash.js';

interface BloomOptions {
  /** Maximum number of keys for which the rate holds. */
  readonly capacity: number;
  /** Probability that a key that was not added is found, within [1e-9, 0.5]. Default 0.01. */
  readonly falsePositiveRate?: number;
}

interface Shape {
  readonly bits: number;
  readonly bitsPerKey: number;
}

const COUNTS = struct({ malformed: LINE });
const BITS_MIN = 512;
const BITS_MAX = 2 ** 30;
const BITS_PER_KEY_MAX = 32;
const NOTHING_SHARED = '0000000000000000';

function shapeOf(capacity: number, rate: number): Shape {
  if (!Number.isInteger(capacity) || capacity < 1)
    throw new RangeError(`Bloom filter: capacity ${capacity} is not a positive whole number`);
  if (!(rate >= 1e-9 && rate <= 0.5))
    throw new RangeError(`Bloom filter: false positive rate ${rate} is not from 1e-9 to 0.5`);
  const wanted = (-capacity * Math.log(rate)) / Math.LN2 ** 2;
  if (wanted > BITS_MAX)
    throw new RangeError(`Bloom filter: ${capacity} keys at a rate of ${rate} need more than ${BITS_MAX} bits`);
  const bits = Math.max(BITS_MIN, powerOfTwo(Math.ceil(wanted)));
  let bitsPerKey = 1;
  while (bitsPerKey < BITS_PER_KEY_MAX && (1 - Math.exp((-bitsPerKey * capacity) / bits)) ** bitsPerKey > rate)
    bitsPerKey++;
  return { bits, bitsPerKey };
}

export function bloom({ capacity, falsePositiveRate = 0.01 }: BloomOptions): StateDefinition<BloomFilter> {
  const shape = shapeOf(capacity, falsePositiveRate);
  return {
    kind: 'bloom',
    parameters: { capacity, falsePositiveRate },
    bytes: COUNTS.bytes + shape.bits / 8,
    open: (context) => new BloomFilter(context, shape),
  };
}

export class BloomFilter implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  private readonly counts: Int32Array;
  private readonly words: Int32Array;
  private readonly mask: number;
  private readonly bitsPerKey: number;
  private readonly hasher: SketchHash;

  constructor({ id, region, secret }: OpenContext, { bits, bitsPerKey }: Shape) {
    this.id = id;
    this.counts = region.i32(0, COUNTS.words);
    this.words = region.i32(COUNTS.bytes, bits / 8 / BYTES_PER_WORD);
    this.mask = bits - 1;
    this.bitsPerKey = bitsPerKey;
    this.hasher = new SketchHash(secret[0], secret[1]);
  }

  /**
   * Adds a key of two words. Returns whether it was new: whether `has2` would have returned false.
   */
  add2(key0: number, key1: number): boolean {
    this.hasher.hash2(key0, key1);
    return this.addHashed();
  }

  /** The same for the key `words[at … at + count)`. */
  add(words: Int32Array, at: number, count: number): boolean {
    this.hasher.hash(words, at, count);
    return this.addHashed();
  }

  has2(key0: number, key1: number): boolean {
    this.hasher.hash2(key0, key1);
    return this.hasHashed();
  }

  has(words: Int32Array, at: number, count: number): boolean {
    this.hasher.hash(words, at, count);
    return this.hasHashed();
  }

  private addHashed(): boolean {
    const { words, mask, bitsPerKey } = this;
    // Odd, so that the bits of a key differ.
    const step = this.hasher.second | 1;
    let hash = this.hasher.first;
    let fresh = false;
    for (let i = 0; i < bitsPerKey; i++) {
      const place = hash & mask;
      const bit = 1 << (place & 31);
      if ((words[place >>> 5] & bit) === 0 && (Atomics.or(words, place >>> 5, bit) & bit) === 0) fresh = true;
      hash = (hash + step) | 0;
    }
    return fresh;
  }

  private hasHashed(): boolean {
    const { words, mask, bitsPerKey } = this;
    const step = this.hasher.second | 1;
    let hash = this.hasher.first;
    for (let i = 0; i < bitsPerKey; i++) {
      const place = hash & mask;
      if ((words[place >>> 5] & (1 << (place & 31))) === 0) return false;
      hash = (hash + step) | 0;
    }
    return true;
  }

  /**
   * Forgets every key. A key that another thread adds meanwhile may be partly forgotten, and is
   * then not found.
   */
  clear(): void {
    this.words.fill(0);
  }

  /** The present probability that a key that was not added is found. Reads the whole filter. */
  falsePositiveRate(): number {
    return (this.setBits() / (this.mask + 1)) ** this.bitsPerKey;
  }

  private setBits(): number {
    let set = 0;
    for (const word of this.words) {
      let pairs = word - ((word >>> 1) & 0x55555555);
      pairs = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
      set += Math.imul((pairs + (pairs >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
    }
    return set;
  }

  /** No records exist for a local object. */
  apply(): Applied {
    Atomics.add(this.counts, COUNTS.at.malformed, 1);
    return Applied.MALFORMED;
  }

  coalesceKey(): number {
    return 0;
  }

  coalesce(): boolean {
    return false;
  }

  /** Merges nothing: the filter is local, and another instance uses other bits for a key. */
  merge(): number {
    return 0;
  }

  /** The same at all instances: nothing is shared. */
  digest(): string {
    return NOTHING_SHARED;
  }

  recover(): number {
    return 0;
  }

  describe(): Record<string, number> {
    const bits = this.mask + 1;
    const set = this.setBits();
    return {
      bits,
      bits_set: set,
      bits_per_key: this.bitsPerKey,
      // Swamidass and Baldi, 2007: the number of keys that set this many bits.
      keys: Math.round((-bits / this.bitsPerKey) * Math.log(1 - Math.min(set, bits - 1) / bits)),
      malformed: this.counts[COUNTS.at.malformed],
    };
  }
}
