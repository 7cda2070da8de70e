/**
 * Sets of numbers, as sorted intervals that neither overlap nor adjoin. Addresses are numbers of 32
 * or 128 bits.
 */

export type Interval = readonly [low: bigint, high: bigint];
export type Intervals = readonly Interval[];

export const BITS_IPV4 = 32;
export const BITS_IPV6 = 128;

export function largest(bits: number): bigint {
  return (1n << BigInt(bits)) - 1n;
}

/** Returns any intervals, in any order, as a set. */
export function union(intervals: Iterable<Interval>): Intervals {
  const sorted = [...intervals].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const merged: [bigint, bigint][] = [];
  for (const [low, high] of sorted) {
    const last = merged.at(-1);
    if (last === undefined || low > last[1] + 1n) merged.push([low, high]);
    else if (high > last[1]) last[1] = high;
  }
  return merged;
}

export function intersection(a: Intervals, b: Intervals): Intervals {
  const common: Interval[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    const low = a[i][0] > b[j][0] ? a[i][0] : b[j][0];
    const high = a[i][1] < b[j][1] ? a[i][1] : b[j][1];
    if (low <= high) common.push([low, high]);
    if (a[i][1] < b[j][1]) i++;
    else j++;
  }
  return common;
}

/** Returns all numbers from 0 to `top` that are not in the set. */
export function complement(set: Intervals, top: bigint): Intervals {
  const rest: Interval[] = [];
  let next = 0n;
  for (const [low, high] of set) {
    if (low > next) rest.push([next, low - 1n]);
    next = high + 1n;
  }
  if (next <= top) rest.push([next, top]);
  return rest;
}
