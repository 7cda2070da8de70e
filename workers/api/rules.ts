/**
 * Rules: an option of a middlebox that is a text of its own (a firewall's rules, an allow-list) and
 * can be replaced while the instance runs.
 *
 *     text ─ compile (own thread) ─▶ words ─ publish (main) ─▶ rule board ─▶ next batch
 *
 * The middlebox supplies the compiler, a pure function that reports all errors of a text at once.
 * The compiler returns words and entries. The words have any layout that the middlebox likes, with
 * offsets relative to their beginning (rule-board.ts). The entries are the lines that are counted
 * and shown. A text with errors changes nothing: the current rules stay in force.
 */

import type { RuleReader } from '../../shm/rule-board.js';

export {
  type CompiledRules,
  NO_RULES,
  type RuleEntry,
  type RuleProblem,
  type RulesCompiler,
  type RulesContext,
  type RulesText,
} from '../../options/rules.js';

/** A worker's view of rules (rule-board.ts). */
export type Rules = Pick<RuleReader, 'words' | 'base' | 'version' | 'refresh' | 'count'>;
