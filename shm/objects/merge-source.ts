/**
 * The region that a merge reads, which may lie otherwise in memory than ours: another instance may
 * hold more or fewer entries.
 */

import type { Parameters } from '../arena.js';

export interface MergeSource {
  /** The `shape` of the object at the donor; absent: it is ours. */
  readonly shape?: Parameters;
  /**
   * Entries that found no room here are added to it; not half-open ones, which an instance may
   * evict at any time.
   */
  full: number;
}

/** Entries of any object at most, in a shape that comes from another instance. */
const CAPACITY_MAX = 2 ** 26;

/** A number of entries in a donor's shape. Throws a `RangeError` if it is none. */
export function capacityOf(shape: Parameters, name = 'capacity'): number {
  const value = shape[name];
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > CAPACITY_MAX)
    throw new RangeError(`a shape whose ${name} is ${String(value)}`);
  return value;
}

/** How many entries the region of a merge has room for; `own`: as many as ours. */
export function capacityAt(source: MergeSource | undefined, own: number, name = 'capacity'): number {
  return source?.shape === undefined ? own : capacityOf(source.shape, name);
}
