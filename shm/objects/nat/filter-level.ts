/**
 * The level of filtering by remote that is in force at an instance: the loosest of those that the
 * members of the cluster are configured with, as far as they have reported. A site that filters by
 * sessions drops replies to packets that left by other sites, unless these record sessions.
 *
 *     level   in force, + 1; 0: not known yet, then the instance's own
 *     since   bindings made up to this coarse second may lack sessions of the level in force; 0: none do
 *     until   before this coarse second, another member may still filter at a looser level
 *
 * The words are in the region of the sessions, because a snapshot of the sessions is as complete
 * as its `since` says. The main thread writes them when it learns the levels of peers, and when it
 * merges a snapshot. Workers read them.
 */

import type { Parameters } from '../../arena.js';
import type { Region } from '../../region.js';
import { LINE, struct } from '../../struct.js';

/** From the loosest to the strictest. A level is an index. */
export const FILTERINGS = ['endpoint-independent', 'address-dependent', 'address-and-port-dependent'] as const;
export type Filtering = (typeof FILTERINGS)[number];

const WORDS = struct({ level: LINE, since: 1, until: 1 });
export const FILTER_LEVEL_BYTES = WORDS.bytes;
/** Seconds within which all members learn of a change, including the difference of their clocks. */
const LEARNED_WITHIN_S = 5;

export class FilterLevel {
  /** The level that this instance is configured with. */
  readonly own: number;
  private readonly words: Int32Array;
  /** Whether this process has learned the levels of others. */
  private hasLearned = false;

  constructor(region: Region, byteOffset: number, own: number) {
    this.words = region.i32(byteOffset, WORDS.words);
    this.own = own;
  }

  get inForce(): number {
    const word = Atomics.load(this.words, WORDS.at.level);
    return word === 0 ? this.own : Math.min(this.own, word - 1);
  }

  get since(): number {
    return Atomics.load(this.words, WORDS.at.since);
  }

  /**
   * Returns true if another member may filter at a looser level than the one in force, because it
   * has not learned yet what this instance has.
   */
  mayDiffer(now: number): boolean {
    return now < Atomics.load(this.words, WORDS.at.until);
  }

  /**
   * Puts a level in force, at `now` in coarse seconds. If it differs from the level before,
   * existing bindings may lack its sessions.
   */
  enforce(level: number, now: number): void {
    const isChanged = this.inForce !== level;
    if (isChanged) this.lack(now);
    // An instance that starts does not know which level the others were told of before.
    if (isChanged || !this.hasLearned) Atomics.store(this.words, WORDS.at.until, now + LEARNED_WITHIN_S);
    this.hasLearned = true;
    Atomics.store(this.words, WORDS.at.level, level + 1);
  }

  /** Merges the level words of a donor, whose sessions are merged too. */
  merge(theirs: FilterLevel, now: number): void {
    if (theirs.inForce !== this.inForce) this.lack(now);
    else if (theirs.since > this.since) Atomics.store(this.words, WORDS.at.since, theirs.since);
  }

  /**
   * Notes that bindings made until now, or before all members know of the change, may lack
   * sessions.
   */
  private lack(now: number): void {
    Atomics.store(this.words, WORDS.at.since, now + LEARNED_WITHIN_S);
  }
}

/** The level in another instance's shape. Throws a `RangeError` if it has no valid level. */
export function levelOf(shape: Parameters): number {
  const level = shape['level'];
  if (typeof level !== 'number' || FILTERINGS[level] === undefined)
    throw new RangeError(`a shape whose level is ${String(level)}`);
  return level;
}
