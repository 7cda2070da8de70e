/**
 * How often each key was counted, in far less memory than the keys need: the count-min sketch
 * (Cormode and Muthukrishnan, "An improved data stream summary: the count-min sketch and its
 * applications", 2005), over counter cells that all instances share. counter-cells.ts describes
 * both wire forms, the safety of concurrent writers, and what a death leaves.
 *
 *     cells   depth rows of width; a key has one cell in each, by sketch-hash.ts
 *
 * **Error.** A cell holds the sum of its keys, so every reading errs upward. Let N be the sum of
 * all counts, ε = e / width and δ = e^-depth. `value` is at least the true count, and exceeds it by
 * more than εN with probability at most δ (theorem 1). `valueAtLeast` is the conservative reading:
 * it exceeds the true count with probability at most δ. Both cover what was replicated to us.
 * `errorBound` bounds the rest, summed over a key's `depth` cells.
 */

import { powerOfTwo } from '../../struct.js';
import type { OpenContext, StateDefinition } from '../core/object.js';
import type { CounterCells, WireForm } from '../counting/counter-cells.js';
import { OverCells, overCells } from '../counting/over-cells.js';
import { type HeavyHitter, HeavyHitterShape, HeavyHitters, type HeavyHittersOptions } from './heavy-hitters.js';
import { type SketchHash, seeded } from './sketch-hash.js';

interface CountMinOptions {
  /** ε: a reading may be too large by this fraction of the sum of all counts. Default 0.001. */
  readonly epsilon?: number;
  /** δ: probability that it is larger still. Default 0.01. */
  readonly delta?: number;
  /** Instead of ε: cells in a row, rounded up to a power of two. */
  readonly width?: number;
  /** Instead of δ: rows, 1…16. */
  readonly depth?: number;
  /** Default `totals`. */
  readonly form?: WireForm;
  /** Maximum members of the cluster; default 8. */
  readonly members?: number;
  /** See sketch-hash.ts. */
  readonly seed?: string;
  /** Keeps the keys that count most: heavy-hitters.ts. */
  readonly heavy?: HeavyHittersOptions;
}

const DEPTH_MAX = 16;
const WIDTH_MAX = 2 ** 24;

export function countMin(options: CountMinOptions = {}): StateDefinition<CountMin> {
  const { epsilon = 0.001, delta = 0.01, seed = '', heavy } = options;
  if (!(epsilon > 0 && epsilon < 1)) throw new RangeError(`count-min: epsilon ${epsilon} is not between 0 and 1`);
  if (!(delta > 0 && delta < 1)) throw new RangeError(`count-min: delta ${delta} is not between 0 and 1`);
  const { width: wide = Math.ceil(Math.E / epsilon), depth = Math.ceil(Math.log(1 / delta)) } = options;
  if (!Number.isInteger(depth) || depth < 1 || depth > DEPTH_MAX)
    throw new RangeError(`count-min: depth ${depth} is not a whole number from 1 to ${DEPTH_MAX}`);
  if (!(wide >= 1 && wide <= WIDTH_MAX)) throw new RangeError(`count-min: width ${wide} is not from 1 to ${WIDTH_MAX}`);
  const width = powerOfTwo(Math.ceil(wide));
  const shape = heavy === undefined ? null : new HeavyHitterShape(heavy);
  const { parameters, hash } = seeded('count-min', { width, depth }, seed);
  const { form, members } = options;
  const cells = { cells: width * depth, ...(form && { form }), ...(members && { members }) };
  const plain = overCells('count-min', { ...parameters, heavy: heavy ?? null }, cells, (counts, context) => {
    if (shape === null) return new CountMin(counts, width, depth, hash(), null);
    return new CountMin(counts, width, depth, hash(), openHeavy(context, shape));
  });
  if (shape === null) return plain;
  return {
    ...plain,
    localBytes: (stripes) => (plain.localBytes?.(stripes) ?? 0) + stripes * shape.words * 4,
  };
}

/** The candidates' tables lie after the cells' part of the local memory. */
function openHeavy(context: OpenContext, shape: HeavyHitterShape): HeavyHitters {
  const { local, stripes = 1 } = context;
  if (local === undefined) throw new Error(`state object ${context.id}: counts need memory of this instance's own`);
  const bytes = stripes * shape.words * 4;
  return new HeavyHitters(local.part(local.byteLength - bytes, bytes), context, shape);
}

export class CountMin extends OverCells {
  readonly width: number;
  readonly depth: number;
  private readonly mask: number;
  private readonly hasher: SketchHash;
  private readonly heavy: HeavyHitters | null;
  private readonly key = new Int32Array(2);
  /**
   * The result of `read`. It is passed in memory because a returned double is boxed if the call is
   * not inlined.
   */
  private readonly reading = new Float64Array(1);

  constructor(counts: CounterCells, width: number, depth: number, hash: SketchHash, heavy: HeavyHitters | null) {
    super(counts);
    this.width = width;
    this.depth = depth;
    this.mask = width - 1;
    this.hasher = hash;
    this.heavy = heavy;
  }

  // ——— Packet path ———

  /**
   * Counts a key of two words `n` times, a whole number not below 0. Returns false, and counts the
   * refusal, if that is not possible (see `CounterCells.add`; a full log is never the reason).
   */
  count2(key0: number, key1: number, n: number): boolean {
    this.hasher.hash2(key0, key1);
    if (!this.countHashed(n)) return false;
    if (this.heavy !== null) {
      this.key[0] = key0;
      this.key[1] = key1;
      this.watch(this.heavy, this.key, 0, 2);
    }
    return true;
  }

  /** The same for the key `words[at … at + length)`. */
  count(words: Int32Array, at: number, length: number, n: number): boolean {
    this.hasher.hash(words, at, length);
    if (!this.countHashed(n)) return false;
    if (this.heavy !== null) this.watch(this.heavy, words, at, length);
    return true;
  }

  /**
   * How often a key of two words was counted. Never too small, as far as counts were replicated to
   * us.
   */
  value2(key0: number, key1: number): number {
    this.hasher.hash2(key0, key1);
    this.read(0);
    return this.reading[0];
  }

  value(words: Int32Array, at: number, length: number): number {
    this.hasher.hash(words, at, length);
    this.read(0);
    return this.reading[0];
  }

  private countHashed(n: number): boolean {
    const { hasher, mask, width, depth } = this;
    return this.counts.addRows(hasher.first, hasher.second | 1, mask, width, depth, n);
  }

  /**
   * Puts the least of the hashed key's cells into `reading`, or the first one found below `enough`.
   */
  private read(enough: number): void {
    const { hasher, width, mask, depth, reading } = this;
    this.counts.leastOfRows(hasher.first, hasher.second | 1, mask, width, depth, enough, reading);
  }

  private watch(heavy: HeavyHitters, words: Int32Array, at: number, length: number): void {
    const { reading } = this;
    this.read(heavy.threshold);
    if (reading[0] >= heavy.threshold) heavy.offer(this.hasher.second, words, at, length, reading);
  }

  // ——— Off the packet path ———

  /** N: the sum of the counts of all keys. Reads a row. */
  total(): number {
    let total = 0;
    for (let cell = 0; cell < this.width; cell++) total += this.counts.value(cell);
    return total;
  }

  /**
   * εN: the maximum by which a reading is too large, except with probability `delta`. Reads a row.
   */
  overcount(): number {
    return (Math.E / this.width) * this.total();
  }

  /** δ: the probability of a larger error. */
  get delta(): number {
    return Math.exp(-this.depth);
  }

  /**
   * The conservative reading: at most the true count, except with probability `delta`. Reads a row.
   */
  valueAtLeast(words: Int32Array, at: number, length: number): number {
    return Math.max(0, this.value(words, at, length) - this.overcount());
  }

  /**
   * The heavy keys found at this instance, largest count first. Empty without the option `heavy`.
   */
  heavyHitters(): HeavyHitter[] {
    if (this.heavy === null) return [];
    const { threshold } = this.heavy;
    return this.heavy
      .keys()
      .map((key) => ({ key, estimate: this.value(Int32Array.from(key), 0, key.length) }))
      .filter(({ estimate }) => estimate >= threshold)
      .sort((a, b) => b.estimate - a.estimate);
  }

  override describe(now: number): Record<string, number> {
    const figures = { ...super.describe(now), width: this.width, depth: this.depth, total: this.total() };
    const { heavy } = this;
    return heavy === null ? figures : { ...figures, heavy: heavy.keys().length, heavy_displaced: heavy.displaced };
  }
}
