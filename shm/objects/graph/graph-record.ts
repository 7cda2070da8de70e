/**
 * The record of an edge of a traffic dispersion graph, and how two of them are joined: see
 * graph.ts.
 */

import { struct } from '../../struct.js';

/** The only operation in the log. */
export const GRAPH_EDGE = 1;

export const GRAPH_RECORD = struct({ from: 1, to: 1, generation: 1, expires: 1, packets: 2, bytes: 2 });
const { generation: GENERATION, expires: EXPIRES, packets: PACKETS, bytes: BYTES } = GRAPH_RECORD.at;

/**
 * Maximum high word. Counts have 53 bits: the low word, unsigned, and as many bits above it as a
 * number holds exactly.
 */
export const HIGH_WORD_MAX = 0x1f_ffff;

export function number53(words: Int32Array, at: number): number {
  return words[at + 1] * 2 ** 32 + (words[at] >>> 0);
}

/** Adds `n` to the count at `words[at]`. It saturates at the maximum. */
export function increase(words: Int32Array, at: number, n: number): void {
  const low = (words[at] >>> 0) + (n >>> 0);
  words[at] = low | 0;
  if (low < 2 ** 32) return;
  if (words[at + 1] < HIGH_WORD_MAX) words[at + 1]++;
  else words[at] = -1;
}

/**
 * Joins edge `b` into edge `a`; both have the same key and member. The later generation wins.
 * Within a generation, each count and the expiry take the larger value. Returns whether `a`
 * changed.
 */
export function joinEdge(a: Int32Array, aAt: number, b: Int32Array, bAt: number): boolean {
  const order = b[bAt + GENERATION] - a[aAt + GENERATION];
  if (order < 0) return false;
  if (order > 0) {
    for (let i = 0; i < GRAPH_RECORD.words; i++) a[aAt + i] = b[bAt + i];
    return true;
  }
  let changed = false;
  if (b[bAt + EXPIRES] > a[aAt + EXPIRES]) {
    a[aAt + EXPIRES] = b[bAt + EXPIRES];
    changed = true;
  }
  for (let count = PACKETS; count <= BYTES; count += BYTES - PACKETS) {
    if (number53(b, bAt + count) <= number53(a, aAt + count)) continue;
    a[aAt + count] = b[bAt + count];
    a[aAt + count + 1] = b[bAt + count + 1];
    changed = true;
  }
  return changed;
}

/** Whether words from the network can be an edge. `horizon` is the latest valid expiry. */
export function isEdge(words: Int32Array, at: number, horizon: number): boolean {
  const generation = words[at + GENERATION];
  const expires = words[at + EXPIRES];
  return (
    generation > 0 &&
    generation <= expires &&
    expires <= horizon &&
    isCount(words, at + PACKETS) &&
    isCount(words, at + BYTES)
  );
}

function isCount(words: Int32Array, at: number): boolean {
  return words[at + 1] >= 0 && words[at + 1] <= HIGH_WORD_MAX;
}
