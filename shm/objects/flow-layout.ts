/**
 * The layout of a flow table's slots, for the two files that read it: flow-slots.ts, which says
 * what it means, and flow-lookup.ts.
 */

import { struct } from '../struct.js';

/** Words before the key. `rank`: with the tag. */
export const FLOW_HEAD = struct({ lock: 1, generation: 1, expires: 1, rank: 1 });

/** The state beside the lock, from bit `STATE_SHIFT` on. */
export const FlowState = { EMPTY: 0, USED: 1, GONE: 2, EVICTED: 3 } as const;
export const STATE_SHIFT = 8;

/** Slots a key may lie in, from its home on. */
export const WINDOW = 64;

/**
 * Where a table lies, and the key of its hash. Slot i is at `words[base + (i << shift)]`; `valueAt`
 * from there on its value.
 */
export interface FlowPlace {
  readonly words: Int32Array;
  readonly base: number;
  readonly mask: number;
  readonly shift: number;
  readonly valueAt: number;
  readonly k0: number;
  readonly k1: number;
}
