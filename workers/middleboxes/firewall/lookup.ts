/**
 * Finds the rule that a packet meets: the first in the file that matches it. There are two ways
 * with the same result: linear search, and search through the trees.
 */

import { HEAD, LEAF, PACKET, PACKET_WORDS, RULE, RULE_WORDS, TREE_WORDS, VERSIONS_SHIFT } from './program.js';

// Constants of this file. The optimiser folds them, but not imports.
const NOTHING = -1;
const LEAF_NODE = LEAF;
const WORDS_PER_RULE = RULE_WORDS;
const WORDS_PER_TREE = TREE_WORDS;
const VERSIONS = VERSIONS_SHIFT;
const { what: WHAT, ports: PORTS, protocol: PROTOCOL_SET, sport: SPORTS, dport: DPORTS, more: MORE } = RULE;
const { source4: SOURCE4, destination4: DESTINATION4, source6: SOURCE6, destination6: DESTINATION6 } = RULE;
const { source, destination, sport, dport, protocol, inPort, outPort, state } = PACKET;
const IPV4 = 1;

/** Up to this many intervals are searched linearly. */
const FEW = 6;

export interface Lookup {
  /** The packet to look up, as words of `PACKET`. */
  readonly packet: Int32Array;
  /**
   * Returns the first rule after rule `after` that the packet matches in the program at `base`, or
   * -1. An `after` of -1 starts at the first rule. `version`: 1 is IPv4, 2 IPv6.
   */
  find(base: number, version: number, after: number): number;
  /** The same by linear search. */
  findLinear(base: number, version: number, after: number): number;
}

/** Made once per worker, for the memory that holds its programs: see the head of batch.ts. */
export function createLookup(words: Int32Array): Lookup {
  const packet = new Int32Array(PACKET_WORDS);

  function matches(base: number, rule: number, version: number): boolean {
    const at = base + words[base + HEAD.rules] + rule * WORDS_PER_RULE;
    const what = words[at + WHAT];
    if ((what & packet[state]) === 0 || ((what >>> VERSIONS) & version) === 0) return false;
    const ports = words[at + PORTS];
    if (((ports >>> packet[inPort]) & 1) === 0) return false;
    if (ports >>> 16 !== 0xffff && (packet[outPort] > 15 || ((ports >>> (16 + packet[outPort])) & 1) === 0))
      return false;
    const protocols = words[at + PROTOCOL_SET];
    if (protocols !== 0 && !has(base + protocols, packet[protocol])) return false;
    const dports = words[at + DPORTS];
    if (dports !== 0 && !has(base + dports, packet[dport])) return false;
    const sports = words[at + SPORTS];
    if (sports !== 0 && !has(base + sports, packet[sport])) return false;
    if (version === IPV4) {
      const sources = words[at + SOURCE4];
      if (sources !== 0 && !has(base + sources, packet[source])) return false;
      const destinations = words[at + DESTINATION4];
      if (destinations !== 0 && !has(base + destinations, packet[destination])) return false;
    } else {
      const sources = words[at + SOURCE6];
      if (sources !== 0 && !hasIpv6(base + sources, source)) return false;
      const destinations = words[at + DESTINATION6];
      if (destinations !== 0 && !hasIpv6(base + destinations, destination)) return false;
    }
    const tests = words[at + MORE];
    return tests === 0 || passes(base, base + tests);
  }

  /** Returns true if a set of numbers contains `value`. */
  function has(set: number, value: number): boolean {
    const count = words[set];
    let low = 0;
    let high = count - 1;
    while (high - low >= FEW) {
      const middle = (low + high) >>> 1;
      if (words[set + 1 + 2 * middle] <= value) low = middle;
      else high = middle - 1;
    }
    for (let i = low; i <= high; i++) {
      const from = set + 1 + 2 * i;
      if (words[from] > value) return false;
      if (words[from + 1] >= value) return true;
    }
    return false;
  }

  /** Returns true if a set of IPv6 addresses contains the one at `packet[at …]`. */
  function hasIpv6(set: number, at: number): boolean {
    let low = 0;
    let high = words[set] - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const from = set + 1 + 8 * middle;
      if (compare(from, at) > 0) high = middle - 1;
      else if (compare(from + 4, at) < 0) low = middle + 1;
      else return true;
    }
    return false;
  }

  function compare(bound: number, at: number): number {
    for (let i = 0; i < 4; i++) {
      if (words[bound + i] < packet[at + i]) return -1;
      if (words[bound + i] > packet[at + i]) return 1;
    }
    return 0;
  }

  /** Returns true if the packet passes all tests of other fields. */
  function passes(base: number, tests: number): boolean {
    const end = tests + 1 + 2 * words[tests];
    for (let at = tests + 1; at < end; at += 2) if (!has(base + words[at + 1], packet[words[at]])) return false;
    return true;
  }

  function find(base: number, version: number, after: number): number {
    const trees = base + words[base + (version === IPV4 ? HEAD.trees4 : HEAD.trees6)];
    const count = words[base + (version === IPV4 ? HEAD.trees4Count : HEAD.trees6Count)];
    let best = 0x7fff_ffff;
    for (let tree = 0; tree < count; tree++) {
      const at = trees + tree * WORDS_PER_TREE;
      if (words[at + 1] >= best) break;
      best = search(base, words[at], version, after, best);
    }
    return best === 0x7fff_ffff ? NOTHING : best;
  }

  /** Returns the first matching rule after `after` and before `best` in a tree, or `best`. */
  function search(base: number, root: number, version: number, after: number, best: number): number {
    let node = base + root;
    while (words[node] !== LEAF_NODE) {
      const side = packet[words[node]] <= words[node + 1] ? 2 : 3;
      node = base + words[node + side];
    }
    const end = node + 2 + words[node + 1];
    for (let at = node + 2; at < end; at++) {
      const rule = words[at];
      if (rule >= best) return best;
      if (rule > after && matches(base, rule, version)) return rule;
    }
    return best;
  }

  function findLinear(base: number, version: number, after: number): number {
    // The last rule is the policy.
    const count = words[base + HEAD.count] - 1;
    for (let rule = after + 1; rule < count; rule++) if (matches(base, rule, version)) return rule;
    return NOTHING;
  }

  return { packet, find, findLinear };
}
