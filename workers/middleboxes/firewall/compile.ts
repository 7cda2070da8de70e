/** Compiles parsed rules to the program that workers run (program.ts). */

import type { CompiledRules, RuleEntry, RuleProblem, RulesContext } from '../../api/api.js';
import type { Intervals } from './intervals.js';
import { limitWords } from './limits.js';
import { ANY_PORT, anything, IPV4, IPV6 } from './match.js';
import { inOrder, parseRules, type RuleSet } from './parser.js';
import {
  biased,
  HEAD,
  HEAD_WORDS,
  LEVEL_SHIFT,
  LOG_BIT,
  PACKET,
  QUIET_BIT,
  REJECT_SHIFT,
  RULE,
  RULE_WORDS,
  STATELESS_BIT,
  VERDICT_SHIFT,
  VERSIONS_SHIFT,
} from './program.js';
import { type Limit, RejectWith, type Rule, Verdict } from './rule.js';
import { shadowed } from './shadow.js';
import { type Box, buildTree, groupBoxes } from './tree.js';
import { REJECT_CODES, State } from './vocabulary.js';

const HOLD_SHIFT = 16;
/**
 * Limits on the boxes of one rule, and of all rules. A rule with more boxes is covered by larger
 * ones.
 */
const BOXES_PER_RULE_MAX = 4096;
const BOXES_MAX = 150_000;

/** The compiler of the firewall's `rules`. */
export function compileRules(text: string, { ports, others }: RulesContext): CompiledRules {
  const { set, notes, problems } = parseRules(text, ports);
  if (problems !== undefined) return { problems };
  const vain = others === undefined ? [] : heldInVain(set, text, others);
  if (vain.length > 0) return { problems: vain };
  const compiled = compile(set);
  const hidden = shadowed(set.rules, set.written, compiled.words, ports.length);
  return { ...compiled, notes: inOrder([...notes, ...hidden]) };
}

/** Returns a problem for each rule that holds packets for more members than exist. */
function heldInVain({ rules }: RuleSet, text: string, others: number): RuleProblem[] {
  const lines = text.split('\n');
  return rules
    .filter(({ holdMembers }) => holdMembers > others)
    .map(({ line, holdMembers }) => ({
      line,
      column: Math.max(0, lines[line - 1].search(/\bhold\b/)) + 1,
      message: `hold ${holdMembers}: there are ${others} other members, every first packet would wait in vain`,
    }));
}

function compile({ rules: expanded, written, policy }: RuleSet): Compiled {
  const rules = [...expanded, policyRule(policy.verdict, policy.line, written.length)];
  const words = Array<number>(HEAD_WORDS + rules.length * RULE_WORDS).fill(0);
  const sets = new SetTable(words);
  words[HEAD.rules] = HEAD_WORDS;
  words[HEAD.count] = rules.length;
  words[HEAD.states] = expanded.reduce((states, rule) => states | statesAsked(rule), 0);
  words[HEAD.limits] = Number(expanded.some(({ limit }) => limit !== null));
  for (const [i, rule] of rules.entries()) writeRule(words, HEAD_WORDS + i * RULE_WORDS, rule, sets);
  [words[HEAD.trees4], words[HEAD.trees4Count]] = writeTrees(words, expanded, IPV4);
  [words[HEAD.trees6], words[HEAD.trees6Count]] = writeTrees(words, expanded, IPV6);
  const { line, text } = rules[rules.length - 1];
  const entries: RuleEntry[] = [...written.map((entry) => ({ line: entry.line, text: entry.text })), { line, text }];
  return { words: Int32Array.from(words), entries };
}

type Compiled = Extract<CompiledRules, { readonly problems?: undefined }>;

/**
 * Returns the states of packets that the rule can decide about. Invalid packets are dropped in any
 * case, so a stateless rule that accepts or rejects does not count for them.
 */
function statesAsked({ states, isStateless, verdict }: Rule): number {
  if (verdict === Verdict.SKIP) return 0;
  const decides = verdict === Verdict.DROP || verdict === Verdict.CONTINUE;
  return isStateless && !decides ? states & ~State.INVALID : states;
}

/** The policy as the last rule. It is in no tree. It applies if the search finds no rule. */
function policyRule(verdict: 'accept' | 'drop' | 'reject', line: number, entry: number): Rule {
  const verdicts = { accept: Verdict.ACCEPT, drop: Verdict.DROP, reject: Verdict.REJECT };
  return {
    ...anything(),
    line,
    text: `policy ${verdict}`,
    entry,
    states: State.NEW,
    isStateless: false,
    verdict: verdicts[verdict],
    chain: null,
    target: 0,
    rejectWith: RejectWith.DEFAULT,
    rejectCode: REJECT_CODES.icmpx['port-unreachable'],
    log: false,
    logPrefix: '',
    logLevel: -1,
    limit: null,
    holdMembers: 0,
    holdMs: 0,
    isQuiet: false,
  };
}

function writeRule(words: number[], at: number, rule: Rule, sets: SetTable): void {
  words[at + RULE.what] =
    rule.states |
    (rule.versions << VERSIONS_SHIFT) |
    (rule.verdict << VERDICT_SHIFT) |
    (rule.rejectWith << REJECT_SHIFT) |
    (rule.log ? LOG_BIT : 0) |
    (rule.isQuiet ? QUIET_BIT : 0) |
    (rule.isStateless ? STATELESS_BIT : 0) |
    ((rule.logLevel + 1) << LEVEL_SHIFT);
  words[at + RULE.ports] = (rule.inPorts ?? ANY_PORT) | ((rule.outPorts ?? ANY_PORT) << 16);
  words[at + RULE.protocol] = sets.numbers(rule.protocol);
  words[at + RULE.sport] = sets.numbers(rule.sport);
  words[at + RULE.dport] = sets.numbers(rule.dport);
  words[at + RULE.source4] = sets.ipv4(rule.source4);
  words[at + RULE.destination4] = sets.ipv4(rule.destination4);
  words[at + RULE.source6] = sets.ipv6(rule.source6);
  words[at + RULE.destination6] = sets.ipv6(rule.destination6);
  const more = [
    [PACKET.icmpType, sets.numbers(rule.icmpType)],
    [PACKET.icmpCode, sets.numbers(rule.icmpCode)],
    [PACKET.dscp, sets.numbers(rule.dscp)],
    [PACKET.flags, sets.numbers(rule.tcpFlags)],
    [PACKET.nextHeader, sets.numbers(rule.nextHeader)],
  ].filter(([, set]) => set !== 0);
  words[at + RULE.more] = more.length === 0 ? 0 : sets.words([more.length, ...more.flat()]);
  words[at + RULE.entry] = rule.entry;
  words[at + RULE.hold] = rule.holdMs | (rule.holdMembers << HOLD_SHIFT);
  const codes = Array.from(rule.logPrefix, (character) => character.codePointAt(0) ?? 0);
  words[at + RULE.prefix] = codes.length === 0 ? 0 : sets.words([codes.length, ...codes]);
  words[at + RULE.code] = rule.rejectCode;
  words[at + RULE.line] = rule.line;
  words[at + RULE.limit] = rule.limit === null ? 0 : sets.bucket(rule.entry, rule.limit);
  words[at + RULE.target] = rule.target;
}

/** Table of sets behind the rules. Equal sets are stored once. */
class SetTable {
  private readonly target: number[];
  private readonly known = new Map<string, number>();

  constructor(target: number[]) {
    this.target = target;
  }

  words(values: readonly number[]): number {
    const key = values.join();
    const found = this.known.get(key);
    if (found !== undefined) return found;
    const at = this.target.length;
    for (const value of values) this.target.push(value);
    this.known.set(key, at);
    return at;
  }

  /**
   * Returns the place of the bucket of a written rule's limit. Copies of the rule share the bucket.
   */
  bucket(entry: number, limit: Limit): number {
    const key = `limit ${entry} ${limit.over}`;
    const found = this.known.get(key);
    if (found !== undefined) return found;
    const at = this.target.length;
    for (const value of limitWords(limit)) this.target.push(value);
    this.known.set(key, at);
    return at;
  }

  private set(set: Intervals | null, form: (number: bigint) => number[]): number {
    if (set === null) return 0;
    const values = [set.length];
    for (const [low, high] of set) values.push(...form(low), ...form(high));
    return this.words(values);
  }

  numbers(set: Intervals | null): number {
    return this.set(set, (number) => [Number(number)]);
  }

  ipv4(set: Intervals | null): number {
    return this.set(set, (number) => [biased(Number(number))]);
  }

  ipv6(set: Intervals | null): number {
    return this.set(set, wordsOf);
  }
}

/** Returns the four words of an IPv6 address, biased. */
function wordsOf(number: bigint): number[] {
  return [96n, 64n, 32n, 0n].map((shift) => biased(Number((number >> shift) & 0xffff_ffffn)));
}

const WORD_MIN = -(2 ** 31);
const WORD_MAX = 2 ** 31 - 1;

interface Dimensions {
  readonly fields: readonly number[];
  readonly low: readonly number[];
  readonly high: readonly number[];
  /** Dimensions by which rules are sorted into trees. */
  readonly by: readonly number[];
}

function dimensionsOf(version: number): Dimensions {
  const words = version === IPV4 ? 1 : 4;
  const addresses = [PACKET.source, PACKET.destination].flatMap((field) =>
    Array.from({ length: words }, (_, i) => field + i),
  );
  const fields = [...addresses, PACKET.sport, PACKET.dport, PACKET.protocol];
  const tops = [65_535, 65_535, 255];
  return {
    fields,
    low: [...addresses.map(() => WORD_MIN), 0, 0, 0],
    high: [...addresses.map(() => WORD_MAX), ...tops],
    by: [0, words, 2 * words + 1],
  };
}

/**
 * Writes the trees of an IP version, ordered by their first rule. Returns their place and number.
 */
function writeTrees(words: number[], rules: readonly Rule[], version: number): [number, number] {
  const dimensions = dimensionsOf(version);
  const speaking = rules.map((rule, i) => ({ rule, i })).filter(({ rule }) => (rule.versions & version) !== 0);
  let left = BOXES_MAX - speaking.length;
  const boxes: Box[] = [];
  for (const { rule, i } of speaking) {
    const made = boxesOf(rule, i, version, dimensions, Math.max(1, Math.min(BOXES_PER_RULE_MAX, left)));
    left -= made.length - 1;
    for (const box of made) boxes.push(box);
  }
  const trees = groupBoxes(boxes, dimensions.by, dimensions.low, dimensions.high).map((group) => ({
    first: group.reduce((least, { rule }) => Math.min(least, rule), Number.POSITIVE_INFINITY),
    root: buildTree(words, group, dimensions.fields),
  }));
  trees.sort((a, b) => a.first - b.first);
  const at = words.length;
  for (const { root, first } of trees) words.push(root, first);
  return [at, trees.length];
}

/**
 * Returns the boxes of a rule, at most `most`. While the product of its sets is larger, the set
 * with the fewest intervals is replaced by its hull.
 */
function boxesOf(rule: Rule, index: number, version: number, { fields, low, high }: Dimensions, most: number): Box[] {
  const words = version === IPV4 ? 1 : 4;
  const parts = [
    { at: 0, ranges: addressRanges(version === IPV4 ? rule.source4 : rule.source6, version) },
    { at: words, ranges: addressRanges(version === IPV4 ? rule.destination4 : rule.destination6, version) },
    { at: 2 * words, ranges: numberRanges(rule.sport) },
    { at: 2 * words + 1, ranges: numberRanges(rule.dport) },
    { at: 2 * words + 2, ranges: numberRanges(rule.protocol) },
  ].filter(({ ranges }) => ranges !== null) as { at: number; ranges: Range[] }[];
  const size = (): number => parts.reduce((product, { ranges }) => product * ranges.length, 1);
  while (size() > most) {
    const many = parts.filter(({ ranges }) => ranges.length > 1);
    const fewest = many.reduce((a, b) => (b.ranges.length < a.ranges.length ? b : a));
    fewest.ranges = [hull(fewest.ranges)];
  }
  let boxes: Box[] = [{ rule: index, low: low.slice(0, fields.length), high: high.slice(0, fields.length) }];
  for (const { at, ranges } of parts)
    boxes = boxes.flatMap((box) =>
      ranges.map((range) => ({
        rule: index,
        low: box.low.toSpliced(at, range.low.length, ...range.low),
        high: box.high.toSpliced(at, range.high.length, ...range.high),
      })),
    );
  return boxes;
}

/** An interval with one dimension per word. */
interface Range {
  readonly low: readonly number[];
  readonly high: readonly number[];
}

function numberRanges(set: Intervals | null): Range[] | null {
  return set?.map(([low, high]) => ({ low: [Number(low)], high: [Number(high)] })) ?? null;
}

function addressRanges(set: Intervals | null, version: number): Range[] | null {
  if (set === null) return null;
  if (version === IPV4) return set.map(([low, high]) => ({ low: [biased(Number(low))], high: [biased(Number(high))] }));
  return set.map(([low, high]) => {
    const from = wordsOf(low);
    const to = wordsOf(high);
    // A word is bounded only if the words before it are equal at both ends.
    const open = from.findIndex((word, i) => word !== to[i]);
    const isOpen = (i: number): boolean => open !== -1 && i > open;
    return {
      low: from.map((word, i) => (isOpen(i) ? WORD_MIN : word)),
      high: to.map((word, i) => (isOpen(i) ? WORD_MAX : word)),
    };
  });
}

function hull(ranges: readonly Range[]): Range {
  const [first] = ranges;
  const low = [...first.low];
  const high = [...first.high];
  for (const range of ranges)
    for (let d = 0; d < low.length; d++) {
      low[d] = Math.min(low[d], range.low[d]);
      high[d] = Math.max(high[d], range.high[d]);
    }
  return { low, high };
}
