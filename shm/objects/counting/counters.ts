/**
 * Counters over cells (counter-cells.ts): one count, or a vector of counts, to which all instances
 * add.
 */

import type { StateDefinition } from '../core/object.js';
import type { WireForm } from './counter-cells.js';
import { OverCells, overCells } from './over-cells.js';

interface CounterOptions {
  /** Default `totals`. */
  readonly form?: WireForm;
  /** Whether it also counts down. By default it only grows. */
  readonly upDown?: boolean;
  /** Maximum members of the cluster; default 8. */
  readonly members?: number;
}

interface CounterVectorOptions extends CounterOptions {
  readonly length: number;
}

/** A single count. */
export class Counter extends OverCells {
  /**
   * Counts `n`, a whole number; below 0 only with `upDown`. Returns false, and counts the refusal,
   * as `CounterCells.add` does.
   */
  add(n: number): boolean {
    return this.counts.add(0, n);
  }

  /** The sum over all instances, as far as it was replicated to us. */
  value(): number {
    return this.counts.value(0);
  }
}

/** A vector of counts, numbered from 0. */
export class CounterVector extends OverCells {
  get length(): number {
    return this.counts.cells;
  }

  /** As `Counter.add`. Also returns false if there is no count `i`. */
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
