/**
 * Which keys exist, and how often each was counted: the counting Bloom filter (Fan, Cao, Almeida
 * and Broder, "Summary cache: a scalable wide-area web cache sharing protocol", 2000), over counter
 * cells that all instances share. counter-cells.ts describes both wire forms, the safety of
 * concurrent writers, and what a death leaves.
 *
 *     cells   2^n; a key has `cellsPerKey` of them, all different, by sketch-hash.ts
 *
 * **Error.** A key's count is the least of its cells, and other keys may have counted in all of
 * them. So it errs upward only, and a counted key is always found. While at most `capacity` keys
 * are counted, a key that was never counted is found with at most the declared probability. This
 * also bounds the probability that a count is too large. All of it covers what was replicated to
 * us.
 *
 * **Taking back.** With `removable`, the instance that counted can take its counts back, but no
 * more than them, or other keys are lost. Then the cells count up and down. While an instance has
 * not received a count that another already takes back, a key that shares a cell may seem rarer
 * than it is.
 */

import { powerOfTwo } from '../../struct.js';
import type { StateDefinition } from '../core/object.js';
import type { CounterCells, WireForm } from '../counting/counter-cells.js';
import { OverCells, overCells } from '../counting/over-cells.js';
import { type SketchHash, seeded } from './sketch-hash.js';

interface CountingBloomOptions {
  /** Maximum number of distinct keys, over all instances, for which the rate holds. */
  readonly capacity: number;
  /** Probability that a key never counted is found, within [1e-9, 0.5]. Default 0.01. */
  readonly falsePositiveRate?: number;
  /** Whether counts can be taken back. Default false. */
  readonly removable?: boolean;
  /** Default `totals`. */
  readonly form?: WireForm;
  /** Maximum members of the cluster; default 8. */
  readonly members?: number;
  /** See sketch-hash.ts. */
  readonly seed?: string;
}

const CELLS_MIN = 64;
const CELLS_MAX = 2 ** 25;

export function countingBloom(options: CountingBloomOptions): StateDefinition<CountingBloom> {
  const { capacity, falsePositiveRate: rate = 0.01, removable = false, form, members, seed = '' } = options;
  if (!Number.isInteger(capacity) || capacity < 1)
    throw new RangeError(`counting Bloom filter: capacity ${capacity} is not a positive whole number`);
  if (!(rate >= 1e-9 && rate <= 0.5))
    throw new RangeError(`counting Bloom filter: false positive rate ${rate} is not from 1e-9 to 0.5`);
  const wanted = (-capacity * Math.log(rate)) / Math.LN2 ** 2;
  if (wanted > CELLS_MAX)
    throw new RangeError(
      `counting Bloom filter: ${capacity} keys at a rate of ${rate} need more than ${CELLS_MAX} cells`,
    );
  const cells = Math.max(CELLS_MIN, powerOfTwo(Math.ceil(wanted)));
  // As few as give the rate: each is one more count per packet.
  let cellsPerKey = 1;
  while ((1 - Math.exp((-cellsPerKey * capacity) / cells)) ** cellsPerKey > rate && cellsPerKey < 32) cellsPerKey++;
  const { parameters, hash } = seeded('counting-bloom', { capacity, rate, cellsPerKey }, seed);
  return overCells(
    'counting-bloom',
    parameters,
    { cells, upDown: removable, ...(form && { form }), ...(members && { members }) },
    (counts) => new CountingBloom(counts, cellsPerKey, hash()),
  );
}

export class CountingBloom extends OverCells {
  readonly cellsPerKey: number;
  private readonly mask: number;
  private readonly hasher: SketchHash;
  private readonly reading = new Float64Array(1);

  constructor(counts: CounterCells, cellsPerKey: number, hash: SketchHash) {
    super(counts);
    this.cellsPerKey = cellsPerKey;
    this.mask = counts.cells - 1;
    this.hasher = hash;
  }

  // ——— Packet path ———

  /**
   * Counts a key of two words `n` times, a whole number; below 0 only with `removable`. Returns
   * false, and counts the refusal, if that is not possible (see `CounterCells.add`; a full log is
   * never the reason).
   */
  count2(key0: number, key1: number, n: number): boolean {
    this.hasher.hash2(key0, key1);
    return this.countHashed(n);
  }

  /** The same for the key `words[at … at + length)`. */
  count(words: Int32Array, at: number, length: number, n: number): boolean {
    this.hasher.hash(words, at, length);
    return this.countHashed(n);
  }

  /**
   * How often a key of two words was counted. Never too small, as far as counts were replicated to
   * us.
   */
  value2(key0: number, key1: number): number {
    this.hasher.hash2(key0, key1);
    return this.least();
  }

  value(words: Int32Array, at: number, length: number): number {
    this.hasher.hash(words, at, length);
    return this.least();
  }

  has2(key0: number, key1: number): boolean {
    return this.value2(key0, key1) > 0;
  }

  has(words: Int32Array, at: number, length: number): boolean {
    return this.value(words, at, length) > 0;
  }

  private countHashed(n: number): boolean {
    const { hasher, mask, cellsPerKey } = this;
    // Odd, so that the cells of a key differ.
    return this.counts.addRows(hasher.first, hasher.second | 1, mask, 0, cellsPerKey, n);
  }

  private least(): number {
    const { hasher, mask, cellsPerKey, reading } = this;
    this.counts.leastOfRows(hasher.first, hasher.second | 1, mask, 0, cellsPerKey, 1, reading);
    return Math.max(0, reading[0]);
  }

  // ——— Off the packet path ———

  /** The present probability that a key never counted is found. Reads every cell. */
  falsePositiveRate(): number {
    return (this.used() / this.counts.cells) ** this.cellsPerKey;
  }

  private used(): number {
    let used = 0;
    for (let cell = 0; cell < this.counts.cells; cell++) if (this.counts.value(cell) > 0) used++;
    return used;
  }

  override describe(now: number): Record<string, number> {
    return { ...super.describe(now), cells_per_key: this.cellsPerKey, cells_used: this.used() };
  }
}
