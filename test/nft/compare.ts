/** The same rulesets and packets through the kernel's nftables and through our firewall. */

import type { RuleProblem } from '../../workers/api/api.js';
import { compileRules } from '../../workers/middleboxes/firewall/compile.js';
import { Stream } from '../sim/random.js';
import { FirewallSite } from '../workers/support/firewall-site.js';
import { KernelFirewall, KernelRefusal } from './kernel.js';
import { answerOf, numberOf, type Packet, PacketDraw } from './packets.js';
import { type DrawnRule, type DrawnRuleset, drawRule, kernelOf, oursOf } from './rules.js';

const PORTS = ['inside', 'outside'];
/** Rulesets that are loaded into the kernel together. */
const TOGETHER = 100;
/** Rulesets in one namespace, whose table of connections they fill. */
const IN_NAMESPACE = 500;
const RULES_MAX = 10;
/** Packets that are rejected with an ICMP error in a second, less than the limit. */
const ANSWERED_PER_SECOND = 32;
/** After it no connection of a ruleset before is left. */
const FORGOTTEN_S = 40_000;

export interface Size {
  readonly rulesets: number;
  /** For each ruleset, at least. */
  readonly packets: number;
  readonly seed: number;
}

export interface Report {
  rulesets: number;
  rules: number;
  packets: number;
  accepted: number;
  /** Packets counted by rules, as both count them. */
  matched: number;
  /** Rules that were drawn and that we, or nft, refuse, by reason. */
  readonly refused: Map<string, number>;
  readonly refusedByNft: Map<string, number>;
  readonly differences: string[];
}

interface Case {
  readonly seed: number;
  readonly ruleset: DrawnRuleset;
  readonly packets: Packet[];
}

const DIFFERENCES_MAX = 20;

export function compare({ rulesets, packets, seed }: Size, name: string, log?: (report: Report) => void): Report {
  const report: Report = {
    rulesets: 0,
    rules: 0,
    packets: 0,
    accepted: 0,
    matched: 0,
    refused: new Map(),
    refusedByNft: new Map(),
    differences: [],
  };
  for (let from = 0; from < rulesets && report.differences.length < DIFFERENCES_MAX; from += IN_NAMESPACE) {
    const kernel = new KernelFirewall(name);
    try {
      for (let at = from; at < Math.min(from + IN_NAMESPACE, rulesets); at += TOGETHER) {
        const count = Math.min(TOGETHER, rulesets - at);
        const cases = Array.from({ length: count }, (_, n) => drawCase(seed + at + n, n * 4096, packets, report));
        compareCases(kernel, 1 + at - from, cases, report);
        log?.(report);
      }
    } finally {
      kernel.close();
    }
  }
  return report;
}

function drawCase(seed: number, first: number, most: number, report: Report): Case {
  const random = new Stream('nft rules', seed);
  const rules: DrawnRule[] = [];
  for (let left = random.whole(1, RULES_MAX); left > 0; left--) {
    const rule = drawRule(random);
    const refused = whyRefused(rule);
    if (refused === null) rules.push(rule);
    else report.refused.set(refused, (report.refused.get(refused) ?? 0) + 1);
  }
  const draw = new PacketDraw(new Stream('nft packets', seed), first);
  const packets: Packet[] = [];
  while (packets.length < most) packets.push(...draw.scene());
  return { seed, ruleset: { rules, policy: random.pick(['accept', 'drop']) }, packets };
}

function whyRefused(rule: DrawnRule): string | null {
  const { problems } = compileRules(oursOf(rule), { ports: PORTS });
  return problems === undefined ? null : reason(problems[0]);
}

function reason({ message }: RuleProblem): string {
  return message.replace(/"[^"]*"/g, '…');
}

/** Loads into the kernel what it takes of the rulesets, and returns that. */
function loaded(kernel: KernelFirewall, zone: number, cases: readonly Case[], report: Report): readonly Case[] {
  let kept = cases;
  for (;;) {
    try {
      kernel.load(kept.map(chainOf), zone);
      return kept;
    } catch (error) {
      if (!(error instanceof KernelRefusal)) throw error;
      const { places } = error;
      for (const { says } of places) {
        const why = says.replace(/: .*/, '');
        report.refusedByNft.set(why, (report.refusedByNft.get(why) ?? 0) + 1);
      }
      kept = kept.map((one, chain) => ({
        ...one,
        ruleset: {
          ...one.ruleset,
          rules: one.ruleset.rules.filter((_, rule) => !places.some((at) => at.chain === chain && at.rule === rule)),
        },
      }));
    }
  }
}

function chainOf({ ruleset: { rules, policy } }: Case): string[][] {
  return [...rules.map(kernelOf), ['ct state related accept', 'ct state invalid drop', policy]];
}

/**
 * What rules counted; nothing if nft 1.0.6 fails an assertion over a rule that it loaded: then only
 * verdicts are compared.
 */
function countsOf(kernel: KernelFirewall, cases: readonly Case[]): number[][] {
  try {
    return kernel.counts(cases.map(chainOf));
  } catch (error) {
    if (!(error as Error).message.includes('Assertion')) throw error;
    console.error('nft failed an assertion: the counters of some rulesets are not compared');
    return [];
  }
}

function compareCases(kernel: KernelFirewall, zone: number, drawn: readonly Case[], report: Report): void {
  const cases = loaded(kernel, zone, drawn, report);
  const sent = cases.flatMap(({ packets }, ruleset) => packets.map((packet) => ({ ruleset, packet })));
  const errors = new Set(sent.filter(({ packet }) => packet.isError).map(({ packet }) => numberOf(packet.ip)));
  const passed = outcomes(kernel.pass(sent), errors);
  const counts = countsOf(kernel, cases);
  const site = siteOf('policy drop');
  for (const [n, one] of cases.entries()) compareCase(site, one, counts[n] ?? [], passed, report);
}

function siteOf(rules: string): FirewallSite {
  return new FirewallSite({
    rules,
    options: { connections: 4096, connections_ipv6: 4096, half_open: 100, half_open_records: 1 << 30 },
  });
}

/** What comes out of our firewall. */
function through(site: FirewallSite, packets: readonly Packet[]): { port: number; ip: Buffer }[] {
  const frames = packets.map(({ port, ip }) => ({ port, frame: framed(ip) }));
  const arrived: { port: number; ip: Buffer }[] = [];
  for (let from = 0; from < frames.length; from += ANSWERED_PER_SECOND) {
    for (const { port, frame } of site.plane.passFrames(...frames.slice(from, from + ANSWERED_PER_SECOND)))
      arrived.push({ port, ip: Buffer.from(frame.subarray(14)) });
    site.later(1);
  }
  return arrived;
}

function comparedTo(packet: Packet, out: Outcomes, passed: Outcomes) {
  const number = numberOf(packet.ip);
  const [ours, kernels] = [out, passed].map((outcomes) => outcomes.get(number)?.join(', ') ?? 'nothing');
  // Of other protocols the kernel answers only packets whose bytes add up as if they had a
  // checksum.
  const passes = [ours, kernels].some((came) => came.startsWith('passes'));
  return { ours, kernels, isDifferent: ours !== kernels && (passes || packet.hasChecksum) };
}

function compareCase(site: FirewallSite, one: Case, counts: readonly number[], passed: Outcomes, report: Report): void {
  const { ruleset, packets, seed } = one;
  const text = [...ruleset.rules.map(oursOf), `policy ${ruleset.policy}`].join('\n');
  site.later(FORGOTTEN_S);
  site.load(text);
  const errors = new Set(packets.filter(({ isError }) => isError).map(({ ip }) => numberOf(ip)));
  const out = outcomes(through(site, packets), errors);
  site.replicateTo();
  report.rulesets++;
  report.rules += ruleset.rules.length;
  report.packets += packets.length;
  const differs = (what: string): void => {
    report.differences.push(`seed ${seed}: ${what}\n${text.replace(/^/gm, '    ')}`);
  };
  for (const packet of packets) {
    const { ours, kernels, isDifferent } = comparedTo(packet, out, passed);
    if (ours.startsWith('passes')) report.accepted++;
    if (isDifferent) return differs(`nft: ${kernels}, we: ${ours}, for ${packet.says}`);
  }
  for (const [rule, expected] of counts.slice(0, ruleset.rules.length).entries()) {
    const { packets: counted } = site.boards[0].count(rule);
    report.matched += expected;
    if (counted !== expected) return differs(`nft counts ${expected}, we ${counted}: ${oursOf(ruleset.rules[rule])}`);
  }
}

export interface WholeReport {
  readonly differences: string[];
  packets: number;
  accepted: number;
}

/**
 * Packets through what the kernel has loaded, and through our rules. `first`: the number of the
 * first packet.
 */
export function compareWhole(
  kernel: KernelFirewall,
  rules: string,
  { seed, packets: most, first }: { seed: number; packets: number; first: number },
): WholeReport {
  const draw = new PacketDraw(new Stream('nft packets', seed), first);
  const packets: Packet[] = [];
  while (packets.length < most) packets.push(...draw.scene());
  const errors = new Set(packets.filter(({ isError }) => isError).map(({ ip }) => numberOf(ip)));
  const passed = outcomes(kernel.pass(packets.map((packet) => ({ ruleset: 0, packet }))), errors);
  const site = siteOf(rules);
  const out = outcomes(through(site, packets), errors);
  const report: WholeReport = { differences: [], packets: packets.length, accepted: 0 };
  for (const packet of packets) {
    const { ours, kernels, isDifferent } = comparedTo(packet, out, passed);
    if (ours.startsWith('passes')) report.accepted++;
    if (isDifferent) report.differences.push(`nft: ${kernels}, we: ${ours}, for ${packet.says}`);
  }
  return report;
}

/** What came of each packet, by its number. */
type Outcomes = Map<number, string[]>;

/** `errors`: the packets that are ICMP errors themselves, which nobody answers. */
function outcomes(arrived: readonly { port: number; ip: Buffer }[], errors: ReadonlySet<number>): Outcomes {
  const all: Outcomes = new Map();
  for (const { port, ip } of arrived) {
    const own = numberOf(ip);
    const answer = errors.has(own) ? null : answerOf(ip);
    const number = answer?.number ?? own;
    if (number < 0) continue; // the first of some fragments: their last one is looked at
    const known = all.get(number);
    const says = answer?.says ?? `passes by ${port}`;
    if (known === undefined) all.set(number, [says]);
    else known.push(says);
  }
  return all;
}

function framed(ip: Buffer): Uint8Array {
  const frame = new Uint8Array(14 + ip.length);
  frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x99, ...(ip[0] >>> 4 === 4 ? [8, 0] : [0x86, 0xdd])]);
  frame.set(ip, 14);
  return frame;
}
