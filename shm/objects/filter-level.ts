/**
 * Which level of filtering by remote is in force at an instance: the loosest of those that the
 * members of the cluster are configured with, as far as they have said. A site that filters by
 * sessions drops replies to what other sites let out, unless these record the sessions of what they
 * let out.
 *
 *     level   in force, + 1; 0: not known yet, then the instance's own
 *     since   bindings made up to this coarse second may lack sessions of the level in force; 0: none do
 *
 * Both lie in the region of the sessions, since a snapshot of these is as complete as its `since`
 * says. Main writes them when it learns what other members are configured with, and when it takes
 * in a snapshot. Workers read them.
 */

import type { Parameters } from '../arena.js';
import type { Region } from '../region.js';
import { LINE, struct } from '../struct.js';

/** From the loosest to the strictest: a level is an index. */
export const FILTERINGS = ['endpoint-independent', 'address-dependent', 'address-and-port-dependent'] as const;
export type Filtering = (typeof FILTERINGS)[number];

const WORDS = struct({ level: LINE, since: 1 });
export const FILTER_LEVEL_BYTES = WORDS.bytes;
/** Members learn of a change within this time of each other; and their clocks differ. */
const LEARNED_WITHIN_S = 5;

export class FilterLevel {
  /** What this instance is configured with. */
  readonly own: number;
  private readonly words: Int32Array;

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
   * Puts a level in force, at `now` in coarse seconds. Another one than before needs other sessions
   * than those there are.
   */
  enforce(level: number, now: number): void {
    if (this.inForce !== level) this.lack(now);
    Atomics.store(this.words, WORDS.at.level, level + 1);
  }

  /** Takes in what a donor says of its sessions, which become ours. */
  merge(theirs: FilterLevel, now: number): void {
    if (theirs.inForce !== this.inForce) this.lack(now);
    else if (theirs.since > this.since) Atomics.store(this.words, WORDS.at.since, theirs.since);
  }

  /** Bindings that were made by now, or before all members know, may lack sessions. */
  private lack(now: number): void {
    Atomics.store(this.words, WORDS.at.since, now + LEARNED_WITHIN_S);
  }
}

/**
 * The level in a shape that comes from another instance. Throws a `RangeError` if there is none.
 */
export function levelOf(shape: Parameters): number {
  const level = shape['level'];
  if (typeof level !== 'number' || FILTERINGS[level] === undefined)
    throw new RangeError(`a shape whose level is ${String(level)}`);
  return level;
}
