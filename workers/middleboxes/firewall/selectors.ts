/**
 * What a rule can compare: the field that some words name, and how its values narrow a match. After
 * the words come values (`tcp dport 22`, `!= 22`, `>= 1024`, `{ 22, 80 }`), or `vmap` with a
 * verdict for each value.
 */

import { type Cursor, said } from './cursor.js';
import { BITS_IPV4, BITS_IPV6, complement, type Interval, type Intervals, largest, union } from './intervals.js';
import { type Draft, type Field, IPV4, IPV6, narrow, narrowBits } from './match.js';
import { refuse } from './refusals.js';
import type { Scope } from './scope.js';
import { quote, type Token } from './tokens.js';
import {
  ADDRESS,
  type Addresses,
  CODE_POINT,
  FAMILY,
  ICMP_CODE,
  ICMP_TYPE,
  ICMPV6_CODE,
  ICMPV6_TYPE,
  type Kind,
  PORT,
  PROTOCOL,
  STATE,
} from './values.js';
import { ALL_STATES } from './vocabulary.js';

const TCP = 6n;
const UDP = 17n;
const SCTP = 132n;
const DCCP = 33n;
const UDP_LITE = 136n;
const ICMP = 1n;
const ICMPV6 = 58n;

export interface Selector<T = unknown> {
  readonly kind: Kind<T>;
  /** Narrows the match to the packets that have the field at all. */
  imply(draft: Draft): void;
  /**
   * Narrows the match to packets whose field is one of the values, or, if `not`, none of them. `at`
   * is the token of the values.
   */
  apply(draft: Draft, values: readonly T[], not: boolean, at: Token, cursor: Cursor): void;
  /** The largest value. If it is absent, the field has no order. */
  readonly top?: bigint;
}

/** Reads the words after the first. Returns the selector that they name. */
type Selection = (cursor: Cursor, scope: Scope) => Selector;

export function word(cursor: Cursor, after: string, choices: readonly string[]): string {
  const token = cursor.take();
  if (token.kind === 'word' && choices.includes(token.text)) return token.text;
  if (token.kind === 'word') refuse(cursor, token, `${after} ${token.text}`);
  return cursor.fail(
    token,
    `after ${quote(after)} comes ${choices.join(', ')}, not ${said(token)}`,
    token.text,
    choices,
  );
}

export function only(...protocols: bigint[]): Intervals {
  return union(protocols.map((number): Interval => [number, number]));
}

function numbers(field: Field, kind: Kind<Interval>, top: bigint, imply: (draft: Draft) => void): Selector {
  return {
    kind,
    imply,
    top,
    apply(draft, values, not) {
      const set = union(values as readonly Interval[]);
      narrow(draft, field, not ? complement(set, top) : set);
    },
  };
}

function bits(field: 'states' | 'inPorts' | 'outPorts', kind: Kind<number>, all: number): Selector {
  return {
    kind,
    imply() {},
    apply(draft, values, not) {
      const set = (values as readonly number[]).reduce((sum, bit) => sum | bit, 0);
      narrowBits(draft, field, not ? all & ~set : set);
    },
  };
}

const nothing = (): void => {};
const version =
  (bit: number) =>
  (draft: Draft): void => {
    draft.versions &= bit;
  };
const carries =
  (...protocols: bigint[]) =>
  (draft: Draft): void =>
    narrow(draft, 'protocol', only(...protocols));

function address(side: 'source' | 'destination', family: 4 | 6): Selector {
  const top = largest(family === 4 ? BITS_IPV4 : BITS_IPV6);
  return {
    kind: ADDRESS,
    top,
    imply: version(family === 4 ? IPV4 : IPV6),
    apply(draft, values, not, at, cursor) {
      const ranges = (values as readonly Addresses[]).map(({ v4, v6 }) => (family === 4 ? v4 : v6));
      const set = union(ranges.filter((range) => range !== null));
      // A set may have addresses of both versions. Each rule takes those of its own version.
      if (set.length === 0 && values.length > 0) cursor.fail(at, `there is no IPv${family} address in ${said(at)}`);
      narrow(draft, `${side}${family}`, not ? complement(set, top) : set);
    },
  };
}

function ip(family: 4 | 6): Selection {
  const name = family === 4 ? 'ip' : 'ip6';
  const carried = family === 4 ? 'protocol' : 'nexthdr';
  const imply = version(family === 4 ? IPV4 : IPV6);
  const fields: Readonly<Record<string, Selector>> = {
    saddr: address('source', family),
    daddr: address('destination', family),
    // `protocol` is that of the last header in IPv4. `nexthdr` is the first one in IPv6.
    [carried]: numbers(family === 4 ? 'protocol' : 'nextHeader', PROTOCOL, 255n, imply),
    dscp: numbers('dscp', CODE_POINT, 63n, imply),
  };
  return (cursor) => fields[word(cursor, name, Object.keys(fields))];
}

function transport(name: string, ...protocols: bigint[]): Selection {
  const imply = protocols.length === 0 ? nothing : carries(...protocols);
  const fields: Readonly<Record<string, Selector>> = {
    sport: numbers('sport', PORT, 65_535n, imply),
    dport: numbers('dport', PORT, 65_535n, imply),
  };
  // `tcp flags` is read elsewhere. It is here only for messages.
  const choices = name === 'tcp' ? ['sport', 'dport', 'flags'] : ['sport', 'dport'];
  return (cursor) => fields[word(cursor, name, choices)];
}

function icmp(family: 4 | 6): Selection {
  const imply = (draft: Draft): void => {
    version(family === 4 ? IPV4 : IPV6)(draft);
    carries(family === 4 ? ICMP : ICMPV6)(draft);
  };
  const fields: Readonly<Record<string, Selector>> = {
    type: numbers('icmpType', family === 4 ? ICMP_TYPE : ICMPV6_TYPE, 255n, imply),
    code: numbers('icmpCode', family === 4 ? ICMP_CODE : ICMPV6_CODE, 255n, imply),
  };
  return (cursor) => fields[word(cursor, family === 4 ? 'icmp' : 'icmpv6', Object.keys(fields))];
}

const families: Selector = {
  kind: FAMILY,
  imply: nothing,
  apply(draft, values, not) {
    const set = (values as readonly number[]).reduce((sum, bit) => sum | bit, 0);
    draft.versions &= not ? ~set : set;
  },
};

const inPorts = (scope: Scope): Selector => bits('inPorts', scope.interfaces, 0xffff);
const outPorts = (scope: Scope): Selector => bits('outPorts', scope.interfaces, 0xffff);

const META = ['l4proto', 'nfproto', 'protocol', 'iif', 'iifname', 'oif', 'oifname'];

function meta(cursor: Cursor, scope: Scope): Selector {
  const what = word(cursor, 'meta', META);
  if (what === 'l4proto') return numbers('protocol', PROTOCOL, 255n, nothing);
  if (what === 'nfproto' || what === 'protocol') return families;
  return what.startsWith('iif') ? inPorts(scope) : outPorts(scope);
}

function ct(cursor: Cursor): Selector {
  word(cursor, 'ct', ['state']);
  return bits('states', STATE, ALL_STATES);
}

export const SELECTIONS: Readonly<Record<string, Selection>> = {
  iif: (_cursor, scope) => inPorts(scope),
  iifname: (_cursor, scope) => inPorts(scope),
  oif: (_cursor, scope) => outPorts(scope),
  oifname: (_cursor, scope) => outPorts(scope),
  ip: ip(4),
  ip6: ip(6),
  tcp: transport('tcp', TCP),
  udp: transport('udp', UDP),
  sctp: transport('sctp', SCTP),
  dccp: transport('dccp', DCCP),
  udplite: transport('udplite', UDP_LITE),
  // The first bytes of the transport header of any protocol.
  th: transport('th'),
  icmp: icmp(4),
  icmpv6: icmp(6),
  meta,
  ct,
};

const COMPARISONS: Readonly<Record<string, string>> = {
  '==': '==',
  eq: '==',
  '!=': '!=',
  ne: '!=',
  '<': '<',
  lt: '<',
  '<=': '<=',
  le: '<=',
  '>': '>',
  gt: '>',
  '>=': '>=',
  ge: '>=',
};

/**
 * Reads an optional operator and values, and narrows the match by them. Returns true if the match
 * is by an empty set.
 */
export function readMatch(draft: Draft, selector: Selector, cursor: Cursor, scope: Scope): boolean {
  const operator = cursor.next;
  const isOperator = operator.kind !== 'string' && Object.hasOwn(COMPARISONS, operator.text);
  const how = isOperator ? COMPARISONS[cursor.take().text] : '==';
  selector.imply(draft);
  if (cursor.is('&')) cursor.fail(cursor.next, '"&" stands only after "tcp flags": write a prefix, a range or a set');
  const at = cursor.next;
  const isSet = at.kind === 'name' || cursor.is('{');
  const read = scope.values(cursor, selector.kind);
  // In nftables a list without braces is one value with all the states, but a packet has one state.
  if (selector.kind === STATE && isOperator && !isSet && read.length > 1)
    cursor.fail(at, `no packet has several states at once: write ${how} { … } around them`);
  if (how === '==' || how === '!=') {
    selector.apply(draft, read, how === '!=', at, cursor);
    return how === '==' && read.length === 0;
  }
  if (selector.top === undefined) cursor.fail(operator, `${quote(operator.text)} compares numbers: here stands "!="`);
  selector.apply(draft, [compared(how, at, read, selector, cursor)], false, at, cursor);
  return false;
}

/** Returns the values less than, or greater than, the value that was read. */
function compared(how: string, at: Token, read: readonly unknown[], selector: Selector, cursor: Cursor): unknown {
  const top = selector.top ?? 0n;
  const [first] = read as readonly (Interval | Addresses)[];
  const isAddress = selector.kind === ADDRESS;
  const range = isAddress ? ((first as Addresses)?.v4 ?? (first as Addresses)?.v6) : (first as Interval);
  if (read.length !== 1 || range === null || range === undefined || range[0] !== range[1])
    return cursor.fail(at, `after ${quote(how)} comes one value, not ${said(at)}`);
  const [value] = range;
  const low = how === '>' ? value + 1n : how === '>=' ? value : 0n;
  const high = how === '<' ? value - 1n : how === '<=' ? value : top;
  if (low > high) return cursor.fail(at, `no value is ${how} ${said(at)}`);
  const found: Interval = [low, high];
  return isAddress ? ((first as Addresses).v4 === null ? { v4: null, v6: found } : { v4: found, v6: null }) : found;
}
