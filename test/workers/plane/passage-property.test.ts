/**
 * Passing the chain, packet by packet: random chains of filters, answerers and things that rewrite
 * addresses, against a model that takes one packet at a time and knows no batches.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { defineMiddlebox, rewriteDestination, rewriteSource } from '../../../workers/api/api.js';
import { formatIpv4, parseIpv4, swap16 } from '../../../workers/packet/ipv4.js';
import type { Link } from '../../../workers/plane/chain.js';
import { on } from '../support/plane.js';
import { Site } from '../support/site.js';

const NEAR = 0;
const FAR = 1;
const TURNS_MAX = 3;
/**
 * From the inside to the outside: what the first thing that rewrites has on its near side, what it
 * makes of it, and so on.
 */
const NETS = ['10.0.0', '20.0.0', '30.0.0'];
const REMOTE = '8.8.8';

type Stage =
  | { readonly kind: 'filter'; readonly modulus: number; readonly rest: number }
  | { readonly kind: 'answerer'; readonly modulus: number; readonly rest: number }
  | { readonly kind: 'rewriter'; readonly level: number };

interface Packet {
  source: string;
  destination: string;
  sourcePort: number;
  destinationPort: number;
  isReset: boolean;
  port: number;
  egress: number;
}

const netOf = (address: string): string => address.slice(0, address.lastIndexOf('.'));
const moved = (address: string, net: string): string => `${net}${address.slice(address.lastIndexOf('.'))}`;
const meets = ({ modulus, rest }: { readonly modulus: number; readonly rest: number }, low: number): boolean =>
  low % modulus === rest;

/**
 * What a stage does to a packet; the same for the model and for a middlebox, which gives it what it
 * finds in the batch.
 */
function act(stage: Stage, packet: Packet): 'passes' | 'dropped' | 'answered' {
  const low = Math.min(packet.sourcePort, packet.destinationPort);
  if (stage.kind === 'filter') return meets(stage, low) ? 'dropped' : 'passes';
  if (stage.kind === 'answerer') return meets(stage, low) && !packet.isReset ? 'answered' : 'passes';
  const [near, far] = [NETS[stage.level], NETS[stage.level + 1]];
  if (packet.port === NEAR) {
    if (netOf(packet.source) !== near) return 'dropped';
    packet.source = moved(packet.source, far);
    packet.egress = FAR;
    if (netOf(packet.destination) !== far) return 'passes';
  } else if (netOf(packet.destination) !== far) return 'dropped';
  packet.destination = moved(packet.destination, near);
  packet.egress = NEAR;
  return 'passes';
}

/** A middlebox that does as the stage says, and writes down what it was shown. */
function middlebox(stage: Stage, n: number, seen: string[]): Link {
  const made = defineMiddlebox({
    name: `stage${n}`,
    help: 'Acts.',
    addresses: 'rewrites',
    ...(stage.kind === 'rewriter' && { sides: () => ({ near: [NEAR], far: [FAR] }) }),
    options: {},
    counters: { refused: 'dropped: refused' },
    state: () => ({}),
    open:
      ({ batch, counters, replies }) =>
      () => {
        const { source, destination, ports, port, egress } = batch;
        for (let i = 0; i < batch.count; i++) {
          if (batch.skips(i)) continue;
          const packet: Packet = {
            source: formatIpv4(source[i]),
            destination: formatIpv4(destination[i]),
            sourcePort: swap16(ports[i] & 0xffff),
            destinationPort: swap16(ports[i] >>> 16),
            isReset: (batch.flags[i] & 4) !== 0,
            port: port[i],
            egress: egress[i],
          };
          seen.push(`${n}: ${text(packet)}`);
          const done = act(stage, packet);
          if (done === 'dropped') batch.drop(i, counters.refused);
          else if (done === 'answered') assert.ok(replies.reset(i));
          else {
            rewriteSource(batch, i, parseIpv4(packet.source), ports[i] & 0xffff);
            rewriteDestination(batch, i, parseIpv4(packet.destination), ports[i] >>> 16);
            batch.forward(i, packet.egress);
          }
        }
      },
  });
  return { middlebox: made as never, options: {} };
}

function text({ source, sourcePort, destination, destinationPort, isReset, port }: Packet): string {
  return `${port} ${source}:${sourcePort} > ${destination}:${destinationPort}${isReset ? ' R' : ''}`;
}

function answer(packet: Packet): void {
  [packet.source, packet.destination] = [packet.destination, packet.source];
  [packet.sourcePort, packet.destinationPort] = [packet.destinationPort, packet.sourcePort];
  packet.isReset = true;
}

/** Has one packet pass; false: it was dropped. What the stages were shown is added to `seen`. */
function model(stages: readonly Stage[], packet: Packet, seen: string[]): boolean {
  const hasEnds = stages.length > 1 && stages.some(({ kind }) => kind === 'rewriter');
  function travel(first: number, step: number, turns: number, leg: { rewritten: boolean; isReply: boolean }): boolean {
    let { rewritten } = leg;
    for (let s = first; s >= 0 && s < stages.length; s += step) {
      const towards = packet.egress;
      seen.push(`${s}: ${text(packet)}`);
      const done = act(stages[s], packet);
      if (done === 'dropped') return false;
      const isHairpin =
        hasEnds && stages[s].kind === 'rewriter' && packet.egress === packet.port && towards !== packet.egress;
      const isBack = done === 'answered' && hasEnds && rewritten;
      if (done === 'answered') answer(packet);
      if ((isHairpin || isBack) && (turns === TURNS_MAX || (isBack && leg.isReply))) return false;
      if (isHairpin) return travel(s - step, -step, turns + 1, { rewritten: true, isReply: leg.isReply });
      if (isBack) {
        const cameBy = packet.port;
        packet.port = towards;
        packet.egress = 1 - towards;
        const arrives = travel(s - step, -step, turns + 1, { rewritten: false, isReply: true });
        packet.port = cameBy;
        return arrives;
      }
      if (done === 'answered') {
        packet.egress = packet.port;
        return true;
      }
      rewritten ||= stages[s].kind === 'rewriter';
    }
    return true;
  }
  const isBackwards = hasEnds && packet.port === FAR;
  const leg = { rewritten: false, isReply: false };
  return isBackwards ? travel(stages.length - 1, -1, 0, leg) : travel(0, 1, 0, leg);
}

const simple = fc
  .record({ kind: fc.constantFrom('filter' as const, 'answerer' as const), modulus: fc.integer({ min: 2, max: 5 }) })
  .chain((stage) => fc.nat(stage.modulus - 1).map((rest) => ({ ...stage, rest }) as Stage));
const some = fc.array(simple, { maxLength: 2 });
/** Up to two that rewrite, with others before, between and behind. */
const chains = fc
  .tuple(some, fc.nat(2), some, some)
  .map(([before, rewriters, between, behind]): Stage[] => [
    ...before,
    ...(rewriters > 0 ? [{ kind: 'rewriter' as const, level: 0 }] : []),
    ...between,
    ...(rewriters > 1 ? [{ kind: 'rewriter' as const, level: 1 }] : []),
    ...behind,
  ]);
const hosts = fc.integer({ min: 1, max: 3 });
const drawn = fc.record({
  fromNear: fc.boolean(),
  net: fc.constantFrom(...NETS, REMOTE, REMOTE),
  hosts: fc.tuple(hosts, hosts),
  low: fc.integer({ min: 1, max: 20 }),
});

describe('passing the chain, held against a model', () => {
  it('shows every stage what it is to see, and sends every packet where it belongs', function () {
    this.timeout(60_000);
    fc.assert(
      fc.property(chains, fc.array(drawn, { minLength: 1, maxLength: 40 }), (stages, packets) => {
        const seen: string[] = [];
        const site = new Site({ chain: stages.map((stage, n) => middlebox(stage, n, seen)), plane: { route: null } });
        const expected: string[] = [];
        const toSee: string[] = [];
        const input = packets.map(({ fromNear, net, hosts: [a, b], low }, n) => {
          const other = `${net}.${b}`;
          const inside = `${NETS[0]}.${a}`;
          const packet: Packet = {
            source: fromNear ? inside : other,
            destination: fromNear ? other : moved(inside, NETS[2 - (b % 3)]),
            sourcePort: 10_000 + n, // tells one from another, also when it is answered
            destinationPort: low,
            isReset: false,
            port: fromNear ? NEAR : FAR,
            egress: fromNear ? FAR : NEAR,
          };
          const { source, sourcePort, destination, destinationPort, port } = packet;
          const frame = on(port, `tcp ${source}:${sourcePort} > ${destination}:${destinationPort} S`);
          if (model(stages, packet, toSee)) expected.push(`${packet.egress}: tcp ${text(packet).slice(2)}`);
          return frame;
        });
        const sent = site.plane.pass(...input).map((line) => line.replace(/ RA$/, ' R').replace(/ S$/, ''));
        assert.deepEqual(sent.toSorted(), expected.toSorted());
        assert.deepEqual(byPacket(seen), byPacket(toSee));
      }),
      { numRuns: 200 },
    );
  });
});

/** What was seen of each packet, in order; packets of a batch are seen together. */
function byPacket(seen: readonly string[]): Record<string, string[]> {
  const packets: Record<string, string[]> = {};
  for (const line of seen) {
    const [, id] = /:(1\d{4})\b/.exec(line) ?? [];
    packets[id] ??= [];
    packets[id].push(line);
  }
  return packets;
}
