/**
 * A process of the firewall benchmark. It measures one thing in its own data plane
 * (workers/packet/batch.ts says why) and writes nanoseconds of processor time per packet or lookup.
 */

import { MemoryDriver } from '../../workers/drivers/memory.js';
import { compileRules } from '../../workers/middleboxes/firewall/compile.js';
import { createLookup } from '../../workers/middleboxes/firewall/lookup.js';
import { biased, PACKET } from '../../workers/middleboxes/firewall/program.js';
import { FirewallSite } from '../workers/support/firewall-site.js';
import { frame } from '../workers/support/frames.js';
import { Plane } from '../workers/support/plane.js';
import { median } from './result.js';

export interface FirewallWork {
  readonly what: 'compile' | 'list' | 'trees' | 'pass' | 'established' | 'new' | 'denied';
  readonly rules: number;
  readonly ms: number;
}

const { what, rules, ms } = JSON.parse(process.argv[2]) as FirewallWork;
const PACKETS = 16_384;
const ROUNDS = 5;
/**
 * After this idle time, unanswered UDP is forgotten, and its next packet starts a new connection.
 */
const FORGOTTEN_S = 40;

let seed = 1;
function draw(below: number): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
  return Math.trunc(((seed >>> 0) / 2 ** 32) * below);
}

interface Meant {
  readonly text: string;
  readonly source: string;
  readonly destination: string;
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
}

/**
 * A rule as sites have them, and a packet that it matches: from a network or from anywhere, to a
 * host or a network, with one port or a range. All rules accept, so that only their number matters.
 */
function meant(): Meant {
  const protocol = draw(4) === 0 ? 'udp' : 'tcp';
  const [a, b, c] = [draw(256), draw(256), draw(256)];
  const port = 1 + draw(10_000);
  const from = draw(3) === 0 ? '' : `ip saddr 10.${a}.${b}.0/24 `;
  const to = draw(4) === 0 ? `172.${16 + (c & 15)}.0.0/16` : `172.${16 + (c & 15)}.${b}.${a}`;
  const ports = draw(5) === 0 ? `${port}-${port + 20}` : `${port}`;
  return {
    text: `${from}ip daddr ${to} ${protocol} dport ${ports} accept`,
    source: `10.${a}.${b}.${1 + draw(250)}`,
    destination: to.includes('/') ? `172.${16 + (c & 15)}.${draw(256)}.${draw(256)}` : to,
    protocol,
    port,
  };
}

const all = Array.from({ length: rules }, meant);
const text = `policy drop\n${all.map((rule) => rule.text).join('\n')}`;
/** Packets that a rule matches, drawn from all rules. */
const packets = Array.from({ length: PACKETS }, () => all[draw(all.length)]);

/** Median of some rounds: nanoseconds of processor time per item that `work` processes. */
function time(work: () => number): number {
  const figures = Array.from({ length: ROUNDS + 1 }, () => {
    let done = 0;
    const before = process.cpuUsage();
    for (const end = performance.now() + ms / ROUNDS; performance.now() < end; ) done += work();
    const { user, system } = process.cpuUsage(before);
    return ((user + system) * 1000) / done;
  });
  return median(figures.slice(1));
}

function host(text: string): number {
  return biased(text.split('.').reduce((word, part) => (word << 8) | Number(part), 0));
}

function lookups(how: 'find' | 'findLinear'): number {
  const { words, problems } = compileRules(text, { ports: ['inside', 'outside'] });
  if (problems !== undefined) throw new Error(problems[0].message);
  const { packet, ...lookup } = createLookup(words);
  const find = lookup[how];
  packet[PACKET.state] = 1;
  packet[PACKET.outPort] = 1;
  packet[PACKET.sport] = 40_000;
  const sources = Int32Array.from(packets, ({ source }) => host(source));
  const destinations = Int32Array.from(packets, ({ destination }) => host(destination));
  const ports = Int32Array.from(packets, ({ port }) => port);
  const protocols = Int32Array.from(packets, ({ protocol }) => (protocol === 'tcp' ? 6 : 17));
  let next = 0;
  return time(() => {
    for (let n = 0; n < 256; n++) {
      const i = next++ & (PACKETS - 1);
      packet[PACKET.source] = sources[i];
      packet[PACKET.destination] = destinations[i];
      packet[PACKET.dport] = ports[i];
      packet[PACKET.protocol] = protocols[i];
      if (find(0, 1, -1) < 0) throw new Error(`no rule for ${JSON.stringify(all[i])}`);
    }
    return 256;
  });
}

function compiling(): number {
  const compiled = time(() => {
    compileRules(text, { ports: ['inside', 'outside'] });
    return 1;
  });
  return compiled / 1e6;
}

/**
 * Packets through a data plane: taken from the memory driver, parsed, and passed through the
 * firewall or not.
 */
function throughPlane(): number {
  const driver = new MemoryDriver({ ports: 2, loop: true, capture: false });
  const plane = { route: null, openDriver: () => driver };
  const half_open_records = 1 << 30;
  const options = { connections: 4 * PACKETS, half_open: 100, half_open_records };
  const denied = what === 'denied' ? text.replaceAll(' accept', ' drop') : text;
  const site = what === 'pass' ? null : new FirewallSite({ rules: denied, options, plane });
  const { dataPlane } = site?.plane ?? openPlain(plane);
  for (const [i, { source, destination, protocol, port }] of packets.entries()) {
    // Each packet is its own flow.
    const words = `${source}:${1024 + i} > ${destination}:${port}`;
    const syn = protocol === 'tcp' ? ' S' : '';
    driver.inject(0, frame(what === 'established' ? `tcp ${words} A` : `${protocol} ${words}${syn}`));
  }
  if (what === 'established' && site !== null) establish(site);
  let passed = 0;
  const figure = time(() => {
    let done = 0;
    for (let n = 0; n < 16; n++) done += dataPlane.doWork();
    site?.replicateTo();
    passed += done;
    if (what === 'new' && passed >= PACKETS && site !== null) {
      passed = 0;
      site.later(2 * FORGOTTEN_S);
    }
    return done;
  });
  check(site);
  return figure;
}

function openPlain(options: ConstructorParameters<typeof Plane>[0]): Plane {
  const plane = new Plane(options);
  plane.open([]);
  return plane;
}

/** Adds every packet's connection, as if other sites had replicated it. */
function establish(site: FirewallSite): void {
  const key = new Int32Array(4);
  for (const [i, { source, destination, port }] of packets.entries()) {
    const [from, to] = [rawWord(source), rawWord(destination)];
    const side = from > to ? 1 : 0;
    const pair = rawPort(1024 + i) | (rawPort(port) << 16);
    key.set([side ? to : from, side ? from : to, side ? (pair << 16) | (pair >>> 16) : pair, 6]);
    const hash = site.ipv4.hash(key, 0);
    site.ipv4.add(hash, key, 0, Int32Array.of(side), 0, 1, site.now, site.now + 7440);
    site.plane.log.publish();
    if (i % 256 === 0) site.replicateTo();
  }
}

function rawWord(dotted: string): number {
  const [a, b, c, d] = dotted.split('.').map(Number);
  return a | (b << 8) | (c << 16) | (d << 24);
}

function rawPort(port: number): number {
  return ((port & 255) << 8) | (port >>> 8);
}

/** Throws unless the intended thing was measured. */
function check(site: FirewallSite | null): void {
  if (site === null) return;
  const { opened = 0, passed = 0, denied = 0, ...others } = site.counts();
  const wanted = what === 'new' ? opened : what === 'denied' ? denied : passed;
  const rest = opened + passed + denied - wanted;
  if (wanted === 0 || rest > 0.01 * wanted || Object.keys(others).some((name) => !name.startsWith('timer_')))
    throw new Error(`not only ${what}: ${JSON.stringify(site.counts())}`);
}

function figure(): number {
  if (what === 'compile') return compiling();
  if (what === 'list') return lookups('findLinear');
  if (what === 'trees') return lookups('find');
  return throughPlane();
}

console.log(figure());
