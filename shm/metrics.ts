/**
 * The metrics region: one row of 64-bit counts per thread, one column per declared metric.
 *
 * Every row has one writer, its thread, which adds with plain loads and stores. Readers see each
 * aligned 64-bit word whole (x86-64), perhaps a moment late. A float counts exactly to 2^53, which
 * at 100 Mpps is nearly three years. A restarted thread continues in its slot's row, so counts
 * never decrease. Nothing in this region belongs in a snapshot.
 */

import { Region } from './region.js';
import { BYTES_PER_LINE, roundUp } from './struct.js';

export interface Metric {
  /** snake_case with the unit last, unique: `rx_packets`, `nat_exhausted`. */
  readonly name: string;
  /** One sentence: the manual entry of this metric. */
  readonly help: string;
  /**
   * A counter only grows and is summed over threads. A gauge is the present value, also summed.
   */
  readonly kind: 'counter' | 'gauge';
}

/**
 * The declared metrics in column order. The list is the same in every thread. Throws if a name
 * occurs twice.
 */
export class MetricCatalogue {
  readonly metrics: readonly Metric[];
  private readonly index = new Map<string, number>();

  constructor(metrics: readonly Metric[]) {
    this.metrics = metrics;
    metrics.forEach((metric, i) => {
      if (this.index.has(metric.name)) throw new Error(`metric ${metric.name} is declared twice`);
      this.index.set(metric.name, i);
    });
  }

  /** Column of a metric. Throws if it is not declared. */
  column(name: string): number {
    const column = this.index.get(name);
    if (column === undefined) throw new Error(`metric ${name} is not declared`);
    return column;
  }

  get rowBytes(): number {
    return roundUp(Math.max(1, this.metrics.length) * 8, BYTES_PER_LINE);
  }

  bytes(threads: number): number {
    return this.rowBytes * threads;
  }
}

export class Metrics {
  readonly catalogue: MetricCatalogue;
  private readonly rows: Float64Array[];

  constructor(catalogue: MetricCatalogue, buffer: SharedArrayBuffer, threads: number) {
    this.catalogue = catalogue;
    const region = new Region(buffer);
    this.rows = Array.from({ length: threads }, (_, i) => region.f64(i * catalogue.rowBytes, catalogue.metrics.length));
  }

  /** A thread's own row. Only that thread writes it: `row[column] += n`. */
  row(thread: number): Float64Array {
    const row = this.rows[thread];
    if (row === undefined) throw new RangeError(`no metrics row for thread ${thread}`);
    return row;
  }

  /** Sum of one metric over all threads. */
  total(name: string): number {
    const column = this.catalogue.column(name);
    let sum = 0;
    for (const row of this.rows) sum += row[column];
    return sum;
  }

  value(name: string, thread: number): number {
    return this.row(thread)[this.catalogue.column(name)];
  }
}
