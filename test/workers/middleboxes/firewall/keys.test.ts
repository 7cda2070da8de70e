/**
 * What a packet has to be to belong to a connection: kind and direction of queries, VLAN, and port.
 */

import { strict as assert } from 'node:assert';
import { shownConnection } from '../../../../workers/middleboxes/firewall/shown.js';
import { FirewallSite } from '../../support/firewall-site.js';
import { frame, seal } from '../../support/frames.js';
import { frame6, icmpv6Error } from '../../support/frames6.js';
import { on } from '../../support/plane.js';

const INSIDE = 0;
const OUTSIDE = 1;
const PINGS =
  'zone lan = { port inside }\nfrom lan icmp type { echo-request, timestamp-request } accept\nfrom lan icmpv6 type echo-request accept';
const OUT = 'zone lan = { port inside }\nfrom lan accept';

type Packet = ReturnType<typeof on>;
const v6 = (port: number, text: string): Packet => ({ port, frame: frame6(text) });

function send(site: FirewallSite, ...packets: Packet[]): number {
  return packets.reduce((sum, packet) => sum + site.plane.passFrames(packet).length, 0);
}

/** An ICMP error about a packet. */
function errorAbout(text: string, packet: string): Uint8Array {
  const quoted = frame(packet).subarray(14 + (packet.includes('vlan') ? 4 : 0));
  const whole = frame(`${text} len ${quoted.length}`);
  whole.set(quoted, whole.length - quoted.length);
  return seal(whole);
}

function pair(rules: string, options: Readonly<Record<string, unknown>> = {}): [FirewallSite, FirewallSite] {
  const [a, b] = [0, 1].map((member) => new FirewallSite({ rules, member, members: 2, options }));
  return [a, b];
}

describe('firewall: ICMP', () => {
  for (const identifier of [0, 77])
    it(`lets only the reply of its kind pass after a ping with identifier ${identifier}, at two sites`, () => {
      const [a, b] = pair(PINGS);
      assert.equal(send(a, on(INSIDE, `icmp 10.0.0.5 > 198.51.100.7 echo ${identifier}`)), 1);
      a.replicateTo(b);
      for (const site of [a, b]) {
        for (let type = 1; type < 256; type++) {
          const message = frame(`icmp 198.51.100.7 > 10.0.0.5 type ${type} len 20`);
          new DataView(message.buffer, message.byteOffset).setUint16(14 + 20 + 4, identifier);
          seal(message);
          assert.equal(send(site, { port: OUTSIDE, frame: message }), 0, `type ${type}`);
        }
        assert.equal(send(site, on(OUTSIDE, `icmp 198.51.100.7 > 10.0.0.5 reply ${identifier}`)), 1);
        assert.equal(send(site, on(OUTSIDE, `icmp 198.51.100.7 > 10.0.0.5 reply ${identifier + 1}`)), 0);
      }
    });

  it('lets only the reply of its kind pass in IPv6, too', () => {
    const [a, b] = pair(PINGS);
    assert.equal(send(a, v6(INSIDE, 'icmp 2001:db8::5 > fd00::8 echo 0')), 1);
    a.replicateTo(b);
    for (const site of [a, b]) {
      for (let type = 4; type < 256; type++) {
        if (type === 129) continue;
        // Neighbour discovery of the link itself passes unseen: this was forwarded.
        assert.equal(send(site, v6(OUTSIDE, `icmp fd00::8 > 2001:db8::5 type ${type} hop 64 len 20`)), 0, `${type}`);
      }
      assert.equal(send(site, v6(OUTSIDE, 'icmp fd00::8 > 2001:db8::5 reply 0')), 1);
    }
  });

  it('takes a request of the responder for a connection of its own', () => {
    const site = new FirewallSite({ rules: 'policy accept' });
    assert.equal(send(site, on(INSIDE, 'icmp 10.0.0.5 > 198.51.100.7 echo 7')), 1);
    assert.equal(send(site, on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 echo 7')), 1);
    assert.equal(site.counts()['opened'], 2);
    const shown = [...site.ipv4.entries(site.now)].filter((entry) => entry !== null);
    const ports = shown.map((entry) => [shownConnection(entry, 1).inside.port, shownConnection(entry, 1).remote?.port]);
    assert.deepEqual(ports, [
      [7, 7],
      [7, 7],
    ]);
  });

  it('knows a timestamp request from an echo', () => {
    const site = new FirewallSite({ rules: PINGS });
    const stamp = (port: number, ends: string, type: number) => on(port, `icmp ${ends} type ${type} len 12`);
    assert.equal(send(site, stamp(INSIDE, '10.0.0.5 > 198.51.100.7', 13)), 1);
    assert.equal(send(site, on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 reply 0')), 0);
    assert.equal(send(site, stamp(OUTSIDE, '198.51.100.7 > 10.0.0.5', 14)), 1);
  });

  it('relates errors to the query they quote, and to its direction', () => {
    const site = new FirewallSite({ rules: PINGS });
    const about = (packet: string): Packet => ({
      port: OUTSIDE,
      frame: errorAbout('icmp 192.0.2.1 > 10.0.0.5 type 11', packet),
    });
    assert.equal(send(site, on(INSIDE, 'icmp 10.0.0.5 > 198.51.100.7 echo 7')), 1);
    assert.equal(send(site, about('icmp 10.0.0.5 > 198.51.100.7 echo 7')), 1);
    assert.equal(send(site, about('icmp 10.0.0.5 > 198.51.100.7 reply 7')), 0, 'nobody asked for that reply');
    assert.equal(send(site, about('icmp 10.0.0.5 > 198.51.100.7 echo 8')), 0);
    const sent = v6(INSIDE, 'icmp 2001:db8::5 > fd00::8 echo 7');
    assert.equal(send(site, sent, { port: OUTSIDE, frame: icmpv6Error('fd00::9', '2001:db8::5', 3, sent.frame) }), 2);
  });

  it('lets the fragments of a long ping and of its reply pass', () => {
    const site = new FirewallSite({ rules: PINGS });
    for (const [port, ends, what] of [
      [INSIDE, '10.0.0.5 > 198.51.100.7', 'echo 7'],
      [OUTSIDE, '198.51.100.7 > 10.0.0.5', 'reply 7'],
    ] as const) {
      const parts = [on(port, `icmp ${ends} ${what} more len 16 id 9`), on(port, `icmp ${ends} offset 24 len 16 id 9`)];
      assert.equal(send(site, ...parts), 2, what);
    }
    const stray = [on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 type 5 more len 16 id 10')];
    assert.equal(send(site, ...stray, on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 offset 24 len 16 id 10')), 0);
  });
});

describe('firewall: links and ports', () => {
  const tcp = (port: number, flags: string, vlan = '', from = '10.0.0.5:4000', to = '198.51.100.7:80'): Packet =>
    on(port, `tcp ${from} > ${to} ${flags} ${vlan}`);
  const SERVER = ['198.51.100.7:80', '10.0.0.5:4000'] as const;
  const answer = (port: number, vlan = ''): Packet => tcp(port, 'SA seq 5000 ack 1001', vlan, ...SERVER);

  it('keep a connection to its VLAN, and errors about it', () => {
    const [a, b] = pair(OUT);
    assert.equal(send(a, tcp(INSIDE, 'S', 'vlan 10')), 1);
    a.replicateTo(b);
    for (const site of [a, b]) {
      for (const vlan of ['', 'vlan 20', 'vlan 10.20', 'vlan 20.10'])
        assert.equal(send(site, answer(OUTSIDE, vlan)), 0, vlan);
      const error = (vlan: string): Packet => ({
        port: OUTSIDE,
        frame: errorAbout(`icmp 192.0.2.1 > 10.0.0.5 type 3 ${vlan}`, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S vlan 10'),
      });
      assert.equal(send(site, error('vlan 20')), 0);
      assert.equal(send(site, error('vlan 10')), 1);
      assert.equal(send(site, answer(OUTSIDE, 'vlan 10')), 1);
    }
  });

  it('ask the rules about what comes in by the port of the other direction', () => {
    const [a, b] = pair(OUT);
    assert.equal(send(a, tcp(INSIDE, 'S')), 1);
    a.replicateTo(b);
    for (const site of [a, b]) {
      assert.equal(send(site, answer(INSIDE)), 0, 'the answer, from the side of the initiator');
      assert.equal(send(site, tcp(OUTSIDE, 'A')), 0, 'the initiator, from outside');
      assert.equal(send(site, answer(OUTSIDE)), 1);
    }
    const udp = new FirewallSite({ rules: OUT });
    assert.equal(send(udp, on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53')), 1);
    assert.equal(send(udp, on(OUTSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53')), 0, 'forged outside');
    const open = new FirewallSite({ rules: OUT, options: { bind_ports: false } });
    assert.equal(send(open, on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53')), 1);
    assert.equal(send(open, on(OUTSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53')), 1);
  });

  it('do not let a router on a stick invert the rules', () => {
    // Between a switch (inside) and a router (outside), which sends in VLAN 20 what came in VLAN
    // 10.
    const site = new FirewallSite({ rules: OUT });
    const syn = (port: number, vlan: string): Packet => tcp(port, 'S', vlan);
    assert.equal(send(site, syn(INSIDE, 'vlan 10')), 1);
    assert.equal(send(site, syn(OUTSIDE, 'vlan 20')), 0, 'a connection to the inside');
    assert.equal(send(site, tcp(OUTSIDE, 'S', 'vlan 10', ...SERVER)), 1, 'of the open one: a simultaneous open');
    assert.equal(send(site, tcp(OUTSIDE, 'S', 'vlan 20', ...SERVER)), 0);
  });

  it('tell sides by the names of ports, in whatever order a site has them', () => {
    const a = new FirewallSite({ rules: OUT, member: 0, members: 2 });
    const b = new FirewallSite({ rules: OUT, member: 1, members: 2, ports: ['outside', 'inside'] });
    assert.equal(send(a, tcp(INSIDE, 'S')), 1);
    a.replicateTo(b);
    assert.equal(send(b, answer(INSIDE)), 1, 'port 0 is the outside there');
    assert.equal(send(b, tcp(INSIDE, 'A seq 1001 ack 5001')), 0);
    const c = new FirewallSite({ rules: OUT.replace('inside', 'lan'), ports: ['lan', 'wan'] });
    assert.notDeepEqual(c.parameters, a.parameters, 'other names: members are incompatible');
    assert.deepEqual(b.parameters, a.parameters);
  });

  it('keep connections when the rules begin or cease to speak of ports', () => {
    const site = new FirewallSite({ rules: 'policy accept' });
    const rest = [answer(OUTSIDE), tcp(INSIDE, 'A seq 1001 ack 5001')];
    assert.equal(send(site, tcp(INSIDE, 'S'), ...rest), 3);
    site.load(OUT);
    assert.equal(send(site, ...rest, tcp(OUTSIDE, 'A seq 1001 ack 5001')), 2);
    site.load('policy accept');
    assert.equal(send(site, ...rest), 2);
  });
});
