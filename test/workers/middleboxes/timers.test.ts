/**
 * Every timer of the NAT and the firewall, with the defaults, at two sites: an entry lives at both
 * for its timer at least after the last packet at either, and at neither for longer than the slack
 * that the manuals state.
 */

import { strict as assert } from 'node:assert';
import type { FlowTable } from '../../../shm/objects/flow/flow-table.js';
import { entriesOf } from '../../shm/objects/nat/nat-model.js';
import { FirewallSite } from '../support/firewall-site.js';
import { NatSite } from '../support/nat-site.js';
import { on } from '../support/plane.js';
import { INSIDE, OUTSIDE, type Site } from '../support/site.js';

interface Timer {
  readonly name: string;
  /** Seconds, as the manual gives it. */
  readonly timer: number;
  /** Seconds that an RFC asks for at least. */
  readonly minimum?: number;
  /** Packets that bring the entry into the state, and one that refreshes it there. */
  readonly packets: readonly string[];
  readonly options?: Readonly<Record<string, unknown>>;
}

const OUT = '10.0.0.5:4000 > 198.51.100.7:80';
const BACK = '198.51.100.7:80 > 10.0.0.5:4000';
const PING = 'icmp 10.0.0.5 > 198.51.100.7 type 8 id 77';

// Packets `>` from inside, `<` from outside; `$`: the external port. Minima: RFC 5382 REQ-5, RFC
// 4787 REQ-5, RFC 5508 REQ-2.

const ANSWER = '< tcp 198.51.100.7:80 > 203.0.113.1:$';
const OPENED = [
  `> tcp ${OUT} S seq 1000`,
  `${ANSWER} SA seq 5000 ack 1001`,
  `> tcp ${OUT} A seq 1001 ack 5001 win 1000`,
];
const FIN = `> tcp ${OUT} FA seq 1001 ack 5001 win 1000`;

const NAT: readonly Timer[] = [
  { name: 'tcp_opening', timer: 240, minimum: 240, packets: [`> tcp ${OUT} S`] },
  { name: 'tcp_established', timer: 7440, minimum: 7440, packets: OPENED },
  { name: 'tcp_closing', timer: 240, minimum: 240, packets: [...OPENED, FIN] },
  { name: 'udp', timer: 300, minimum: 120, packets: [`> udp ${OUT}`] },
  { name: 'udp, second packet', timer: 300, minimum: 120, packets: [`> udp ${OUT}`, `> udp ${OUT}`] },
  {
    name: 'udp, answered',
    timer: 300,
    minimum: 120,
    packets: [`> udp ${OUT}`, '< udp 198.51.100.7:80 > 203.0.113.1:$', `> udp ${OUT}`],
  },
  {
    name: 'udp_short',
    timer: 20,
    options: { udp_short: 20 },
    packets: ['> udp 10.0.0.5:4000 > 198.51.100.7:53', '> udp 10.0.0.5:4000 > 198.51.100.7:53'],
  },
  { name: 'icmp', timer: 60, minimum: 60, packets: [`> ${PING}`] },
];

const CONNECTED = [OPENED[0], `< tcp ${BACK} SA seq 5000 ack 1001`, OPENED[2]];
const DATA = `< tcp ${BACK} A seq 5001 ack 1001 win 1000`;
const RESET = `< tcp ${BACK} R seq 5001`;

const FIREWALL: readonly Timer[] = [
  { name: 'tcp_new', timer: 60, packets: [`> tcp ${OUT} S`] },
  { name: 'tcp_established', timer: 7440, minimum: 7440, packets: [...CONNECTED, DATA] },
  { name: 'tcp_closing', timer: 120, packets: [...CONNECTED, DATA, FIN] },
  { name: 'tcp_closed', timer: 10, packets: [...CONNECTED, DATA, RESET] },
  { name: 'udp_new', timer: 30, packets: [`> udp ${OUT}`] },
  { name: 'udp', timer: 180, packets: [`> udp ${OUT}`, `< udp ${BACK}`] },
  { name: 'icmp', timer: 30, packets: [`> ${PING}`] },
  { name: 'other', timer: 600, packets: ['> ip 10.0.0.5 > 198.51.100.7 proto 47'] },
];

/** Parts of a second into which the first packet falls. */
const PHASES_MS = [0, 999];
/**
 * Pauses between packets, in parts of the timer. An eighth, in which a refresh takes no record, is
 * among them.
 */
const PAUSES: readonly (readonly number[])[] = [
  [],
  [1 / 8],
  [0.99, 0.99, 0.99],
  [0.05, 0.03, 0.045],
  [0.9, 1 / 8, 1 / 9],
];

function exchange(a: Site, b: Site): void {
  a.replicateTo(b);
  b.replicateTo(a);
}

function checkAll(
  timers: readonly Timer[],
  open: (timer: Timer, member: number) => Site,
  live: (site: Site) => number,
) {
  for (const timer of timers)
    it(`${timer.name}: never early, never later than the slack`, () => {
      const { packets, minimum = 0 } = timer;
      assert.ok(timer.timer >= minimum, 'the RFC asks for more');
      for (const phaseMs of PHASES_MS)
        for (const pauses of PAUSES) {
          const sites = [0, 1].map((member) => open(timer, member));
          const [a, b] = sites;
          let external = '';
          const later = (seconds: number): void => {
            for (const site of sites) site.later(seconds);
          };
          const pass = (site: Site, packet: string): void => {
            const sent = site.pass(
              on(packet.startsWith('>') ? INSIDE : OUTSIDE, packet.slice(2).replace('$', external)),
            );
            assert.equal(sent.length, 1, `${packet} did not pass`);
            external = /203\.0\.113\.1:(\d+) >/.exec(sent[0])?.[1] ?? external;
            exchange(a, b);
          };
          later(phaseMs / 1000);
          for (const packet of packets) pass(a, packet);
          for (const [n, pause] of pauses.entries()) {
            later(pause * timer.timer);
            pass(sites[(n + 1) % 2], packets[packets.length - 1]);
          }
          const what = `phase ${phaseMs} ms, pauses ${pauses}`;
          later(timer.timer - 0.001);
          assert.deepEqual(sites.map(live), [1, 1], `early: ${what}`);
          later(timer.timer / 8 + 1 + 0.001);
          assert.deepEqual(sites.map(live), [0, 0], `late: ${what}`);
        }
    });
}

describe('timers of the NAT, at two sites', () => {
  const open = ({ options = {} }: Timer, member: number) => new NatSite({ member, members: 2, options });
  const live = (site: Site) => entriesOf((site as NatSite).bindings, site.now).length;
  checkAll(NAT, open, live);

  describe('of sessions, where filtering asks for the remote', () => {
    const filtering = 'address-and-port-dependent';
    checkAll(
      NAT,
      ({ options = {} }, member) =>
        new NatSite({ member, members: 2, options: { ...options, sessions: 1024, filtering } }),
      (site) => countOf(site.objects[1] as FlowTable, site.now),
    );
  });
});

describe('timers of the firewall, at two sites', () => {
  checkAll(
    FIREWALL,
    (_timer, member) => new FirewallSite({ rules: 'policy accept', member, members: 2 }),
    (site) => countOf((site as FirewallSite).ipv4, site.now),
  );
});

function countOf(table: FlowTable, now: number): number {
  let count = 0;
  table.forEach(now, () => count++);
  return count;
}
