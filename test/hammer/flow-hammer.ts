/** What the flow table's hammer and its threads agree on. */

import { flowTable, largerValue } from '../../shm/objects/flow/flow-table.js';

export const HAMMER_ID = 2;
export const KEYS = 64;
export const KEY_WORDS = 4;
export const VALUE_WORDS = 4;

/**
 * A candidate with this first word makes the winner rule spin for ever: the writer is to be killed
 * in there.
 */
export const ENDLESS = 0x7fff_fff0;

/** Set by the winner rule when it is where it will never leave. */
export const spinning: { flag: Int32Array | null } = { flag: null };

function spinningWinner(a: Int32Array, aAt: number, b: Int32Array, bAt: number, words: number): boolean {
  if (a[aAt] === ENDLESS && spinning.flag !== null) {
    Atomics.store(spinning.flag, 2, 1);
    Atomics.notify(spinning.flag, 2);
    for (;;) Atomics.load(spinning.flag, 2);
  }
  return largerValue(a, aAt, b, bAt, words);
}

export const hammered = flowTable({
  capacity: KEYS,
  keyWords: KEY_WORDS,
  valueWords: VALUE_WORDS,
  winner: spinningWinner,
  // Some are withheld, and none is put out.
  halfOpen: KEYS,
  halfOpenRecords: 20,
});

/** As many half-open keys as workers can make, beside established ones, and few places for them. */
export const FLOOD_ESTABLISHED = 200;
export const FLOOD_QUOTA = 100;
export const flooded = flowTable({
  capacity: 1000,
  keyWords: KEY_WORDS,
  valueWords: VALUE_WORDS,
  halfOpen: FLOOD_QUOTA,
  halfOpenRecords: 50,
});

export function keyOf(n: number): Int32Array {
  return Int32Array.of(n, n * 3, n * 5, n * 7);
}

/** A value whose words fit together: a reader can tell a torn one. */
export function fitting(n: number, out: Int32Array): Int32Array {
  out[0] = n;
  out[1] = n ^ 0x5555;
  out[2] = ~n;
  out[3] = Math.imul(n, 31);
  return out;
}

export interface FlowWork {
  readonly id: number;
  /** `spinner` applies one record that never ends; `flood` makes new half-open entries. */
  readonly role: 'worker' | 'receiver' | 'spinner' | 'flood';
  readonly region: SharedArrayBuffer;
  readonly journals: SharedArrayBuffer;
  /**
   * Word 0: seconds since `now`, for a flood; word 1: not 0 when the threads are to end; word 2:
   * the spinner spins.
   */
  readonly control: SharedArrayBuffer;
  readonly ring: SharedArrayBuffer;
  readonly now: number;
}
