/** What a kind of lives is made of: sizes, network, and faults by kind. */

import type { ReplicationSettings } from '../../workers/replication/settings.js';
import type { ObjectKind, StepKind } from './plan.js';

type Range = readonly [from: number, to: number];

/**
 * Faults are steps but `work`; `swizzle` clogs links one by one and frees them in another order,
 * `flap` cuts again and again, `rotate` changes the cluster's key, `rejoin` is a crash after which
 * somebody dies again while it joins, `misclock` a start under a clock that is hours off, and
 * another one after the clock was put right; draw.ts says what the last five are.
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
  /** One line: what these lives are about. */
  readonly help: string;
  /** Costly lives: one in so many. */
  readonly oneIn?: number;
  readonly members: Range;
  /** How many objects, and of which kinds. */
  readonly objects: Range;
  readonly kinds: readonly ObjectKind[];
  readonly safetyMs: Range;
  /** Batches of work per member and second, and operations in one. */
  readonly batches: Range;
  readonly operations: Range;
  readonly delayMs: Range;
  readonly jitterMs: Range;
  /** Probabilities of each message. */
  readonly tail?: Range;
  readonly loss?: Range;
  readonly duplicate?: Range;
  /** How many faults of each kind a life has. */
  readonly faults?: Readonly<Partial<Record<FaultKind, Range>>>;
  /** Faults begin after this, ms: once members have come up. */
  readonly calmMs?: number;
  /** How long faults that last do, ms. */
  readonly faultMs?: Range;
  /** Longest time a crashed member is away, ms; and how likely it never comes back. */
  readonly downMs?: number;
  readonly gone?: number;
  /**
   * Numbers of first records to choose from; only 1 where members die, for all take that for the
   * first of a new life.
   */
  readonly first?: readonly number[];
  /** Milliseconds wall clocks are off, and parts per million clocks drift. */
  readonly skewMs?: number;
  readonly ppm?: number;
  readonly multicast?: number;
  /** Limit of each member, bit/s; default: none. */
  readonly bandwidth?: Range;
  readonly settings?: Partial<ReplicationSettings>;
  /** How long a snapshot travels, and how long no thread runs while one is loaded, in ms. */
  readonly transferMs?: Range;
  readonly loadMs?: Range;
  /** Messages are sealed. */
  readonly sealed?: boolean;
  /** Threads die at any of the calls that deaths.ts lists. */
  readonly deathPoints?: true;
}
