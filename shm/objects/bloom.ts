/**
 * Whether a key was met before: a Bloom filter ("Space/time trade-offs in hash coding with
 * allowable errors", 1970), local to an instance. Nothing is logged, nothing comes from others; all
 * threads of the instance share it. A key that was added is always found; one that was not is found
 * with at most the chosen probability, up to the capacity.
 *
 *     counts   rare events
 *     bits     2^n
 *
 * The filter has the next power of two of the bits that Bloom's formula asks for, and as few bits a
 * key as then do: often fewer, for speed, than would make errors rarest.
 *
 * **Concurrent writers.** Bits are set with an atomic or, after a plain look that says which are
 * set already. A filter has nothing to recover: a writer that dies in `add` has set some bits,
 * which says nothing of any key but by chance.
 *
 * The hash is keyed with the arena's secret: what is local need not hash alike everywhere.
 */

import { BYTES_PER_WORD, LINE, powerOfTwo, struct } from '../struct.js';
import { Applied, type OpenContext, type StateDefinition, type StateObject } from './object.js';
import { SketchHash } from './sketch-hash.js';

export interface BloomOptions {
  /** Keys up to which the rate holds. */
  readonly capacity: number;
  /** Chance that a key not added is found all the same, within (0, 0.5]. Default 0.01. */
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

  /** Adds a key of two words. Returns whether it was new: whether `has2` would have said no. */
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
    // Odd, so that the places of a key differ.
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
   * Forgets every key. One that another thread adds meanwhile may be forgotten too, in part: then
   * it is not found.
   */
  clear(): void {
    this.words.fill(0);
  }

  /** The chance, as the filter is filled now, that a key not added is found. Reads all of it. */
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

  /** Nobody sends what is local. */
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

  /** Nothing: what is local stays so, and another instance's places of a key are not ours. */
  merge(): number {
    return 0;
  }

  /** The same everywhere: nothing is shared. */
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
      // Swamidass and Baldi, 2007: how many keys make so many bits.
      keys: Math.round((-bits / this.bitsPerKey) * Math.log(1 - Math.min(set, bits - 1) / bits)),
      malformed: this.counts[COUNTS.at.malformed],
    };
  }
}
