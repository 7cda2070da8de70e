/**
 * The parser of rule files; docs/firewall.md has the grammar. It finds all that is wrong in one go: what is wrong ends its
 * statement, and the next one is read. Nothing of a text is used unless all of it is right.
 */

import type { RuleProblem } from '../../api.js';
import { Cursor, Mistake, Problems, said } from './cursor.js';
import { union } from './intervals.js';
import type { Rule } from './rule.js';
import { readRule } from './rule-parser.js';
import { Scope, type Zone } from './scope.js';
import { quote, type Token, tokenize } from './tokens.js';
import { ADDRESS } from './values.js';

/** What new connections meet that no rule speaks of. */
export interface Policy {
  readonly verdict: 'accept' | 'drop' | 'reject';
  readonly line: number;
}

export interface RuleSet {
  readonly rules: readonly Rule[];
  readonly policy: Policy;
}

/** More than anybody writes by hand; each costs 64 bytes and a counter. */
export const RULES_MAX = 32_000;

const STATEMENTS = ['define', 'set', 'zone', 'policy'];

export type Parsed =
  | { readonly set: RuleSet; readonly problems?: undefined }
  | { readonly problems: readonly RuleProblem[]; readonly set?: undefined };

/** `ports`: names of the ports, in the order of their indices. */
export function parseRules(text: string, ports: readonly string[]): Parsed {
  const { tokens, problems: unreadable } = tokenize(text);
  const problems = new Problems(unreadable);
  const cursor = new Cursor(tokens, problems);
  const scope = new Scope(ports);
  const rules: Rule[] = [];
  let policy: Policy | null = null;
  /** Rules beyond `RULES_MAX`. They are one mistake. */
  let surplus = 0;

  function statement(): void {
    const first = cursor.next;
    if (first.kind === 'word' && (first.text === 'define' || first.text === 'set')) return define(cursor, scope);
    if (cursor.is('zone')) return zone(cursor, scope);
    if (cursor.is('policy')) {
      const read = readPolicy(cursor);
      if (policy !== null) cursor.fail(first, `the policy was already given in line ${policy.line}`);
      policy = read;
      return;
    }
    const rule = readRule(cursor, scope, text, STATEMENTS);
    if (rules.length < RULES_MAX) rules.push(rule);
    else if (surplus++ === 0) cursor.note(first, `more than ${RULES_MAX} rules: this is the first of those beyond`);
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
  if (problems.any) return { problems: problems.all() };
  return { set: { rules, policy: policy ?? { verdict: 'drop', line: 0 } } };
}

function readName(cursor: Cursor, what: string): Token {
  const token = cursor.next;
  if (token.kind !== 'word' || !/^[A-Za-z_][A-Za-z0-9_-]*$/.test(token.text))
    cursor.fail(token, `expected the name of the ${what}, not ${said(token)}`);
  return cursor.take();
}

/** `define NAME = VALUE`: the tokens are kept, and read when it is known what they are to be. */
function define(cursor: Cursor, scope: Scope): void {
  const what = cursor.take().text;
  const name = readName(cursor, what);
  cursor.expect('=', `after the name of the ${what}`);
  const from = cursor.at;
  skipValue(cursor);
  const tokens = cursor.slice(from, cursor.at);
  if (tokens.length === 0) cursor.fail(cursor.next, `${what} ${name.text} has no value`);
  const before = scope.lineOf(name.text);
  if (before !== null) cursor.fail(name, `${quote(name.text)} was already defined in line ${before}`);
  scope.define(name, tokens);
}

/** A value is a token, or all to the brace that closes it; commas may go on without braces. */
function skipValue(cursor: Cursor): void {
  if (!cursor.is('{')) {
    cursor.skipStatement();
    return;
  }
  const open = cursor.take();
  for (let depth = 1; depth > 0; ) {
    if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
    const token = cursor.take();
    if (token.kind !== 'mark') continue;
    if (token.text === '{') depth++;
    if (token.text === '}') depth--;
  }
}

/** `zone NAME = { port inside, 10.0.0.0/8, $office }`. */
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
  const made: Zone = {
    line: name.line,
    ports: ports.length === 0 ? null : ports.reduce((bits, port) => bits | (1 << port), 0),
    addresses: v4.length + v6.length === 0 ? null : { v4: union(v4), v6: union(v6) },
  };
  scope.addZone(name.text, made);
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
