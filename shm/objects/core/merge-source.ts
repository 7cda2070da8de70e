/**
 * The source region of a merge. Its layout may differ from ours: another instance may have capacity
 * for more or fewer entries.
 */

import type { Parameters } from '../../arena.js';

export interface MergeSource {
  /** The `shape` of the object at the donor. Absent: the same as ours. */
  readonly shape?: Parameters;
  /**
   * Incremented for each entry that found no room here, except half-open ones, which an instance
   * may evict at any time.
   */
  full: number;
}

/** Maximum entries of any object, in a shape that comes from another instance. */
const CAPACITY_MAX = 2 ** 26;

/** The number of entries in a donor's shape. Throws a `RangeError` if it is not a valid number. */
export function capacityOf(shape: Parameters, name = 'capacity'): number {
  const value = shape[name];
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > CAPACITY_MAX)
    throw new RangeError(`a shape whose ${name} is ${String(value)}`);
  return value;
}

/**
 * The capacity of the source region of a merge. `own`: our capacity, used if the source has no
 * shape.
 */
export function capacityAt(source: MergeSource | undefined, own: number, name = 'capacity'): number {
  return source?.shape === undefined ? own : capacityOf(source.shape, name);
}
