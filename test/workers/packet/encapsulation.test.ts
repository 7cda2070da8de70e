/** What middleboxes see and decide does not depend on the framing of a packet. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import type { Batch } from '../../../workers/packet/batch.js';
import { linkBehind, mixedLink } from '../../../workers/packet/vlan.js';
import { scaled } from '../../support/scale.js';
import { decapsulated, type Encapsulation, encapsulated, TAG_TYPES } from '../support/encapsulated.js';
import { FirewallSite } from '../support/firewall-site.js';
import { errorAbout, frame } from '../support/frames.js';
import { frame6, icmpv6Error } from '../support/frames6.js';
import { Plane, type PlaneOptions } from '../support/plane.js';

const PLAIN: Encapsulation = { tags: [], framing: 'ethernet' };

const tag = fc.record({ type: fc.constantFrom(...TAG_TYPES), id: fc.nat({ max: 4094 }) });
const encapsulation: fc.Arbitrary<Encapsulation> = fc.record({
  tags: fc.array(tag, { maxLength: 4 }),
  framing: fc.constantFrom('ethernet', 'snap', 'pppoe'),
  session: fc.integer({ min: 1, max: 0xfffe }),
  padding: fc.nat({ max: 40 }),
});

const TCP = 'tcp 10.0.0.5:4000 > 198.51.100.7:80';
const BACK = 'tcp 198.51.100.7:80 > 10.0.0.5:4000';

/**
 * Packets of conversations, and some that nobody asked for: the port they come in by, and the
 * frame.
 */
const PACKETS: readonly [number, Uint8Array][] = [
  [0, frame(`${TCP} S seq 100 win 1000`)],
  [1, frame(`${BACK} SA seq 500 ack 101 win 1000`)],
  [0, frame(`${TCP} A seq 101 ack 501 win 1000 len 40`)],
  [1, frame(`${BACK} A seq 501 ack 141 win 1000 len 200`)],
  [1, frame(`${BACK} R seq 501`)],
  [0, frame('tcp 10.0.0.5:4001 > 198.51.100.7:113 S')],
  [0, frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 20')],
  [1, frame('udp 198.51.100.7:53 > 10.0.0.5:4000 len 400')],
  [1, errorAbout('icmp 192.0.2.1 > 10.0.0.5 type 3', 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 20')],
  [0, frame('udp 10.0.0.5:4000 > 198.51.100.7:99 len 900')],
  [0, frame('icmp 10.0.0.5 > 198.51.100.7 echo 77 len 30')],
  [1, frame('icmp 198.51.100.7 > 10.0.0.5 reply 77 len 30')],
  [1, frame('tcp 198.51.100.7:9 > 10.0.0.5:22 S')],
  [0, frame('ip 10.0.0.5 > 198.51.100.7 proto 47 len 20')],
  [0, frame6('tcp 2001:db8::5 4000 > fd00::8 80 S')],
  [1, frame6('tcp fd00::8 80 > 2001:db8::5 4000 SA')],
  [0, frame6('tcp 2001:db8::5 4001 > fd00::8 113 S')],
  [0, frame6('udp 2001:db8::5 4000 > fd00::8 99 len 900')],
  [0, frame6('udp 2001:db8::5 4000 > fd00::8 53 len 9')],
  [1, icmpv6Error('fd00::1', '2001:db8::5', 1, frame6('udp 2001:db8::5 4000 > fd00::8 53 len 9'))],
  [1, frame6('udp fd00::8 7 > 2001:db8::5 9 len 1')],
];

const RULES = `
  policy drop
  iif inside tcp dport 113 reject with tcp reset
  iif inside udp dport 99 reject
  iif inside accept
`;

/**
 * What becomes of packets, each in this encapsulation, and of their replies; and what the firewall
 * counts.
 */
function decided(packets: readonly [number, Uint8Array][], how: Encapsulation, plane: PlaneOptions = {}) {
  const site = new FirewallSite({ rules: RULES, plane });
  const out = packets.map(([port, bytes]) =>
    site.plane.passFrames({ port, frame: encapsulated(bytes, how) }).map(({ port, frame }) => {
      const { frame: plain, tags, framing } = decapsulated(frame);
      assert.deepEqual(
        [tags, framing],
        [how.tags.map(({ id }) => id), how.framing],
        'what goes on or back has the framing of what came',
      );
      return `${port}: ${Buffer.from(plain).toString('hex')}`;
    }),
  );
  return { out, counts: site.counts() };
}

/** What a middlebox sees of a frame, offsets from the IP header. */
function seen(bytes: Uint8Array, options: PlaneOptions = {}): Record<string, number> | null {
  const plane = new Plane({ route: null, ...options });
  let columns: Record<string, number> | null = null;
  plane.open([
    (batch: Batch) => {
      if (batch.skips(0)) return;
      const { version, l3, l4, protocol, fragment, source, destination, ports, flags, link } = batch;
      columns = {
        version: version[0],
        behind: l4[0] - l3[0],
        protocol: protocol[0],
        fragment: fragment[0],
        source: source[0],
        destination: destination[0],
        ports: ports[0],
        flags: flags[0],
        link: link[0],
      };
    },
  ]);
  plane.passFrames({ port: 0, frame: bytes });
  return columns;
}

const linkOf = ({ tags, framing, session = 1 }: Encapsulation): number => {
  const ids = tags.reduce((link, { id }, n) => linkBehind(link, n, id), 0);
  const swapped = ((session & 0xff) << 8) | (session >> 8);
  return framing === 'pppoe' ? mixedLink(ids, 0x1_0000 | swapped) : ids;
};

describe('framing', () => {
  it('does not change what a middlebox sees of a packet, but for its link', () => {
    fc.assert(
      fc.property(encapsulation, fc.constantFrom(...PACKETS), (how, [, bytes]) => {
        const plain = seen(bytes);
        assert.deepEqual(seen(encapsulated(bytes, how)), { ...plain, link: linkOf(how) });
        assert.deepEqual(seen(encapsulated(bytes, how), { frames: { vlans: 'together' } }), { ...plain, link: 0 });
      }),
      { numRuns: scaled(40, 100) },
    );
  });

  it('does not change what a firewall decides about conversations, nor its replies', () => {
    const plain = decided(PACKETS, PLAIN);
    assert.ok(plain.out.filter((out) => out.length === 0).length >= 2, 'some are dropped');
    assert.ok(
      plain.out.flat().some((out) => out.startsWith('0: ')),
      'some are answered',
    );
    fc.assert(
      fc.property(encapsulation, (how) => {
        assert.deepEqual(decided(PACKETS, how, { frames: { vlans: 'together' } }), plain);
      }),
      { numRuns: 25 },
    );
  });

  it('of a SNAP frame never grows a length into a type', () => {
    const how: Encapsulation = { tags: [], framing: 'snap' };
    const plane = new Plane({ route: null });
    let [inPlace, grown] = [true, true];
    plane.open([
      (batch) => {
        const { i32 } = batch.memory;
        const word = batch.l3[0] >> 2;
        const before = i32[word];
        i32[word] = (before & 0xffff) | (0xd505 << 16); // 1493 bytes: behind LLC and SNAP one too many
        grown = plane.replies.turn(0);
        i32[word] = (before & 0xffff) | (0xd405 << 16);
        inPlace = plane.replies.turn(0);
      },
    ]);
    const [{ frame: reply }] = plane.passFrames({
      port: 0,
      frame: encapsulated(frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 20'), how),
    });
    assert.deepEqual([grown, inPlace], [false, true]);
    assert.equal(Buffer.from(reply).readUInt16BE(12), 1500);
  });
});

const UDP = frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 20');
const snap = encapsulated(UDP, { tags: [], framing: 'snap' });
const pppoe = encapsulated(UDP, { tags: [], framing: 'pppoe' });

function changed(bytes: Uint8Array, changes: Record<number, number>): Uint8Array {
  const copy = bytes.slice();
  for (const [at, value] of Object.entries(changes)) copy[Number(at)] = value;
  return copy;
}

/** A frame of a type, with so many bytes behind it. */
function typed(type: number, payload: readonly number[] = new Array(46).fill(1), to?: readonly number[]): Uint8Array {
  const bytes = Uint8Array.of(...UDP.subarray(0, 12), type >> 8, type & 0xff, ...payload);
  if (to !== undefined) bytes.set(to);
  return bytes;
}

const LIES: readonly [string, Uint8Array, string][] = [
  ['an 802.3 length past the frame', changed(snap, { 13: snap.length - 14 + 1 }), 'parse_llc_length'],
  ['an 802.3 length below an LLC header', changed(snap, { 13: 2 }), 'parse_llc_length'],
  ['an 802.3 length that cuts the packet', changed(snap, { 13: snap.length - 14 - 1 }), 'parse_ipv4_total_length'],
  ['an 802.3 length that cuts the IP header', changed(snap, { 13: 8 + 19 }), 'parse_ipv4_truncated'],
  ['a PPPoE length past the frame', changed(pppoe, { 19: 2 + 48 + 1 }), 'parse_pppoe'],
  ['a PPPoE length below the protocol', changed(pppoe, { 19: 1 }), 'parse_pppoe'],
  ['a PPPoE length that cuts the packet', changed(pppoe, { 19: 2 + 47 }), 'parse_ipv4_total_length'],
  ['PPPoE of another version', changed(pppoe, { 14: 0x21 }), 'parse_pppoe'],
  ['session data with a code', changed(pppoe, { 15: 0xa7 }), 'parse_pppoe'],
  ['a cut PPPoE header', pppoe.subarray(0, 21), 'parse_pppoe'],
  [
    'a cut fourth tag',
    encapsulated(UDP, { tags: TAG_TYPES.map((type) => ({ type, id: 1 })), framing: 'ethernet' }).subarray(0, 29),
    'parse_frame_truncated',
  ],
];

const GROUP = [0x01, 0x80, 0xc2, 0, 0];
const CONTROL: readonly [string, Uint8Array][] = [
  ['ARP', typed(0x0806)],
  ['ARP behind tags', encapsulatedType(0x0806, 2)],
  ['ARP in SNAP', typed(0x0020, [0xaa, 0xaa, 3, 0, 0, 0, 8, 6, ...new Array(38).fill(0)])],
  ['RARP', typed(0x8035)],
  ['LLDP', typed(0x88cc, undefined, [...GROUP, 0x0e])],
  ['link aggregation', typed(0x8809, undefined, [...GROUP, 2])],
  ['802.1X', typed(0x888e)],
  ['spanning tree', typed(0x0026, [0x42, 0x42, 3, ...new Array(43).fill(0)], [...GROUP, 0])],
  [
    'per-VLAN spanning tree',
    typed(0x0032, [0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b, ...new Array(42).fill(0)], [1, 0, 0x0c, 0xcc, 0xcc, 0xcd]),
  ],
  ['PPPoE discovery', typed(0x8863)],
  ...[0xc021, 0xc023, 0xc223, 0x8021, 0x8057, 0x80fd].map((protocol): [string, Uint8Array] => [
    `PPP protocol ${protocol.toString(16)}`,
    pppFrame(protocol),
  ]),
];

const UNKNOWN: readonly [string, Uint8Array][] = [
  ['MPLS', Uint8Array.of(...UDP.subarray(0, 12), 0x88, 0x47, 0, 1, 0x01, 0x40, ...UDP.subarray(14))],
  ['MACsec', typed(0x88e5)],
  ['a fifth VLAN tag', encapsulated(UDP, { tags: new Array(5).fill({ type: 0x8100, id: 3 }), framing: 'ethernet' })],
  ['a backbone tag', typed(0x88e7)],
  ['a type that is neither a length nor assigned', typed(1501)],
  ['IPX', typed(0x8137)],
  ['LLC that is not SNAP', typed(0x0026, [0x06, 0x06, 3, ...UDP.subarray(14)])],
  ['SNAP of another organisation', changed(snap, { 19: 0xf8 })],
  ['a tag in SNAP', typed(0x0030, [0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0, 0, 5, 8, 0, ...UDP.subarray(14), 0])],
  ['compressed PPP', pppFrame(0x00fd)],
  ['PPP with a protocol of one byte', typed(0x8864, [0x11, 0, 0, 1, 0, 49, 0x21, ...UDP.subarray(14)])],
  ['compressed PPP with a protocol of one byte', typed(0x8864, [0x11, 0, 0, 1, 0, 20, 0xfd, ...new Array(40).fill(1)])],
  ['a group next to those of bridges', typed(0x6000, undefined, [...GROUP, 0x10])],
];

function encapsulatedType(type: number, tags: number): Uint8Array {
  const words = Array.from({ length: tags }, () => [0x81, 0, 0, 9]).flat();
  return Uint8Array.of(...UDP.subarray(0, 12), ...words, type >> 8, type & 0xff, ...new Array(46).fill(0));
}

function pppFrame(protocol: number): Uint8Array {
  return typed(0x8864, [0x11, 0, 0, 1, 0, 20, protocol >> 8, protocol & 0xff, ...new Array(40).fill(1)]);
}

describe('framing on a wire with a firewall whose policy is drop', () => {
  const through = (bytes: Uint8Array, plane: PlaneOptions = {}) => {
    const site = new FirewallSite({ rules: 'policy drop', plane });
    return { out: site.plane.passFrames({ port: 0, frame: bytes }), counts: site.counts() };
  };

  for (const [what, bytes, reason] of LIES) {
    it(`drops ${what}`, () => {
      for (const unknownEthertypes of ['drop', 'pass'] as const)
        assert.deepEqual(through(bytes, { frames: { unknownEthertypes } }), { out: [], counts: { [reason]: 1 } });
    });
  }

  for (const [what, bytes] of CONTROL) {
    it(`lets ${what} pass`, () => {
      assert.deepEqual(through(bytes), { out: [{ port: 1, frame: bytes }], counts: { link_control: 1 } });
    });
  }

  for (const [what, bytes] of UNKNOWN) {
    it(`drops ${what}, and lets it pass only when told to`, () => {
      assert.deepEqual(through(bytes), { out: [], counts: { parse_unknown_ethertype: 1 } });
      assert.deepEqual(through(bytes, { frames: { unknownEthertypes: 'pass' } }), {
        out: [{ port: 1, frame: bytes }],
        counts: { unknown_ethertype_passed: 1 },
      });
    });
  }

  it('drops IP in every framing that it inspects', () => {
    fc.assert(
      fc.property(encapsulation, fc.constantFrom(...PACKETS), fc.boolean(), (how, [port, bytes], passes) => {
        const unknownEthertypes = passes ? 'pass' : 'drop';
        const site = new FirewallSite({ rules: 'policy drop', plane: { frames: { unknownEthertypes } } });
        assert.deepEqual(site.plane.passFrames({ port, frame: encapsulated(bytes, how) }), []);
      }),
      { numRuns: scaled(30, 80) },
    );
  });
});
