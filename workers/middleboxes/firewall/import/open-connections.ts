/**
 * What rules refuse of open connections in nftables and not here, where packets of open connections
 * pass without asking the rules, and related ones ask only rules that name `related`.
 */

import { anything, both, type Match } from '../match.js';
import type { RuleSet } from '../parser.js';
import { type Rule, Verdict } from '../rule.js';
import { coversMatch } from '../shadow.js';
import { State } from '../vocabulary.js';

const OPEN = State.ESTABLISHED | State.RELATED;
/** Rules that are compared. With more of them, more refusals are reported than there are. */
const SETTLERS_MAX = 256;

export interface Refusal {
  /** As written. */
  readonly text: string;
  readonly states: string;
}

/**
 * Rules that refuse packets, unless a rule before them has decided about those of open connections.
 * `withPolicy`: packets can come to the policy.
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

/** Packets of open connections that meet the rule in nftables. */
function openStates(rule: Rule): number {
  return rule.isStateless ? OPEN : rule.states & OPEN;
}
