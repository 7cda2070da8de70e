import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { FirewallSite } from '../support/firewall-site.js';
import { frame } from '../support/frames.js';
import { frame6 } from '../support/frames6.js';
import { IdpsSite } from '../support/idps-site.js';
import { on, Plane } from '../support/plane.js';
import type { Site } from '../support/site.js';

interface Packet {
  readonly port: number;
  readonly frame: Uint8Array;
}

const six = (text: string): Packet => ({ port: 0, frame: frame6(text) });
const wire = (): Plane => new Plane({ route: null });

const MARTIANS: readonly (readonly [string, Packet])[] = [
  ['a multicast address', on(0, 'udp 224.0.0.1:1 > 198.51.100.7:53')],
  ['a multicast address of the last block', on(0, 'tcp 239.255.0.1:1 > 198.51.100.7:80 S')],
  ['255.255.255.255', on(0, 'icmp 255.255.255.255 > 198.51.100.7 echo 1')],
  ['loopback', on(1, 'udp 127.0.0.1:1 > 198.51.100.7:53')],
  ['0/8', on(0, 'udp 0.0.0.1:68 > 255.255.255.255:67')],
  ['0.0.0.0, to a host', on(0, 'udp 0.0.0.0:68 > 198.51.100.7:67')],
  ['0.0.0.0, with other ports than DHCP', on(0, 'udp 0.0.0.0:53 > 255.255.255.255:53')],
  ['0.0.0.0, over TCP', on(0, 'tcp 0.0.0.0:68 > 198.51.100.7:67 S')],
  ['0.0.0.0, IGMP to a host', on(0, 'ip 0.0.0.0 > 198.51.100.7 proto 2 len 8')],
  ['where it goes to, by the same port', on(0, 'tcp 198.51.100.7:80 > 198.51.100.7:80 S')],
  ['where it goes to, as a ping', on(0, 'icmp 198.51.100.7 > 198.51.100.7 echo 1')],
  ['where it goes to, of a protocol without ports', on(0, 'ip 198.51.100.7 > 198.51.100.7 proto 47 len 8')],
  ['where it goes to, as a fragment', on(0, 'udp 198.51.100.7:7 > 198.51.100.7:8 len 8 more id 7')],
  ['a VLAN, of a multicast address', on(0, 'udp 224.0.0.1:1 > 198.51.100.7:53 vlan 7')],
  ['an IPv6 multicast address', six('udp ff02::1 1 > fd00::8 53')],
  ['::1', six('tcp ::1 1 > fd00::8 80 S')],
  ['::, to a host', six('udp :: 1 > fd00::8 53')],
  ['::, MLD to a host', six('icmp :: > fd00::8 type 143 len 4')],
  ['::, a ping to a group', six('icmp :: > ff02::1 echo 1')],
  ['::ffff:10.0.0.5', six('udp ::ffff:a00:5 1 > fd00::8 53')],
  ['where it goes to, of IPv6', six('tcp fd00::8 80 > fd00::8 80 S')],
];

const GOOD: readonly (readonly [string, Packet])[] = [
  ['DHCP of a host without an address', on(0, 'udp 0.0.0.0:68 > 255.255.255.255:67 len 300')],
  ['the answer to it', on(1, 'udp 10.0.0.1:67 > 255.255.255.255:68 len 300')],
  ['IGMP of a host without an address', on(0, 'ip 0.0.0.0 > 224.0.0.22 proto 2 len 8')],
  ['MLD of a host without an address', six('icmp :: > ff02::16 type 143 hop 1 len 4')],
  ['MLDv1 of a host without an address', six('icmp :: > ff02::1:ff00:5 type 131 hop 1 len 16')],
  ['duplicate address detection', six('icmp :: > ff02::1:ff00:5 type 135 hop 255 len 16')],
  ['multicast', on(0, 'udp 10.0.0.5:5353 > 224.0.0.251:5353')],
  ['a BFD echo packet', on(0, 'udp 10.0.0.5:3785 > 10.0.0.5:3785 len 24')],
  ['a host to itself, by other ports', on(0, 'udp 10.0.0.5:1 > 10.0.0.5:2')],
  ['240/4, which is private in some networks', on(0, 'udp 240.0.0.1:1 > 198.51.100.7:53')],
  ['link-local addresses', six('udp fe80::1 1 > fe80::2 53')],
];

describe('a wire drops packets whose source no host has', () => {
  for (const [name, packet] of MARTIANS)
    it(`from ${name}`, () => {
      const plane = wire();
      assert.deepEqual(plane.passFrames(packet), []);
      assert.deepEqual(plane.counts(), { wire_martian: 1 });
    });

  for (const [name, packet] of GOOD)
    it(`but not ${name}`, () => {
      const plane = wire();
      assert.equal(plane.passFrames(packet).length, 1);
      assert.equal(plane.metrics.total('wire_martian'), 0);
    });

  it('and DHCP, IGMP and MLD of hosts without an address meet the rules of a firewall', () => {
    const packets = GOOD.filter(([name]) => /DHCP|IGMP|MLD /.test(name)).map(([, packet]) => packet);
    const rules =
      'udp sport 68 udp dport 67 accept\nip protocol igmp accept\nicmpv6 type { mld-listener-report, mld2-listener-report } accept';
    assert.equal(new FirewallSite({ rules }).plane.passFrames(...packets).length, packets.length);
    const closed = new FirewallSite({ rules: 'udp dport 53 accept' });
    assert.deepEqual(closed.plane.passFrames(...packets), []);
    assert.equal(closed.plane.metrics.total('firewall_denied'), packets.length);
  });
});

describe('packets whose source no host has', () => {
  const octet = fc.nat(255);
  const port = fc.constantFrom(1, 53, 67, 68, 80, 3785, 65_535);
  const source4 = fc
    .tuple(fc.constantFrom(0, 127, 224, 239, 255), octet, octet, fc.integer({ min: 1, max: 255 }))
    .map(([a, b, c, d]) => (a === 255 ? '255.255.255.255' : `${a}.${b}.${c}.${d}`));
  const source6 = fc.constantFrom('::', '::1', 'ff02::1', 'ff0e::5', '::ffff:7f00:1');
  const kind = fc.constantFrom('tcp', 'udp', 'icmp');
  const text4 = fc
    .tuple(kind, source4, port, fc.constantFrom('198.51.100.7', '10.0.0.5', '255.255.255.255', '224.0.0.1'), port)
    .map(([is, from, a, to, b]) =>
      is === 'icmp' ? `icmp ${from} > ${to} echo ${a}` : `${is} ${from}:${a} > ${to}:${b}${is === 'tcp' ? ' S' : ''}`,
    );
  const land = fc
    .tuple(kind, fc.constantFrom('198.51.100.7', '10.0.0.5'), fc.constantFrom(1, 53, 80))
    .map(([is, to, a]) =>
      is === 'icmp' ? `icmp ${to} > ${to} echo ${a}` : `${is} ${to}:${a} > ${to}:${a}${is === 'tcp' ? ' S' : ''}`,
    );
  const text6 = fc
    .tuple(kind, source6, port, fc.constantFrom('fd00::8', 'ff02::1'), port)
    .map(([is, from, a, to, b]) =>
      is === 'icmp' ? `icmp ${from} > ${to} echo ${a}` : `${is} ${from} ${a} > ${to} ${b}${is === 'tcp' ? ' S' : ''}`,
    );
  const packet = fc.tuple(fc.nat(1), fc.oneof(text4.map(frame), land.map(frame), text6.map(frame6)));

  it('never become connections of a firewall or evidence of an IDPS, in a wire', () => {
    const firewall = new FirewallSite({ rules: 'policy accept' });
    const idps = new IdpsSite();
    const empty = [contentsOf(firewall), contentsOf(idps)];
    fc.assert(
      fc.property(fc.array(packet, { minLength: 1, maxLength: 40 }), (packets) => {
        for (const site of [firewall, idps]) {
          const before = site.plane.metrics.total('wire_martian');
          const out = site.plane.passFrames(...packets.map(([by, bytes]) => ({ port: by, frame: bytes })));
          assert.deepEqual(out, []);
          assert.equal(site.plane.metrics.total('wire_martian') - before, packets.length);
        }
        assert.deepEqual([contentsOf(firewall), contentsOf(idps)], empty);
      }),
      { numRuns: 60 },
    );
  });
});

/** How full each state object of a site is. */
function contentsOf(site: Site): unknown[] {
  return site.objects.map((object) => object.describe(site.now));
}
