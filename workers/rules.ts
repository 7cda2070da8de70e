/**
 * Rules: an option of a middlebox that is a text of its own (a firewall's rules, an allow-list), and can be replaced while the
 * instance runs.
 *
 *     text ─ compile (a thread of its own) ─▶ words ─ publish (main) ─▶ shared memory (rule-board.ts) ─▶ next batch
 *
 * The middlebox brings the compiler, a pure function that says all that is wrong with a text at once. What it makes of the
 * text are words, laid out as the middlebox likes, with no addresses in them but from their beginning on; and entries, the
 * lines that are counted and shown. A text with mistakes changes nothing: the rules that are in force stay.
 */

import type { RuleReader } from '../shm/rule-board.js';

/** What is wrong with a text, at a place counted from 1. */
export interface RuleProblem {
  readonly line: number;
  readonly column: number;
  readonly message: string;
  /** What was written, and what could have been meant. */
  readonly word?: string;
  readonly candidates?: readonly string[];
}

/** A line that is counted. */
export interface RuleEntry {
  readonly line: number;
  readonly text: string;
}

export type CompiledRules =
  | {
      readonly words: Int32Array;
      readonly entries: readonly RuleEntry[];
      /** What is right and may not be meant: `--check` shows it. */
      readonly notes?: readonly RuleProblem[];
      readonly problems?: undefined;
    }
  | { readonly problems: readonly RuleProblem[]; readonly words?: undefined; readonly entries?: undefined };

export interface RulesContext {
  /** Names of the ports, in the order of their indices. */
  readonly ports: readonly string[];
  /** Other members there can be at present; absent: any number. */
  readonly others?: number;
}

export type RulesCompiler = (text: string, context: RulesContext) => CompiledRules;

/** Where the text is: in a file (absolute path), or in the configuration itself. */
export interface RulesText extends RulesContext {
  readonly file: string | null;
  readonly text: string;
}

/** Where the operator wrote none. */
export const NO_RULES: RulesText = { file: null, text: '', ports: [] };

/** What a worker has of rules; see rule-board.ts. */
export type Rules = Pick<RuleReader, 'words' | 'base' | 'version' | 'refresh' | 'count'>;
