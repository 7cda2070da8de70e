import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import type { Batch } from '../../../workers/packet/batch.js';
import { scaled } from '../../support/scale.js';
import { encapsulated } from '../support/encapsulated.js';
import { frame, seal } from '../support/frames.js';
import { Plane, type PlaneOptions } from '../support/plane.js';

/**
 * A frame with some of its bytes changed; offsets from the IP header of an untagged frame if `ip`.
 */
function changed(text: string, changes: Record<number, number>, { sealed = true, ip = true } = {}): Uint8Array {
  const bytes = frame(text);
  for (const [at, value] of Object.entries(changes)) bytes[Number(at) + (ip ? 14 : 0)] = value;
  return sealed ? seal(bytes) : bytes;
}

const UDP = 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 8';
const TCP = 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S';

/**
 * A frame of IPv6 with the given chain: next header of the fixed header, then the bytes behind it.
 */
function ipv6(nextHeader: number, payload: number[], payloadLength = payload.length): Uint8Array {
  const bytes = Buffer.alloc(14 + 40 + payload.length);
  bytes.set(frame(UDP).subarray(0, 12));
  bytes.writeUInt16BE(0x86dd, 12);
  bytes[14] = 0x60;
  bytes.writeUInt16BE(payloadLength, 18);
  bytes[20] = nextHeader;
  bytes[21] = 64;
  bytes[22] = 0xfd;
  bytes[38] = 0xfe;
  bytes.set(payload, 54);
  return new Uint8Array(bytes);
}
const UDP_HEADER = [0x0f, 0xa0, 0, 53, 0, 8, 0, 0];

const LIES: [string, Uint8Array, string][] = [
  ['no whole Ethernet header', frame(UDP).subarray(0, 13), 'parse_frame_truncated'],
  ['no whole VLAN tag', frame(`${UDP} vlan 5`).subarray(0, 16), 'parse_frame_truncated'],
  ['five VLAN tags', fiveTags(), 'parse_not_ip'],
  ['IP in SNAP, at a router', encapsulated(frame(UDP), { tags: [], framing: 'snap' }), 'parse_not_ip'],
  ['ARP', changed(UDP, { 12: 8, 13: 6 }, { ip: false, sealed: false }), 'parse_not_ip'],
  ['no whole IPv4 header', frame(UDP).subarray(0, 33), 'parse_ipv4_truncated'],
  ['version 5', changed(UDP, { 0: 0x55 }), 'parse_ipv4_version'],
  ['header length 4 words', changed(UDP, { 0: 0x44 }, { sealed: false }), 'parse_ipv4_header_length'],
  ['header longer than the packet', changed(UDP, { 0: 0x4f, 3: 40 }, { sealed: false }), 'parse_ipv4_header_length'],
  ['total length below the header', changed(UDP, { 3: 19 }, { sealed: false }), 'parse_ipv4_header_length'],
  ['total length past the frame', changed(UDP, { 3: 37 }, { sealed: false }), 'parse_ipv4_total_length'],
  ['wrong header checksum', changed(UDP, { 8: 63 }, { sealed: false }), 'parse_ipv4_checksum'],
  ['TCP cut short', changed(`${TCP}`, { 3: 39 }), 'parse_l4_truncated'],
  ['UDP cut short', changed(UDP, { 3: 27 }), 'parse_l4_truncated'],
  ['ICMP cut short', changed('icmp 10.0.0.5 > 8.8.8.8 echo 1', { 3: 27 }), 'parse_l4_truncated'],
  ['SCTP cut short', frame('ip 10.0.0.5 > 8.8.8.8 proto 132 len 11'), 'parse_l4_truncated'],
  ['DCCP cut short', frame('ip 10.0.0.5 > 8.8.8.8 proto 33 len 11'), 'parse_l4_truncated'],
  ['UDP-Lite cut short', frame('ip 10.0.0.5 > 8.8.8.8 proto 136 len 7'), 'parse_l4_truncated'],
  ['TCP data offset 4', changed(TCP, { 32: 0x40 }), 'parse_tcp_offset'],
  ['TCP data offset past the packet', changed(TCP, { 32: 0x60 }), 'parse_tcp_offset'],
  ['UDP length 7', changed(UDP, { 25: 7 }), 'parse_udp_length'],
  ['UDP length past the packet', changed(UDP, { 25: 17 }), 'parse_udp_length'],
  ['a first fragment not of 8 bytes', frame(`${UDP.replace('8', '9')} more len 9`), 'parse_ipv4_fragment'],
  ['a fragment past 65535 bytes', frame(`${UDP} offset 65528 len 16`), 'parse_ipv4_fragment'],
  ['an empty fragment', frame('udp 1.1.1.1:1 > 2.2.2.2:2 offset 64 len 0'), 'parse_ipv4_fragment'],
  ['IPv6 cut short', ipv6(17, UDP_HEADER).subarray(0, 53), 'parse_ipv6_truncated'],
  ['IPv6 payload past the frame', ipv6(17, UDP_HEADER, 9), 'parse_ipv6_truncated'],
  ['IPv6 of version 4', changed6(ipv6(17, UDP_HEADER), 14, 0x40), 'parse_ipv6_version'],
  ['an extension header past the packet', ipv6(60, [17, 1, 0, 0, 0, 0, 0, 0]), 'parse_ipv6_extensions'],
  ['a cut extension header', ipv6(60, [17, 0, 0, 0]), 'parse_ipv6_extensions'],
  [
    'hop-by-hop options in second place',
    ipv6(60, [0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]),
    'parse_ipv6_extensions',
  ],
  [
    'nine extension headers',
    ipv6(
      60,
      Array.from({ length: 72 }, (_, i) => (i % 8 === 0 ? 60 : 0)),
    ),
    'parse_ipv6_extensions',
  ],
  [
    'two fragment headers',
    ipv6(44, [44, 0, 0, 0, 0, 0, 0, 1, 17, 0, 0, 0, 0, 0, 0, 1, ...UDP_HEADER]),
    'parse_ipv6_extensions',
  ],
  ['an IPv6 fragment not of 8 bytes', ipv6(44, [17, 0, 0, 1, 0, 0, 0, 1, 1]), 'parse_ipv6_fragment'],
];

function fiveTags(): Uint8Array {
  return encapsulated(frame(UDP), { tags: new Array(5).fill({ type: 0x8100, id: 3 }), framing: 'ethernet' });
}

function changed6(bytes: Uint8Array, at: number, value: number): Uint8Array {
  bytes[at] = value;
  return bytes;
}

/** What `parse` made of one frame; a later fragment's first has to come before it. */
function parsed(
  bytes: Uint8Array,
  before: readonly Uint8Array[] = [],
  options: PlaneOptions = { route: null },
): Record<string, number | string> {
  const plane = new Plane(options);
  let columns: Record<string, number | string> = {};
  plane.open([
    (batch) => {
      if (batch.skips(0)) return;
      columns = {
        version: batch.version[0],
        l3: batch.l3[0] - batch.start[0],
        l4: batch.l4[0] - batch.start[0],
        protocol: batch.protocol[0],
        fragment: batch.fragment[0],
        ports: (batch.ports[0] >>> 0).toString(16),
        flags: batch.flags[0],
        ...(batch.link[0] !== 0 && { link: batch.link[0] }),
      };
    },
  ]);
  for (const frame of [...before, bytes]) plane.passFrames({ port: 0, frame });
  return columns;
}

describe('packet/parse', () => {
  for (const [what, bytes, reason] of LIES) {
    it(`drops ${what}`, () => {
      const plane = new Plane();
      assert.deepEqual(plane.pass({ port: 0, frame: bytes }), []);
      assert.deepEqual(plane.counts(), { [reason]: 1 });
    });
  }

  it('finds the headers behind VLAN tags, IP options and fragment fields', () => {
    const tcp = { version: 4, protocol: 6, fragment: 0, ports: '5000a00f', flags: 2 };
    assert.deepEqual(parsed(frame(TCP)), { ...tcp, l3: 14, l4: 34 });
    assert.deepEqual(parsed(frame(`${TCP} vlan 5`)), { ...tcp, l3: 18, l4: 38, link: 5 });
    assert.deepEqual(parsed(frame(`${TCP} vlan 5.7 options 10`)), { ...tcp, l3: 22, l4: 82, link: 5 * 4096 + 7 });
    const udp = { version: 4, l3: 14, l4: 34, protocol: 17, flags: 0 };
    const first = changed(`${UDP} more`, { 25: 64 });
    assert.deepEqual(parsed(first), { ...udp, fragment: 1, ports: '3500a00f' });
    assert.deepEqual(parsed(frame(`${UDP} offset 800`), [first]), { ...udp, fragment: 2, ports: '3500a00f' });
  });

  it('takes the link from VLAN ids alone, in wire mode, unless VLANs are together', () => {
    const tagged = frame(`${TCP} vlan 5.7`);
    const withPriority = tagged.slice();
    withPriority[14] |= 0xf0;
    withPriority[18] |= 0xf0;
    const link = (bytes: Uint8Array, options?: PlaneOptions) => parsed(bytes, [], options)['link'] ?? 0;
    assert.equal(link(withPriority), link(tagged));
    assert.equal(link(frame(`${TCP} vlan 4095`)), 4095);
    assert.equal(link(frame(`${TCP} vlan 4095.4095`)), 0xff_ffff);
    assert.equal(link(frame(`${TCP} vlan 0`)), 0, 'a tag of id 0 carries a priority alone');
    assert.equal(link(tagged, { route: null, frames: { vlans: 'together' } }), 0);
    assert.equal(link(tagged, {}), 0);
  });

  it('takes the ports of every protocol that begins with them, of first fragments too', () => {
    const at = { version: 4, l3: 14, l4: 34, flags: 0 };
    for (const protocol of [33, 132, 136]) {
      const packet = `ip 10.0.0.5 > 8.8.8.8 proto ${protocol} len 16`;
      const found = { ...at, protocol, ports: '160f0801' };
      assert.deepEqual(parsed(frame(packet)), { ...found, fragment: 0 });
      assert.deepEqual(parsed(frame(`${packet} more`)), { ...found, fragment: 1 });
      assert.deepEqual(parsed(frame(`${packet} offset 16`), [frame(`${packet} more`)]), { ...found, fragment: 2 });
    }
    assert.deepEqual(parsed(frame('ip 10.0.0.5 > 8.8.8.8 proto 47 len 16')), {
      ...at,
      protocol: 47,
      ports: '0',
      fragment: 0,
    });
  });

  it('takes the identifier of ICMP queries for both ports, and none of errors', () => {
    const icmp = { version: 4, l3: 14, l4: 34, protocol: 1, fragment: 0 };
    assert.deepEqual(parsed(frame('icmp 1.1.1.1 > 2.2.2.2 echo 258')), { ...icmp, ports: '2010201', flags: 8 });
    assert.deepEqual(parsed(frame('icmp 1.1.1.1 > 2.2.2.2 type 3 len 28')), { ...icmp, ports: '0', flags: 3 });
  });

  it('walks IPv6 extension headers to the transport header', () => {
    const udp = { version: 6, l3: 14, protocol: 17, fragment: 0, ports: '3500a00f', flags: 0 };
    assert.deepEqual(parsed(ipv6(17, UDP_HEADER)), { ...udp, l4: 54 });
    const hopByHop = [60, 0, 0, 0, 0, 0, 0, 0];
    const destination = [51, 1, ...new Array(14).fill(0)];
    const authentication = [17, 1, ...new Array(10).fill(0)];
    const chain = [...hopByHop, ...destination, ...authentication, ...UDP_HEADER];
    assert.deepEqual(parsed(ipv6(0, chain)), { ...udp, l4: 54 + 36 });
    const later = [17, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3];
    const first = ipv6(44, [17, 0, 0, 1, 0, 0, 0, 1, ...UDP_HEADER]);
    assert.deepEqual(parsed(ipv6(44, later), [first]), { ...udp, l4: 62, fragment: 2 });
  });

  it('lets padding behind the packet be', () => {
    const padded = new Uint8Array(60);
    padded.set(frame('udp 10.0.0.5:4000 > 198.51.100.7:53'));
    assert.equal(parsed(padded)['l4'], 34);
  });

  it('lets what is not IP bypass the middleboxes in wire mode', () => {
    const plane = new Plane({ route: null });
    plane.open([
      (batch) => {
        for (let i = 0; i < batch.count; i++) if (!batch.skips(i)) batch.forward(i, 0);
      },
    ]);
    const arp = changed(UDP, { 12: 8, 13: 6 }, { ip: false, sealed: false });
    assert.deepEqual(plane.pass({ port: 0, frame: arp }), ['1: arp']);
  });

  it('lets neighbour discovery bypass in wire mode, but not what was forwarded, nor group membership', () => {
    const icmp6 = (type: number, hopLimit: number) => changed6(ipv6(58, [type, 0, 0, 0, 0, 0, 0, 0]), 21, hopLimit);
    const seen = (bytes: Uint8Array) => parsed(bytes)['version'] === 6;
    for (const type of [133, 134, 135, 136, 137])
      assert.deepEqual([seen(icmp6(type, 255)), seen(icmp6(type, 254))], [false, true]);
    for (const type of [1, 3, 128, 129, 130, 131, 132, 138, 143])
      assert.deepEqual([seen(icmp6(type, 1)), seen(icmp6(type, 255))], [true, true]);
    // With a fragment header, "more fragments" set or not, no host accepts it.
    for (const more of [0, 1]) {
      const fragment = ipv6(44, [58, 0, 0, more, 0, 0, 0, 1, 135, 0, 0, 0, 0, 0, 0, 0]);
      assert.ok(seen(changed6(fragment, 21, 255)), `more ${more}`);
    }
    const wire = new Plane({ route: null });
    assert.equal(wire.passFrames({ port: 0, frame: icmp6(135, 255) }).length, 1);
  });

  it('never throws, reads outside or loses count of frames that were damaged anyhow', () => {
    const seeds = [UDP, TCP, `${TCP} vlan 5.7 options 3`, 'icmp 1.1.1.1 > 2.2.2.2 echo 1', `${UDP} more`].map(frame);
    seeds.push(ipv6(0, [44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 1, ...UDP_HEADER]));
    const edit = fc.tuple(fc.nat({ max: 80 }), fc.nat({ max: 255 }));
    const damaged = fc
      .tuple(fc.constantFrom(...seeds), fc.array(edit, { maxLength: 6 }), fc.nat({ max: 100 }), fc.boolean())
      .map(([seed, edits, cut, reseal]) => {
        const bytes = seed.slice(0, cut > 80 ? seed.length : Math.min(seed.length, cut));
        for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
        return reseal && bytes.length >= 60 && bytes[12] === 8 ? resealed(bytes) : bytes;
      });
    fc.assert(
      fc.property(fc.array(damaged, { maxLength: 100 }), fc.boolean(), (frames, wire) => {
        const plane = wire ? new Plane({ route: null }) : new Plane();
        plane.open([insideOnly]);
        const out = plane.passFrames(...frames.map((bytes) => ({ port: 0, frame: bytes })));
        const kept = plane.metrics.total('held_fragments') + plane.metrics.total('fragments_joined');
        assert.equal(out.length + plane.dropped() + kept, frames.length);
      }),
      { numRuns: scaled(120, 300) },
    );
  });
});

/**
 * Makes the header checksum right again where the header length allows, so that damage gets past
 * it.
 */
function resealed(bytes: Uint8Array): Uint8Array {
  const end = 14 + (bytes[14] & 15) * 4;
  if (end > bytes.length || end < 34) return bytes;
  bytes[24] = bytes[25] = 0;
  let sum = 0;
  for (let at = 14; at < end; at += 2) sum += (bytes[at] << 8) | bytes[at + 1];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  bytes[24] = (~sum >> 8) & 0xff;
  bytes[25] = ~sum & 0xff;
  return bytes;
}

/** Asserts what `parse` promises of every packet it lets through. */
function insideOnly(batch: Batch): void {
  for (let i = 0; i < batch.count; i++) {
    if (batch.skips(i)) continue;
    const end = batch.start[i] + batch.length[i];
    assert.ok(batch.l3[i] >= batch.start[i] + 14 && batch.l3[i] % 4 === 0);
    assert.ok(batch.l4[i] >= batch.l3[i] + 20 && batch.l4[i] <= end && batch.l4[i] % 4 === 0);
    const needs =
      batch.fragment[i] === 2 ? 0 : ({ 1: 8, 6: 20, 17: 8, 33: 12, 58: 8, 132: 12, 136: 8 }[batch.protocol[i]] ?? 0);
    assert.ok(batch.l4[i] + needs <= end);
  }
}
