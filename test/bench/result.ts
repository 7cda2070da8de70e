/** One figure of a benchmark, beside the baseline measured in the same run. */
export interface BenchResult {
  /** `<bench>/<what>`. Stable, because results of two branches are compared by it. */
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /**
   * The same figure of the baseline, in the same unit; `null` if the figure stands alone or is
   * itself a baseline.
   */
  readonly baseline: number | null;
  /** How good `value` is against `baseline`: above 1 is better, whatever the unit. */
  readonly ratio: number | null;
}

export interface BenchOptions {
  /** Machine-readable output: only results go to standard output. */
  readonly json: boolean;
  /** Approximate duration of one measurement. */
  readonly seconds: number;
  /** Fewer cases. */
  readonly quick: boolean;
}

export type Bench = (options: BenchOptions) => Promise<BenchResult[]>;

/**
 * The median: the middle of an odd number of values, the mean of the two middle ones of an even
 * number.
 */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >>> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
