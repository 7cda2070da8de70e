/**
 * The parser of rule files. docs/firewall.md has the grammar. It reports all mistakes at once: a
 * mistake ends its statement, and parsing continues with the next one. A text is used only if all
 * of it is valid.
 */

import type { RuleProblem } from '../../api/api.js';
import { readChainBlock, readSetBlock, skipBraces } from './blocks.js';
import { type Chain, checkChains, type Entry, expand, RULES_MAX } from './chains.js';
import { Cursor, Mistake, Problems, said } from './cursor.js';
import { Defined } from './defined.js';
import { differsByOne, foreign } from './foreign.js';
import { union } from './intervals.js';
import { isRefused } from './refusals.js';
import type { Rule } from './rule.js';
import { RULE_WORDS, readRule } from './rule-parser.js';
import { noteAt, Scope } from './scope.js';
import { quote, type Token, tokenize } from './tokens.js';
import { ADDRESS } from './values.js';

/** Verdict for new connections that no rule decides about. */
interface Policy {
  readonly verdict: 'accept' | 'drop' | 'reject';
  readonly line: number;
}

export interface RuleSet {
  /** For the lookup: chains are expanded. */
  readonly rules: readonly Rule[];
  /** As written, for counters and display. */
  readonly written: readonly Entry[];
  readonly policy: Policy;
}

const STATEMENTS = ['define', 'set', 'map', 'zone', 'chain', 'policy'];
const FIRST_WORDS: readonly string[] = [...STATEMENTS, ...RULE_WORDS];

/** The result of parsing. `notes` report what is valid but may not be intended. */
type Parsed =
  | { readonly set: RuleSet; readonly notes: readonly RuleProblem[]; readonly problems?: undefined }
  | { readonly problems: readonly RuleProblem[]; readonly set?: undefined; readonly notes?: undefined };

/** Parses rules. `ports` are the names of the ports, in the order of their indices. */
export function parseRules(text: string, ports: readonly string[]): Parsed {
  const { tokens, problems: unreadable } = tokenize(text);
  const problems = new Problems(unreadable);
  const cursor = new Cursor(tokens, problems);
  const scope = new Scope(ports);
  const written: Entry[] = [];
  const top: Entry[] = [];
  const chains = new Map<string, Chain>();
  let policy: Policy | null = null;
  /** Number of rules beyond `RULES_MAX`. They count as one mistake. */
  let surplus = 0;

  function rule(list: Entry[], others: readonly string[], within: boolean): void {
    const first = cursor.next;
    const entry: Entry = { ...readRule(cursor, scope, text, others, within), entry: written.length };
    if (written.length < RULES_MAX) {
      written.push(entry);
      list.push(entry);
    } else if (surplus++ === 0) cursor.note(first, `more than ${RULES_MAX} rules: this is the first of those beyond`);
  }

  /** Reads `chain NAME { … }`. */
  function chain(): void {
    cursor.take();
    const name = readName(cursor, 'chain');
    const open = cursor.expect('{', 'before the rules of the chain');
    const before = chains.get(name.text);
    if (before !== undefined)
      cursor.note(name, `chain ${quote(name.text)} was already given in line ${before.name.line}`);
    const made: Chain = { name, rules: [], isUsed: false };
    chains.set(name.text, made);
    readChainBlock(cursor, open, () => rule(made.rules, [], true));
  }

  function statement(): void {
    const first = cursor.next;
    if (cursor.is('define') || cursor.is('set') || cursor.is('map')) return define(cursor, scope);
    if (cursor.is('zone')) return zone(cursor, scope);
    if (cursor.is('chain')) return chain();
    if (cursor.is('policy')) {
      const read = readPolicy(cursor);
      if (policy !== null) cursor.fail(first, `the policy was already given in line ${policy.line}`);
      policy = read;
      return;
    }
    rule(top, STATEMENTS, false);
  }

  for (cursor.skipEnds(); !cursor.isOver; cursor.skipEnds()) {
    const before = cursor.at;
    try {
      statement();
      if (!cursor.isOver && cursor.next.kind !== 'end')
        cursor.note(cursor.next, `expected the end of the line, not ${said(cursor.next)}`);
    } catch (error) {
      if (!(error instanceof Mistake)) throw error;
    }
    cursor.skipStatement();
    if (cursor.at === before) cursor.at++;
  }
  const rules = checkChains(top, chains, cursor) && !problems.any ? expand(top, chains, cursor) : [];
  if (problems.any) {
    const other = foreign(tokens, isFirstWord);
    return { problems: other === null ? problems.all() : [other] };
  }
  const notes = scope.notes();
  for (const { name, isUsed } of chains.values())
    if (!isUsed) notes.push(noteAt(name, `chain ${quote(name.text)} is not used: no rule jumps to it`));
  return { set: { rules, written, policy: policy ?? { verdict: 'drop', line: 0 } }, notes: inOrder(notes) };
}

/** Returns true if a statement may begin with this word, even if it is mistyped. */
function isFirstWord(word: string): boolean {
  return isRefused(word) || FIRST_WORDS.some((known) => known === word || differsByOne(known, word));
}

/** Returns the problems sorted by their place in the text. */
export function inOrder(problems: readonly RuleProblem[]): readonly RuleProblem[] {
  return [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
}

function readName(cursor: Cursor, what: string): Token {
  const token = cursor.next;
  if (token.kind !== 'word' || !/^[A-Za-z_][A-Za-z0-9_-]*$/.test(token.text))
    cursor.fail(token, `expected the name of the ${what}, not ${said(token)}`);
  return cursor.take();
}

/**
 * Reads `define NAME = VALUE` or `set NAME { … }`. The tokens of a `define` value are stored, and
 * read when a rule that uses the name determines their kind.
 */
function define(cursor: Cursor, scope: Scope): void {
  const what = cursor.take().text;
  const name = readName(cursor, what);
  const already = scope.lineOf(name.text);
  if (already !== null) cursor.fail(name, `${quote(name.text)} was already defined in line ${already}`);
  if (what !== 'define' && cursor.is('{')) {
    const from = cursor.at;
    skipBraces(cursor);
    const to = cursor.at;
    cursor.at = from;
    try {
      readSetBlock(cursor, scope, name, what === 'map', cursor.take());
    } catch (error) {
      // Statements that use the name must not report it again.
      scope.defineWrong(name);
      cursor.at = to;
      throw error;
    }
    return;
  }
  cursor.expect('=', `after the name of the ${what}`);
  const from = cursor.at;
  skipValue(cursor);
  const tokens = cursor.slice(from, cursor.at);
  if (tokens.length === 0) cursor.fail(cursor.next, `${what} ${name.text} has no value`);
  scope.define(new Defined(name, tokens, what === 'map'));
}

/** Skips a value: the rest of the line, or a braced group. */
function skipValue(cursor: Cursor): void {
  if (!cursor.is('{')) {
    cursor.skipStatement();
    return;
  }
  skipBraces(cursor);
}

/** Reads `zone NAME = { port inside, 10.0.0.0/8, $office }`. */
function zone(cursor: Cursor, scope: Scope): void {
  cursor.take();
  const name = readName(cursor, 'zone');
  cursor.expect('=', 'after the name of the zone');
  const open = cursor.expect('{', 'before what is in the zone');
  const ports: number[] = [];
  const v4: [bigint, bigint][] = [];
  const v6: [bigint, bigint][] = [];
  for (;;) {
    cursor.skipEnds();
    if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
    if (cursor.accept('}')) break;
    if (cursor.accept('port')) ports.push(scope.port(cursor.take(), cursor));
    else
      for (const address of scope.element(cursor, ADDRESS)) {
        if (address.v4 !== null) v4.push([...address.v4]);
        if (address.v6 !== null) v6.push([...address.v6]);
      }
    cursor.skipEnds();
    if (!cursor.is('}')) cursor.expect(',', 'or "}" after what is in the zone');
  }
  if (ports.length + v4.length + v6.length === 0) cursor.fail(open, 'a zone has ports or addresses in it');
  const before = scope.zoneLine(name.text);
  if (before !== null) cursor.fail(name, `zone ${quote(name.text)} was already given in line ${before}`);
  scope.addZone({
    name,
    isUsed: false,
    ports: ports.length === 0 ? null : ports.reduce((bits, port) => bits | (1 << port), 0),
    addresses: v4.length + v6.length === 0 ? null : { v4: union(v4), v6: union(v6) },
  });
}

const POLICIES = ['accept', 'drop', 'reject'] as const;

function readPolicy(cursor: Cursor): Policy {
  const { line } = cursor.take();
  const token = cursor.take();
  const verdict = POLICIES.find((policy) => policy === token.text && token.kind === 'word');
  if (verdict === undefined)
    return cursor.fail(token, `the policy is accept, drop or reject, not ${said(token)}`, token.text, POLICIES);
  return { verdict, line };
}
