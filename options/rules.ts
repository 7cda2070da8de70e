/**
 * Rules as the value of an option: the text, its compiler, and what the compiler reports. This file
 * imports nothing from other folders.
 */

/** What is wrong with a text. Lines and columns count from 1. */
export interface RuleProblem {
  readonly line: number;
  readonly column: number;
  readonly message: string;
  /** The wrong word, and the words that could have been meant. */
  readonly word?: string;
  readonly candidates?: readonly string[];
}

/** A line of the rules whose packets are counted. */
export interface RuleEntry {
  readonly line: number;
  readonly text: string;
}

export type CompiledRules =
  | {
      readonly words: Int32Array;
      readonly entries: readonly RuleEntry[];
      /** What is valid but perhaps not meant. `--check` shows it. */
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
  /** Maximum number of other members at present. Absent: any number. */
  readonly others?: number;
}

export type RulesCompiler = (text: string, context: RulesContext) => CompiledRules;

/** The rules' text and where it is: in a file (absolute path), or in the configuration itself. */
export interface RulesText extends RulesContext {
  readonly file: string | null;
  readonly text: string;
}

/** The value if the operator wrote no rules. */
export const NO_RULES: RulesText = { file: null, text: '', ports: [] };
