/**
 * Finds rules of nftables that refuse packets of open connections. Here these packets pass without
 * consulting the rules, and related ones consult only rules that name `related`.
 */

import { anything, both, type Match } from '../match.js';
import type { RuleSet } from '../parser.js';
import { type Rule, Verdict } from '../rule.js';
import { coversMatch } from '../shadow.js';
import { State } from '../vocabulary.js';

const OPEN = State.ESTABLISHED | State.RELATED;
/** Limit on the rules that are compared. Beyond it, more refusals are reported than exist. */
const SETTLERS_MAX = 256;

interface Refusal {
  /** As written. */
  readonly text: string;
  readonly states: string;
}

/**
 * Returns the rules that refuse packets of open connections, unless an earlier rule has decided
 * about them. `withPolicy`: the policy counts too, because packets can reach it.
 */
export function refusalsOfOpen({ rules, policy }: RuleSet, ports: number, withPolicy: boolean): Refusal[] {
  const found = new Map<string, Refusal>();
  const settlers: number[] = [];
  const skips: number[] = [];
  const note = (rule: Match, text: string, asked: number, index: number): void => {
    if (found.has(text)) return;
    const names = [State.ESTABLISHED, State.RELATED]
      .filter((state) => (asked & state) !== 0 && !isSettled(rule, state, index))
      .map((state) => (state === State.RELATED ? 'related' : 'established'));
    if (names.length > 0) found.set(text, { text, states: names.join(' and ') });
  };
  const isSettled = (rule: Match, state: number, index: number): boolean =>
    settlers.some((at) => {
      const before = rules[at];
      const leads = before.verdict !== Verdict.SKIP || before.target > index;
      const isPassed = skips.some(
        (skip) => skip < at && rules[skip].target > at && both(rules[skip], { ...rule, states: state }) !== null,
      );
      return leads && (openStates(before) & state) !== 0 && coversMatch(before, rule, ports) && !isPassed;
    });
  for (const [index, rule] of rules.entries()) {
    if (rule.verdict === Verdict.DROP || rule.verdict === Verdict.REJECT)
      note(rule, rule.text, rule.isStateless ? OPEN : rule.states & State.ESTABLISHED, index);
    if (rule.verdict === Verdict.SKIP) skips.push(index);
    if (rule.verdict === Verdict.CONTINUE || rule.limit !== null || openStates(rule) === 0) continue;
    if (settlers.length < SETTLERS_MAX) settlers.push(index);
  }
  if (withPolicy && policy.verdict !== 'accept') note(anything(), `policy ${policy.verdict}`, OPEN, rules.length);
  return [...found.values()];
}

/** Returns the states of open connections for which packets meet the rule in nftables. */
function openStates(rule: Rule): number {
  return rule.isStateless ? OPEN : rule.states & OPEN;
}
