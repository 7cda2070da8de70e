/** The record of a flow table's entry, and how two records are joined. See flow-table.ts. */

import { FUTURE_S_MAX } from '../../clock.js';
import { struct } from '../../struct.js';
import { MAX_RANK } from '../table/table-slots.js';

/** The only operation in the log. */
export const FLOW_PUT = 1;

/** A record's words between its key and its value. */
export const STATUS = struct({ generation: 1, rank: 1, expires: 1 });
const { generation: GENERATION, rank: RANK, expires: EXPIRES } = STATUS.at;

/**
 * Decides between two values of one key at equal generation and rank. Returns whether the value at
 * `candidate[candidateAt …]` replaces the one at `current[currentAt …]`, both of `words` words. The
 * rule must be a strict total order on values, or instances differ for ever. It must not change its
 * arguments. It is called under the entry's lock, so keep it short.
 */
export type Winner = (
  candidate: Int32Array,
  candidateAt: number,
  current: Int32Array,
  currentAt: number,
  words: number,
) => boolean;

/**
 * The default rule: the larger value wins. Values are compared word by word as unsigned numbers,
 * the first word first.
 */
export function largerValue(
  candidate: Int32Array,
  candidateAt: number,
  current: Int32Array,
  currentAt: number,
  words: number,
): boolean {
  for (let i = 0; i < words; i++) {
    const a = candidate[candidateAt + i] >>> 0;
    const b = current[currentAt + i] >>> 0;
    if (a !== b) return a > b;
  }
  return false;
}

/** Whether words from the network are in range for an entry's generation, rank and expiry. */
export function isStatus(words: Int32Array, at: number, now: number): boolean {
  const generation = words[at + GENERATION];
  const rank = words[at + RANK];
  const expires = words[at + EXPIRES];
  return generation > 0 && generation <= expires && rank >= 0 && rank <= MAX_RANK && expires - now <= FUTURE_S_MAX;
}

/**
 * Joins record `b` into record `a` of the same key, by a winner rule. Returns whether the result
 * differs from `b`.
 */
export function joinFlow(
  a: Int32Array,
  aAt: number,
  b: Int32Array,
  bAt: number,
  keyWords: number,
  valueWords: number,
  winner: Winner,
): boolean {
  const aStatus = aAt + keyWords;
  const bStatus = bAt + keyWords;
  const order = a[aStatus + GENERATION] - b[bStatus + GENERATION] || a[aStatus + RANK] - b[bStatus + RANK];
  if (order > 0) return true;
  if (order < 0) {
    for (let i = 0; i < keyWords + STATUS.words + valueWords; i++) a[aAt + i] = b[bAt + i];
    return false;
  }
  const later = a[aStatus + EXPIRES] > b[bStatus + EXPIRES];
  if (!later) a[aStatus + EXPIRES] = b[bStatus + EXPIRES];
  const wins = winner(a, aStatus + STATUS.words, b, bStatus + STATUS.words, valueWords);
  if (!wins) for (let i = 0; i < valueWords; i++) a[aStatus + STATUS.words + i] = b[bStatus + STATUS.words + i];
  return later || wins;
}
