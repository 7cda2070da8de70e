/**
 * Rules: an option of a middlebox that is a text of its own (a firewall's rules, an allow-list),
 * and can be replaced while the instance runs.
 *
 *     text ─ compile (a thread of its own) ─▶ words ─ publish (main) ─▶ shared memory (rule-board.ts) ─▶ next batch
 *
 * The middlebox brings the compiler, a pure function that says all that is wrong with a text at
 * once. What it makes of the text are words, laid out as the middlebox likes, with no addresses in
 * them but from their beginning on; and entries, the lines that are counted and shown. A text with
 * mistakes changes nothing: the rules that are in force stay.
 */

import type { RuleReader } from '../shm/rule-board.js';

export {
  type CompiledRules,
  NO_RULES,
  type RuleEntry,
  type RuleProblem,
  type RulesCompiler,
  type RulesContext,
  type RulesText,
} from '../options/rules.js';

/** What a worker has of rules; see rule-board.ts. */
export type Rules = Pick<RuleReader, 'words' | 'base' | 'version' | 'refresh' | 'count'>;
