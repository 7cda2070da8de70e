/**
 * The table of state transitions in docs/firewall.md, row by row: the packet that it names does it,
 * forged packets do not; where one site sees both directions, and where one site sees the initiator
 * and another the responder.
 */

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { FirewallSite } from '../../support/firewall-site.js';
import { frame, seal } from '../../support/frames.js';
import { frame6 } from '../../support/frames6.js';
import { on } from '../../support/plane.js';

const INSIDE = 0;
const OUTSIDE = 1;
const RULES = `zone lan = { port inside }
from lan tcp dport 80 accept
from lan udp dport 53 accept
from lan icmp type echo-request accept`;
const STATES = ['new', 'established', 'closing', 'closed'];
const MANUAL = readFileSync(new URL('../../../../../docs/firewall.md', import.meta.url), 'utf8');

type Packet = ReturnType<typeof on>;

const from = (flags: string): Packet => on(INSIDE, `tcp 10.0.0.5:4000 > 198.51.100.7:80 ${flags}`);
const back = (flags: string): Packet => on(OUTSIDE, `tcp 198.51.100.7:80 > 10.0.0.5:4000 ${flags}`);
/** The same by the port of the other end, and in a VLAN. */
const byOtherPort = ({ port, frame: bytes }: Packet): Packet => ({ port: 1 - port, frame: bytes });
const inVlan = ({ port, frame: bytes }: Packet): Packet => {
  const tagged = new Uint8Array(bytes.length + 4);
  tagged.set(bytes.subarray(0, 12));
  tagged.set([0x81, 0, 0, 10], 12);
  tagged.set(bytes.subarray(12), 16);
  return { port, frame: tagged };
};

const SYN = from('S seq 1000 scale 0');
const SYN_ACK = back('SA seq 5000 ack 1001 scale 0 win 1000');
const ACK = from('A seq 1001 ack 5001 win 1000');
const DATA = back('PA seq 5001 ack 1001 win 1000 len 10');
const FIN = from('FA seq 1001 ack 5001 win 1000');
const RST = back('R seq 5001');

interface Row {
  /** As in the manual. */
  readonly transition: string;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly before: readonly Packet[];
  readonly states: readonly [string, string];
  readonly packet: Packet;
  readonly forged: readonly Packet[];
  /** A packet by which it shows what the transition made. */
  readonly shows?: { readonly packet: Packet; readonly state: string };
  /** Only the site that the first answer passed can tell forged packets from others. */
  readonly needsAnswer?: boolean;
  /**
   * Two sites do not know enough to tell forged packets: they may do it where the window of their
   * receiver is unknown.
   */
  readonly needsWindow?: boolean;
}

const OPEN = [SYN, SYN_ACK, ACK, DATA];

const ROWS: readonly Row[] = [
  {
    transition: 'none → new (TCP)',
    before: [],
    states: ['none', 'new'],
    packet: SYN,
    forged: [byOtherPort(SYN), back('S'), SYN_ACK, ACK, DATA, FIN, RST, from('SF'), from('R')],
  },
  {
    transition: 'none → new (other)',
    before: [],
    states: ['none', 'new'],
    packet: on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53'),
    forged: [
      on(OUTSIDE, 'udp 198.51.100.7:53 > 10.0.0.5:4000'),
      on(OUTSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53'),
      on(INSIDE, 'icmp 10.0.0.5 > 198.51.100.7 reply 7'),
      on(INSIDE, 'icmp 10.0.0.5 > 198.51.100.7 type 5 len 20'),
    ],
  },
  {
    transition: 'none → new (pickup)',
    options: { pickup: 'loose' },
    before: [],
    states: ['none', 'new'],
    packet: DATA,
    forged: [byOtherPort(DATA), byOtherPort(ACK), RST, from('R')],
  },
  {
    transition: 'new → answered',
    before: [SYN],
    states: ['new', 'new'],
    packet: SYN_ACK,
    forged: [back('SA seq 7000 ack 99'), byOtherPort(SYN_ACK), inVlan(SYN_ACK), RST, SYN, from('SA seq 5000 ack 1001')],
    shows: { packet: ACK, state: 'established' },
  },
  {
    transition: 'answered → established',
    before: [SYN, SYN_ACK],
    states: ['new', 'established'],
    packet: ACK,
    forged: [from('A seq 1001 ack 77'), byOtherPort(ACK), inVlan(ACK), SYN, from('R seq 1001'), RST],
  },
  {
    transition: 'new → established (TCP)',
    before: [SYN, SYN_ACK],
    states: ['new', 'established'],
    packet: DATA,
    forged: [back('A seq 5001 ack 1001'), inVlan(DATA), RST, SYN_ACK],
    needsAnswer: true,
  },
  {
    transition: 'new → established (other)',
    before: [on(INSIDE, 'icmp 10.0.0.5 > 198.51.100.7 echo 7')],
    states: ['new', 'established'],
    packet: on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 reply 7'),
    forged: [
      on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 echo 7'),
      on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 reply 8'),
      on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 type 14 len 12'),
      on(INSIDE, 'icmp 198.51.100.7 > 10.0.0.5 reply 7'),
      on(INSIDE, 'icmp 10.0.0.5 > 198.51.100.7 echo 7'),
    ],
  },
  {
    transition: 'new → closing',
    before: [SYN, SYN_ACK],
    states: ['new', 'closing'],
    packet: FIN,
    forged: [from('FA seq 1001 ack 77'), byOtherPort(FIN), inVlan(FIN)],
  },
  {
    transition: 'established → closing',
    before: OPEN,
    states: ['established', 'closing'],
    packet: FIN,
    forged: [from('FA seq 9999 ack 5001'), from('F'), byOtherPort(FIN), inVlan(FIN)],
    needsWindow: true,
  },
  {
    transition: 'closing → closed',
    before: [...OPEN, FIN],
    states: ['closing', 'closed'],
    packet: RST,
    forged: [back('R seq 99'), byOtherPort(RST), inVlan(RST)],
    needsWindow: true,
  },
  {
    transition: 'closed → new',
    before: [...OPEN, FIN, RST],
    states: ['closed', 'new'],
    packet: SYN,
    forged: [back('S'), byOtherPort(SYN), ACK, DATA],
  },
];

/** By which site a packet goes: the second one's are those of the outside. */
type Route = (packet: Packet) => number;

class World {
  readonly sites: readonly FirewallSite[];
  private readonly route: Route;

  constructor(count: number, route: Route, options: Readonly<Record<string, unknown>> = {}) {
    const members = Array.from({ length: count }, (_, member) => member);
    this.sites = members.map((member) => new FirewallSite({ rules: RULES, member, members: count, options }));
    this.route = route;
  }

  /** The packet, and what the sites tell each other of it. */
  send(packet: Packet, at = this.route(packet)): void {
    this.sites[at].plane.passFrames(packet);
    FirewallSite.settle(...this.sites);
  }

  /** The state of the only connection; all sites agree. */
  state(): string {
    const states = this.sites.map((site) => {
      const found: number[] = [];
      site.ipv4.forEach(site.now, (entry) => found.push(entry[2]));
      assert.ok(found.length <= 1, `${found.length} connections`);
      return found.length === 0 ? 'none' : STATES[found[0]];
    });
    assert.equal(new Set(states).size, 1, states.join());
    return states[0];
  }
}

describe('firewall: state transitions', () => {
  /** Of the manual's table, but the last row: what time does is tested below. */
  const documented = [...MANUAL.matchAll(/^\| ((?:none|new|answered|established|closing|closed|any) → .*?) \|/gm)].map(
    ([, name]) => name,
  );

  it('are all in the manual, and all here', () => {
    assert.deepEqual(documented, [...ROWS.map(({ transition }) => transition), 'any → gone']);
  });

  for (const [where, count, route] of [
    ['at one site', 1, () => 0],
    ['at two sites', 2, ({ port }: Packet) => port],
  ] as const)
    describe(where, () => {
      for (const { transition, options, before, states, packet, forged, shows, ...needs } of ROWS) {
        const prepared = (): World => {
          const world = new World(count, route, options);
          for (const earlier of before) world.send(earlier);
          assert.equal(world.state(), states[0]);
          return world;
        };

        it(transition, () => {
          const world = prepared();
          world.send(packet);
          assert.equal(world.state(), states[1]);
          if (shows === undefined) return;
          world.send(shows.packet);
          assert.equal(world.state(), shows.state);
        });

        if (needs.needsWindow && count > 1) continue;
        it(`${transition}: not by forged packets`, () => {
          for (const [n, other] of forged.entries())
            for (let at = 0; at < count; at++) {
              if (needs.needsAnswer && at !== route(other)) continue;
              const world = prepared();
              world.send(other, at);
              if (shows !== undefined) world.send(shows.packet);
              assert.equal(world.state(), states[0], `forged ${n} at ${at}`);
            }
        });
      }

      it('any → gone', () => {
        for (const [before, seconds] of [
          [[SYN], 60],
          [OPEN, 7440],
          [[...OPEN, FIN], 120],
          [[...OPEN, FIN, RST], 10],
        ] as const) {
          const world = new World(count, route);
          for (const packet of before) world.send(packet);
          // Sites exchange for a second with each packet.
          for (const site of world.sites) site.later(seconds - 3);
          assert.notEqual(world.state(), 'none', `${seconds} s`);
          for (const site of world.sites) site.later(4 + Math.ceil(seconds / 8));
          assert.equal(world.state(), 'none', `${seconds} s`);
        }
      });
    });
});

describe('firewall: what a link needs', () => {
  const [, rules] = /```\n(# link\.rules\n[\s\S]*?)```/.exec(MANUAL) ?? [];
  const udp = (port: number, ends: string): Packet => on(port, `udp ${ends} len 240`);
  const v6 = (port: number, text: string): Packet => ({ port, frame: frame6(text) });
  /** Multicast has a time to live of its own; the frames' text has no names for these protocols. */
  const ip = (port: number, source: string, group: string, protocol: number, ttl: number): Packet =>
    on(port, `ip ${source} > ${group} proto ${protocol} ttl ${ttl} len 28`);
  const over6 = (port: number, source: string, group: string, protocol: number): Packet => {
    const bytes = frame6(`udp ${source} 1 > ${group} 2 len 28`);
    bytes[20] = protocol;
    return { port, frame: bytes };
  };

  const NEEDED: readonly [string, readonly Packet[]][] = [
    ['IGMP', [ip(INSIDE, '10.0.0.5', '224.0.0.22', 2, 1), ip(OUTSIDE, '10.0.0.1', '224.0.0.1', 2, 1)]],
    [
      'MLD',
      [130, 131, 132, 143].map((type) =>
        v6(type === 130 ? OUTSIDE : INSIDE, `icmp fe80::5 > ff02::16 type ${type} hop 1 len 20`),
      ),
    ],
    [
      'DHCP',
      [
        udp(INSIDE, '0.0.0.0:68 > 255.255.255.255:67'),
        udp(OUTSIDE, '10.0.0.1:67 > 255.255.255.255:68'),
        udp(OUTSIDE, '10.0.0.1:67 > 10.0.0.5:68'),
        udp(INSIDE, '10.0.0.5:68 > 10.0.0.1:67'),
      ],
    ],
    [
      'DHCPv6',
      [v6(INSIDE, 'udp fe80::5 546 > ff02::1:2 547 len 60'), v6(OUTSIDE, 'udp fe80::1 547 > fe80::5 546 len 60')],
    ],
    ['VRRP', [ip(INSIDE, '10.0.0.1', '224.0.0.18', 112, 255), over6(OUTSIDE, 'fe80::1', 'ff02::12', 112)]],
    [
      'OSPF',
      [
        ip(INSIDE, '10.0.0.1', '224.0.0.5', 89, 1),
        ip(OUTSIDE, '10.0.0.2', '10.0.0.1', 89, 1),
        over6(INSIDE, 'fe80::1', 'ff02::5', 89),
      ],
    ],
  ];

  for (const [name, packets] of NEEDED)
    it(`passes ${name} by the manual's rules, and none of it without`, () => {
      const site = new FirewallSite({ rules });
      const closed = new FirewallSite({ rules: 'policy drop' });
      // Twice: what is repeated passes as well.
      for (const [n, packet] of [...packets, ...packets].entries()) {
        assert.equal(site.plane.passFrames(packet).length, 1, `packet ${n}`);
        assert.equal(closed.plane.passFrames(packet).length, 0, `packet ${n}`);
      }
      assert.equal(closed.counts()['denied'], 2 * packets.length);
    });

  it('passes neighbour discovery without a rule, and keeps no connection of group membership', () => {
    const site = new FirewallSite({ rules: 'policy drop' });
    for (const type of [133, 134, 135, 136, 137])
      assert.equal(site.plane.passFrames(v6(INSIDE, `icmp fe80::5 > ff02::1 type ${type} hop 255 len 20`)).length, 1);
    const open = new FirewallSite({ rules });
    for (const [, packets] of NEEDED.slice(0, 2)) open.plane.passFrames(...packets);
    assert.equal(open.counts()['untracked'], 6);
    assert.equal(open.ipv4.size + open.ipv6.size, 0);
  });

  it('lets nothing else pass', () => {
    const site = new FirewallSite({ rules });
    const redirect = seal(frame('icmp 10.0.0.1 > 10.0.0.5 type 5 len 28'));
    for (const packet of [udp(OUTSIDE, '10.0.0.1:53 > 10.0.0.5:68'), { port: OUTSIDE, frame: redirect }, SYN])
      assert.equal(site.plane.passFrames(packet).length, 0);
  });
});
