/** Sources that cannot be, packets that would circulate, and protocols without ports. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import type { StaticMapping } from '../../../../shm/objects/nat/static-mappings.js';
import { fold, sumBytes } from '../../../../workers/packet/checksum.js';
import { parseIpv4 } from '../../../../workers/packet/ipv4.js';
import type { RoutePort } from '../../../../workers/plane/route.js';
import { entriesOf } from '../../../shm/objects/nat/nat-model.js';
import { converse } from '../../support/converse.js';
import { errorAbout, frame, seal } from '../../support/frames.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on, routePort } from '../../support/plane.js';

const whole = (external: string, internal: string): StaticMapping => ({
  protocol: 0,
  externalAddress: parseIpv4(external),
  externalPort: 0,
  internalAddress: parseIpv4(internal),
  internalPort: 0,
});
const MAPPED = [whole('203.0.113.2', '10.0.0.6'), whole('203.0.113.3', '10.0.0.7')];
/** Link-layer addresses of a frame for the NAT. */
const toRouter = frame('udp 10.0.0.5:1 > 198.51.100.7:1').subarray(0, 12);
const BY_PORT = { filtering: 'address-and-port-dependent', sessions: 1024 };

describe('a NAT drops', () => {
  for (const options of [{}, BY_PORT, { static: MAPPED }] as Record<string, unknown>[]) {
    it(`packets from outside with its own addresses as source: ${Object.keys(options)}`, () => {
      const site = new NatSite({ options });
      const port = site.establish('udp 10.0.0.5:53 > 198.51.100.7:123');
      const own = ['203.0.113.1', ...(options['static'] === undefined ? [] : ['203.0.113.2'])];
      let sent = 0;
      for (const address of own)
        for (const packet of [
          `udp ${address}:${port} > 203.0.113.1:${port}`,
          `udp ${address}:99 > 203.0.113.1:${port}`,
          `tcp ${address}:99 > 203.0.113.1:${port} S`,
          `icmp ${address} > 203.0.113.1 type 3`,
          `icmp ${address} > 203.0.113.1 reply 7`,
        ]) {
          sent++;
          assert.deepEqual(site.pass(on(OUTSIDE, packet)), [], packet);
        }
      const { nat_own_source = 0, route_martian = 0 } = site.plane.counts();
      assert.equal(nat_own_source + route_martian, sent);
    });
  }

  it('packets from inside with its own addresses as source, and makes no binding', () => {
    for (const options of [{}, { static: MAPPED }]) {
      const site = new NatSite({ options });
      for (const packet of [
        'udp 203.0.113.1:7000 > 198.51.100.7:9',
        'tcp 203.0.113.1:7000 > 198.51.100.7:9 S',
        'icmp 203.0.113.1 > 198.51.100.7 echo 9',
      ])
        assert.deepEqual(site.pass(on(INSIDE, packet)), []);
      assert.deepEqual(entriesOf(site.bindings, site.now), []);
      assert.deepEqual(site.plane.counts(), { nat_own_source: 3 });
    }
  });

  it('what a host would send to itself', () => {
    const site = new NatSite({ options: { static: MAPPED } });
    const port = site.establish('udp 10.0.0.5:53 > 198.51.100.7:123');
    assert.deepEqual(site.pass(on(INSIDE, `udp 10.0.0.5:53 > 203.0.113.1:${port}`)), []);
    assert.deepEqual(site.pass(on(INSIDE, 'udp 10.0.0.6:53 > 203.0.113.2:53')), []);
    assert.deepEqual(site.pass(on(INSIDE, 'ip 10.0.0.6 > 203.0.113.2 proto 47 len 8')), []);
    assert.equal(site.plane.counts()['nat_own_source'], 3);
    // From another port of the host it is how hairpinning is tested (RFC 5780 §4.3).
    assert.equal(site.pass(on(INSIDE, `udp 10.0.0.5:54 > 203.0.113.1:${port}`)).length, 1);
  });

  it('sources that are in none of the inside networks', () => {
    const inside_networks = [{ address: parseIpv4('10.0.0.0'), mask: parseIpv4('255.0.0.0') }];
    const bypass = [{ address: parseIpv4('192.0.2.0'), mask: parseIpv4('255.255.255.0') }];
    const site = converse(
      new NatSite({ options: { inside_networks, bypass } }),
      `
      > 0: udp 10.9.0.5:4000 > 198.51.100.7:53
      < 1: udp 203.0.113.1:$a > 198.51.100.7:53 ttl 63
      > 0: udp 8.8.8.8:53 > 198.51.100.7:9
      > 0: tcp 192.168.0.1:4000 > 198.51.100.7:80 S
      > 0: udp 8.8.8.8:53 > 192.0.2.7:9
      > 0: udp 10.9.0.5:53 > 192.0.2.7:9
      < 1: udp 10.9.0.5:53 > 192.0.2.7:9 ttl 63
      `,
    );
    assert.equal(site.plane.counts()['nat_inside_source'], 3);
    assert.equal(entriesOf(site.bindings, site.now).length, 1);
  });
});

describe('sources from inside, where `inside_networks` is not given', () => {
  const network = (own: string, mask: string) => ({
    own: parseIpv4(own),
    address: parseIpv4(own) & parseIpv4(mask),
    mask: parseIpv4(mask),
  });
  const LAN = [network('10.0.0.1', '255.255.255.0'), network('10.7.0.1', '255.255.0.0')];
  const atLink = (
    networks: ReturnType<typeof network>[],
    options = {},
    inside: Partial<RoutePort> = { nextHop: null },
  ) => new NatSite({ options, plane: { route: [routePort({ networks, ...inside }), routePort()] } });
  const passes = (site: NatSite, from: string, to = '198.51.100.7'): boolean => {
    const before = site.plane.metrics.total('nat_inside_source');
    const bound = site.plane.metrics.total('nat_bound') + site.plane.metrics.total('nat_bypassed');
    site.pass(on(INSIDE, `udp ${from}:4000 > ${to}:53`));
    const dropped = site.plane.metrics.total('nat_inside_source') - before;
    assert.equal(site.plane.metrics.total('nat_bound') + site.plane.metrics.total('nat_bypassed') - bound, 1 - dropped);
    return dropped === 0;
  };

  it('are those of the subnets of the inside port, of all its addresses, if hosts are on the link', () => {
    const site = atLink(LAN);
    for (const from of ['10.0.0.5', '10.7.99.5']) assert.ok(passes(site, from), from);
    for (const from of ['10.0.1.5', '8.8.8.8', '192.168.0.5']) assert.ok(!passes(site, from), from);
  });

  it('include hosts that are mapped by hand, and networks that bypass the NAT', () => {
    const bypass = [{ address: parseIpv4('192.0.2.0'), mask: parseIpv4('255.255.255.0') }];
    const mapping = { ...whole('203.0.113.1', '172.16.0.5'), protocol: 6, externalPort: 80, internalPort: 80 };
    const site = atLink(LAN, { static: [mapping], bypass });
    for (const from of ['172.16.0.5', '192.0.2.5', '10.0.0.5']) assert.ok(passes(site, from), from);
    assert.ok(passes(site, '10.0.0.6', '192.0.2.9'));
    for (const to of ['198.51.100.7', '192.0.2.9']) assert.ok(!passes(site, '172.16.0.6', to), to);
  });

  it('are any, where nothing is known: a router behind the port, no address, /31 or /32 alone, or more than fit', () => {
    const many = Array.from({ length: 16 }, (_, n) => network(`10.${n}.0.1`, '255.255.0.0'));
    const single = [network('10.0.0.1', '255.255.255.255'), network('10.0.0.8', '255.255.255.254')];
    for (const site of [atLink(LAN, {}, {}), atLink([]), atLink(single), atLink(many)])
      assert.ok(passes(site, '8.8.8.8'));
  });

  it('are any with 0.0.0.0/0, and those that are given with others', () => {
    assert.ok(passes(atLink(LAN, { inside_networks: [{ address: 0, mask: 0 }] }), '8.8.8.8'));
    const given = atLink(LAN, {
      inside_networks: [{ address: parseIpv4('172.16.0.0'), mask: parseIpv4('255.240.0.0') }],
    });
    assert.deepEqual([passes(given, '172.17.0.5'), passes(given, '10.0.0.5')], [true, false]);
  });

  it('follow the addresses of the port while the NAT runs, and the log says so', () => {
    const site = atLink(LAN);
    const said = (): string[] => {
      site.plane.idle(1500);
      const lines = site.plane.logged.read().map(({ text }) => text);
      return lines.filter((line) => line.includes('sources from inside'));
    };
    assert.match(said().join(), /are validated: the subnets of the inside port/);
    assert.ok(!passes(site, '10.9.0.5'));
    site.plane.setPorts({ networks: [...LAN, network('10.9.0.1', '255.255.255.0')] }, {});
    assert.ok(passes(site, '10.9.0.5'));
    assert.deepEqual(said(), [], 'they are validated as before');
    site.plane.setPorts({ networks: [] }, {});
    assert.ok(passes(site, '8.8.8.8'));
    assert.match(said().join(), /are not validated, since .* set inside_networks/);
  });

  it('that are impossible never become bindings', () => {
    const site = atLink(LAN);
    const octet = fc.nat(255);
    const impossible = fc.oneof(
      fc.tuple(fc.constantFrom(0, 127, 224, 239, 240, 255), octet, octet, octet).map((parts) => parts.join('.')),
      fc.constantFrom('10.0.0.1', '10.7.0.1', '10.0.0.255', '10.7.255.255', '203.0.113.1', '198.51.100.7'),
      fc.tuple(fc.integer({ min: 11, max: 126 }), octet, octet, octet).map((parts) => parts.join('.')),
    );
    fc.assert(
      fc.property(
        impossible,
        fc.constantFrom('udp', 'tcp', 'icmp'),
        fc.integer({ min: 1, max: 65_535 }),
        (from, kind, port) => {
          const to = '198.51.100.7';
          const text = kind === 'icmp' ? `icmp ${from} > ${to} echo ${port}` : `${kind} ${from}:${port} > ${to}:80`;
          assert.deepEqual(site.pass(on(INSIDE, kind === 'tcp' ? `${text} S` : text)), []);
          assert.deepEqual(entriesOf(site.bindings, site.now), []);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('packets through a NAT', () => {
  const address = fc.constantFrom('10.0.0.5', '10.0.0.6', '10.0.0.7', '203.0.113.1', '203.0.113.2', '198.51.100.7');
  const packet = fc.record({
    side: fc.constantFrom(INSIDE, OUTSIDE),
    from: address,
    to: address,
    kind: fc.constantFrom('udp', 'tcp', 'icmp', 'gre'),
    fromPort: fc.nat(5),
    toPort: fc.nat(5),
  });

  it('do not circulate, whatever sends them back: by the port they left by, the other, or turned round by a host', () => {
    fc.assert(
      fc.property(
        fc.array(packet, { minLength: 1, maxLength: 30 }),
        fc.infiniteStream(fc.constantFrom('same', 'other')),
        (packets, ways) => {
          const site = new NatSite({ options: { static: MAPPED, first_port: 4001, last_port: 4006 } });
          for (const { side, from, to, kind, fromPort, toPort } of packets) {
            const ports = [4001 + fromPort, 4001 + toPort];
            const text =
              kind === 'gre'
                ? `ip ${from} > ${to} proto 47 len 8`
                : kind === 'icmp'
                  ? `icmp ${from} > ${to} echo ${ports[0]}`
                  : `${kind} ${from}:${ports[0]} > ${to}:${ports[1]} ${kind === 'tcp' ? 'S' : ''}`.trim();
            let [out] = site.plane.passFrames(on(side, text));
            let passes = 0;
            while (out !== undefined) {
              passes++;
              assert.ok(passes < 4, `${text} goes on and on`);
              // Its time to live, which ends every loop, is set anew.
              const again = out.frame.slice();
              again[14 + 8] = 64;
              again.set(toRouter);
              seal(again);
              const { value } = ways.next() as IteratorResult<string>;
              [out] = site.plane.passFrames({ port: value === 'same' ? out.port : 1 - out.port, frame: again });
            }
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('from outside never begin a conversation of a host with itself', () => {
    const site = new NatSite();
    const port = site.establish('udp 10.0.0.5:53 > 198.51.100.7:123');
    let arrived = site.pass(on(OUTSIDE, `udp 203.0.113.1:${port} > 203.0.113.1:${port}`));
    assert.deepEqual(arrived, []);
    arrived = site.pass(on(INSIDE, `udp 10.0.0.5:53 > 203.0.113.1:${port}`));
    assert.deepEqual(arrived, []);
  });
});

describe('protocols without ports', () => {
  for (const [name, proto] of [
    ['IP in IP', 4],
    ['IPv6 in IP', 41],
    ['GRE', 47],
    ['ESP', 50],
    ['SCTP', 132],
    ['UDP-Lite', 136],
    ['DCCP', 33],
  ] as const) {
    it(`are translated for addresses that are mapped whole, both ways: ${name}`, () => {
      const site = converse(
        new NatSite({ options: { ...BY_PORT, static: MAPPED } }),
        `
        > 0: ip 10.0.0.6 > 198.51.100.7 proto ${proto} len 40
        < 1: ip 203.0.113.2 > 198.51.100.7 proto ${proto} ttl 63 len 40
        > 1: ip 198.51.100.8 > 203.0.113.2 proto ${proto} len 40
        < 0: ip 198.51.100.8 > 10.0.0.6 proto ${proto} ttl 63 len 40
        > 0: ip 10.0.0.6 > 203.0.113.3 proto ${proto} len 40
        < 0: ip 203.0.113.2 > 10.0.0.7 proto ${proto} ttl 63 len 40
        > 0: ip 10.0.0.5 > 198.51.100.7 proto ${proto} len 40
        > 1: ip 198.51.100.8 > 203.0.113.1 proto ${proto} len 40
        > 1: ip 203.0.113.3 > 203.0.113.2 proto ${proto} len 40
        > 0: ip 10.0.0.6 > 203.0.113.1 proto ${proto} len 40
        `,
      );
      assert.deepEqual(site.plane.counts(), {
        nat_outbound: 1,
        nat_inbound: 1,
        nat_hairpinned: 1,
        nat_protocol: 2,
        nat_own_source: 1,
        nat_unsolicited: 1,
      });
    });
  }

  it('do not include AH, whose digest covers the addresses', () => {
    const site = new NatSite({ options: { static: MAPPED } });
    assert.deepEqual(site.pass(on(INSIDE, 'ip 10.0.0.6 > 198.51.100.7 proto 51 len 40')), []);
    assert.deepEqual(site.plane.counts(), { nat_protocol: 1 });
  });

  /** Ones' complement sum over pseudo header and packet: 0xffff if the checksum is right. */
  function sumOf(bytes: Uint8Array): number {
    const l4 = 34;
    const length = bytes.length - l4;
    const pseudo = sumBytes(bytes, 26, 8) + (bytes[23] << 8) + (((length & 0xff) << 8) | (length >> 8));
    return fold(sumBytes(bytes, l4, length, pseudo));
  }

  it('keep checksums over the pseudo header right, and leave all other bytes alone', () => {
    for (const proto of [136, 33, 132, 47, 50]) {
      const site = new NatSite({ options: { static: MAPPED } });
      const sent = frame(`ip 10.0.0.6 > 198.51.100.7 proto ${proto} len 40`);
      for (let at = 34; at < sent.length; at++) sent[at] = (at * 37) & 255;
      const covers = proto === 136 || proto === 33;
      if (proto === 33) sent[38] = 5; // data offset
      if (proto === 136) sent.set([0, 0], 38); // coverage: all
      sent.set([0, 0], 40);
      const sum = ~sumOf(sent) & 0xffff;
      sent.set([sum & 255, sum >> 8], 40);
      seal(sent);
      assert.equal(sumOf(sent), 0xffff);
      const [out] = site.plane.passFrames({ port: INSIDE, frame: sent });
      assert.equal(sumOf(out.frame) === 0xffff, covers, `protocol ${proto}`);
      const unchanged = (bytes: Uint8Array) => [...bytes.subarray(34, 40), ...bytes.subarray(covers ? 42 : 40)];
      assert.deepEqual(unchanged(out.frame), unchanged(sent));
      const back = out.frame.slice();
      back.set(toRouter);
      for (let n = 0; n < 4; n++) [back[26 + n], back[30 + n]] = [back[30 + n], back[26 + n]];
      seal(back);
      const [returned] = site.plane.passFrames({ port: OUTSIDE, frame: back });
      assert.equal(sumOf(returned.frame), 0xffff, `protocol ${proto} back`);
    }
  });

  it('have their ICMP errors translated, both ways', () => {
    const site = new NatSite({ options: { static: MAPPED } });
    for (const proto of [47, 50, 4, 132, 136]) {
      const error = errorAbout(
        'icmp 5.5.5.5 > 203.0.113.2 type 3',
        `ip 203.0.113.2 > 198.51.100.7 proto ${proto} len 40`,
      );
      const [out] = site.plane.passFrames({ port: OUTSIDE, frame: error });
      assert.equal(out?.port, INSIDE, `protocol ${proto}`);
      assert.deepEqual([...out.frame.subarray(30, 34)], [10, 0, 0, 6]);
      assert.deepEqual([...out.frame.subarray(42 + 12, 42 + 16)], [10, 0, 0, 6], 'the quoted source');
      const other = errorAbout(
        'icmp 10.0.0.6 > 198.51.100.7 type 3',
        `ip 198.51.100.7 > 10.0.0.6 proto ${proto} len 40`,
      );
      const [sent] = site.plane.passFrames({ port: INSIDE, frame: other });
      assert.equal(sent?.port, OUTSIDE);
      assert.deepEqual([...sent.frame.subarray(42 + 16, 42 + 20)], [203, 0, 113, 2], 'the quoted destination');
    }
  });
});
