import { strict as assert } from 'node:assert';
import { MEMORY_FRAME_BYTES_MAX } from '../../../workers/drivers/memory.js';
import firewall from '../../../workers/middleboxes/firewall/index.js';
import nat from '../../../workers/middleboxes/nat/index.js';
import type { Batch } from '../../../workers/packet/batch.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { parseIpv6 } from '../../../workers/packet/ipv6.js';
import { Stream } from '../../sim/random.js';
import { drawDatagram, drawFragments, frameOf, optionField, reassemble } from '../support/datagrams.js';
import { FirewallSite } from '../support/firewall-site.js';
import { fragmentsOf } from '../support/fragmented.js';
import { checksums, describeFrame, frame } from '../support/frames.js';
import { describe6, frame6 } from '../support/frames6.js';
import { NatSite } from '../support/nat-site.js';
import { on, Plane, type PlaneOptions, routePort } from '../support/plane.js';
import { INSIDE, OUTSIDE, Site } from '../support/site.js';

const PACKET = 'udp 10.0.0.5:4000 > 198.51.100.7:53';
const LINK_BYTES = 14;

function planeTo(mtuBytes: number): Plane {
  return new Plane({ route: [routePort(), routePort({ mtuBytes })] });
}

/** The Ethernet header has no part in the MTU. */
const packetBytes = (frame: Uint8Array): number => frame.length - LINK_BYTES;

describe('fragmentation', () => {
  it('leaves every datagram what it was, of any size, options and MTU, also if it was in fragments before', () => {
    const random = new Stream('fragmentation', 12);
    let fragments = 0;
    for (let round = 0; round < 60; round++) {
      const mtu = round === 0 ? 68 : random.whole(68, 1500);
      const plane = planeTo(mtu);
      for (let id = 1; id <= 20; id++) {
        const datagram = drawDatagram(random, id, random.whole(8, 2000));
        const isWhole = random.chance(0.5);
        const frames = isWhole ? [frameOf(datagram, datagram.payload, 0, false)] : drawFragments(random, datagram);
        const order = random.chance(0.5) ? frames : random.shuffled(frames);
        const sent = plane.passFrames(...order.map((bytes) => ({ port: 0, frame: bytes }))).map((out) => out.frame);
        for (const bytes of sent) assert.ok(packetBytes(bytes) <= mtu, `${packetBytes(bytes)} bytes of ${mtu}`);
        assert.ok(
          sent.every((bytes) => bytes[LINK_BYTES + 8] === 63),
          'every fragment has one less to live',
        );
        const copied = optionField(datagram.options.filter(([type]) => (type & 0x80) !== 0));
        for (const bytes of sent.filter((one) => (one[LINK_BYTES + 7] | (one[LINK_BYTES + 6] & 0x1f)) !== 0))
          assert.deepEqual(Buffer.from(bytes.subarray(34, LINK_BYTES + 4 * (bytes[LINK_BYTES] & 15))), copied);
        const { options, payload } = reassemble(sent).get(id) ?? assert.fail(`datagram ${id} did not arrive`);
        assert.deepEqual(options, optionField(datagram.options));
        assert.ok(payload.equals(datagram.payload), 'the payload is as it was');
        fragments += sent.length;
      }
      assert.equal(plane.dropped(), 0, JSON.stringify(plane.counts()));
    }
    assert.ok(fragments > 5000, `${fragments} fragments`);
  });

  it('fills every fragment but the last as far as the MTU and the unit of 8 bytes allow', () => {
    const plane = planeTo(1006); // RFC 1191: 986 bytes of data, of which 984 can be used
    assert.deepEqual(plane.pass(on(0, `${PACKET} len 2000`)), [
      '1: udp 10.0.0.5:4000 > 198.51.100.7:53 ttl 63 len 976 more',
      '1: udp 10.0.0.5 > 198.51.100.7 ttl 63 len 984 more offset 984',
      '1: udp 10.0.0.5 > 198.51.100.7 ttl 63 len 40 offset 1968',
    ]);
    // The last fragment need not be a multiple of 8.
    assert.equal(plane.pass(on(0, `${PACKET} len ${984 + 986 - 8}`)).length, 2);
    assert.equal(plane.pass(on(0, `${PACKET} len ${984 + 986 - 7}`)).length, 3);
    assert.deepEqual(plane.counts(), { route_fragmented: 3, route_fragments: 5 });
  });

  it('keeps the order of packets', () => {
    const plane = planeTo(576);
    const packets = [10, 700, 20, 1200, 30].map((bytes, n) => on(0, `${PACKET} id ${n} len ${bytes}`));
    const ids = plane.passFrames(...packets, on(1, `${PACKET} id 9`)).map(({ frame }) => frame[LINK_BYTES + 5]);
    assert.deepEqual(ids, [0, 1, 1, 2, 3, 3, 3, 4, 9]);
  });

  it('never fragments what forbids it, and tells its sender', () => {
    const address = parseIpv4('10.0.0.1');
    const plane = new Plane({ route: [routePort({ address }), routePort({ mtuBytes: 1400 })] });
    const [out] = plane.passFrames(on(0, `${PACKET} len 1400 df`));
    assert.equal(describeFrame(out.frame), 'icmp 10.0.0.1 > 10.0.0.5 type 3 len 548');
    assert.deepEqual(plane.pass(on(0, `${PACKET} len 1400 df more`)), ['0: icmp 10.0.0.1 > 10.0.0.5 type 3 len 548']);
    assert.deepEqual(plane.pass(on(0, `${PACKET} len 1408 df offset 1408`)), [], 'nothing about later fragments');
    assert.deepEqual(plane.counts(), { route_mtu: 3, route_icmp_errors: 2 });
  });

  it('drops a datagram for whose fragments there is no room, whole', () => {
    const plane = planeTo(576);
    const asked: number[] = [];
    plane.driver.hasRoom = (...[, count]: number[]) => asked.push(count) > 1;
    assert.deepEqual(plane.pass(on(0, `${PACKET} len 1400`)), []);
    assert.equal(plane.pass(on(0, `${PACKET} len 1400`)).length, 3);
    assert.deepEqual(asked, [3, 3]);
    assert.deepEqual(plane.counts(), { route_fragment_room: 1, route_fragmented: 1, route_fragments: 2 });
    const traffic = ['packets', 'bytes'].map((what) => plane.metrics.total(`port1_tx_${what}`));
    assert.deepEqual(traffic, [3, 1408 + 3 * 34]);
  });

  it('drops what no fragment of 8 bytes has room for', () => {
    const plane = planeTo(60);
    assert.equal(plane.pass(on(0, `${PACKET} len 60 options 3`)).length, 3);
    assert.deepEqual(plane.pass(on(0, `${PACKET} len 60 options 9`)), []);
    assert.equal(plane.counts()['route_fragment_room'], 1);
  });

  it('cuts the router’s own ICMP errors too, which an MTU below 576 can be too small for', () => {
    const address = parseIpv4('10.0.0.1');
    const plane = new Plane({ route: [routePort({ address, mtuBytes: 296 }), routePort()] });
    const sent = plane.passFrames(on(0, `${PACKET} len 260 ttl 1`)).map((out) => out.frame);
    assert.deepEqual(sent.map(packetBytes), [292, 44]);
    const [[, { payload }]] = reassemble(sent);
    assert.equal(payload.length, 8 + 288, 'with the whole packet that it is about');
    assert.deepEqual(plane.counts(), { route_ttl: 1, route_icmp_errors: 1, route_fragmented: 1, route_fragments: 1 });
  });

  it('fragments a held packet when it is released, and lets it wait while there is no room', () => {
    const plane = planeTo(576);
    plane.open([
      (batch: Batch) => {
        plane.log.note(0, 1, 1, 1);
        for (let i = 0; i < batch.count; i++) plane.holds.untilAcknowledged(i, 1, 100);
      },
    ]);
    const held = plane.passFrames(on(0, `${PACKET} id 7 len 1400`));
    assert.deepEqual(held, []);
    let room = false;
    plane.driver.hasRoom = () => room;
    plane.idle(200);
    assert.equal(plane.driver.sent.length, 0);
    assert.equal(plane.metrics.total('held_packets'), 1);
    room = true;
    plane.idle(50);
    const sent = plane.driver.sent.splice(0).map((out) => out.frame);
    assert.equal(sent.length, 3);
    assert.equal(reassemble(sent).get(7)?.payload.length, 1408);
    assert.equal(plane.metrics.total('held_packets'), 0);
  });

  it('takes what a chunk takes', () => {
    const bytes = MEMORY_FRAME_BYTES_MAX - LINK_BYTES - 28;
    const sent = planeTo(1500).passFrames(on(0, `${PACKET} id 3 len ${bytes}`));
    assert.equal(reassemble(sent.map((out) => out.frame)).get(3)?.payload.length, bytes + 8);
  });

  it('is for IPv4 alone: an IPv6 packet is answered', () => {
    const own = { address6: parseIpv6('fd00::1') };
    const plane = new Plane({ route: [routePort(own), routePort({ mtuBytes: 1400 })] });
    const [out] = plane.passFrames({ port: 0, frame: frame6(`udp 2001:db8::5 4000 > fd00::8 53 len 1400`) });
    assert.equal(describe6(out.frame), 'icmp fd00::1 > 2001:db8::5 type 2 len 1232');
    assert.deepEqual(plane.counts(), { route_mtu: 1, route_icmp_errors: 1 });
  });
});

describe('fragmentation behind a NAT', () => {
  const narrow = (inside: number, outside: number) => ({
    route: [
      routePort({ address: parseIpv4('10.0.0.254'), mtuBytes: inside }),
      routePort({ address: parseIpv4('192.0.2.1'), mtuBytes: outside }),
    ],
  });
  /** The external port of 10.0.0.5:4000, which a small packet binds. */
  function bind(site: NatSite, host = '10.0.0.5', port = 4000): number {
    const [out] = site.pass(on(INSIDE, `udp ${host}:${port} > 198.51.100.7:53`));
    return Number(/203\.0\.113\.1:(\d+)/.exec(out)?.[1]);
  }

  it('works in both directions, and of what comes in fragments', () => {
    for (const isInside of [true, false]) {
      const site = new NatSite({ plane: isInside ? narrow(1500, 576) : narrow(576, 1500) });
      const bound = bind(site);
      const from = isInside ? '10.0.0.5:4000 > 198.51.100.7:53' : `198.51.100.7:53 > 203.0.113.1:${bound}`;
      const to = isInside ? `203.0.113.1:${bound} > 198.51.100.7:53` : '198.51.100.7:53 > 10.0.0.5:4000';
      const port = isInside ? INSIDE : OUTSIDE;
      const whole = site.plane.passFrames(on(port, `udp ${from} id 5 len 1400`)).map((out) => out.frame);
      assert.equal(whole.length, 3);
      assert.equal(describeFrame(whole[0]), `udp ${to} ttl 63 len 544 more`);
      const first = frame(`udp ${from} id 6 len 1400`);
      const parts = fragmentsOf(first, 1184, 6).map((bytes) => ({ port, frame: bytes }));
      const sent = site.plane.passFrames(...parts.reverse()).map((out) => out.frame);
      assert.equal(sent.length, 4);
      const { payload } = reassemble(sent).get(6) ?? assert.fail('it did not arrive');
      const sum = frame(`udp ${to} len 1400`).subarray(34);
      assert.ok(payload.equals(sum), 'ports, checksum and data are those of the whole datagram, translated');
    }
  });

  it('works for hairpinned packets, whose egress is the port they came in by', () => {
    const site = new NatSite({ plane: narrow(576, 1500) });
    const bound = bind(site);
    const other = bind(site, '10.0.0.6', 5000);
    const sent = site.plane.passFrames(on(INSIDE, `udp 10.0.0.6:5000 > 203.0.113.1:${bound} id 5 len 1400`));
    assert.ok(sent.every(({ port }) => port === INSIDE));
    assert.equal(describeFrame(sent[0].frame), `udp 203.0.113.1:${other} > 10.0.0.5:4000 ttl 63 len 544 more`);
    assert.equal(reassemble(sent.map((out) => out.frame)).get(5)?.payload.length, 1408);
  });

  /** A firewall between the inside and the NAT. */
  function gateway(plane: PlaneOptions): Site {
    const rules = { file: null, text: 'iif inside accept', ports: ['inside', 'outside'] };
    const external = [parseIpv4('203.0.113.1')];
    return new Site({
      plane,
      chain: [
        { middlebox: firewall as never, options: { rules, connections: 1024, connections_ipv6: 256 } },
        { middlebox: nat as never, options: { inside: INSIDE, outside: OUTSIDE, external, flows: 1024 } },
      ],
    });
  }

  it('answers a hairpinned packet that forbids it, as its sender knows that packet', () => {
    for (const chain of ['nat', 'firewall, nat'] as const) {
      const site = chain === 'nat' ? new NatSite({ plane: narrow(576, 1500) }) : gateway(narrow(576, 1500));
      const [a, b] = [
        ['10.0.0.5', 4000],
        ['10.0.0.6', 5000],
      ].map(([host, port]) => {
        const [out] = site.plane.pass(on(INSIDE, `udp ${host}:${port} > 198.51.100.7:53`));
        return Number(/203\.0\.113\.1:(\d+)/.exec(out)?.[1]);
      });
      assert.ok(b > 0);
      const packet = `udp 10.0.0.6:5000 > 203.0.113.1:${a} len 1400 df`;
      const sent = site.plane.passFrames(on(INSIDE, packet));
      assert.deepEqual(
        sent.map((out) => `${out.port}: ${describeFrame(out.frame)}`),
        ['0: icmp 203.0.113.1 > 10.0.0.6 type 3 len 548'],
        chain,
      );
      const [{ frame: error }] = sent;
      assert.deepEqual([...error.subarray(34, 36)], [3, 4]);
      assert.equal((error[40] << 8) | error[41], 576);
      const quoted = Buffer.from(error.subarray(42));
      const original = Buffer.from(frame(packet).subarray(LINK_BYTES));
      assert.ok(
        quoted.subarray(12, 24).equals(original.subarray(12, 24)),
        'addresses and ports of the sender’s packet',
      );
      assert.ok(checksums(error).ip && checksums(error).transport);
      assert.equal(site.plane.counts()['route_mtu'], 1);
      assert.equal(site.plane.counts()['route_icmp_errors'], 1);
    }
  });
});

describe('fragmentation behind a firewall', () => {
  it('works in both directions', () => {
    const plane = { route: [routePort({ mtuBytes: 900 }), routePort({ mtuBytes: 700 })] };
    const site = new FirewallSite({ rules: 'iif inside accept', plane });
    const out = site.plane.passFrames(on(INSIDE, `${PACKET} id 1 len 1400`));
    const back = site.plane.passFrames(on(OUTSIDE, 'udp 198.51.100.7:53 > 10.0.0.5:4000 id 2 len 1400'));
    assert.deepEqual([out.length, back.length], [3, 2]);
    assert.equal(reassemble(out.map((one) => one.frame)).get(1)?.payload.length, 1408);
    assert.equal(reassemble(back.map((one) => one.frame)).get(2)?.payload.length, 1408);
  });
});
