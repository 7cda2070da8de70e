/**
 * Reads one rule: what it matches, what else it does, and its verdict.
 *
 * Each field has one set of values in the end: two matches of one field are both to be right.
 */

import { type Cursor, said } from './cursor.js';
import { readFlags } from './flag-parser.js';
import {
  BITS_IPV4,
  BITS_IPV6,
  complement,
  type Interval,
  type Intervals,
  intersection,
  largest,
  union,
} from './intervals.js';
import { RejectWith, type Rule, Verdict } from './rule.js';
import type { Scope } from './scope.js';
import { quote, type Token } from './tokens.js';
import { ADDRESS, ICMP_TYPE, ICMPV6_TYPE, type Kind, PORT, PROTOCOL, STATE } from './values.js';
import { REJECT_CODES, State } from './vocabulary.js';

const IPV4 = 1;
const IPV6 = 2;
const TCP = 6n;
const UDP = 17n;
const SCTP = 132n;
const DCCP = 33n;
const UDP_LITE = 136n;
const ICMP = 1n;
const ICMPV6 = 58n;
const ALL_STATES = State.NEW | State.ESTABLISHED | State.RELATED | State.INVALID;
const HOLD_MS = 100;
const HOLD_MS_MAX = 10_000;
const HOLD_MEMBERS_MAX = 63;

/** The rule under way. */
class Draft {
  states: number | null = null;
  versions = IPV4 | IPV6;
  source4: Intervals | null = null;
  destination4: Intervals | null = null;
  source6: Intervals | null = null;
  destination6: Intervals | null = null;
  protocol: Intervals | null = null;
  sport: Intervals | null = null;
  dport: Intervals | null = null;
  icmpType: Intervals | null = null;
  tcpFlags: Intervals | null = null;
  nextHeader: Intervals | null = null;
  inPorts: number | null = null;
  outPorts: number | null = null;
  verdict: number | null = null;
  rejectWith: number = RejectWith.DEFAULT;
  rejectCode = REJECT_CODES['port-unreachable'];
  log = false;
  logPrefix = '';
  counts = false;
  holdMembers = 0;
  holdMs = 0;
}

/** Fields of `Rule` that are sets of numbers. */
type Field =
  | ('source4' | 'destination4' | 'source6' | 'destination6' | 'protocol' | 'sport' | 'dport')
  | ('icmpType' | 'tcpFlags' | 'nextHeader');
type Clause = (draft: Draft, cursor: Cursor, scope: Scope, at: Token) => void;

function narrow(draft: Draft, field: Field, values: Intervals): void {
  const known = draft[field];
  draft[field] = known === null ? values : intersection(known, values);
}

function only(...protocols: bigint[]): Intervals {
  return union(protocols.map((number): Interval => [number, number]));
}

/** `!=` or nothing (or `==`), then values. */
function negated(cursor: Cursor): boolean {
  if (cursor.accept('!=')) return true;
  cursor.accept('==');
  return false;
}

function numbers(kind: Kind<Interval>, top: bigint): (cursor: Cursor, scope: Scope) => Intervals {
  return (cursor, scope) => {
    const not = negated(cursor);
    const values = union(scope.values(cursor, kind));
    return not ? complement(values, top) : values;
  };
}

const ports = numbers(PORT, 65_535n);
const protocols = numbers(PROTOCOL, 255n);
const icmpTypes = numbers(ICMP_TYPE, 255n);
const icmpv6Types = numbers(ICMPV6_TYPE, 255n);

function word(cursor: Cursor, after: string, choices: readonly string[]): string {
  const token = cursor.take();
  if (token.kind === 'word' && choices.includes(token.text)) return token.text;
  return cursor.fail(
    token,
    `after ${quote(after)} comes ${choices.join(', ')}, not ${said(token)}`,
    token.text,
    choices,
  );
}

function addresses(version: 4 | 6): Clause {
  const name = version === 4 ? 'ip' : 'ip6';
  return (draft, cursor, scope) => {
    const what = word(cursor, name, version === 4 ? ['saddr', 'daddr', 'protocol'] : ['saddr', 'daddr', 'nexthdr']);
    draft.versions &= version === 4 ? IPV4 : IPV6;
    if (what === 'protocol') return narrow(draft, 'protocol', protocols(cursor, scope));
    if (what === 'nexthdr') return narrow(draft, 'nextHeader', protocols(cursor, scope));
    const not = negated(cursor);
    const from = cursor.next;
    const found = scope.values(cursor, ADDRESS);
    const ranges = found.map((range) => (version === 4 ? range.v4 : range.v6));
    const values = union(ranges.filter((range) => range !== null));
    // A set may have addresses of both versions: each rule takes those of its own.
    if (values.length === 0) cursor.fail(from, `there is no IPv${version} address in ${said(from)}`);
    const top = largest(version === 4 ? BITS_IPV4 : BITS_IPV6);
    const side = what === 'saddr' ? 'source' : 'destination';
    narrow(draft, `${side}${version}`, not ? complement(values, top) : values);
  };
}

function transport(name: string, ...carriers: bigint[]): Clause {
  return (draft, cursor, scope) => {
    const choices = name === 'tcp' ? ['sport', 'dport', 'flags'] : ['sport', 'dport'];
    const what = word(cursor, name, choices);
    if (carriers.length > 0) narrow(draft, 'protocol', only(...carriers));
    if (what === 'flags') narrow(draft, 'tcpFlags', readFlags(cursor));
    else narrow(draft, what as 'sport' | 'dport', ports(cursor, scope));
  };
}

function icmp(version: 4 | 6): Clause {
  return (draft, cursor, scope) => {
    word(cursor, version === 4 ? 'icmp' : 'icmpv6', ['type']);
    draft.versions &= version === 4 ? IPV4 : IPV6;
    narrow(draft, 'protocol', only(version === 4 ? ICMP : ICMPV6));
    narrow(draft, 'icmpType', (version === 4 ? icmpTypes : icmpv6Types)(cursor, scope));
  };
}

function meta(draft: Draft, cursor: Cursor, scope: Scope): void {
  const what = word(cursor, 'meta', ['l4proto', 'nfproto']);
  if (what === 'l4proto') return narrow(draft, 'protocol', protocols(cursor, scope));
  draft.versions &= word(cursor, 'nfproto', ['ipv4', 'ipv6']) === 'ipv4' ? IPV4 : IPV6;
}

function ct(draft: Draft, cursor: Cursor, scope: Scope): void {
  word(cursor, 'ct', ['state']);
  const isEqual = cursor.is('==');
  const not = negated(cursor);
  const from = cursor.next;
  const isSet = cursor.is('{') || from.kind === 'name';
  const bits = scope.values(cursor, STATE).reduce((all, bit) => all | bit, 0);
  // In nftables a list without braces is one value, the states together, and a packet has one state.
  if (!isSet && (not || isEqual) && (bits & (bits - 1)) !== 0)
    cursor.fail(from, `no packet has several states at once: write ${not ? '!=' : '=='} { … } around them`);
  const states = not ? ALL_STATES & ~bits : bits;
  draft.states = draft.states === null ? states : draft.states & states;
}

function interfaces(field: 'inPorts' | 'outPorts'): Clause {
  return (draft, cursor, scope) => {
    const not = negated(cursor);
    const kind: Kind<number> = {
      name: 'port',
      join: (values) => values,
      read: (token) => scope.port(token, cursor),
    };
    const quoted = cursor.next.kind === 'string';
    const bits = quoted
      ? 1 << scope.port(cursor.take(), cursor)
      : scope.values(cursor, kind).reduce((all, port) => all | (1 << port), 0);
    draft[field] = (draft[field] ?? 0xffff) & (not ? ~bits & 0xffff : bits);
  };
}

function zone(side: 'source' | 'destination'): Clause {
  return (draft, cursor, scope) => {
    const not = negated(cursor);
    const token = cursor.take();
    const { ports: bits, addresses: set } = scope.zone(token, cursor);
    if (not && bits !== null && set !== null)
      cursor.fail(token, `zone ${said(token)} has both ports and addresses: what is not in it takes two rules`);
    if (bits !== null) {
      const field = side === 'source' ? 'inPorts' : 'outPorts';
      draft[field] = (draft[field] ?? 0xffff) & (not ? ~bits & 0xffff : bits);
    }
    if (set !== null) {
      narrow(draft, `${side}4`, not ? complement(set.v4, largest(BITS_IPV4)) : set.v4);
      narrow(draft, `${side}6`, not ? complement(set.v6, largest(BITS_IPV6)) : set.v6);
    }
  };
}

function number(cursor: Cursor, what: string, max: number): number {
  const token = cursor.take();
  const value = token.kind === 'word' && /^\d{1,9}$/.test(token.text) ? Number(token.text) : -1;
  if (value < 1 || value > max) cursor.fail(token, `${what} is a number from 1 to ${max}, not ${said(token)}`);
  return value;
}

function verdict(what: number): Clause {
  return (draft, cursor, _scope, at) => {
    if (draft.verdict !== null) cursor.fail(at, 'the rule has a verdict already');
    draft.verdict = what;
  };
}

function reject(draft: Draft, cursor: Cursor, scope: Scope, at: Token): void {
  verdict(Verdict.REJECT)(draft, cursor, scope, at);
  if (!cursor.accept('with')) return;
  if (cursor.accept('tcp')) {
    word(cursor, 'tcp', ['reset']);
    draft.rejectWith = RejectWith.RESET;
    return narrow(draft, 'protocol', only(TCP));
  }
  const what = word(cursor, 'reject with', ['tcp', 'icmp', 'icmpv6', 'icmpx']);
  if (what !== 'icmpx') draft.versions &= what === 'icmp' ? IPV4 : IPV6;
  cursor.accept('type');
  draft.rejectWith = RejectWith.ICMP;
  draft.rejectCode = REJECT_CODES[word(cursor, what, Object.keys(REJECT_CODES))];
}

function log(draft: Draft, cursor: Cursor): void {
  draft.log = true;
  if (!cursor.accept('prefix')) return;
  const token = cursor.take();
  if (token.kind !== 'string') cursor.fail(token, `the prefix is a text in quotes, not ${said(token)}`);
  if (token.text.length > 64) cursor.fail(token, 'the prefix is longer than 64 characters');
  draft.logPrefix = token.text;
}

/** `hold 2`, or `hold 2 within 200 ms`. */
function hold(draft: Draft, cursor: Cursor): void {
  draft.holdMembers = number(cursor, 'the number of other members that are to have the connection', HOLD_MEMBERS_MAX);
  draft.holdMs = HOLD_MS;
  if (!cursor.accept('within')) return;
  const token = cursor.next;
  const joined = /^(\d{1,9})ms$/.exec(token.text);
  if (token.kind === 'word' && joined !== null) {
    cursor.take();
    draft.holdMs = Number(joined[1]);
  } else {
    draft.holdMs = number(cursor, 'the time to hold a packet, in milliseconds,', HOLD_MS_MAX);
    cursor.accept('ms');
  }
  if (draft.holdMs < 1 || draft.holdMs > HOLD_MS_MAX)
    cursor.fail(token, `a packet is held from 1 to ${HOLD_MS_MAX} ms, not ${draft.holdMs}`);
}

function comment(_draft: Draft, cursor: Cursor): void {
  const token = cursor.take();
  if (token.kind !== 'string') cursor.fail(token, `a comment is a text in quotes, not ${said(token)}`);
}

const CLAUSES: Readonly<Record<string, Clause>> = {
  from: zone('source'),
  to: zone('destination'),
  iif: interfaces('inPorts'),
  iifname: interfaces('inPorts'),
  oif: interfaces('outPorts'),
  oifname: interfaces('outPorts'),
  ip: addresses(4),
  ip6: addresses(6),
  tcp: transport('tcp', TCP),
  udp: transport('udp', UDP),
  sctp: transport('sctp', SCTP),
  dccp: transport('dccp', DCCP),
  udplite: transport('udplite', UDP_LITE),
  th: transport('th'),
  icmp: icmp(4),
  icmpv6: icmp(6),
  meta,
  ct,
  accept: verdict(Verdict.ACCEPT),
  drop: verdict(Verdict.DROP),
  reject,
  count: (draft) => {
    draft.counts = true;
  },
  counter: (draft) => {
    draft.counts = true;
  },
  log,
  hold,
  comment,
};

/** Matches: they stand before the statements `log` and `counter`, as in nftables, and before the verdict. */
const MATCHES: ReadonlySet<string> = new Set([
  ...['from', 'to', 'iif', 'iifname', 'oif', 'oifname', 'ip', 'ip6', 'meta', 'ct'],
  ...['tcp', 'udp', 'sctp', 'dccp', 'udplite', 'th', 'icmp', 'icmpv6'],
]);
const ACTIONS: ReadonlySet<string> = new Set(['accept', 'drop', 'reject', 'count', 'counter', 'log']);

/** Reads a rule to the end of its line. `others`: what else a statement may begin with. */
export function readRule(cursor: Cursor, scope: Scope, text: string, others: readonly string[]): Rule {
  const first = cursor.next;
  const draft = new Draft();
  let acts: string | null = null;
  while (!cursor.isOver && cursor.next.kind !== 'end') {
    const at = cursor.take();
    const clause = at.kind === 'word' && Object.hasOwn(CLAUSES, at.text) ? CLAUSES[at.text] : undefined;
    if (clause === undefined) {
      const known = [...Object.keys(CLAUSES), ...(at === first ? others : [])];
      return cursor.fail(at, `${said(at)} is nothing that a rule says`, at.text, known);
    }
    if (acts !== null && MATCHES.has(at.text))
      cursor.fail(
        at,
        `${said(at)} stands behind ${quote(acts)}, which nftables would do before it asks: put it in front`,
      );
    if (ACTIONS.has(at.text)) acts ??= at.text;
    clause(draft, cursor, scope, at);
  }
  return finish(draft, cursor, first, text.slice(first.from, cursor.last.to).replace(/\s+/g, ' '));
}

function finish(draft: Draft, cursor: Cursor, first: Token, text: string): Rule {
  const verdict = draft.verdict ?? Verdict.CONTINUE;
  const states = draft.states ?? State.NEW | State.INVALID;
  if (draft.verdict === null && !draft.counts && !draft.log)
    cursor.fail(first, 'the rule says nothing to do: accept, drop, reject, count or log');
  if (draft.holdMembers > 0 && verdict !== Verdict.ACCEPT) cursor.fail(first, 'only a rule that accepts can hold');
  if (draft.holdMembers > 0 && (states & State.NEW) === 0)
    cursor.fail(first, 'only the first packet of a new connection can be held');
  if (states === State.ESTABLISHED && verdict !== Verdict.ACCEPT)
    cursor.fail(first, 'what is established passes without asking the rules: the rule would do nothing');
  const both = [draft.source4, draft.destination4].some(isEmpty);
  const both6 = [draft.source6, draft.destination6].some(isEmpty);
  const versions = draft.versions & (both ? ~IPV4 : ~0) & (both6 ? ~IPV6 : ~0) & (IPV4 | IPV6);
  if (states === 0 || versions === 0 || draft.inPorts === 0 || draft.outPorts === 0 || isImpossible(draft))
    cursor.fail(first, 'no packet can match the rule: its matches exclude each other');
  const { source4, source6, destination4, destination6, protocol, sport, dport, inPorts, outPorts } = draft;
  const { icmpType, tcpFlags, nextHeader } = draft;
  const { rejectWith, rejectCode, log: logs, logPrefix, holdMembers, holdMs } = draft;
  return {
    line: first.line,
    text,
    states,
    isStateless: draft.states === null,
    versions,
    source4,
    destination4,
    source6,
    destination6,
    protocol,
    sport,
    dport,
    icmpType,
    tcpFlags,
    nextHeader,
    inPorts,
    outPorts,
    verdict,
    rejectWith,
    rejectCode,
    log: logs,
    logPrefix,
    holdMembers,
    holdMs,
  };
}

function isEmpty(set: Intervals | null): boolean {
  return set !== null && set.length === 0;
}

function isImpossible({ protocol, sport, dport, icmpType, tcpFlags, nextHeader }: Draft): boolean {
  return [protocol, sport, dport, icmpType, tcpFlags, nextHeader].some(isEmpty);
}
