/**
 * Every hot option of the middleboxes: a site where it is reloaded does what a site does that was
 * started with the new value, and not what one does that has the old value. A hot option without a
 * case fails the test.
 */

import { strict as assert } from 'node:assert';
import { changeOf, type Options } from '../../../options/option.js';
import firewall from '../../../workers/middleboxes/firewall/index.js';
import idps from '../../../workers/middleboxes/idps/index.js';
import nat from '../../../workers/middleboxes/nat/index.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { entriesOf } from '../../shm/objects/nat/nat-model.js';
import { FirewallSite } from '../support/firewall-site.js';
import { frame, seal } from '../support/frames.js';
import { IdpsSite } from '../support/idps-site.js';
import { NatSite } from '../support/nat-site.js';
import { on } from '../support/plane.js';
import { INSIDE, OUTSIDE, type Site } from '../support/site.js';

type Values = Readonly<Record<string, unknown>>;

/** What a site is started with, the new value, and what is to be seen of it. */
interface Case<S extends Site> {
  /** Another site than the others have. */
  readonly start?: (values: Values) => S;
  readonly base?: Values;
  readonly value: unknown;
  readonly see: (site: S) => unknown;
}

function check<S extends Site>(
  name: string,
  options: Options,
  open: (values: Values) => S,
  cases: Record<string, Case<S>>,
) {
  describe(`hot options of the ${name}`, () => {
    it('have a case each', () => {
      const hot = Object.entries(options).filter(
        ([, option]) => changeOf(option).kind === 'hot' && option.kind !== 'rules',
      );
      assert.deepEqual(Object.keys(cases).toSorted(), hot.map(([key]) => key).toSorted());
    });
    for (const [key, { base = {}, value, see, start = open }] of Object.entries(cases))
      it(`${key} is as if the site had been started with it`, () => {
        const reloaded = start(base);
        const before = reloaded.parameters;
        reloaded.reload({ [key]: value });
        const fresh = start({ ...base, [key]: value });
        const seen = see(reloaded);
        assert.deepEqual(seen, see(fresh));
        assert.notDeepEqual(seen, see(start(base)), 'the case does not tell the values apart');
        assert.deepEqual(fresh.parameters, before, 'members with the old value would be incompatible');
      });
  });
}

const OUT = '10.0.0.5:4000 > 198.51.100.7:80';
/** A SYN that announces an MSS of 1460. */
function synWithMss(): Uint8Array {
  const bytes = frame(`tcp ${OUT} S len 4`);
  bytes.set([2, 4, 1460 >> 8, 1460 & 0xff], 14 + 20 + 20);
  bytes[14 + 20 + 12] = 6 << 4;
  return seal(bytes);
}

/** After so many seconds, how many bindings there are. */
const alive =
  (seconds: number, ...packets: string[]) =>
  (site: NatSite): number => {
    let external = '';
    for (const packet of packets) {
      const side = packet.startsWith('>') ? INSIDE : OUTSIDE;
      const [sent = ''] = site.pass(on(side, packet.slice(2).replace('$', external)));
      external = /203\.0\.113\.1:(\d+) >/.exec(sent)?.[1] ?? external;
    }
    site.later(seconds);
    return entriesOf(site.bindings, site.now).length;
  };
const OPENED = [
  `> tcp ${OUT} S seq 1000`,
  '< tcp 198.51.100.7:80 > 203.0.113.1:$ SA seq 5000 ack 1001',
  `> tcp ${OUT} A seq 1001 ack 5001 win 1000`,
];
const FIN = `> tcp ${OUT} FA seq 1001 ack 5001 win 1000`;
/** Sends a packet from inside; 1: it came out, and no error came back. */
function outside(site: NatSite, packet: string): number {
  return site.pass(on(INSIDE, packet)).filter((sent) => sent.startsWith(`${OUTSIDE}: `)).length;
}
/** Packets of as many hosts; how many came out. */
const hosts = (count: number) => (site: NatSite) => {
  let sent = 0;
  for (let n = 1; n <= count; n++) sent += outside(site, `udp 10.0.1.${n}:4000 > 198.51.100.7:80`);
  return sent;
};
const ports = (count: number) => (site: NatSite) => {
  let sent = 0;
  for (let n = 1; n <= count; n++) sent += outside(site, `udp 10.0.0.5:${n} > 198.51.100.7:80`);
  return sent;
};
const prefix = (text: string, mask: number) => ({ address: parseIpv4(text), mask });
const MASK_16 = 0x0000ffff;
const forwards = [
  {
    protocol: 6,
    externalAddress: parseIpv4('203.0.113.1'),
    externalPort: 80,
    internalAddress: parseIpv4('10.0.0.9'),
    internalPort: 8080,
  },
];

check('NAT', nat.options, (options) => new NatSite({ options }), {
  static: {
    value: forwards,
    see: (site) => [
      site.pass(on(OUTSIDE, 'tcp 198.51.100.7:5000 > 203.0.113.1:80 S')),
      site.pass(on(INSIDE, 'tcp 10.0.0.9:8080 > 198.51.100.7:5000 SA')),
    ],
  },
  bypass: {
    value: [prefix('10.9.0.0', MASK_16)],
    see: (site) => site.pass(on(INSIDE, 'udp 10.0.0.5:4000 > 10.9.0.1:53')).map((sent) => sent.includes('10.0.0.5')),
  },
  inside_networks: { value: [prefix('10.7.0.0', MASK_16)], see: hosts(1) },
  half_open: {
    value: 1,
    see: (site) => {
      hosts(60)(site);
      return entriesOf(site.bindings, site.now).length;
    },
  },
  half_open_records: {
    value: 0,
    see: (site) => {
      hosts(5)(site);
      return site.replicateTo();
    },
  },
  per_subscriber: { value: 2, see: ports(5) },
  new_per_subscriber: { value: 3, see: ports(5) },
  hold_members: { base: { hold_members: 1 }, value: 0, see: hosts(1) },
  hold_ms: {
    base: { hold_members: 1, hold_ms: 100 },
    value: 800,
    see: (site) => {
      hosts(1)(site);
      site.plane.idle(300);
      return site.pass().length;
    },
  },
  reuse: {
    base: { first_port: 5000, last_port: 5000, reuse: 600 },
    value: 0,
    see: (site) => {
      hosts(1)(site);
      site.later(400);
      return outside(site, 'udp 10.0.2.9:4000 > 198.51.100.7:80');
    },
  },
  tcp_established: { value: 400, see: alive(600, ...OPENED) },
  tcp_opening: { value: 20, see: alive(60, OPENED[0]) },
  tcp_closing: { value: 20, see: alive(60, ...OPENED, FIN) },
  udp: { value: 20, see: alive(60, `> udp ${OUT}`) },
  udp_short: { value: 20, see: alive(60, '> udp 10.0.0.5:4000 > 198.51.100.7:53') },
  udp_short_ports: { base: { udp_short: 20 }, value: [53, 80], see: alive(60, `> udp ${OUT}`) },
  icmp: { value: 20, see: alive(30, '> icmp 10.0.0.5 > 198.51.100.7 type 8 id 77') },
  clamp_mss: {
    value: 1200,
    see: (site) => {
      site.pass({ port: INSIDE, frame: synWithMss() });
      return site.plane.counts()['nat_mss_clamped'] ?? 0;
    },
  },
});

const BACK = '198.51.100.7:80 > 10.0.0.5:4000';
const lasting =
  (seconds: number, ...packets: string[]) =>
  (site: FirewallSite): number => {
    for (const packet of packets) site.pass(on(packet.startsWith('>') ? INSIDE : OUTSIDE, packet.slice(2)));
    site.later(seconds);
    let count = 0;
    site.ipv4.forEach(site.now, () => count++);
    return count;
  };
const CONNECTED = [
  `> tcp ${OUT} S seq 1000`,
  `< tcp ${BACK} SA seq 5000 ack 1001`,
  `> tcp ${OUT} A seq 1001 ack 5001 win 1000`,
  `< tcp ${BACK} A seq 5001 ack 1001 win 1000`,
];
const syns = (count: number) => (site: FirewallSite) => {
  for (let n = 1; n <= count; n++) site.pass(on(INSIDE, `tcp 10.0.1.${n}:4000 > 198.51.100.7:80 S`));
};

check('firewall', firewall.options, (options) => new FirewallSite({ rules: 'policy accept', options }), {
  half_open: {
    value: 1,
    see: (site) => {
      syns(60)(site);
      return lasting(0)(site);
    },
  },
  half_open_records: {
    value: 0,
    see: (site) => {
      syns(5)(site);
      return site.replicateTo();
    },
  },
  pickup: { value: 'loose', see: (site) => site.pass(on(INSIDE, `tcp ${OUT} A seq 1 ack 1`)).length },
  clamp_mss: {
    value: 1200,
    see: (site) => {
      site.pass({ port: INSIDE, frame: synWithMss() });
      return site.counts()['mss_clamped'] ?? 0;
    },
  },
  tcp_new: { value: 10, see: lasting(30, CONNECTED[0]) },
  tcp_established: { value: 100, see: lasting(300, ...CONNECTED) },
  tcp_closing: { value: 10, see: lasting(50, ...CONNECTED, FIN) },
  tcp_closed: { value: 100, see: lasting(50, ...CONNECTED, `< tcp ${BACK} R seq 5001`) },
  udp_new: { value: 100, see: lasting(60, `> udp ${OUT}`) },
  udp: { value: 10, see: lasting(60, `> udp ${OUT}`, `< udp ${BACK}`) },
  icmp: { value: 100, see: lasting(60, '> icmp 10.0.0.5 > 198.51.100.7 type 8 id 77') },
  other: { value: 10, see: lasting(60, '> ip 10.0.0.5 > 198.51.100.7 proto 47') },
});

const SCANNER = '192.0.2.66:40000';
/** Probes of ports of one host, which refuses or says nothing; how many passed. */
function scan(site: IdpsSite, count: number, isSilent: boolean, first = 1): number {
  let through = 0;
  for (let port = first; port < first + count; port++) {
    through += site.fromOutside(`tcp ${SCANNER} > 10.0.0.5:${port} S`);
    if (!isSilent) site.fromInside(`tcp 10.0.0.5:${port} > ${SCANNER} RA seq 0`);
  }
  return through;
}
const volume = (site: IdpsSite, count: number): number => {
  let through = 0;
  for (let n = 0; n < count; n++) through += site.fromOutside(`udp 192.0.2.9:9 > 10.0.0.5:4444 len 1000`);
  return through;
};

check('IDPS', idps.options, (options) => new IdpsSite({ options }), {
  dry_run: { base: { dry_run: false }, value: true, see: (site) => scan(site, 60, false) },
  excess: { value: 40, see: (site) => scan(site, 60, false) },
  answer_seconds: {
    value: 30,
    see: (site) => {
      scan(site, 24, true);
      site.plane.idle(6000);
      return site.signatures();
    },
  },
  suspend_max: {
    // Another member, which is never heard.
    start: (options) => new IdpsSite({ options, members: 2 }),
    value: 1,
    see: (site) => {
      site.plane.idle(3000);
      return site.plane.counts()['idps_silence_overdrawn'] ?? 0;
    },
  },
  ports: {
    base: { scans: true, ports: 65_536, excess: 1000 },
    value: 32,
    see: (site) => scan(site, 400, true),
  },
  block_seconds: {
    value: 20_000,
    see: (site) => {
      scan(site, 60, false);
      return site.blocks();
    },
  },
  port_floods: { base: { port_flood_mbit: 1 }, value: false, see: (site) => volume(site, 200) },
  port_flood_mbit: { value: 1, see: (site) => volume(site, 200) },
  port_flood_seconds: {
    base: { port_flood_mbit: 1 },
    value: 3600,
    see: (site) => {
      const through = volume(site, 80);
      site.later(2);
      return through + volume(site, 80);
    },
  },
  port_block_seconds: {
    base: { port_flood_mbit: 1 },
    value: 600,
    see: (site) => {
      volume(site, 200);
      return site.blocks();
    },
  },
  syn_flood_rate: {
    value: 200,
    see: (site) => {
      site.plane.idle(2000);
      for (let n = 0; n < 600; n++)
        site.fromOutside(`tcp ${11 + (n % 90)}.${(n >> 3) & 255}.${n & 255}.9:${1024 + n} > 10.0.0.5:80 S`);
      site.plane.idle(1100);
      return site.signatures();
    },
  },
});

describe('static forwards that are reloaded', () => {
  const open = () => new NatSite({ options: { first_port: 80, last_port: 81, allocation: 'shared' } });

  it('leave a binding its port until it ends, and then have it', () => {
    const site = open();
    // Both ports of UDP are bound, by two hosts.
    for (const host of ['10.0.0.1', '10.0.0.2']) site.establish(`udp ${host}:4000 > 198.51.100.7:53`);
    const udp = [{ ...forwards[0], protocol: 17 }];
    const reply = on(OUTSIDE, 'udp 198.51.100.7:53 > 203.0.113.1:80');
    const before = site.pass(reply);
    assert.match(before[0], /> 10\.0\.0\.[12]:4000/);
    site.reload({ static: udp });
    assert.deepEqual(site.pass(reply), before, 'the connection goes on');
    site.later(2000);
    site.plane.idle(100);
    assert.match(site.pass(reply)[0], /> 10\.0\.0\.9:8080/);
    // Nobody is given it.
    for (const host of ['10.0.0.3', '10.0.0.4']) site.pass(on(INSIDE, `udp ${host}:4000 > 198.51.100.7:53`));
    assert.equal(entriesOf(site.bindings, site.now).filter(({ externalPort }) => externalPort === 80).length, 0);
  });

  it('that are removed give their port back', () => {
    const site = open();
    site.reload({ static: [{ ...forwards[0], protocol: 17 }] });
    site.reload({ static: [] });
    assert.deepEqual(site.pass(on(OUTSIDE, 'udp 198.51.100.7:53 > 203.0.113.1:80')), []);
    for (const host of ['10.0.0.3', '10.0.0.4']) site.pass(on(INSIDE, `udp ${host}:4000 > 198.51.100.7:53`));
    assert.equal(entriesOf(site.bindings, site.now).length, 2);
  });
});
