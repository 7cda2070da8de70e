/** The form of a profile, from which plans are drawn: sizes, network, and faults by kind. */

import type { ReplicationSettings } from '../../workers/replication/settings.js';
import type { ObjectKind, StepKind } from './plan.js';

type Range = readonly [from: number, to: number];

/**
 * Kinds of faults. Most are the step of the same name (plan.ts). The others are drawn as several
 * steps (draw.ts):
 *
 * - `rotate` changes the cluster's key;
 * - `swizzle` clogs links one by one and frees them in another order;
 * - `flap` cuts the same links again and again, `partition` cuts both ways;
 * - `rejoin` is a crash, after which the member or its donor dies while the member joins;
 * - `misclock` is a start under a clock that is hours off, and another one after the clock was set
 *   right;
 * - `blackout` crashes all members at once;
 * - draw.ts describes `late-start`, `ambush`, `impostor`, `debtor` and `heirs`.
 */
export type FaultKind =
  | Exclude<StepKind, 'work' | 'keys' | 'crash-at'>
  | 'rotate'
  | 'swizzle'
  | 'flap'
  | 'partition'
  | 'rejoin'
  | 'misclock'
  | 'late-start'
  | 'ambush'
  | 'impostor'
  | 'blackout'
  | 'debtor'
  | 'heirs';

export interface Profile {
  /** One line: what these runs are about. */
  readonly help: string;
  /** For costly runs: one seed in this many. */
  readonly oneIn?: number;
  readonly members: Range;
  /** Number of objects, and their kinds. */
  readonly objects: Range;
  readonly kinds: readonly ObjectKind[];
  readonly safetyMs: Range;
  /** Batches of work per member and second, and operations per batch. */
  readonly batches: Range;
  readonly operations: Range;
  readonly delayMs: Range;
  readonly jitterMs: Range;
  /** Probabilities, per message. */
  readonly tail?: Range;
  readonly loss?: Range;
  readonly duplicate?: Range;
  /** Number of faults of each kind in a run. */
  readonly faults?: Readonly<Partial<Record<FaultKind, Range>>>;
  /** Faults start after this time, ms, when members are up. */
  readonly calmMs?: number;
  /** Duration of faults that last, ms. */
  readonly faultMs?: Range;
  /** Longest downtime of a crashed member, ms, and the probability that it never returns. */
  readonly downMs?: number;
  readonly gone?: number;
  /**
   * Numbers of first operations to choose from. If members die, only 1 is possible: all members
   * take 1 for the first number of a new incarnation.
   */
  readonly first?: readonly number[];
  /** Largest offset of wall clocks, ms, and largest drift of clocks, parts per million. */
  readonly skewMs?: number;
  readonly ppm?: number;
  readonly multicast?: number;
  /** Bandwidth limit of each member, bit/s; default: none. */
  readonly bandwidth?: Range;
  readonly settings?: Partial<ReplicationSettings>;
  /** Transfer time of a snapshot, and time without threads while it is loaded, ms. */
  readonly transferMs?: Range;
  readonly loadMs?: Range;
  /** Messages are sealed. */
  readonly sealed?: boolean;
  /** Threads die at any point that deaths.ts lists. */
  readonly deathPoints?: true;
}
