/** Datagrams of IPv4 whose transport header lies in several fragments. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { EARLY_MS, EARLY_PER_GROUP, JOINED_BYTES_MAX } from '../../../workers/plane/fragments.js';
import { scaled } from '../../support/scale.js';
import { decapsulated, type Encapsulation, encapsulated, TAG_TYPES } from '../support/encapsulated.js';
import { FirewallSite } from '../support/firewall-site.js';
import { fragmentsOf, reassembled } from '../support/fragmented.js';
import { describeFrame, frame } from '../support/frames.js';
import { frame6 } from '../support/frames6.js';
import { NatSite } from '../support/nat-site.js';
import { Plane } from '../support/plane.js';

const SYN = 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S seq 100 win 1000';
const PLAIN: Encapsulation = { tags: [], framing: 'ethernet' };

/**
 * The packet as it goes on when it was put together: identification 1, as `fragmentsOf` gives it.
 */
const whole = (bytes: Uint8Array): Uint8Array => {
  const [one] = fragmentsOf(bytes, 65_528, 1);
  return one;
};

/** Everything that came in: out, dropped, held, or gone on within another. */
const accounted = (plane: Plane, out: number): number =>
  out + plane.dropped() + plane.metrics.total('held_fragments') + plane.metrics.total('fragments_joined');

const cut = fc.record({
  bytes: fc.constantFrom(8, 16),
  packet: fc
    .tuple(fc.constantFrom(SYN, `${SYN} scale 7`, 'tcp 10.0.0.5:4000 > 198.51.100.7:22 S'), fc.nat({ max: 300 }))
    .map(([text, length]) => frame(`${text} len ${length}`)),
  framing: fc.record({
    tags: fc.array(fc.record({ type: fc.constantFrom(...TAG_TYPES), id: fc.nat({ max: 4094 }) }), { maxLength: 2 }),
    framing: fc.constantFrom('ethernet' as const, 'snap' as const, 'pppoe' as const),
    padding: fc.constantFrom(0, 20),
  }),
  order: fc.infiniteStream(fc.nat()),
});

function shuffled<T>(list: readonly T[], order: Iterator<number>): T[] {
  return list
    .map((item) => ({ item, key: order.next().value as number }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item);
}

describe('a TCP header split over fragments', () => {
  it('is inspected whole, in whatever order and framing the fragments come, and goes on in one packet', () => {
    fc.assert(
      fc.property(cut, ({ bytes, packet, framing, order }) => {
        const site = new FirewallSite({
          rules: 'policy drop\ntcp dport 80 accept',
          plane: { frames: { vlans: 'together' } },
        });
        const plain = new FirewallSite({ rules: 'policy drop\ntcp dport 80 accept' });
        const expected = plain.plane.passFrames({ port: 0, frame: whole(packet) });
        const fragments = shuffled(fragmentsOf(packet, bytes), order[Symbol.iterator]());
        const out = fragments.flatMap((one) =>
          site.plane.passFrames({ port: 0, frame: encapsulated(one, framing) }).map(({ port, frame }) => {
            assert.equal(decapsulated(frame).framing, framing.framing);
            return { port, frame: decapsulated(frame).frame };
          }),
        );
        assert.deepEqual(out, expected);
        assert.equal(accounted(site.plane, out.length), fragments.length);
        const { fragments_early, fragments_joined, ...counts } = site.counts();
        assert.deepEqual(counts, plain.counts());
      }),
      { numRuns: scaled(25, 60) },
    );
  });

  it('is translated by the NAT with a right checksum, wherever its checksum field lay', () => {
    for (const bytes of [8, 16]) {
      const site = new NatSite();
      const out = fragmentsOf(frame(`${SYN} len 40`), bytes).flatMap((one) => site.pass({ port: 0, frame: one }));
      assert.equal(out.length, 1);
      assert.match(out[0], /^1: tcp 203\.0\.113\.1:\d+ > 198\.51\.100\.7:80 S ttl 63 len 40$/);
    }
  });

  it('is none for a datagram whose first fragment has all of it, which goes on as it came', () => {
    const plane = new Plane({ route: null });
    const fragments = fragmentsOf(frame(`${SYN} len 40`), 24);
    const out = fragments.flatMap((one) => plane.passFrames({ port: 0, frame: one }));
    assert.deepEqual(
      out.map(({ frame }) => frame),
      fragments,
    );
    assert.ok(reassembled(out.map(({ frame }) => frame)) !== null);
    assert.deepEqual(plane.counts(), {});
  });

  it('works for SCTP and DCCP, and for TCP options alone', () => {
    for (const [packet, bytes] of [
      ['ip 10.0.0.5 > 198.51.100.7 proto 132 len 60', 8],
      ['ip 10.0.0.5 > 198.51.100.7 proto 33 len 60', 8],
    ] as const) {
      const plane = new Plane({ route: null });
      const out = fragmentsOf(frame(packet), bytes).flatMap((one) => plane.passFrames({ port: 0, frame: one }));
      assert.deepEqual(
        out.map(({ frame }) => frame),
        [whole(frame(packet))],
      );
    }
    const options = Buffer.from(frame(`${SYN} len 40`));
    options[14 + 20 + 12] = 0xa0;
    const plane = new Plane({ route: null });
    const out = fragmentsOf(new Uint8Array(options), 24).flatMap((one) => plane.passFrames({ port: 0, frame: one }));
    assert.equal(out.length, 1, 'a header of 40 bytes in fragments of 24');
  });

  it('never lets a fragment replace what was inspected (RFC 1858)', () => {
    // Attacker and receiver agree on the identification; the rules admit the first header.
    const admitted = fragmentsOf(frame(`${SYN} len 16`), 24);
    const evil = fragmentsOf(frame(`${SYN.replace(':80', ':22')} len 16`), 8);
    for (const laterMs of [0, 1100, 2500, 6000]) {
      const site = new FirewallSite({ rules: 'policy drop\ntcp dport 80 accept' });
      const { plane } = site;
      assert.equal(plane.passFrames({ port: 0, frame: admitted[0] }).length, 1);
      plane.nowMs += laterMs;
      const out = evil.slice(1).flatMap((one) => plane.passFrames({ port: 0, frame: one }));
      const over = out.filter(({ frame }) => (Buffer.from(frame).readUInt16BE(20) & 0x1fff) < 3);
      assert.deepEqual(over, [], 'nothing over the header goes on as a fragment');
      const whole = plane.passFrames({ port: 0, frame: evil[0] });
      assert.deepEqual(whole, [], 'and together they are judged as what they are');
    }
  });

  it('waits within bounds for the rest, and is dropped by reason', () => {
    const plane = new Plane({ route: null });
    const fragments = fragmentsOf(frame(`${SYN} len 40`), 16);
    plane.passFrames(...fragments.slice(0, -1).map((frame) => ({ port: 0, frame })));
    plane.idle(EARLY_MS + 100);
    const held = fragments.length - 1;
    assert.deepEqual(plane.counts(), { fragments_early: held, fragment_split_rest: held });

    const crowded = new Plane({ route: null });
    const packet = frame(`${SYN} len 1000`);
    const pieces = [...fragmentsOf(packet, 8).slice(0, 70), ...fragmentsOf(packet, 560).slice(1)];
    assert.deepEqual(crowded.passFrames(...pieces.map((frame) => ({ port: 0, frame }))), []);
    assert.equal(
      crowded.metrics.total('fragment_crowded'),
      pieces.length,
      'of more pieces than a source may have held',
    );
    assert.equal(accounted(crowded, 0), pieces.length);
  });

  it('makes packets of 1500 bytes, and none longer', () => {
    for (const [length, passes] of [
      [JOINED_BYTES_MAX - 40, true],
      [JOINED_BYTES_MAX - 39, false],
    ] as const) {
      const packet = frame(`${SYN} len ${length}`);
      const fragments = [...fragmentsOf(packet, 40).slice(1), ...fragmentsOf(packet, 8).slice(0, 5)];
      assert.ok(fragments.length <= EARLY_PER_GROUP);
      const plane = new Plane({ route: null });
      const out = plane.passFrames(...fragments.map((frame) => ({ port: 0, frame })));
      assert.deepEqual(
        out.map(({ frame }) => frame),
        passes ? [whole(packet)] : [],
      );
      assert.equal(plane.metrics.total('fragment_split_long'), passes ? 0 : fragments.length);
      assert.equal(accounted(plane, out.length), fragments.length);
    }
  });

  it('of sources without end takes no room from others for long', () => {
    const plane = new Plane({ route: null });
    const tiny = (n: number) => fragmentsOf(frame(`tcp 10.${n >> 8}.${n & 255}.5:4000 > 198.51.100.7:80 S`), 8, n)[0];
    for (let n = 0; n < 3000; n++) plane.passFrames({ port: 0, frame: tiny(n) });
    assert.ok(plane.metrics.total('held_fragments') <= 256);
    const out = plane.passFrames(...fragmentsOf(frame(SYN), 8).map((frame) => ({ port: 0, frame })));
    assert.deepEqual(
      out.map(({ frame }) => describeFrame(frame)),
      ['tcp 10.0.0.5:4000 > 198.51.100.7:80 S'],
    );
    assert.equal(accounted(plane, 1), 3003);
  });

  it('is dropped in IPv6, where it is not allowed (RFC 7112)', () => {
    const plane = new Plane({ route: null });
    const fragments = fragmentsOf(frame6('tcp 2001:db8::5 4000 > fd00::8 80 S len 20'), 16);
    assert.deepEqual(plane.passFrames(...fragments.map((frame) => ({ port: 0, frame }))), []);
    assert.equal(plane.counts()['parse_l4_truncated'], 1);
  });

  it('is no matter of framing that changes between fragments', () => {
    const plane = new Plane({ route: null });
    const [first, ...rest] = fragmentsOf(frame(SYN), 8);
    const out = plane.passFrames(
      { port: 0, frame: encapsulated(first, { ...PLAIN, framing: 'snap' }) },
      ...rest.map((frame) => ({ port: 0, frame })),
    );
    assert.deepEqual(
      out.map(({ frame }) => decapsulated(frame)),
      [{ frame: whole(frame(SYN)), tags: [], framing: 'snap' }],
    );
  });
});
