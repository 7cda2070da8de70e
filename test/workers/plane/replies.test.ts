import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { type Replies, Unreachable } from '../../../workers/api/replies.js';
import { MemoryDriver } from '../../../workers/drivers/memory.js';
import { BATCH_CAPACITY, type Batch } from '../../../workers/packet/batch.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { parseIpv6 } from '../../../workers/packet/ipv6.js';
import { ERRORS_IN_A_BURST } from '../../../workers/plane/icmp-errors.js';
import { checksums, describeFrame, frame } from '../support/frames.js';
import { describe6, frame6 } from '../support/frames6.js';
import { HOST_MAC, on, Plane, type PlaneOptions, ROUTER_MAC, routePort } from '../support/plane.js';

/**
 * A plane whose only middlebox replies to every packet, or leaves it as it is where that cannot be.
 */
function replying(reply: (replies: Replies, i: number, batch: Batch) => boolean, options: PlaneOptions = {}): Plane {
  const plane = new Plane(options);
  plane.open([
    (batch) => {
      for (let i = 0; i < batch.count; i++) if (!batch.skips(i)) reply(plane.replies, i, batch);
    },
  ]);
  return plane;
}

const back = (plane: Plane, text: string): string[] =>
  plane.passFrames(on(0, text)).map(({ port, frame }) => `${port}: ${describeFrame(frame, { macs: true })}`);

const HOME = `to ${HOST_MAC} from ${ROUTER_MAC}`;
const SYN = 'tcp 10.0.0.5:4000 > 198.51.100.7:22 S';

/** Sequence and acknowledgement number of an untagged TCP frame without options. */
function numbers(bytes: Uint8Array): [number, number] {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return [view.getUint32(38), view.getUint32(42)];
}

describe('replies', () => {
  it('turns an echo request into its reply, payload and tag included, to the station it came from', () => {
    const plane = replying((replies, i) => replies.echo(i));
    assert.deepEqual(back(plane, 'icmp 10.0.0.5 > 198.51.100.7 echo 77 len 100 ttl 9 vlan 5'), [
      `0: icmp 198.51.100.7 > 10.0.0.5 reply 77 len 100 vlan 5 ${HOME}`,
    ]);
    assert.deepEqual(plane.counts(), {});
    const payload = (bytes: Uint8Array) => Buffer.from(bytes.subarray(42));
    const asked = on(0, 'icmp 10.0.0.5 > 198.51.100.7 echo 77 len 100');
    const [answer] = plane.passFrames(asked);
    assert.deepEqual(payload(answer.frame), payload(asked.frame));
  });

  it('resets a connection as a closed port does (RFC 9293)', () => {
    const plane = replying((replies, i) => replies.reset(i));
    const [answer] = plane.passFrames(on(0, SYN));
    assert.equal(describeFrame(answer.frame, { macs: true }), `tcp 198.51.100.7:22 > 10.0.0.5:4000 RA ${HOME}`);
    assert.deepEqual(numbers(answer.frame), [0, 1001], 'SYN takes one number');
    const [data] = plane.passFrames(on(0, 'tcp 10.0.0.5:4000 > 198.51.100.7:22 F len 30 options 2'));
    assert.equal(describeFrame(data.frame), 'tcp 198.51.100.7:22 > 10.0.0.5:4000 RA');
    assert.deepEqual(numbers(data.frame), [0, 1031], 'data and FIN take theirs');

    const acknowledging = frame('tcp 10.0.0.5:4000 > 198.51.100.7:22 A len 10');
    new DataView(acknowledging.buffer).setUint32(42, 0xdeadbeef);
    const [to] = plane.passFrames({ port: 0, frame: acknowledging });
    assert.equal(describeFrame(to.frame), 'tcp 198.51.100.7:22 > 10.0.0.5:4000 R');
    assert.deepEqual(numbers(to.frame), [0xdeadbeef, 0]);
  });

  it('replies to IPv6 as to IPv4, with right checksums', () => {
    const reply = (change: (replies: Replies, i: number) => boolean, text: string, options: PlaneOptions = {}) =>
      replying(change, options)
        .passFrames({ port: 0, frame: frame6(text) })
        .map(({ port, frame }) => `${port}: ${describe6(frame)}`);
    const [from, to] = ['2001:db8::5', 'fd00::8'];
    assert.deepEqual(
      reply((replies, i) => replies.echo(i), `icmp ${from} > ${to} echo 77 len 40`),
      [`0: icmp ${to} > ${from} reply 77 len 40`],
    );
    assert.deepEqual(
      reply((replies, i) => replies.reset(i), `tcp ${from} 4000 > ${to} 22 S`),
      [`0: tcp ${to} 22 > ${from} 4000 RA`],
    );
    assert.deepEqual(
      reply((replies, i) => replies.reset(i), `tcp ${from} 4000 > ${to} 22 A len 9`),
      [`0: tcp ${to} 22 > ${from} 4000 R`],
    );
    const unreachable = (replies: Replies, i: number) => replies.unreachable(i, Unreachable.PORT);
    assert.deepEqual(reply(unreachable, `udp ${from} 4000 > ${to} 53 len 10`, { route: null }), [
      `0: icmp ${to} > ${from} type 1 len 58`,
    ]);
    const own = { route: [routePort({ address6: parseIpv6('fd00::1') }), routePort()] };
    const [error] = replying(unreachable, own).passFrames({ port: 0, frame: frame6(`udp ${from} 4000 > ${to} 53`) });
    assert.equal(describe6(error.frame), `icmp fd00::1 > ${from} type 1 len 48`);
    assert.equal(error.frame[55], 4, 'the code for a port');
    assert.deepEqual(reply(unreachable, `icmp ${from} > ${to} type 3 len 48`), [
      `1: icmp ${from} > ${to} type 3 hop 63 len 48`,
    ]);
    assert.equal(
      reply((replies, i) => replies.reset(i), `tcp ${from} 1 > ${to} 2 R`)[0].slice(0, 2),
      '1:',
      'no reset is reset',
    );
  });

  it('acknowledges past the end of the sequence numbers', () => {
    const plane = replying((replies, i) => replies.reset(i));
    const last = frame(SYN);
    new DataView(last.buffer).setUint32(38, 0xffffffff);
    assert.deepEqual(numbers(plane.passFrames({ port: 0, frame: last })[0].frame), [0, 0]);
  });

  it('tells that a packet is not delivered, from the port or, where that has no address, from its destination', () => {
    const route = [routePort({ address: parseIpv4('10.0.0.1') }), routePort()];
    const plane = replying((replies, i) => replies.unreachable(i, Unreachable.PROHIBITED), { route });
    const packet = 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 20';
    assert.deepEqual(back(plane, packet), [`0: icmp 10.0.0.1 > 10.0.0.5 type 3 len 48 ${HOME}`]);
    const [error] = plane.passFrames(on(1, packet));
    assert.equal(describeFrame(error.frame), 'icmp 198.51.100.7 > 10.0.0.5 type 3 len 48');
    assert.equal(error.frame[35], Unreachable.PROHIBITED);
    assert.equal(describeFrame(frameOf(error.frame.subarray(42))), packet, 'it quotes the packet');
  });

  it('shares the limit of ICMP errors with the router', () => {
    const route = [routePort({ address: parseIpv4('10.0.0.1') }), routePort()];
    const plane = replying((replies, i) => replies.unreachable(i, Unreachable.PORT), { route });
    const packets = Array.from({ length: ERRORS_IN_A_BURST }, (_, n) =>
      on(0, `udp 10.0.0.5:4000 > 198.51.100.7:${n + 1} ttl ${1 + (n % 2)}`),
    );
    assert.equal(plane.pass(...packets).length, ERRORS_IN_A_BURST);
    assert.deepEqual(plane.pass(on(0, 'udp 10.0.0.5:4000 > 198.51.100.7:99 ttl 1')), []);
    assert.deepEqual(plane.pass(on(0, 'udp 10.0.0.5:4000 > 198.51.100.7:99')), [
      '1: udp 10.0.0.5:4000 > 198.51.100.7:99 ttl 63',
    ]);
    plane.nowMs += 1000;
    assert.equal(plane.pass(on(0, 'udp 10.0.0.5:4000 > 198.51.100.7:99'))[0].slice(0, 2), '0:');
  });

  it('sends back what a middlebox wrote, of another length, with checksums', () => {
    const plane = replying((replies, i, batch) => {
      const { u8 } = batch.memory;
      u8.set(Buffer.from('no such name'), batch.l4[i] + 8);
      u8[batch.l3[i] + 3] = 20 + 8 + 12;
      return replies.turn(i);
    });
    const [answer] = plane.passFrames(on(0, 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 3'));
    assert.equal(describeFrame(answer.frame), 'udp 198.51.100.7:53 > 10.0.0.5:4000 len 12');
    assert.equal(Buffer.from(answer.frame.subarray(42)).toString(), 'no such name');
    assert.equal(answer.frame[39], 20, 'the UDP length');
  });

  it('refuses what has no room or no sense, and leaves the packet as it is', () => {
    const wrong = replying((replies, i, batch) => {
      batch.memory.u8[batch.l3[i] + 2] = 0xff;
      assert.equal(replies.turn(i), false);
      batch.memory.u8[batch.l3[i] + 2] = 0;
      return false;
    });
    assert.equal(wrong.pass(on(0, 'udp 10.0.0.5:1 > 198.51.100.7:53')).length, 1);
    const any = (replies: Replies, i: number): boolean =>
      replies.reset(i) || replies.echo(i) || replies.unreachable(i, Unreachable.PORT);
    const plane = replying(any);
    const error = 'icmp 10.0.0.5 > 198.51.100.7 type 3 len 28';
    const fragments = [16, 0].map(
      (offset) => `udp 10.0.0.5:1 > 198.51.100.7:53 offset ${offset} len 8 ${offset ? '' : 'more'}`,
    );
    assert.equal(plane.pass(on(0, error)).filter((line) => line.startsWith('1:')).length, 1);
    const [about, later] = plane.pass(...fragments.map((text) => on(0, text)));
    assert.match(about, /^0: icmp 198\.51\.100\.7 > 10\.0\.0\.5 type 3/, 'about the first fragment there may be one');
    assert.match(later, /^1: udp .* offset 16$/);
    const resetOnly = replying((replies, i) => replies.reset(i));
    assert.deepEqual(resetOnly.pass(on(0, 'tcp 10.0.0.5:4000 > 198.51.100.7:22 R')), [
      '1: tcp 10.0.0.5:4000 > 198.51.100.7:22 R ttl 63',
    ]);
  });

  it('replies on a wire too, in the name of the station that was asked, and never for a group', () => {
    const plane = replying((replies, i) => replies.reset(i), { route: null });
    assert.deepEqual(back(plane, SYN), [`0: tcp 198.51.100.7:22 > 10.0.0.5:4000 RA ${HOME}`]);
    const multicast = `${SYN} to 01:00:5e:00:00:01`;
    assert.deepEqual(plane.pass(on(0, multicast)), [`1: ${SYN}`]);
  });

  it('is unseen by the middleboxes after, and counted as sent', () => {
    const plane = new Plane();
    let seen = 0;
    plane.open([
      (batch) => {
        for (let i = 0; i < batch.count; i++) plane.replies.reset(i);
      },
      (batch) => {
        for (let i = 0; i < batch.count; i++) if (!batch.skips(i)) seen++;
      },
    ]);
    plane.pass(on(0, SYN), on(0, 'udp 10.0.0.5:4000 > 198.51.100.7:22'));
    assert.equal(seen, 1);
    assert.deepEqual([plane.metrics.total('port0_tx_packets'), plane.metrics.total('port1_tx_packets')], [1, 1]);
  });

  it('keeps packets in = packets out + dropped, within their memory, whatever comes', () => {
    const original = [
      frame('tcp 10.0.0.5:1 > 8.8.8.8:2 S options 3 len 60'),
      frame('udp 10.0.0.5:1 > 8.8.8.8:2 len 80 vlan 3'),
      frame('icmp 10.0.0.5 > 8.8.8.8 echo 3 len 500'),
    ];
    const answered = { turn: 0, reset: 0, echo: 0, unreachable: 0 };
    const names = Object.keys(answered) as (keyof typeof answered)[];
    let turn = 0;
    const plane = replying((replies, i, batch) => {
      const { u8 } = batch.memory;
      const name = names[turn++ % names.length];
      // As if the middlebox had written nonsense for a length.
      if (name === 'turn') u8[batch.l3[i] + 3] ^= turn & 0x7f;
      const done = name === 'unreachable' ? replies.unreachable(i, turn & 15) : replies[name](i);
      if (done) answered[name]++;
      return done;
    });
    const change = fc.array(fc.tuple(fc.nat(90), fc.nat(255)), { maxLength: 4 });
    fc.assert(
      fc.property(fc.constantFrom(...original), change, fc.nat(600), (packet, changes, length) => {
        const bytes = packet.slice(0, Math.max(1, packet.length - (length > 300 ? length - 300 : 0)));
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        plane.nowMs += 10;
        const gone = () =>
          plane.dropped() + plane.metrics.total('held_fragments') + plane.metrics.total('fragments_joined');
        const before = gone();
        const out = plane.passFrames({ port: 0, frame: bytes });
        assert.equal(out.length + gone() - before, 1);
        for (const { frame } of out) assert.ok(frame.length <= 4096 - 258);
      }),
      { numRuns: 4000 },
    );
    for (const name of names) assert.ok(answered[name] > 50, `${name}: ${answered[name]}`);
  });

  it('allocates nothing for a reply', () => {
    const texts = [
      'tcp 10.0.0.5:1 > 8.8.8.8:2 S',
      'icmp 10.0.0.5 > 8.8.8.8 echo 3 len 20',
      'udp 10.0.0.5:1 > 8.8.8.8:2',
    ];
    const frames = Array.from({ length: 63 }, (_, n) => on(0, texts[n % 3]));
    const driver = new MemoryDriver({ ports: 2, frames, loop: true, capture: false });
    const any = (replies: Replies, i: number): boolean => replies.reset(i) || replies.echo(i) || replies.turn(i);
    const plane = replying(any, { openDriver: () => driver });
    const rounds = 3000;
    const run = (): void => {
      for (let i = 0; i < rounds; i++) plane.dataPlane.doWork();
    };
    run(); // until it is compiled
    run();
    const before = process.memoryUsage().heapUsed;
    run();
    const bytes = (process.memoryUsage().heapUsed - before) / (rounds * BATCH_CAPACITY);
    assert.equal(driver.sentPackets[1], 0);
    assert.ok(bytes < 2, `${bytes} bytes a packet`);
  });

  it('has right checksums whatever it replies to', () => {
    const plane = replying((replies, i) => replies.echo(i) || replies.reset(i) || replies.turn(i));
    const kind = fc.constantFrom(
      'tcp 10.0.0.5:1 > 8.8.8.8:2 S',
      'udp 10.0.0.5:1 > 8.8.8.8:2',
      'icmp 10.0.0.5 > 8.8.8.8 echo 3',
    );
    fc.assert(
      fc.property(kind, fc.nat(400), fc.nat(3), (text, length, options) => {
        const [out] = plane.passFrames(on(0, `${text} len ${length} options ${options}`));
        assert.equal(out.port, 0);
        assert.deepEqual(checksums(out.frame), { ip: true, transport: true });
      }),
      { numRuns: 200 },
    );
  });
});

/** An IP packet in a frame of its own, for `describeFrame`. */
function frameOf(packet: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(14 + packet.length);
  bytes.set([0x08, 0x00], 12);
  bytes.set(packet, 14);
  return bytes;
}
