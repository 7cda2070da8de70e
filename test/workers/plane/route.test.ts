import { strict as assert } from 'node:assert';
import { NextHopWriter } from '../../../shm/next-hops.js';
import { parseMac } from '../../../workers/packet/ethernet.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { parseIpv6 } from '../../../workers/packet/ipv6.js';
import { ERRORS_IN_A_BURST } from '../../../workers/plane/icmp-errors.js';
import { checksums, describeFrame, frame } from '../support/frames.js';
import { describe6, frame6 } from '../support/frames6.js';
import { HOST_MAC, NEXT_MAC, on, Plane, ROUTER_MAC, routePort } from '../support/plane.js';

const PACKET = 'udp 10.0.0.5:4000 > 198.51.100.7:53';
const GATEWAY = parseIpv4('198.51.100.1');

function macsOf(bytes: Uint8Array): { to: string; from: string } {
  const [, to, from] = /to (\S+) from (\S+)$/.exec(describeFrame(bytes, { macs: true })) ?? [];
  return { to, from };
}

describe('route', () => {
  it('takes one off the time to live, and addresses the frame to the next hop', () => {
    const [out] = new Plane().passFrames(on(0, PACKET));
    assert.equal(describeFrame(out.frame), `${PACKET} ttl 63`);
    assert.deepEqual(macsOf(out.frame), { to: NEXT_MAC, from: ROUTER_MAC });
  });

  it('keeps the header checksum right for every time to live and identification', () => {
    const plane = new Plane();
    const packets = Array.from({ length: 3000 }, (_, i) => on(0, `${PACKET} ttl ${2 + (i % 254)} id ${i * 21}`));
    const out = plane.passFrames(...packets);
    assert.equal(out.length, 3000);
    for (const { frame: bytes } of out) assert.ok(checksums(bytes).ip);
  });

  it('cuts off the padding of the link the packet came by', () => {
    const padded = new Uint8Array(60);
    padded.set(frame(PACKET));
    const [out] = new Plane().passFrames({ port: 0, frame: padded });
    assert.equal(out.frame.length, 42);
  });

  for (const [what, packet, reason] of [
    ['for another station', `${PACKET} to 02:00:00:00:00:55`, 'route_other_host'],
    ['to a group', `${PACKET} to 01:00:5e:00:00:01`, 'route_other_host'],
    ['to everybody', `${PACKET} to ff:ff:ff:ff:ff:ff`, 'route_other_host'],
    ['from loopback', 'udp 127.0.0.1:1 > 198.51.100.7:53', 'route_martian'],
    ['from a multicast address', 'udp 224.0.0.1:1 > 198.51.100.7:53', 'route_martian'],
    ['from where it goes to', 'udp 198.51.100.7:53 > 198.51.100.7:53', 'route_martian'],
    ['to a multicast address', 'udp 10.0.0.5:1 > 239.1.1.1:53', 'route_martian'],
    ['to 255.255.255.255', 'udp 10.0.0.5:1 > 255.255.255.255:53', 'route_martian'],
    ['at the end of its time to live', `${PACKET} ttl 1`, 'route_ttl'],
    ['beyond it', `${PACKET} ttl 0`, 'route_ttl'],
    ['longer than the MTU, not to be fragmented', `${PACKET} len 1473 df`, 'route_mtu'],
  ]) {
    it(`drops a packet ${what}`, () => {
      const plane = new Plane();
      assert.deepEqual(plane.pass(on(0, packet)), []);
      assert.deepEqual(plane.counts(), { [reason]: 1 });
    });
  }

  it('drops a packet from the address of a port of its own, IPv4 and IPv6', () => {
    const own = routePort({ address: parseIpv4('10.0.0.254'), address6: parseIpv6('2001:db8::1') });
    const plane = new Plane({ route: [routePort(), own] });
    for (const port of [0, 1]) {
      assert.deepEqual(plane.pass(on(port, 'udp 10.0.0.254:1 > 198.51.100.7:53')), []);
      assert.deepEqual(plane.pass({ port, frame: frame6('udp 2001:db8::1 1 > 2001:db8:2::7 53') }), []);
    }
    assert.deepEqual(plane.pass({ port: 0, frame: frame6('udp 2001:db8::5 9 > 2001:db8::5 9') }), []);
    assert.deepEqual(plane.counts(), { route_martian: 5 });
    assert.equal(plane.pass(on(0, PACKET)).length, 1);
  });

  it('passes a packet as long as the MTU', () => {
    assert.equal(new Plane().pass(on(0, `${PACKET} len 1472`)).length, 1);
  });

  it('takes frames for other stations on a promiscuous port, but not those to groups', () => {
    const plane = new Plane({ route: [routePort({ promiscuous: true }), routePort()] });
    assert.equal(plane.pass(on(0, `${PACKET} to 02:00:00:00:00:55`)).length, 1);
    assert.equal(plane.pass(on(0, `${PACKET} to 33:33:00:00:00:55`)).length, 0);
  });

  it('passes frames unchanged in wire mode', () => {
    const plane = new Plane({ route: null });
    const packet = on(1, `${PACKET} ttl 1 to 01:00:5e:00:00:01`);
    assert.deepEqual(plane.passFrames(packet), [{ port: 0, frame: packet.frame }]);
  });

  it('drops what no middlebox gave a port, where there is no opposite one', () => {
    const plane = new Plane({ ports: 3 });
    assert.deepEqual(plane.pass(on(0, PACKET)), []);
    assert.deepEqual(plane.counts(), { no_egress: 1 });
  });

  describe('next hops', () => {
    it('on the link are found by destination once main knows them, and asked for before', () => {
      const plane = new Plane({ route: [routePort(), routePort({ nextHop: null })] });
      const writer = new NextHopWriter(plane.nextHops, 2);
      assert.deepEqual(plane.pass(on(0, PACKET)), []);
      assert.deepEqual(plane.counts(), { route_unresolved: 1 });
      const wanted = { port: 1, address: parseIpv4('198.51.100.7') };
      assert.deepEqual(writer.takeWanted(), [wanted]);

      writer.replace([{ ...wanted, mac: parseMac('02:00:00:00:00:42') }]);
      const [out] = plane.passFrames(on(0, PACKET));
      assert.equal(macsOf(out.frame).to, '02:00:00:00:00:42');
    });

    it('of a port are followed when they change', () => {
      const plane = new Plane({ route: [routePort(), routePort({ nextHop: GATEWAY })] });
      const writer = new NextHopWriter(plane.nextHops, 2);
      assert.deepEqual(plane.pass(on(0, PACKET)), []);
      assert.deepEqual(writer.takeWanted(), [{ port: 1, address: GATEWAY }]);
      for (const mac of ['02:00:00:00:00:42', '02:00:00:00:00:43']) {
        writer.replace([{ port: 1, address: GATEWAY, mac: parseMac(mac) }]);
        assert.equal(macsOf(plane.passFrames(on(0, PACKET))[0].frame).to, mac);
      }
      writer.replace([]);
      assert.deepEqual(plane.pass(on(0, PACKET)), []);
      assert.equal(plane.counts()['route_unresolved'], 2);
    });
  });

  describe('ICMP errors', () => {
    const address = parseIpv4('10.0.0.1');
    const answering = () => new Plane({ route: [routePort({ address }), routePort({ mtuBytes: 1400 })] });

    it('tell the sender that the time to live ended, quoting the packet', () => {
      const plane = answering();
      const packet = on(0, `${PACKET} ttl 1 len 30 vlan 7`);
      const [out] = plane.passFrames(packet);
      assert.equal(out.port, 0);
      assert.equal(
        describeFrame(out.frame, { macs: true }),
        `icmp 10.0.0.1 > 10.0.0.5 type 11 len 58 vlan 7 to ${HOST_MAC} from ${ROUTER_MAC}`,
      );
      assert.deepEqual([...out.frame.subarray(18 + 28)], [...packet.frame.subarray(18)], 'the quoted packet');
      assert.deepEqual(plane.counts(), { route_ttl: 1, route_icmp_errors: 1 });
    });

    it('name the MTU to a sender that does not want fragments', () => {
      const plane = answering();
      const [out] = plane.passFrames(on(0, `${PACKET} len 1400 df`));
      assert.equal(describeFrame(out.frame), 'icmp 10.0.0.1 > 10.0.0.5 type 3 len 548');
      assert.deepEqual([...out.frame.subarray(34, 36)], [3, 4]);
      assert.equal((out.frame[40] << 8) | out.frame[41], 1400);
      assert.deepEqual(plane.counts(), { route_mtu: 1, route_icmp_errors: 1 });
    });

    it('are not sent about ICMP errors, later fragments, or without an address of one’s own', () => {
      const plane = answering();
      assert.deepEqual(plane.pass(on(0, 'icmp 10.0.0.5 > 8.8.8.8 type 3 len 28 ttl 1')), []);
      assert.deepEqual(plane.pass(on(0, `${PACKET} offset 800 len 8 ttl 1`)), []);
      assert.deepEqual(plane.pass(on(1, `${PACKET} ttl 1`)), []);
      assert.deepEqual(plane.counts(), { route_ttl: 3 });
      assert.equal(plane.pass(on(0, 'icmp 10.0.0.5 > 8.8.8.8 echo 3 ttl 1')).length, 1);
    });

    it('are limited, and go on when time has passed', () => {
      const plane = answering();
      const expired = Array.from({ length: 500 }, () => on(0, `${PACKET} ttl 1`));
      assert.equal(plane.pass(...expired).length, ERRORS_IN_A_BURST);
      plane.nowMs += 10;
      assert.equal(plane.pass(...expired).length, 10);
      plane.nowMs -= 3_600_000; // a clock set back
      assert.equal(plane.pass(...expired).length, 0);
      plane.nowMs += 1;
      assert.equal(plane.pass(...expired).length, 1);
    });
  });

  it('routes IPv6 to the next hop, and drops what has none', () => {
    const packet = 'udp 2001:db8::5 4000 > fd00::8 53 len 8';
    const plane = new Plane({ route: [routePort({ nextHop6: null }), routePort()] });
    const pass = (port: number, text: string) =>
      plane.passFrames({ port, frame: frame6(text) }).map(({ port, frame }) => `${port}: ${describe6(frame)}`);
    assert.deepEqual(pass(0, `${packet} hop 9`), [`1: ${packet.replace('len', 'hop 8 len')}`]);
    assert.deepEqual(pass(1, packet), []);
    assert.deepEqual(pass(0, `${packet} hop 1`), []);
    for (const [from, to] of [
      ['fe80::1', 'fd00::8'],
      ['2001:db8::5', 'ff02::1'],
      ['::1', 'fd00::8'],
      ['::', 'fd00::8'],
    ])
      assert.deepEqual(pass(0, `udp ${from} 1 > ${to} 2`), []);
    assert.deepEqual(plane.counts(), { route_unresolved: 1, route_ttl: 1, route_martian: 4 });
  });

  describe('next hops of IPv6', () => {
    const PACKET6 = 'udp 2001:db8::5 4000 > fd00::8 53 len 8';
    const OTHER6 = 'udp 2001:db8::5 4000 > fd00::9 53 len 8';
    const MAC = '02:00:00:00:00:42';
    const macOf = (plane: Plane, text: string) => {
      const [out] = plane.passFrames({ port: 0, frame: frame6(text) });
      return out === undefined ? null : macsOf(out.frame);
    };

    it('on the link are found by destination, each for itself', () => {
      const plane = new Plane({ route: [routePort(), routePort({ nextHop6: null })] });
      const writer = new NextHopWriter(plane.nextHops, 2);
      assert.equal(macOf(plane, PACKET6), null);
      assert.deepEqual(plane.counts(), { route_unresolved: 1 });
      const wanted = { port: 1, address: parseIpv6('fd00::8') };
      assert.deepEqual(writer.takeWanted(), [wanted]);
      writer.replace([{ ...wanted, mac: parseMac(MAC) }]);
      assert.deepEqual(macOf(plane, PACKET6), { to: MAC, from: ROUTER_MAC });
      assert.equal(macOf(plane, OTHER6), null);
      assert.equal(macsOf(plane.passFrames(on(0, PACKET))[0].frame).to, NEXT_MAC, 'IPv4 has its own');
    });

    it('by address are followed when they change, beside that of IPv4', () => {
      const address = parseIpv6('fe80::1');
      const plane = new Plane({ route: [routePort(), routePort({ nextHop: GATEWAY, nextHop6: address })] });
      const writer = new NextHopWriter(plane.nextHops, 2);
      const gateway = { port: 1, address: GATEWAY, mac: parseMac('02:00:00:00:00:04') };
      assert.equal(macOf(plane, PACKET6), null);
      assert.deepEqual(writer.takeWanted(), [{ port: 1, address }]);
      for (const mac of [MAC, '02:00:00:00:00:43']) {
        writer.replace([gateway, { port: 1, address, mac: parseMac(mac) }]);
        for (const packet of [PACKET6, OTHER6]) assert.equal(macOf(plane, packet)?.to, mac);
        assert.equal(macsOf(plane.passFrames(on(0, PACKET))[0].frame).to, '02:00:00:00:00:04');
      }
      writer.replace([gateway]);
      assert.equal(macOf(plane, PACKET6), null);
      assert.equal(plane.counts()['route_unresolved'], 2);
    });
  });

  it('tells by ICMPv6 what hops or MTU do not allow, from its own address (RFC 4443)', () => {
    const own = { address6: parseIpv6('fd00::1'), mtuBytes: 1400 };
    const plane = new Plane({ route: [routePort(own), routePort({ mtuBytes: 1400 })] });
    const pass = (text: string) => plane.passFrames({ port: 0, frame: frame6(text) });
    const [expired] = pass('tcp 2001:db8::5 4000 > fd00::8 80 S hop 1');
    assert.equal(`${expired.port}: ${describe6(expired.frame)}`, '0: icmp fd00::1 > 2001:db8::5 type 3 len 60');
    const [big] = pass('tcp 2001:db8::5 4000 > fd00::8 80 A len 1400');
    assert.equal(describe6(big.frame), 'icmp fd00::1 > 2001:db8::5 type 2 len 1232', 'as much as makes 1280 bytes');
    assert.equal(new DataView(big.frame.buffer, big.frame.byteOffset).getUint32(58), 1400);
    assert.deepEqual(pass('icmp 2001:db8::5 > fd00::8 type 1 len 48 hop 1'), [], 'not about errors');
    assert.equal(pass('icmp 2001:db8::5 > fd00::8 echo 3 hop 1').length, 1);
    assert.deepEqual(plane.counts(), { route_ttl: 3, route_mtu: 1, route_icmp_errors: 3 });
  });

  it('drops what is from or to a broadcast address of its own subnets, or from any address of a port', () => {
    const network = (own: string, mask: string) => ({
      own: parseIpv4(own),
      address: parseIpv4(own) & parseIpv4(mask),
      mask: parseIpv4(mask),
    });
    const inside = [network('10.0.0.1', '255.255.255.0'), network('10.1.0.1', '255.255.0.0')];
    const outside = [network('192.0.2.6', '255.255.255.252'), network('192.0.2.9', '255.255.255.254')];
    const route = [routePort({ networks: inside }), routePort({ networks: outside })];
    const plane = new Plane({ route });
    const martians = [
      'udp 10.0.0.255:1 > 198.51.100.7:53',
      'udp 10.1.255.255:1 > 198.51.100.7:53',
      'udp 192.0.2.7:1 > 198.51.100.7:53',
      'udp 10.0.0.5:1 > 192.0.2.7:53',
      'icmp 10.0.0.5 > 10.1.255.255 echo 1',
      'udp 10.1.0.1:1 > 198.51.100.7:53',
    ];
    for (const [n, text] of martians.entries()) {
      assert.deepEqual([plane.pass(on(0, text)), plane.pass(on(1, text))], [[], []], text);
      assert.deepEqual(plane.counts(), { route_martian: 2 * n + 2 });
    }
    // Of larger subnets, and of a /31, which has no broadcast address.
    const hosts = [
      'udp 10.1.0.255:1 > 198.51.100.7:53',
      'udp 10.0.0.5:1 > 192.0.2.8:53',
      'udp 10.0.0.0:1 > 9.9.9.9:53',
    ];
    for (const text of hosts) assert.equal(plane.pass(on(0, text)).length, 1, text);

    plane.setPorts({ networks: [] }, { networks: [network('198.51.100.1', '255.255.255.0')] });
    assert.equal(plane.pass(on(0, martians[0])).length, 1, 'the port has another address by now');
    assert.deepEqual(plane.pass(on(0, 'udp 10.0.0.5:1 > 198.51.100.255:53')), []);
  });

  it('follows the addresses and the MTU of its ports while it runs', () => {
    const address = parseIpv4('10.0.0.1');
    const plane = new Plane({ route: [routePort({ address }), routePort()] });
    const long = `${PACKET} len 1400 df`;
    assert.equal(plane.pass(on(0, long)).length, 1);

    const mac = parseMac('02:00:00:00:00:99');
    plane.setPorts({ mac, address: parseIpv4('10.0.0.2') }, { mac, mtuBytes: 1000 });
    assert.deepEqual(plane.pass(on(0, PACKET)), [], 'it is addressed to what the port was');
    const [out] = plane.passFrames(on(0, `${PACKET} to 02:00:00:00:00:99`));
    assert.equal(macsOf(out.frame).from, '02:00:00:00:00:99');
    const [error] = plane.pass(on(0, `${long} to 02:00:00:00:00:99`));
    assert.match(error, /^0: icmp 10\.0\.0\.2 > 10\.0\.0\.5/);

    plane.setPorts({ mac, address: null }, { mac, mtuBytes: 1500 });
    assert.equal(plane.pass(on(0, `${long} to 02:00:00:00:00:99`)).length, 1);
  });
});
