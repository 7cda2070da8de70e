/** A rule as it is meant: names, sets and zones are resolved. What it matches is in match.ts. */

import type { Match } from './match.js';
import type { Token } from './tokens.js';

/**
 * What a rule does with a packet that matches. CONTINUE: the next rule is asked. SKIP: the rule at
 * `target` is asked next. The last three are only in rules that chains.ts has not expanded yet.
 */
export const Verdict = {
  CONTINUE: 0,
  ACCEPT: 1,
  DROP: 2,
  REJECT: 3,
  SKIP: 4,
  JUMP: 5,
  GOTO: 6,
  RETURN: 7,
} as const;

/**
 * What a reject answers with. `DEFAULT`, of the policy: TCP with a reset, other packets with an
 * ICMP error.
 */
export const RejectWith = { DEFAULT: 0, RESET: 1, ICMP: 2 } as const;

/**
 * `limit rate`: a token bucket (limits.ts). Copies of a rule, where several rules jump to its
 * chain, share one.
 */
export interface Limit {
  /** Packets in `periodMs`. */
  readonly rate: number;
  readonly periodMs: number;
  readonly burst: number;
  /** True for packets beyond the rate, instead of those within it. */
  readonly over: boolean;
}

/** The level of a log statement, as syslog numbers it; -1: none was given. */
export const LOG_LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'] as const;

export interface Action {
  readonly verdict: number;
  /** The chain of JUMP and GOTO. */
  readonly chain: Token | null;
  readonly rejectWith: number;
  /** Of `Unreachable`. */
  readonly rejectCode: number;
  readonly log: boolean;
  readonly logPrefix: string;
  readonly logLevel: number;
  readonly limit: Limit | null;
  readonly holdMembers: number;
  readonly holdMs: number;
  /** Its packets were counted by an earlier part of the same written rule. */
  readonly isQuiet: boolean;
}

/** A part of a written rule. Most have one; a verdict map has one for each of its elements. */
export type Part = Match & Action;

/** A rule as it stands in the file. */
export interface Written {
  readonly line: number;
  readonly column: number;
  readonly text: string;
  readonly parts: readonly Part[];
}

/** A rule that the lookup works with: states are known, and chains are expanded. */
export interface Rule extends Part {
  readonly line: number;
  readonly text: string;
  /** Bits of `State`. */
  readonly states: number;
  /** The rule does not name a state: it accepts and rejects new packets only. */
  readonly isStateless: boolean;
  /** Which of the written rules it is of: those of one share a counter. */
  readonly entry: number;
  /** Of SKIP: the rule that is asked next. */
  readonly target: number;
}
