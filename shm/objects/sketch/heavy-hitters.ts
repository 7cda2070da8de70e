/**
 * The keys that count most: a bounded table of candidates over a count-min sketch, which has counts
 * but no keys (Cormode and Muthukrishnan, "An improved data stream summary: the count-min sketch
 * and its applications", 2005, section 5.2).
 *
 * If a key's estimate has reached the threshold when it is counted, it becomes a candidate at this
 * instance. The tables belong to this instance alone, while counts are shared. So a key that is
 * heavy only over all sites together becomes a candidate where it is next counted after the others'
 * counts arrived. Within a set of `WAYS`, a candidate that counts more evicts the one that counts
 * least. Each evicted candidate, and each that finds no room, is counted as displaced.
 *
 * **Guarantee.** Let N be the sum of all counts, ε the error and δ the probability of the sketch.
 * Every key counted at least `threshold` times is listed where it was counted last, unless it was
 * displaced. A listed key was counted at least `threshold - εN` times, with probability 1 - δ each.
 *
 *     local    per worker: displaced, and the sets        one writer: the worker
 *     entry    version, length, key                        version odd: being written
 *
 * **Concurrent writers** have a table each. A reader accepts an entry if its version is even and
 * the same before and after reading (a sequence lock; stores keep their order on x86-64).
 */

import type { Region } from '../../region.js';
import { LINE, powerOfTwo, roundUp, struct, WORDS_PER_LINE } from '../../struct.js';
import type { OpenContext } from '../core/object.js';

export interface HeavyHittersOptions {
  /** A key is a candidate from this count on. Positive. */
  readonly threshold: number;
  /** Minimum candidates that a worker holds, if they spread evenly. Default 256. */
  readonly candidates?: number;
  /**
   * Longest key, in words. Longer keys are counted, but are never candidates. Default 4: an IPv4
   * flow.
   */
  readonly keyWords?: number;
}

/** `estimate` is never below the key's count, as far as that was replicated to us. */
export interface HeavyHitter {
  readonly key: readonly number[];
  readonly estimate: number;
}

const HEAD = struct({ displaced: LINE, tooLong: 1 });
const ENTRY = struct({ version: 1, length: 1, key: 1 });
const WAYS = 8;
const KEY_WORDS_MAX = 16;
const READ_TRIES = 100;

export class HeavyHitterShape {
  readonly threshold: number;
  readonly keyWords: number;
  readonly sets: number;
  readonly stride: number;

  /** Throws a `RangeError` if an option is invalid. */
  constructor({ threshold, candidates = 256, keyWords = 4 }: HeavyHittersOptions) {
    if (!(threshold > 0)) throw new RangeError(`heavy hitters: threshold ${threshold} is not a positive number`);
    if (!Number.isInteger(candidates) || candidates < 1 || candidates > 2 ** 20)
      throw new RangeError(`heavy hitters: ${candidates} candidates, from 1 to ${2 ** 20} are possible`);
    if (!Number.isInteger(keyWords) || keyWords < 1 || keyWords > KEY_WORDS_MAX)
      throw new RangeError(`heavy hitters: keys of ${keyWords} words, from 1 to ${KEY_WORDS_MAX} are possible`);
    this.threshold = threshold;
    this.keyWords = keyWords;
    // Twice the room, because sets do not fill evenly.
    this.sets = powerOfTwo(Math.ceil((2 * candidates) / WAYS));
    this.stride = ENTRY.at.key + keyWords;
  }

  get words(): number {
    return roundUp(HEAD.words + this.sets * WAYS * this.stride, WORDS_PER_LINE);
  }
}

export class HeavyHitters {
  readonly threshold: number;
  private readonly shape: HeavyHitterShape;
  private readonly words: Int32Array;
  private readonly tables: number;
  /** Index of this worker's table. Negative in a thread that counts nothing. */
  private readonly own: number;
  /**
   * By slot: the estimate of this worker's candidate when it was last offered. It decides which
   * candidate is displaced.
   */
  private readonly estimates: Float64Array;

  /** `local`: memory for one table per worker. */
  constructor(local: Region, { writer, stripes = 1 }: OpenContext, shape: HeavyHitterShape) {
    this.threshold = shape.threshold;
    this.shape = shape;
    this.words = local.i32(0, stripes * shape.words);
    this.tables = stripes;
    this.own = writer === null || writer.log === null ? -1 : (writer.id - 1) * shape.words;
    this.estimates = new Float64Array(this.own < 0 ? 0 : shape.sets * WAYS);
  }

  /** The key's estimate `reading[0]` is at least the threshold. `hash` chooses the set. */
  offer(hash: number, key: Int32Array, at: number, length: number, reading: Float64Array): void {
    const { words, shape, estimates, own } = this;
    const estimate = reading[0];
    if (own < 0) return;
    if (length > shape.keyWords) {
      words[own + HEAD.at.tooLong]++;
      return;
    }
    const first = (hash & (shape.sets - 1)) * WAYS;
    let least = first;
    for (let slot = first; slot < first + WAYS; slot++) {
      const entry = own + HEAD.words + slot * shape.stride;
      const version = words[entry + ENTRY.at.version];
      // An odd version: an earlier worker died while it wrote.
      if (version !== 0 && (version & 1) === 0 && this.isKey(entry, key, at, length)) {
        estimates[slot] = estimate;
        return;
      }
      if (estimates[slot] < estimates[least]) least = slot;
    }
    const entry = own + HEAD.words + least * shape.stride;
    if (words[entry + ENTRY.at.version] !== 0) {
      words[own + HEAD.at.displaced]++;
      if (estimates[least] >= estimate) return;
    }
    this.put(entry, key, at, length);
    estimates[least] = estimate;
  }

  private isKey(entry: number, key: Int32Array, at: number, length: number): boolean {
    const { words } = this;
    if (words[entry + ENTRY.at.length] !== length) return false;
    for (let i = 0; i < length; i++) if (words[entry + ENTRY.at.key + i] !== key[at + i]) return false;
    return true;
  }

  private put(entry: number, key: Int32Array, at: number, length: number): void {
    const { words } = this;
    words[entry + ENTRY.at.version] |= 1;
    words[entry + ENTRY.at.length] = length;
    for (let i = 0; i < length; i++) words[entry + ENTRY.at.key + i] = key[at + i];
    // Beyond 2^31 the version continues with negative numbers. It skips 0, which means an empty
    // entry.
    const version = (words[entry + ENTRY.at.version] + 1) | 0;
    words[entry + ENTRY.at.version] = version === 0 ? 2 : version;
  }

  /** The candidates of all workers, each once. Any thread may call it, off the packet path. */
  keys(): number[][] {
    const { shape, tables } = this;
    const found = new Map<string, number[]>();
    for (let table = 0; table < tables; table++)
      for (let slot = 0; slot < shape.sets * WAYS; slot++) {
        const key = this.read(table * shape.words + HEAD.words + slot * shape.stride);
        if (key !== null) found.set(key.join(), key);
      }
    return [...found.values()];
  }

  private read(entry: number): number[] | null {
    const { words, shape } = this;
    for (let i = 0; i < READ_TRIES; i++) {
      const before = Atomics.load(words, entry + ENTRY.at.version);
      if (before === 0) return null;
      const length = Math.min(words[entry + ENTRY.at.length] >>> 0, shape.keyWords);
      const key = [...words.subarray(entry + ENTRY.at.key, entry + ENTRY.at.key + length)];
      if ((before & 1) === 0 && Atomics.load(words, entry + ENTRY.at.version) === before) return key;
    }
    return null;
  }

  get displaced(): number {
    return this.sum(HEAD.at.displaced);
  }

  get tooLong(): number {
    return this.sum(HEAD.at.tooLong);
  }

  private sum(field: number): number {
    let sum = 0;
    for (let table = 0; table < this.tables; table++) sum += this.words[table * this.shape.words + field];
    return sum;
  }
}
