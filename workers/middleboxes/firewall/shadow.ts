/**
 * Finds rules that decide about no packet, because earlier rules match all of their packets. For
 * each rule, one packet that it matches is looked up. A rule that covers this rule matches the
 * packet too, and the lookup finds it quickly among thousands.
 */

import type { RuleProblem } from '../../api/api.js';
import type { Entry } from './chains.js';
import { type Intervals, intersection } from './intervals.js';
import { createLookup, type Lookup } from './lookup.js';
import { both, type Field, IPV4, type Match, NUMBERS } from './match.js';
import { biased, PACKET } from './program.js';
import { type Rule, Verdict } from './rule.js';
import { State } from './vocabulary.js';

/** Limit on the rules that match the packet and are compared. */
const COMPARED_MAX = 64;
const ADDRESSES4: readonly Field[] = ['source4', 'destination4'];
const ADDRESSES6: readonly Field[] = ['source6', 'destination6'];

/**
 * Returns a note per shadowed rule. `rules` have their chains expanded, as in the program `words`.
 * `ports` is the number of ports.
 */
export function shadowed(
  rules: readonly Rule[],
  written: readonly Entry[],
  words: Int32Array,
  ports: number,
): RuleProblem[] {
  const lookup = createLookup(words);
  const skips = rules.flatMap(({ verdict }, index) => (verdict === Verdict.SKIP ? [index] : []));
  /**
   * By written rule: the line of a rule that precedes all of its copies and covers them, or null if
   * some copy decides about packets.
   */
  const before = new Map<number, number | null>();
  for (const [index, rule] of rules.entries()) {
    if (rule.isQuiet && rule.verdict === Verdict.SKIP) continue;
    const known = before.get(rule.entry);
    if (known === null) continue;
    const line = isAsked(rule) ? firstCover(rules, skips, index, lookup, ports) : null;
    before.set(rule.entry, line === null ? null : (known ?? line));
  }
  const notes: RuleProblem[] = [];
  for (const [entry, line] of before) {
    if (line === null) continue;
    const { line: own, column } = written[entry];
    notes.push({ line: own, column, message: `no packet comes to this rule: line ${line} matches all of its packets` });
  }
  return notes;
}

/**
 * Returns false if a rule is for established packets only. These pass without the rules, so the
 * rule is not reported.
 */
function isAsked({ states }: Rule): boolean {
  return (states & ~State.ESTABLISHED) !== 0;
}

/** Returns the line of a rule before rule `index` that leaves it no packets, or null. */
function firstCover(
  rules: readonly Rule[],
  skips: readonly number[],
  index: number,
  lookup: Lookup,
  ports: number,
): number | null {
  const rule = rules[index];
  const version = fill(lookup.packet, rule);
  let at = lookup.find(0, version, -1);
  for (let compared = 0; at >= 0 && at < index && compared < COMPARED_MAX; compared++) {
    const other = rules[at];
    const leads = other.verdict === Verdict.SKIP ? other.target > index : other.verdict !== Verdict.CONTINUE;
    const isWhole = leads && other.limit === null && other.entry !== rule.entry && covers(other, rule, ports);
    if (isWhole && !isPassed(rules, skips, at, rule)) return other.line;
    at = lookup.find(0, version, at);
  }
  return null;
}

/** Returns true if some packet of `rule` may skip rule `at` by leaving the chain of that rule. */
function isPassed(rules: readonly Rule[], skips: readonly number[], at: number, rule: Rule): boolean {
  for (const before of skips) {
    if (before >= at) return false;
    if (rules[before].target > at && both(rules[before], rule) !== null) return true;
  }
  return false;
}

/** Returns true if `a` matches all packets that match `b`, except those of open connections. */
function covers(a: Rule, b: Rule, ports: number): boolean {
  return (b.states & ~State.ESTABLISHED & ~a.states) === 0 && coversMatch(a, b, ports);
}

/** Returns true if `a` matches all packets that match `b`, states aside. */
export function coversMatch(a: Match, b: Match, ports: number): boolean {
  const all = (1 << ports) - 1;
  return (
    (b.versions & ~a.versions) === 0 &&
    ((b.inPorts ?? all) & all & ~(a.inPorts ?? all)) === 0 &&
    ((b.outPorts ?? all) & all & ~(a.outPorts ?? all)) === 0 &&
    NUMBERS.every((field) => contains(a, b, field)) &&
    ((b.versions & IPV4) === 0 || ADDRESSES4.every((field) => contains(a, b, field))) &&
    ((b.versions & ~IPV4) === 0 || ADDRESSES6.every((field) => contains(a, b, field)))
  );
}

function contains(a: Match, b: Match, field: Field): boolean {
  const [outer, inner] = [a[field], b[field]];
  if (outer === null) return true;
  if (inner === null) return false;
  const common = intersection(outer, inner);
  return (
    common.length === inner.length && common.every(([low, high], i) => low === inner[i][0] && high === inner[i][1])
  );
}

/** Writes a packet that the rule matches. Returns its IP version as the lookup takes it. */
function fill(packet: Int32Array, rule: Rule): number {
  const isV4 = (rule.versions & IPV4) !== 0;
  const lowest = (set: Intervals | null): bigint => set?.[0][0] ?? 0n;
  const address = (at: number, set: Intervals | null): void => {
    const value = lowest(set);
    if (isV4) packet[at] = biased(Number(value));
    else for (let n = 0; n < 4; n++) packet[at + n] = biased(Number((value >> BigInt(96 - 32 * n)) & 0xffff_ffffn));
  };
  address(PACKET.source, isV4 ? rule.source4 : rule.source6);
  address(PACKET.destination, isV4 ? rule.destination4 : rule.destination6);
  packet[PACKET.sport] = Number(lowest(rule.sport));
  packet[PACKET.dport] = Number(lowest(rule.dport));
  packet[PACKET.protocol] = Number(lowest(rule.protocol));
  packet[PACKET.icmpType] = Number(lowest(rule.icmpType));
  packet[PACKET.icmpCode] = Number(lowest(rule.icmpCode));
  packet[PACKET.dscp] = Number(lowest(rule.dscp));
  packet[PACKET.flags] = Number(lowest(rule.tcpFlags));
  packet[PACKET.nextHeader] = Number(lowest(rule.nextHeader));
  packet[PACKET.inPort] = lowestBit(rule.inPorts ?? 1);
  packet[PACKET.outPort] = lowestBit(rule.outPorts ?? 1);
  packet[PACKET.state] = 1 << lowestBit(rule.states & ~State.ESTABLISHED);
  return isV4 ? 1 : 2;
}

function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}
