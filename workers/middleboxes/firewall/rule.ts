/** Rules after names, sets and zones are resolved. What a rule matches is in match.ts. */

import type { Match } from './match.js';
import type { Token } from './tokens.js';

/**
 * What a rule does with a packet that matches. CONTINUE: go on with the next rule. SKIP: go on with
 * the rule at `target`. The last three occur only in rules that chains.ts has not expanded yet.
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
 * What a reject answers with. `DEFAULT` is for the policy: a reset for TCP, an ICMP error for other
 * packets.
 */
export const RejectWith = { DEFAULT: 0, RESET: 1, ICMP: 2 } as const;

/**
 * `limit rate`: a token bucket (limits.ts). If several rules jump to a chain, the copies of its
 * rule share one.
 */
export interface Limit {
  /** Packets per `periodMs`. */
  readonly rate: number;
  readonly periodMs: number;
  readonly burst: number;
  /** If true, the limit matches packets beyond the rate, otherwise those within it. */
  readonly over: boolean;
}

/**
 * Levels of a log statement, in the order of syslog's numbers. A level of -1 means none was given.
 */
export const LOG_LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'] as const;

interface Action {
  readonly verdict: number;
  /** The chain of JUMP and GOTO. */
  readonly chain: Token | null;
  readonly rejectWith: number;
  /** A value of `Unreachable`. */
  readonly rejectCode: number;
  readonly log: boolean;
  readonly logPrefix: string;
  readonly logLevel: number;
  readonly limit: Limit | null;
  readonly holdMembers: number;
  readonly holdMs: number;
  /** True if an earlier part of the same written rule counts its packets. */
  readonly isQuiet: boolean;
}

/**
 * A part of a written rule. Most rules have one. A verdict map has one for each of its elements.
 */
export type Part = Match & Action;

/** A rule as written in the file. */
export interface Written {
  readonly line: number;
  readonly column: number;
  readonly text: string;
  readonly parts: readonly Part[];
}

/** A rule for the lookup: its states are known, and its chains are expanded. */
export interface Rule extends Part {
  readonly line: number;
  readonly text: string;
  /** Bits of `State`. */
  readonly states: number;
  /** True if the rule names no state. Then it neither accepts nor rejects invalid packets. */
  readonly isStateless: boolean;
  /** Index of the written rule. Parts and copies of one share a counter. */
  readonly entry: number;
  /** For SKIP: the rule to go on with. */
  readonly target: number;
}
