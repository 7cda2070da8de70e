/**
 * Rules as an option has them: the text, its compiler, and what the compiler reports. Imports
 * nothing of ours.
 */

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
  | {
      readonly problems: readonly RuleProblem[];
      readonly words?: undefined;
      readonly entries?: undefined;
      readonly notes?: readonly RuleProblem[];
    };

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
