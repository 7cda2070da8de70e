/**
 * Counters over cells (counter-cells.ts): one count, or a vector of them, that all instances add
 * to.
 */

import type { WireForm } from './counter-cells.js';
import type { StateDefinition } from './object.js';
import { OverCells, overCells } from './over-cells.js';

export interface CounterOptions {
  /** Default `totals`. */
  readonly form?: WireForm;
  /** Whether it also counts down. Default: it only grows. */
  readonly upDown?: boolean;
  /** Members the cluster can have at most; default 8. */
  readonly members?: number;
}

export interface CounterVectorOptions extends CounterOptions {
  readonly length: number;
}

/** One count. */
export class Counter extends OverCells {
  /**
   * Counts `n`, a whole number; below 0 only with `upDown`. False: refused and counted as such, see
   * `CounterCells.add`.
   */
  add(n: number): boolean {
    return this.counts.add(0, n);
  }

  /** The sum over all instances, as far as they told. */
  value(): number {
    return this.counts.value(0);
  }
}

/** Counts numbered from 0. */
export class CounterVector extends OverCells {
  get length(): number {
    return this.counts.cells;
  }

  /** As for `Counter`; false also when there is no count `i`. */
  add(i: number, n: number): boolean {
    return this.counts.add(i, n);
  }

  value(i: number): number {
    return this.counts.value(i);
  }
}

export function counter(options: CounterOptions = {}): StateDefinition<Counter> {
  return overCells('counter', {}, { ...options, cells: 1 }, (cells) => new Counter(cells));
}

export function counterVector({ length, ...options }: CounterVectorOptions): StateDefinition<CounterVector> {
  return overCells('counter-vector', {}, { ...options, cells: length }, (cells) => new CounterVector(cells));
}
