/** The rule that is being read: what it matches, what it does, and its finished parts. */

import type { Cursor } from './cursor.js';
import { anything, type Draft, type Match, possible } from './match.js';
import { type Limit, type Part, RejectWith, Verdict } from './rule.js';
import type { Token } from './tokens.js';
import { REJECT_CODES } from './vocabulary.js';

/** A verdict as written, including those that name a chain. */
export interface Outcome {
  readonly verdict: number;
  readonly chain: Token | null;
}

/** An element of a verdict map. */
export interface Branch extends Outcome {
  readonly match: Match;
}

export class Work {
  draft: Draft = anything();
  outcome: Outcome | null = null;
  branches: readonly Branch[] | null = null;
  rejectWith: number = RejectWith.DEFAULT;
  rejectCode = REJECT_CODES.icmpx['port-unreachable'];
  log: Token | null = null;
  logPrefix = '';
  logLevel = -1;
  /** The token of `count` or `counter`. */
  counter: Token | null = null;
  limit: Limit | null = null;
  holdMembers = 0;
  holdMs = 0;
  /** True if a set in a match is empty, so that no packet can match. */
  isVoid = false;
  readonly parts: Part[] = [];

  /**
   * Call this before a match. As in nftables, a statement applies to packets that match what stands
   * before it. If a statement precedes this match, it becomes a part of its own.
   */
  beforeMatch(cursor: Cursor, at: Token): void {
    if (this.limit !== null)
      cursor.fail(at, 'a match comes before "limit": a packet that does not match would use up the rate');
    if (this.branches !== null) cursor.fail(at, 'a match comes before "vmap"');
    if (this.outcome !== null) cursor.fail(at, 'a match comes before the verdict: nothing is asked after it');
    if (this.log === null && this.counter === null) return;
    this.push(Verdict.CONTINUE, null, this.draft);
    this.log = null;
  }

  push(verdict: number, chain: Token | null, match: Match): void {
    const found = possible(match);
    if (found === null) return;
    this.parts.push({
      ...found,
      verdict,
      chain,
      rejectWith: this.rejectWith,
      rejectCode: this.rejectCode,
      log: this.log !== null,
      logPrefix: this.log === null ? '' : this.logPrefix,
      logLevel: this.log === null ? -1 : this.logLevel,
      limit: this.limit,
      holdMembers: this.holdMembers,
      holdMs: this.holdMs,
      isQuiet: this.parts.some(({ verdict: before }) => before === Verdict.CONTINUE),
    });
  }
}
