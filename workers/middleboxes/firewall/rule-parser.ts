/**
 * Reads one rule: what it matches (selectors.ts), what it does (actions.ts), and its verdict.
 *
 * Each field ends up with one set of values. If a rule matches a field twice, both must hold.
 */

import { ACTIONS, type Clause } from './actions.js';
import { type Cursor, said } from './cursor.js';
import { readFlags } from './flag-parser.js';
import { BITS_IPV4, BITS_IPV6, complement, largest } from './intervals.js';
import { narrow, narrowBits } from './match.js';
import { refuse } from './refusals.js';
import { Verdict, type Written } from './rule.js';
import type { Scope } from './scope.js';
import { only, readMatch, SELECTIONS } from './selectors.js';
import type { Token } from './tokens.js';
import { readVerdictMap } from './verdict-map.js';
import { State, UNNAMED_STATES } from './vocabulary.js';
import { Work } from './work.js';

const TCP = 6n;

function zone(side: 'source' | 'destination'): Clause {
  return ({ draft }, cursor, scope) => {
    const not = cursor.accept('!=');
    if (!not) cursor.accept('==');
    const token = cursor.take();
    const { ports: bits, addresses: set } = scope.zone(token, cursor);
    if (not && bits !== null && set !== null)
      cursor.fail(token, `zone ${said(token)} has both ports and addresses: what is not in it takes two rules`);
    if (bits !== null) narrowBits(draft, side === 'source' ? 'inPorts' : 'outPorts', not ? ~bits & 0xffff : bits);
    if (set !== null) {
      narrow(draft, `${side}4`, not ? complement(set.v4, largest(BITS_IPV4)) : set.v4);
      narrow(draft, `${side}6`, not ? complement(set.v6, largest(BITS_IPV6)) : set.v6);
    }
  };
}

/** Reads the name of a field, then its values or a verdict map. */
function match(first: string): Clause {
  const selection = SELECTIONS[first];
  return (work, cursor, scope) => {
    if (first === 'tcp' && cursor.accept('flags')) {
      narrow(work.draft, 'protocol', only(TCP));
      return narrow(work.draft, 'tcpFlags', readFlags(cursor));
    }
    const selector = selection(cursor, scope);
    const at = cursor.next;
    if (cursor.is('.')) cursor.fail(at, 'a concatenation (".") is not possible: write a rule for each pair');
    if (cursor.is('map')) cursor.fail(at, '"map" is not possible: only verdicts are mapped, with "vmap"');
    if (cursor.accept('vmap')) return readVerdictMap(work, selector, cursor, scope, at);
    if (readMatch(work.draft, selector, cursor, scope)) work.isVoid = true;
  };
}

const MATCHES: Readonly<Record<string, Clause>> = {
  from: zone('source'),
  to: zone('destination'),
  ...Object.fromEntries(Object.keys(SELECTIONS).map((first) => [first, match(first)])),
};

const CLAUSES: Readonly<Record<string, Clause>> = { ...MATCHES, ...ACTIONS };
/** The words that a rule may begin with. */
export const RULE_WORDS: readonly string[] = Object.keys(CLAUSES);

/** Statements that apply to all packets that reach a map, so they must precede it. */
const BEFORE_MAP: ReadonlySet<string> = new Set(['count', 'counter', 'log', 'limit', 'hold']);

function isClause(clauses: Readonly<Record<string, Clause>>, token: Token): boolean {
  return token.kind === 'word' && Object.hasOwn(clauses, token.text);
}

/**
 * Reads a rule to the end of its line, or, `within` a chain, to the brace that closes it. `others`
 * are further words that a statement may begin with.
 */
export function readRule(
  cursor: Cursor,
  scope: Scope,
  text: string,
  others: readonly string[],
  within = false,
): Written {
  const first = cursor.next;
  const work = new Work();
  while (!cursor.isOver && cursor.next.kind !== 'end' && !(within && cursor.is('}'))) {
    const at = cursor.take();
    if (!isClause(CLAUSES, at)) {
      if (at.kind === 'word') refuse(cursor, at, at.text);
      const known = [...Object.keys(CLAUSES), ...(at === first ? others : [])];
      return cursor.fail(at, `${said(at)} is nothing that a rule says`, at.text, known);
    }
    if (isClause(MATCHES, at)) work.beforeMatch(cursor, at);
    // nftables applies them only to packets that match no branch.
    else if (work.branches !== null && BEFORE_MAP.has(at.text))
      cursor.fail(at, `${said(at)} comes before "vmap", whose branches decide: write a rule for packets of no branch`);
    CLAUSES[at.text](work, cursor, scope, at);
  }
  const written = text.slice(first.from, cursor.last.to).replace(/\s+/g, ' ');
  return { line: first.line, column: first.column, text: written, parts: finish(work, cursor, first) };
}

export const ESTABLISHED_PASSES = 'what is established passes without asking the rules: the rule would do nothing';
/** Verdicts with no effect on packets that pass without the rules. */
const VAIN: ReadonlySet<number> = new Set([Verdict.CONTINUE, Verdict.DROP, Verdict.REJECT]);

function finish(work: Work, cursor: Cursor, first: Token): Written['parts'] {
  const { draft, outcome, branches } = work;
  const verdict = outcome?.verdict ?? Verdict.CONTINUE;
  const states = draft.states ?? UNNAMED_STATES;
  if (outcome === null && branches === null && work.log === null && work.counter === null)
    cursor.fail(first, 'the rule says nothing to do: accept, drop, reject, jump, count or log');
  if (work.holdMembers > 0 && verdict !== Verdict.ACCEPT) cursor.fail(first, 'only a rule that accepts can hold');
  if (work.holdMembers > 0 && (states & State.NEW) === 0)
    cursor.fail(first, 'only the first packet of a new connection can be held');
  if (states === State.ESTABLISHED && branches === null && VAIN.has(verdict)) cursor.fail(first, ESTABLISHED_PASSES);
  if (branches === null) work.push(verdict, outcome?.chain ?? null, draft);
  else {
    // All packets that reach the map are counted and logged, even if they match no element.
    if (work.log !== null || work.counter !== null) work.push(Verdict.CONTINUE, null, draft);
    work.log = null;
    for (const branch of branches) {
      if (branch.match.states === State.ESTABLISHED && VAIN.has(branch.verdict)) cursor.fail(first, ESTABLISHED_PASSES);
      work.push(branch.verdict, branch.chain, branch.match);
    }
  }
  if (work.parts.length === 0 && branches === null && !work.isVoid) {
    if (draft.states === 0) cursor.fail(first, 'no packet can match the rule: its states exclude each other');
    cursor.fail(first, 'no packet can match the rule: its matches exclude each other');
  }
  return work.parts;
}
