/**
 * Chains of rules, expanded: `M jump C` becomes the rules of C, each of which also asks for M. So
 * the lookup knows of no chains, and its trees see all that a rule asks for. What leaves a chain
 * early (`return`, and `goto` when its chain is over) becomes a rule that skips to the end of the
 * chain.
 */

import type { Cursor } from './cursor.js';
import { anything, both, type Match } from './match.js';
import { type Part, type Rule, Verdict, type Written } from './rule.js';
import { quote, type Token } from './tokens.js';
import { ALL_STATES, UNNAMED_STATES } from './vocabulary.js';

/** More than anybody writes by hand, chains expanded; each costs 80 bytes. */
export const RULES_MAX = 32_000;

/**
 * Chains between the top of the file and a rule. nftables has 16 for each base chain; what
 * `import-nft` makes of several base chains, which go to each other, is in one file.
 */
export const CHAINS_DEEP_MAX = 32;

export interface Chain {
  readonly name: Token;
  readonly rules: Entry[];
  isUsed: boolean;
}

/** A written rule, and its counter. */
export interface Entry extends Written {
  readonly entry: number;
}

/**
 * The rules from the top of the file, with their chains, which `checkChains` found right. `cursor`:
 * notes what is wrong.
 */
export function expand(top: readonly Entry[], chains: ReadonlyMap<string, Chain>, cursor: Cursor): Rule[] {
  const rules: Rule[] = [];
  /** The first rule for which there is no room. */
  let surplus: Entry | null = null;

  function push(part: Part, match: Match, written: Entry, how: Partial<Rule> = {}): Rule | null {
    const { line, text, entry } = written;
    if (rules.length >= RULES_MAX) {
      surplus ??= written;
      return null;
    }
    const isSkip = how.verdict === Verdict.SKIP;
    // A rule that names no state is about packets of no connection. What only leaves a chain is for
    // every packet.
    const states = match.states ?? (isSkip ? ALL_STATES : UNNAMED_STATES);
    const isStateless = match.states === null;
    const rule: Rule = { ...part, ...match, line, text, entry, target: 0, chain: null, ...how, states, isStateless };
    rules.push(rule);
    return rule;
  }

  /** Rules of one chain, for packets that match `over`. */
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
 * Whether every chain that is named exists, none comes to itself, and they are not too deep; marks
 * those that rules come to.
 */
export function checkChains(top: readonly Entry[], chains: ReadonlyMap<string, Chain>, cursor: Cursor): boolean {
  const before = cursor.problems.count;
  /** How deep each chain is that was checked: 1 if it calls none. */
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

  /** Returns how deep the chains below are. */
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
  // Chains that no rule comes to are checked as well, but are not in use by each other.
  for (const chain of chains.values()) if (!done.has(chain)) visit(chain.rules, [chain]);
  for (const chain of chains.values()) chain.isUsed = used.includes(chain);
  return cursor.problems.count === before;
}
