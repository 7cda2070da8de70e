/**
 * Decision trees that find, among thousands of rules, the few that a packet could match.
 *
 * Each rule is one or more *boxes*, intervals of the packet's fields. A node cuts the space in two
 * at a value of one field. A leaf holds the rules that have a box overlapping its space. They are
 * tested in order and in full. So a tree only excludes rules that cannot match, and the result is
 * that of the linear search (HiCuts, HyperSplit).
 *
 * A rule that is wide in a field is on both sides of every cut in that field, so it would be copied
 * many times. So rules are sorted into several trees, by which of the addresses and the destination
 * port they leave open (EffiCuts). Every tree is searched, except those that begin with a later
 * rule than the one found.
 */

import { LEAF } from './program.js';

/** A box: an interval `low` to `high` for each dimension, and its rule. */
export interface Box {
  readonly rule: number;
  readonly low: readonly number[];
  readonly high: readonly number[];
}

/** Leaves with at most this many boxes are not cut further. */
const LEAF_RULES = 6;
/** Limit on copies per box. Beyond it, the rest is not cut further. */
const COPIES_MAX = 8;
const DEPTH_MAX = 48;

/** A dimension is open if the box covers at least this share of it. */
const OPEN = 0.9;

/**
 * Groups boxes by which of the dimensions `by` they leave open. `tops` has the largest value of
 * each dimension, `bottoms` the smallest.
 */
export function groupBoxes(
  boxes: readonly Box[],
  by: readonly number[],
  bottoms: readonly number[],
  tops: readonly number[],
): Box[][] {
  const groups = new Map<number, Box[]>();
  for (const box of boxes) {
    const key = by.reduce((bits, dimension, i) => {
      const whole = tops[dimension] - bottoms[dimension];
      return bits | (box.high[dimension] - box.low[dimension] >= whole * OPEN ? 1 << i : 0);
    }, 0);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [box]);
    else group.push(box);
  }
  return [...groups.values()];
}

/**
 * Appends a tree to `words` and returns the place of its root. `fields` maps each dimension to a
 * word of the packet.
 */
export function buildTree(words: number[], boxes: readonly Box[], fields: readonly number[]): number {
  let budget = boxes.length * COPIES_MAX + 64;

  function leaf(held: readonly Box[]): number {
    const at = words.length;
    const rules = [...new Set(held.map(({ rule }) => rule))].sort((a, b) => a - b);
    words.push(LEAF, rules.length);
    for (const rule of rules) words.push(rule);
    return at;
  }

  function node(held: readonly Box[], low: number[], high: number[], depth: number): number {
    const cut = held.length > LEAF_RULES && depth < DEPTH_MAX ? bestCut(held, low, high) : null;
    if (cut === null || budget < cut.copies) return leaf(held);
    budget -= cut.copies;
    const { dimension, split } = cut;
    const at = words.length;
    words.push(fields[dimension], split, 0, 0);
    const left = held.filter((box) => box.low[dimension] <= split);
    const right = held.filter((box) => box.high[dimension] > split);
    words[at + 2] = node(left, low, high.with(dimension, split), depth + 1);
    words[at + 3] = node(right, low.with(dimension, split + 1), high, depth + 1);
    return at;
  }

  const low = fields.map((_, d) => boxes.reduce((least, box) => Math.min(least, box.low[d]), Number.POSITIVE_INFINITY));
  const high = fields.map((_, d) => boxes.reduce((most, box) => Math.max(most, box.high[d]), Number.NEGATIVE_INFINITY));
  return node(boxes, low, high, 0);
}

interface Cut {
  readonly dimension: number;
  /** Values up to it go left. */
  readonly split: number;
  /** Number of boxes on both sides. */
  readonly copies: number;
}

/**
 * Returns the best cut in any dimension, or null if none helps. A cut is at the median of the box
 * ends. The best one has the least sum of squares of the two sides.
 */
function bestCut(held: readonly Box[], low: readonly number[], high: readonly number[]): Cut | null {
  let best: Cut | null = null;
  let least = held.length * held.length * 0.95;
  for (let dimension = 0; dimension < low.length; dimension++) {
    const ends: number[] = [];
    for (const box of held) {
      if (box.high[dimension] < high[dimension] && box.high[dimension] >= low[dimension])
        ends.push(box.high[dimension]);
      if (box.low[dimension] > low[dimension] && box.low[dimension] <= high[dimension])
        ends.push(box.low[dimension] - 1);
    }
    if (ends.length === 0) continue;
    ends.sort((a, b) => a - b);
    const split = ends[ends.length >>> 1];
    let left = 0;
    let right = 0;
    for (const box of held) {
      if (box.low[dimension] <= split) left++;
      if (box.high[dimension] > split) right++;
    }
    const cost = left * left + right * right;
    if (left === held.length || right === held.length || cost >= least) continue;
    least = cost;
    best = { dimension, split, copies: left + right - held.length };
  }
  return best;
}
