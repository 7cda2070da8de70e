import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { MEMORY_FRAME_BYTES_MAX } from '../../../workers/drivers/memory.js';
import { DATAGRAM_MS, REUSED_MS } from '../../../workers/packet/datagrams.js';
import { Fragment } from '../../../workers/packet/fragment.js';
import { Protocol, parseIpv4, swap16 } from '../../../workers/packet/ipv4.js';
import { rewriteDestination, rewriteSource } from '../../../workers/packet/rewrite.js';
import { EARLY_MAX, EARLY_MS, EARLY_PER_GROUP } from '../../../workers/plane/fragments.js';
import { captureFramesOrSkip } from '../../support/captures.js';
import { fragmentsOf, reassembled } from '../support/fragmented.js';
import { describeFrame, frame } from '../support/frames.js';
import { describe6, frame6 } from '../support/frames6.js';
import { Plane } from '../support/plane.js';

const UDP = frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 100');
const UDP6 = frame6('udp 2001:db8::5 4000 > fd00::8 53 len 100');

/** A plane that writes down what its middlebox sees of every packet: fragment state and ports. */
class Watched {
  readonly plane: Plane;
  readonly seen: string[] = [];

  constructor(wire = true) {
    this.plane = new Plane(wire ? { route: null } : {});
    this.plane.open([
      (batch) => {
        for (let i = 0; i < batch.count; i++)
          if (!batch.skips(i))
            this.seen.push(
              `${['whole', 'first', 'later'][batch.fragment[i]]} ${batch.protocol[i]} ${swap16(batch.ports[i] & 0xffff)}:${swap16(batch.ports[i] >>> 16)} ${batch.flags[i]}`,
            );
      },
    ]);
  }

  pass(...frames: Uint8Array[]): Uint8Array[] {
    return this.plane.passFrames(...frames.map((bytes) => ({ port: 0, frame: bytes }))).map(({ frame }) => frame);
  }

  get counts(): Record<string, number> {
    return this.plane.counts();
  }
}

const FIRST = 'first 17 4000:53 0';
const LATER = 'later 17 4000:53 0';

/** A frame with VLAN tags, the outer one first. */
function tagged(bytes: Uint8Array, ...ids: number[]): Uint8Array {
  const tags = ids.flatMap((id) => [0x81, 0x00, id >> 8, id & 0xff]);
  return Uint8Array.of(...bytes.subarray(0, 12), ...tags, ...bytes.subarray(12));
}

describe('fragments', () => {
  it('of different VLANs are of different datagrams', () => {
    for (const whole of [UDP, UDP6]) {
      const [first, ...later] = fragmentsOf(whole, 40);
      const watched = new Watched();
      assert.deepEqual(watched.pass(tagged(first, 10)), [tagged(first, 10)]);
      for (const other of [later.map((bytes) => tagged(bytes, 20)), later, later.map((bytes) => tagged(bytes, 10, 0))])
        assert.deepEqual(watched.pass(...other), [], 'these wait for their own first fragment');
      assert.deepEqual(watched.counts, { fragments_early: 6, held_fragments: 6 });
      const own = later.map((bytes) => tagged(bytes, 10));
      assert.deepEqual(watched.pass(...own), own);
    }
  });

  it('that follow their first have its ports', () => {
    for (const whole of [UDP, UDP6]) {
      const watched = new Watched();
      const fragments = fragmentsOf(whole, 40);
      assert.deepEqual(watched.pass(...fragments), fragments);
      assert.deepEqual(watched.seen, [FIRST, LATER, LATER]);
      assert.deepEqual(watched.counts, {});
    }
    const icmp = new Watched();
    icmp.pass(...fragmentsOf(frame('icmp 10.0.0.5 > 8.8.8.8 echo 77 len 64'), 40));
    assert.deepEqual(icmp.seen, ['first 1 77:77 8', 'later 1 77:77 8'], 'the type is that of the first, too');
    const tcp = new Watched();
    tcp.pass(...fragmentsOf(frame('tcp 10.0.0.5:4000 > 8.8.8.8:80 SF len 60'), 40));
    assert.deepEqual(tcp.seen, ['first 6 4000:80 3', 'later 6 4000:80 0'], 'TCP flags are not repeated');
  });

  it('that come before it wait, and follow in the order they came, each once', () => {
    for (const whole of [UDP, UDP6]) {
      const watched = new Watched();
      const [first, second, third] = fragmentsOf(whole, 40);
      assert.deepEqual(watched.pass(third, second), []);
      assert.deepEqual(watched.counts, { held_fragments: 2, fragments_early: 2 });
      assert.deepEqual(watched.pass(first), [first, third, second]);
      assert.deepEqual(watched.seen, [FIRST, LATER, LATER]);
      assert.deepEqual(watched.counts, { fragments_early: 2 });
      assert.deepEqual(watched.pass(), []);
    }
  });

  it('wait through the middleboxes, for which whole packets in the same batch do not', () => {
    const watched = new Watched(false);
    const [first, second] = fragmentsOf(frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 40'), 32);
    const whole = frame('udp 10.0.0.6:1 > 198.51.100.7:2');
    const out = watched.pass(second, whole, first).map((bytes) => describeFrame(bytes));
    assert.deepEqual(out, [
      'udp 10.0.0.6:1 > 198.51.100.7:2 ttl 63',
      'udp 10.0.0.5:4000 > 198.51.100.7:53 ttl 63 len 24 more',
      'udp 10.0.0.5 > 198.51.100.7 ttl 63 len 16 offset 32',
    ]);
    const received = watched.plane.metrics.total('port0_rx_packets');
    assert.equal(received, 3, 'what waited was received once');
  });

  it('are dropped when the first does not come in time, whatever the packets do', () => {
    const watched = new Watched();
    const [first, second, third] = fragmentsOf(UDP, 40);
    watched.pass(second);
    watched.plane.nowMs += EARLY_MS - 1;
    watched.pass(third);
    watched.plane.idle(100);
    assert.deepEqual(watched.counts, { fragments_early: 2, fragment_no_first: 2 });
    // All that is left of the datagram is a first fragment.
    assert.deepEqual(watched.pass(first), [first]);
    assert.deepEqual(watched.pass(third), [third]);
  });

  it('that overlap, or lie about the end, are dropped: every byte passes once', () => {
    const watched = new Watched();
    const fragments = fragmentsOf(UDP, 40);
    const other = fragmentsOf(frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 108'), 24);
    watched.pass(fragments[0], fragments[1]);
    for (const overlapping of [fragments[0], fragments[1], other[1], other[2]])
      assert.deepEqual(watched.pass(overlapping), []);
    assert.equal(watched.counts['fragment_overlap'], 4);
    assert.deepEqual(watched.pass(fragments[2]), [fragments[2]]);

    const ended = new Watched();
    ended.pass(fragments[0], fragments[2]);
    const longer = fragmentsOf(frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 200'), 40);
    assert.deepEqual(ended.pass(longer[3], longer[4], longer[5]), [], 'past the end that was told');
    const short = fragmentsOf(frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 60'), 40);
    assert.deepEqual(ended.pass(short[1]), [], 'an end before the end');
    assert.deepEqual(ended.counts, { fragment_overlap: 4 });
  });

  it('of another datagram with the same identification are told apart once the old one is old', () => {
    const watched = new Watched();
    const [first] = fragmentsOf(UDP, 40);
    const again = fragmentsOf(frame('udp 10.0.0.5:5000 > 198.51.100.7:53 len 100'), 40);
    assert.deepEqual(watched.pass(first), [first]);
    assert.deepEqual(watched.pass(again[0]), []);
    watched.plane.nowMs += REUSED_MS;
    assert.deepEqual(watched.pass(...again), again);
    assert.deepEqual(watched.seen.slice(1), ['first 17 5000:53 0', 'later 17 5000:53 0', 'later 17 5000:53 0']);
    watched.pass(fragmentsOf(UDP, 40, 9)[0]);
    watched.plane.nowMs += DATAGRAM_MS;
    assert.deepEqual(watched.pass(fragmentsOf(UDP, 40, 9)[1]), [], 'forgotten');
  });

  it('of one source without end leave room for those of others', () => {
    const watched = new Watched();
    const late = Array.from({ length: 2000 }, (_, n) => fragmentsOf(UDP, 40, n)[1]);
    const calm = fragmentsOf(frame('udp 10.7.7.7:1 > 198.51.100.7:2 len 100'), 40, 3);
    watched.pass(calm[2], ...late);
    assert.ok(watched.plane.metrics.total('held_fragments') <= EARLY_PER_GROUP + 1);
    assert.deepEqual(watched.pass(calm[0], calm[1]).length, 3, 'the calm source’s held fragment is still there');
    assert.equal(watched.plane.dropped() + watched.plane.metrics.total('held_fragments'), 2000);
  });

  it('of sources without end put out the oldest of all, and memory stays', () => {
    const watched = new Watched();
    const flood = Array.from({ length: 20_000 }, (_, n) =>
      fragmentsOf(frame(`udp 11.${n >> 16}.${(n >> 8) & 255}.${n & 255}:1 > 198.51.100.7:2 len 100`), 40, n),
    );
    watched.pass(...flood.map(([, second]) => second));
    const held = watched.plane.metrics.total('held_fragments');
    assert.ok(held > EARLY_MAX / 2 && held <= EARLY_MAX, `${held} held`);
    const [first, second] = flood[flood.length - 1];
    assert.deepEqual(watched.pass(first), [first, second], 'the newest is there');
    assert.deepEqual(watched.pass(flood[0][0]), [flood[0][0]], 'the oldest gave way');
    assert.equal(watched.plane.dropped() + watched.plane.metrics.total('held_fragments') + 1, 20_000);
    watched.plane.idle(EARLY_MS + 100);
    assert.equal(watched.plane.dropped() + 1, 20_000);
  });

  it('are rewritten so that the datagram is right: the transport checksum in the first, addresses in all', () => {
    const plane = new Plane({ route: null });
    const shown: number[] = [];
    plane.open([
      (batch) => {
        for (let i = 0; i < batch.count; i++) {
          if (batch.skips(i)) continue;
          rewriteSource(batch, i, parseIpv4('203.0.113.1'), swap16(6000));
          rewriteDestination(batch, i, parseIpv4('192.0.2.9'), swap16(5353));
          if (batch.fragment[i] === Fragment.LATER) shown.push(batch.ports[i]);
        }
      },
    ]);
    for (const text of ['udp 10.0.0.5:4000 > 8.8.8.8:53 len 100', 'tcp 10.0.0.5:4000 > 8.8.8.8:53 PA len 100']) {
      const out = plane.passFrames(...fragmentsOf(frame(text), 48).map((bytes) => ({ port: 0, frame: bytes })));
      const whole = reassembled(out.map(({ frame }) => frame)) as Uint8Array;
      const [kind] = text.split(' ');
      const flags = kind === 'tcp' ? ' PA' : '';
      assert.equal(describeFrame(whole), `${kind} 203.0.113.1:6000 > 192.0.2.9:5353${flags} len 100`);
    }
    const endpoints = swap16(6000) | (swap16(5353) << 16);
    assert.deepEqual(new Set(shown), new Set([endpoints]), 'the next middlebox sees what this one made of them');
  });

  it('in whatever order, with copies, make what was sent, and none is lost count of', () => {
    const kind = fc.constantFrom('udp', 'tcp', 'icmp', 'udp6', 'tcp6');
    const datagram = fc.record({
      kind,
      bytes: fc.integer({ min: 60, max: 400 }),
      cut: fc.integer({ min: 3, max: 12 }),
    });
    const property = fc.property(
      fc.array(datagram, { minLength: 1, maxLength: 12 }),
      fc.infiniteStream(fc.nat()),
      fc.boolean(),
      (datagrams, order, wire) => {
        const watched = new Watched(wire);
        const sent = datagrams.flatMap(({ kind, bytes, cut }, id) => {
          const fragments = fragmentsOf(wholeOf(kind, id, bytes), cut * 8, id);
          return [...fragments, fragments[fragments.length >> 1]].map((bytes) => ({ bytes, by: order.next().value }));
        });
        sent.sort((a, b) => a.by - b.by);
        // IPv6 is routed to a MAC address alone.
        const out = watched.pass(...sent.map(({ bytes }) => bytes));
        const { plane } = watched;
        assert.equal(out.length + plane.dropped() + plane.metrics.total('held_fragments'), sent.length);
        for (const [id, { kind, bytes }] of datagrams.entries()) {
          // A copy that comes when the datagram is complete may begin another.
          const of = unique(out.filter((frame) => isOf(frame, kind, id)));
          const whole = reassembled(of);
          const text = whole === null ? '' : kind.endsWith('6') ? describe6(whole) : describeFrame(whole);
          assert.ok(whole !== null && !/bad/.test(text), `${id} ${kind} ${bytes}: ${text}`);
        }
      },
    );
    fc.assert(property, { numRuns: 150 });
  });

  it('of a real capture pass, each byte once, and all are counted', function () {
    // What does not fit the memory driver's chunks was merged by the capturing host.
    const frames = captureFramesOrSkip(this, 'fragments.pcap').filter(({ length }) => length <= MEMORY_FRAME_BYTES_MAX);
    const watched = new Watched();
    const out = watched.pass(...frames);
    const { plane } = watched;
    assert.equal(out.length + plane.dropped() + plane.metrics.total('held_fragments'), frames.length);
    const later = watched.seen.filter((one) => one.startsWith('later'));
    assert.ok(later.length > 0 && later.every((one) => !one.includes(' 0:0 ') || !/ (6|17) /.test(one)));
    plane.idle(EARLY_MS + 100);
    assert.equal(out.length + plane.dropped(), frames.length);
    console.log(`      ${frames.length} frames, ${later.length} later fragments: ${JSON.stringify(plane.counts())}`);
  });
});

function wholeOf(kind: string, id: number, bytes: number): Uint8Array {
  const host = (id % 250) + 1;
  if (kind === 'icmp') return frame(`icmp 10.0.0.${host} > 8.8.8.8 echo ${id} len ${bytes}`);
  if (kind.endsWith('6')) return frame6(`${kind.slice(0, 3)} 2001:db8::${host} 4000 > fd00::8 ${id} len ${bytes}`);
  return frame(`${kind} 10.0.0.${host}:4000 > 8.8.8.8:${id} len ${bytes}`);
}

/** Whether a fragment is of the datagram `wholeOf` made. */
function isOf(bytes: Uint8Array, kind: string, id: number): boolean {
  const { isIpv6, protocol, identification } = about(Buffer.from(bytes));
  return isIpv6 === kind.endsWith('6') && identification === id && protocol === PROTOCOLS[kind];
}

function unique(frames: readonly Uint8Array[]): Uint8Array[] {
  return [...new Map(frames.map((bytes) => [Buffer.from(bytes).toString('latin1'), bytes])).values()];
}

const PROTOCOLS: Record<string, number> = {
  udp: Protocol.UDP,
  udp6: Protocol.UDP,
  tcp: Protocol.TCP,
  tcp6: Protocol.TCP,
  icmp: Protocol.ICMP,
};

function about(bytes: Buffer): { isIpv6: boolean; protocol: number; identification: number } {
  const isIpv6 = bytes[12] === 0x86;
  return isIpv6
    ? { isIpv6, protocol: bytes[54], identification: bytes.readUInt32BE(58) }
    : { isIpv6, protocol: bytes[23], identification: bytes.readUInt16BE(18) };
}
