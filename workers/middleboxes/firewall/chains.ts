/**
 * Expands chains of rules. `M jump C` becomes the rules of C, each of which also requires M. So the
 * lookup needs no chains, and its trees see every condition of a rule. `return` leaves a chain
 * early, and so does `goto` at the end of its chain. Both become a rule that skips to the end of
 * the chain.
 */

import type { Cursor } from './cursor.js';
import { anything, both, type Match } from './match.js';
import { type Part, type Rule, Verdict, type Written } from './rule.js';
import { quote, type Token } from './tokens.js';
import { ALL_STATES, UNNAMED_STATES } from './vocabulary.js';

/**
 * Limit on rules, chains expanded. It is more than anyone writes by hand. Each takes `RULE_WORDS`
 * words, besides its sets and its places in trees.
 */
export const RULES_MAX = 32_000;

/**
 * Limit on chains between the top of the file and a rule. nftables allows 16 for each base chain.
 * `import-nft` puts several base chains that go to each other in one file.
 */
const CHAINS_DEEP_MAX = 32;

export interface Chain {
  readonly name: Token;
  readonly rules: Entry[];
  isUsed: boolean;
}

/** A written rule, and the index of its counter. */
export interface Entry extends Written {
  readonly entry: number;
}

/**
 * Returns the rules from the top of the file, chains expanded. `checkChains` must have accepted the
 * chains. Problems are noted on `cursor`.
 */
export function expand(top: readonly Entry[], chains: ReadonlyMap<string, Chain>, cursor: Cursor): Rule[] {
  const rules: Rule[] = [];
  /** The first rule that found no room. */
  let surplus: Entry | null = null;

  function push(part: Part, match: Match, written: Entry, how: Partial<Rule> = {}): Rule | null {
    const { line, text, entry } = written;
    if (rules.length >= RULES_MAX) {
      surplus ??= written;
      return null;
    }
    const isSkip = how.verdict === Verdict.SKIP;
    // A rule that names no state applies to packets of no connection. A rule that only leaves a
    // chain applies to every packet.
    const states = match.states ?? (isSkip ? ALL_STATES : UNNAMED_STATES);
    const isStateless = match.states === null;
    const rule: Rule = { ...part, ...match, line, text, entry, target: 0, chain: null, ...how, states, isStateless };
    rules.push(rule);
    return rule;
  }

  /** Expands the rules of one chain, for packets that match `over`. */
  function chain(entries: readonly Entry[], over: Match): void {
    const leaving: number[] = [];
    const leave = (part: Part, match: Match, entry: Entry, how: Partial<Rule>): void => {
      const made = push(part, match, entry, { ...how, verdict: Verdict.SKIP });
      if (made !== null) leaving.push(rules.length - 1);
    };
    for (const entry of entries)
      for (const part of entry.parts) {
        if (surplus !== null) return;
        const match = both(over, part);
        if (match === null) continue;
        if (part.verdict === Verdict.RETURN) leave(part, match, entry, {});
        else if (part.chain === null) push(part, match, entry);
        else call(part, match, entry, leave);
      }
    for (const at of leaving) rules[at] = { ...rules[at], target: rules.length };
  }

  function call(
    part: Part,
    match: Match,
    entry: Entry,
    leave: (part: Part, match: Match, entry: Entry, how: Partial<Rule>) => void,
  ): void {
    const called = chains.get(part.chain?.text ?? '');
    if (called === undefined) return;
    const gate = part.limit === null ? -1 : rules.length;
    // The limit is asked once, by a rule that skips the chain for packets beyond it.
    if (part.limit !== null)
      push(part, match, entry, {
        verdict: Verdict.SKIP,
        limit: { ...part.limit, over: !part.limit.over },
        log: false,
        isQuiet: true,
      });
    const unlimited: Part = { ...part, limit: null };
    push(unlimited, match, entry, { verdict: Verdict.CONTINUE });
    chain(called.rules, match);
    if (part.verdict === Verdict.GOTO) leave(unlimited, match, entry, { isQuiet: true, log: false });
    if (gate >= 0 && gate < rules.length) rules[gate] = { ...rules[gate], target: rules.length };
  }

  chain(top, anything());
  noteSurplus(surplus, cursor);
  return rules;
}

function noteSurplus(surplus: Entry | null, cursor: Cursor): void {
  if (surplus === null) return;
  const each = 'each element of a map is a rule, and each jump stands for the rules of its chain';
  cursor.note(surplus, `more than ${RULES_MAX} rules with this one: ${each}`);
}

/**
 * Returns true if every chain that is named exists, none reaches itself, and none is too deep.
 * Marks the chains that rules reach.
 */
export function checkChains(top: readonly Entry[], chains: ReadonlyMap<string, Chain>, cursor: Cursor): boolean {
  const before = cursor.problems.count;
  /** Depth of each chain that was checked: 1 if it calls none. */
  const done = new Map<Chain, number>();
  let isTooDeep = false;

  /** Notes the first jump that is too deep. Others are the same mistake. */
  function checkDepth(name: Token, depth: number): boolean {
    if (depth <= CHAINS_DEEP_MAX) return true;
    if (!isTooDeep)
      cursor.note(name, `chains are more than ${CHAINS_DEEP_MAX} deep with this jump to ${quote(name.text)}`);
    isTooDeep = true;
    return false;
  }

  /** Returns the depth of the chains below. */
  function visit(entries: readonly Entry[], path: readonly Chain[]): number {
    let deepest = 0;
    for (const { parts } of entries)
      for (const { chain: name } of parts) {
        if (name === null) continue;
        const called = chains.get(name.text);
        if (called === undefined) {
          const known = [...chains.keys()];
          cursor.note(name, `there is no chain ${quote(name.text)}`, name.text, known);
          continue;
        }
        called.isUsed = true;
        if (path.includes(called)) {
          const loop = [...path.slice(path.indexOf(called)), called].map((chain) => chain.name.text);
          cursor.note(name, `chain ${quote(name.text)} comes to itself: ${loop.join(' → ')}`);
          continue;
        }
        if (!checkDepth(name, path.length + (done.get(called) ?? 1))) continue;
        const depth = done.get(called) ?? 1 + visit(called.rules, [...path, called]);
        done.set(called, depth);
        deepest = Math.max(deepest, depth);
      }
    return deepest;
  }

  visit(top, []);
  const used = [...chains.values()].filter(({ isUsed }) => isUsed);
  // Chains that no rule reaches are checked too. Their jumps do not make other chains used.
  for (const chain of chains.values()) if (!done.has(chain)) visit(chain.rules, [chain]);
  for (const chain of chains.values()) chain.isUsed = used.includes(chain);
  return cursor.problems.count === before;
}
