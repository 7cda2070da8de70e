/**
 * Rulesets for the comparison with nftables, drawn from a seed. A match is a text that both
 * languages read; what goes around it is written by `oursOf` and `kernelOf`, which between them say
 * how our rules are placed in a chain of the kernel:
 *
 * - what is established is accepted first of all;
 * - a rule that names no state does not see related packets, and neither accepts nor rejects
 *   invalid ones: it drops them, and its counter does not count;
 * - at the end what is related is accepted, what is invalid is dropped, and what is new meets the
 *   policy.
 *
 * New constructs of the language get a line in `MATCHES`.
 */

import type { Stream } from '../sim/random.js';
import { CODES, DSCP_NAMES, ICMP_TYPES, ICMPV6_TYPES, PORTS, PROTOCOLS, V4, V6 } from './values.js';

export interface DrawnRule {
  readonly matches: readonly string[];
  /** The match of the state, or null. */
  readonly state: string | null;
  /** `null`: the rule only counts. */
  readonly verdict: string | null;
}

export interface DrawnRuleset {
  readonly rules: readonly DrawnRule[];
  readonly policy: 'accept' | 'drop';
}

type Draw = (random: Stream) => string;

const not: Draw = (random) => random.pick(['', '', '', '!= ', '== ']);

/**
 * One element, or a set of some; `element` draws one. Sets may be empty of meaning but not of
 * elements.
 */
function some(random: Stream, element: Draw): string {
  if (random.chance(0.6)) return element(random);
  const elements = Array.from({ length: random.whole(1, 4) }, () => element(random));
  return `{ ${[...new Set(elements)].join(', ')} }`;
}

function range(random: Stream, from: readonly number[]): string {
  const [low, high] = [random.pick(from), random.pick(from)].sort((a, b) => a - b);
  return low === high ? String(low) : `${low}-${high}`;
}

const port: Draw = (random) => (random.chance(0.7) ? String(random.pick(PORTS)) : range(random, PORTS));
const protocol: Draw = (random) =>
  random.chance(0.8)
    ? random.pick([...PROTOCOLS, 0, 44, 60].map(String).concat('tcp', 'udp', 'icmp', 'icmpv6', 'sctp', 'gre'))
    : range(random, PROTOCOLS);

function text4(bytes: Uint8Array): string {
  return bytes.join('.');
}

function text6(bytes: Buffer): string {
  return (bytes.toString('hex').match(/.{4}/g) ?? []).join(':');
}

/** The first bits of an address, the others zero. */
function masked(bytes: Buffer, bits: number): Buffer {
  return Buffer.from(bytes.map((byte, i) => byte & (0xff00 >> Math.max(0, Math.min(8, bits - 8 * i)))));
}

function address(pool: readonly Buffer[], text: (bytes: Buffer) => string, prefixes: readonly number[]): Draw {
  return (random) => {
    const kind = random.below(4);
    const one = random.pick(pool);
    if (kind === 0) return text(one);
    if (kind === 1) {
      const [low, high] = [one, random.pick(pool)].sort(Buffer.compare);
      return low.equals(high) ? text(low) : `${text(low)}-${text(high)}`;
    }
    const bits = random.pick(prefixes);
    return `${text(masked(one, bits))}/${bits}`;
  };
}

const address4 = address(V4, text4, [1, 8, 9, 15, 16, 24, 31, 32]);
const address6 = address(V6, text6, [1, 16, 32, 33, 48, 64, 127, 128]);

const FLAGS = ['fin', 'syn', 'rst', 'psh', 'ack', 'urg', 'ecn', 'cwr'];

function flagList(random: Stream, between: string, most = 3, least = 1): string {
  const list = Array.from({ length: random.whole(least, most) }, () => random.pick(FLAGS));
  return [...new Set(list)].join(between);
}

/** Some flags of a mask, or none. */
function flagsOf(random: Stream, mask: string): string {
  const kept = mask.split(' | ').filter(() => random.chance(0.5));
  return kept.length === 0 ? '0x0' : kept.join(' | ');
}

const flags: Draw = (random) => {
  const mask = flagList(random, ' | ', 5, 2);
  switch (random.below(8)) {
    case 0:
      return `tcp flags ${flagList(random, ',')}`;
    case 1:
      return `tcp flags ${random.pick(['==', '!='])} ${random.pick([flagList(random, ','), flagList(random, '|'), '0x0'])}`;
    case 2:
      return `tcp flags ${not(random)}{ ${[...new Set([0, 1].map(() => flagList(random, ' | ')))].join(', ')} }`;
    case 3:
      return `tcp flags ${not(random)}${flagsOf(random, mask).replaceAll(' | ', ',').replace('0x0', '0')} / ${mask.replaceAll(' | ', ',')}`;
    case 4:
      return `tcp flags & (${mask}) ${random.pick(['==', '!='])} { ${[...new Set([0, 1].map(() => flagsOf(random, mask)))].join(', ')} }`;
    case 5:
      return `tcp flags & ${random.pick(FLAGS)} ${random.pick(['==', '!='])} 0`;
    default:
      return `tcp flags & (${mask}) ${random.pick(['==', '!=', ''])} ${flagsOf(random, mask)}`;
  }
};

const state: Draw = (random) => {
  const states = ['new', 'established', 'related', 'invalid', 'untracked'];
  const some = [...new Set(Array.from({ length: random.whole(1, 3) }, () => random.pick(states)))];
  const how = random.below(3);
  if (how === 0) return `ct state ${random.pick(['', '!= '])}{ ${some.join(', ')} }`;
  return how === 1 ? `ct state ${random.pick(['!= ', '== '])}${some[0]}` : `ct state ${some.join(',')}`;
};

const COMPARISONS = ['<', '<=', '>', '>='];
/** None of them leaves a comparison without a value. */
const INNER_PORTS = PORTS.filter((number) => number > 0 && number < 65_535);
const code: Draw = (random) => String(random.pick(CODES));
const dscp: Draw = (random) => random.pick(DSCP_NAMES);

/** A map from a field to verdicts, whose keys do not overlap. */
const verdictMap: Draw = (random) => {
  const [field, keys] = random.pick([
    ['tcp dport', PORTS.map(String)],
    ['th dport', PORTS.map(String)],
    ['meta l4proto', ['tcp', 'udp', 'icmp', 'icmpv6', 'sctp', '47']],
    ['iifname', ['"inside"', '"outside"']],
    ['icmp type', ICMP_TYPES.map(String)],
    ['ip saddr', V4.map(text4)],
    ['ip6 daddr', V6.map(text6)],
    ['ip dscp', DSCP_NAMES],
  ] as const);
  const kept = keys.filter(() => random.chance(0.4));
  const elements = (kept.length === 0 ? [keys[0]] : kept).map((key) => `${key} : ${random.pick(['accept', 'drop'])}`);
  return `${field} vmap { ${elements.join(', ')} }`;
};

/** What a rule may match, and how often of all. */
const MATCHES: readonly (readonly [number, Draw])[] = [
  [3, (r) => `ip ${r.pick(['saddr', 'daddr'])} ${not(r)}${some(r, address4)}`],
  [3, (r) => `ip6 ${r.pick(['saddr', 'daddr'])} ${not(r)}${some(r, address6)}`],
  [
    5,
    (r) =>
      `${r.pick(['tcp', 'tcp', 'udp', 'udp', 'th', 'sctp', 'udplite', 'dccp'])} ${r.pick(['sport', 'dport'])} ${not(r)}${some(r, port)}`,
  ],
  [2, (r) => `${r.pick(['meta l4proto', 'meta l4proto', 'ip protocol', 'ip6 nexthdr'])} ${not(r)}${some(r, protocol)}`],
  [3, flags],
  [1, (r) => `icmp type ${not(r)}${some(r, () => String(r.pick(ICMP_TYPES)))}`],
  [1, (r) => `icmpv6 type ${not(r)}${some(r, () => String(r.pick(ICMPV6_TYPES)))}`],
  [1, (r) => `icmp code ${not(r)}${some(r, code)}`],
  [1, (r) => `icmpv6 code ${not(r)}${some(r, code)}`],
  [1, (r) => `${r.pick(['ip', 'ip6'])} dscp ${not(r)}${some(r, dscp)}`],
  [
    1,
    (r) =>
      `${r.pick(['tcp', 'udp', 'th'])} ${r.pick(['sport', 'dport'])} ${r.pick(COMPARISONS)} ${r.pick(INNER_PORTS)}`,
  ],
  [1, (r) => `meta protocol ${not(r)}${r.pick(['ip', 'ip6'])}`],
  [1, (r) => `iifname ${r.pick(['{ "inside", "outside" }', '"in*"', '"out*"'])}`],
  [1, (r) => `meta nfproto ${r.pick(['ipv4', 'ipv6'])}`],
  [
    1,
    (r) => `${r.pick(['iif', 'iifname', 'oif', 'oifname'])} ${not(r)}${some(r, () => r.pick(['inside', 'outside']))}`,
  ],
];
const WEIGHTS = MATCHES.reduce((sum, [weight]) => sum + weight, 0);

function match(random: Stream): string {
  let left = random.below(WEIGHTS);
  for (const [weight, draw] of MATCHES) {
    if (left < weight) return draw(random);
    left -= weight;
  }
  throw new Error('weights');
}

const rejection: Draw = (random) =>
  random
    .pick([
      ...['tcp reset', 'tcp reset', 'icmp host-unreachable', 'icmp type net-prohibited', 'icmp admin-prohibited'],
      ...['icmpv6 no-route', 'icmpv6 type addr-unreachable', 'icmpv6 admin-prohibited'],
      ...['icmpx no-route', 'icmpx port-unreachable', 'icmpx type host-unreachable', 'icmpx admin-prohibited'],
    ])
    .replace(/^/, 'reject with ');

/** Rules with a map name states without `established`, whose packets ask no rules. */
const STATES_OF_MAPS = ['ct state new', 'ct state { new, invalid }', 'ct state != established', 'ct state new,related'];

/**
 * Leaves out matches that nft 1.0.6 compiles to something else than is written. It joins `sport !=
 * 1 dport != 2` to one comparison, which is true unless both are equal. It asks for no protocol
 * behind a set of protocols: `ip protocol { 6, 47 } tcp dport 1` matches GRE, too, and so does
 * `reject with tcp reset` in place of `tcp dport`. And it asks for no IP version where the protocol
 * of ICMP is written out: `meta l4proto icmpv6 icmpv6 type 1` matches protocol 58 in IPv4.
 */
function asWritten(matches: readonly string[], verdict: string | null): readonly string[] {
  const isUnequal = (text: string): boolean => /^\w+ ([sd]port|type|code) != \d+$/.test(text);
  const isTransport = (text: string): boolean => /^(tcp|udp|sctp|dccp|udplite|icmp|icmpv6) /.test(text);
  const isProtocolSet = (text: string): boolean => /^(meta l4proto|ip protocol|ip6 nexthdr) (== )?\{/.test(text);
  const isIcmp = (text: string): boolean =>
    /^(meta l4proto|ip protocol|ip6 nexthdr) (== )?(icmp|icmpv6|1|58)$/.test(text);
  const unequal = matches.filter(isUnequal);
  const isOfTransport = matches.some(isTransport);
  return matches.filter(
    (text) =>
      !(isUnequal(text) && text !== unequal[0]) &&
      !(isProtocolSet(text) && (isOfTransport || verdict?.includes('tcp reset'))) &&
      !(isIcmp(text) && isOfTransport),
  );
}

export function drawRule(random: Stream): DrawnRule {
  if (random.chance(0.1))
    return {
      matches: random.chance(0.5) ? [match(random)] : [],
      state: random.pick(STATES_OF_MAPS),
      verdict: verdictMap(random),
    };
  const drawn = Array.from({ length: random.pick([0, 1, 1, 1, 2, 2, 3]) }, () => match(random));
  const verdict = random.pick(['accept', 'accept', 'accept', 'drop', 'drop', 'reject', rejection(random), null, null]);
  const matches = asWritten(drawn, verdict);
  // nft 1.0.6 loads "meta l4proto 60 th dport 53" and fails to list it, and counters with it.
  const isTh = (text: string): boolean => text.startsWith('th ');
  return {
    matches: [...matches.filter(isTh), ...matches.filter((text) => !isTh(text))],
    state: random.chance(0.3) ? state(random) : null,
    verdict,
  };
}

/** A rule in our language. */
export function oursOf({ matches, state, verdict }: DrawnRule): string {
  const matched = state === null ? matches : [...matches, state];
  return [...matched, 'counter', ...(verdict === null ? [] : [verdict])].join(' ');
}

/** The rules of the kernel that do the same. One of them counts. */
export function kernelOf({ matches, state, verdict }: DrawnRule): string[] {
  const does = verdict === null ? 'counter' : `counter ${verdict}`;
  if (state !== null) return [[...matches, state, does].join(' ')];
  if (verdict === 'drop' || verdict === null)
    return [[...matches, 'ct state { new, invalid, untracked }', does].join(' ')];
  return [
    [...matches, ...impliedBy(verdict), 'ct state invalid drop'].join(' '),
    [...matches, 'ct state { new, untracked }', does].join(' '),
  ];
}

/** The match that an answer implies. */
function impliedBy(verdict: string): string[] {
  if (verdict.includes('tcp reset')) return ['meta l4proto tcp'];
  if (verdict.includes('icmpv6 ')) return ['meta nfproto ipv6'];
  return verdict.includes('icmp ') ? ['meta nfproto ipv4'] : [];
}
