/**
 * The layout of a flow table's slots, for the two files that read it: table-slots.ts, which
 * documents it, and flow-lookup.ts.
 */

import { struct } from '../../struct.js';

/** Words before the key. `rank` also contains the tag. */
export const FLOW_HEAD = struct({ lock: 1, generation: 1, expires: 1, rank: 1 });

/** The state in the lock word, from bit `STATE_SHIFT` on. */
export const FlowState = { EMPTY: 0, USED: 1, GONE: 2, EVICTED: 3 } as const;
export const STATE_SHIFT = 8;

/** Number of slots, from the home slot on, in which a key may be. */
export const WINDOW = 64;

/**
 * Position of a table in memory, and the key of its hash. Slot i begins at `words[base + (i <<
 * shift)]` and its value `valueAt` words after that.
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
