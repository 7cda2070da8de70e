import { strict as assert } from 'node:assert';
import type { Batch } from '../../../workers/packet/batch.js';
import { createMssClamp } from '../../../workers/packet/mss.js';
import { Stream } from '../../sim/random.js';
import { FirewallSite } from '../support/firewall-site.js';
import { checksums, frame, seal } from '../support/frames.js';
import { frame6, seal6 } from '../support/frames6.js';
import { NatSite } from '../support/nat-site.js';
import { Plane, routePort } from '../support/plane.js';
import { INSIDE, OUTSIDE } from '../support/site.js';

const L4 = 34;
const L4_IPV6 = 54;
const END = [0];
const NOTHING = [1];
const mss = (value: number): number[] => [2, 4, value >> 8, value & 0xff];

/** A TCP packet with these options, padded to whole words, then with data. */
function withOptions(text: string, options: readonly number[], data = 0): Uint8Array {
  const padded = [...options, ...new Array(-options.length & 3).fill(0)];
  const bytes = frame(`${text} len ${padded.length + data}`);
  bytes.set(padded, L4 + 20);
  bytes[L4 + 12] = (5 + padded.length / 4) << 4;
  return seal(bytes);
}

function withOptions6(text: string, options: readonly number[]): Uint8Array {
  const padded = [...options, ...new Array(-options.length & 3).fill(0)];
  const bytes = frame6(`${text} len ${padded.length}`);
  bytes.set(padded, L4_IPV6 + 20);
  bytes[L4_IPV6 + 12] = (5 + padded.length / 4) << 4;
  seal6(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  return bytes;
}

/** A data plane whose middlebox clamps. */
function clamping(setting: boolean | number, mtus = [1500, 1500]): Plane {
  const plane = new Plane({ route: mtus.map((mtuBytes) => routePort({ mtuBytes })) });
  const clamp = createMssClamp({ batch: plane.batch, mtus: Int32Array.from(mtus), setting });
  plane.open([
    (batch: Batch) => {
      for (let i = 0; i < batch.count; i++) if (!batch.skips(i)) clamp?.(i);
    },
  ]);
  return plane;
}

const SYN = 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S';

/** The options that come out, of a packet of IPv4. */
function optionsAfter(plane: Plane, bytes: Uint8Array, port = 0): number[] {
  const [{ frame: out }] = plane.passFrames({ port, frame: bytes });
  assert.deepEqual(checksums(out), { ip: true, transport: true });
  return [...out.subarray(L4 + 20, L4 + (out[L4 + 12] >> 4) * 4)];
}

describe('clamping the MSS', () => {
  it('writes what a reader of options would find, wherever they stand, and a right checksum', () => {
    const random = new Stream('mss', 3);
    const others = [NOTHING, [3, 3, 7], [4, 2], [8, 10, 1, 2, 3, 4, 5, 6, 7, 8], [254, 5, 1, 2, 3]];
    let odd = 0;
    let limit = 0;
    let plane = clamping(1);
    for (let round = 0; round < 3000; round++) {
      if (round % 100 === 0) {
        limit = random.whole(88, 1460);
        plane = clamping(limit);
      }
      const parts: number[][] = [];
      while (parts.flat().length < 26 && random.chance(0.7)) parts.push(random.pick(others));
      const value = random.below(65_536);
      const at = random.below(parts.length + 1);
      if (parts.slice(0, at).flat().length % 2 === 1) odd++;
      const options = [...parts.slice(0, at), mss(value), ...parts.slice(at)].flat();
      const expected = [...parts.slice(0, at), mss(Math.min(value, limit)), ...parts.slice(at)].flat();
      const padded = [...expected, ...new Array(-expected.length & 3).fill(0)];
      const data = random.below(4);
      assert.deepEqual(optionsAfter(plane, withOptions(SYN, options, data)), padded);
    }
    assert.ok(odd > 500, `${odd} at odd offsets`);
  });

  it('is for SYN and SYN-ACK alone, and never raises or adds', () => {
    const plane = clamping(1000);
    for (const flags of ['S', 'SA'])
      assert.deepEqual(optionsAfter(plane, withOptions(SYN.replace(/S$/, flags), mss(1460))), mss(1000));
    for (const flags of ['A', 'FA', 'R', 'PA'])
      assert.deepEqual(optionsAfter(plane, withOptions(SYN.replace(/S$/, flags), mss(1460))), mss(1460));
    assert.deepEqual(optionsAfter(plane, withOptions(SYN, mss(536))), mss(536));
    assert.deepEqual(optionsAfter(plane, withOptions(SYN, [3, 3, 7, 1])), [3, 3, 7, 1]);
    assert.deepEqual(optionsAfter(plane, withOptions(SYN, [])), []);
    assert.deepEqual(optionsAfter(clamping(false), withOptions(SYN, mss(1460))), mss(1460));
    assert.equal(createMssClamp({ batch: plane.batch, mtus: new Int32Array(2), setting: false }), null);
  });

  it('takes all there are, for a receiver may take any', () => {
    assert.deepEqual(optionsAfter(clamping(1000), withOptions(SYN, [...mss(1460), ...mss(900), ...mss(1400)])), [
      ...mss(1000),
      ...mss(900),
      ...mss(1000),
    ]);
  });

  for (const [what, options] of [
    ['behind the end', [...END, 1, 1, 1, ...mss(1460)]],
    ['behind an option of length 0', [254, 0, ...mss(1460), 1, 1]],
    ['behind an option of length 1', [254, 1, ...mss(1460), 1, 1]],
    ['of another length', [2, 3, 5, 180, 1, 1, 1, 1]],
    ['that reaches past the header', [1, 1, 1, 1, 1, 2, 4, 5]],
    ['behind an option that does so', [254, 40, ...mss(1460), 1, 1]],
    ['of which the header has the first byte alone', [1, 1, 1, 2]],
  ] as const)
    it(`leaves an option ${what} as it is`, () => {
      assert.deepEqual(optionsAfter(clamping(500), withOptions(SYN, options)), [...options]);
    });

  it('takes what the smaller MTU of ingress and egress allows, less the headers', () => {
    for (const port of [0, 1]) {
      assert.deepEqual(optionsAfter(clamping(true, [1500, 1492]), withOptions(SYN, mss(1460)), port), mss(1452));
      const [{ frame: out }] = clamping(true, [1400, 9000]).passFrames({
        port,
        frame: withOptions6('tcp 2001:db8::5 4000 > fd00::8 80 S', mss(1440)),
      });
      assert.deepEqual([...out.subarray(74, 78)], mss(1340));
      const resealed = Buffer.from(out);
      seal6(resealed);
      assert.ok(resealed.equals(Buffer.from(out)), 'the checksum is right');
    }
  });

  it('reads no further than the packet, of a first fragment too', () => {
    const first = withOptions(SYN, mss(1460), 4);
    const text = withOptions(`${SYN} more`, mss(1460));
    assert.equal(first.length, text.length + 4);
    const [{ frame: out }] = clamping(1000).passFrames({ port: 0, frame: text });
    assert.deepEqual([...out.subarray(L4 + 20, L4 + 24)], mss(1000));
    assert.deepEqual(clamping(1000).pass({ port: 0, frame: frame('tcp 10.0.0.5:1 > 8.8.8.8:2 offset 1480 len 40') }), [
      // Its first fragment did not come.
    ]);
  });

  it('is an option of the NAT, for both directions and hairpinned connections', () => {
    for (const [clamp_mss, limit] of [
      [true, 1452],
      [1300, 1300],
      [false, 1460],
    ] as const) {
      const route = [routePort(), routePort({ mtuBytes: 1492 })];
      const { plane } = new NatSite({ plane: { route }, options: { clamp_mss } });
      const [{ frame: out }] = plane.passFrames({ port: INSIDE, frame: withOptions(SYN, mss(1460)) });
      const bound = (out[L4] << 8) | out[L4 + 1];
      assert.deepEqual([...out.subarray(L4 + 20, L4 + 24)], mss(limit));
      assert.ok(checksums(out).transport);
      const answer = `tcp 198.51.100.7:80 > 203.0.113.1:${bound} SA`;
      assert.deepEqual(optionsAfter(plane, withOptions(answer, mss(1460)), OUTSIDE), mss(limit));
      const hairpin = `tcp 10.0.0.6:5000 > 203.0.113.1:${bound} S`;
      const inside = clamp_mss === true ? 1460 : limit;
      assert.deepEqual(optionsAfter(plane, withOptions(hairpin, mss(1460)), INSIDE), mss(inside));
      assert.equal(plane.counts()['nat_mss_clamped'], clamp_mss === false ? undefined : clamp_mss === true ? 2 : 3);
    }
  });

  it('is an option of the firewall, on a wire too, for both versions of IP', () => {
    for (const route of [null, [routePort(), routePort()]]) {
      const site = new FirewallSite({ rules: 'iif inside accept', options: { clamp_mss: 1200 }, plane: { route } });
      const { plane } = site;
      assert.deepEqual(optionsAfter(plane, withOptions(SYN, mss(1460))), mss(1200));
      const back = withOptions('tcp 198.51.100.7:80 > 10.0.0.5:4000 SA', mss(1460));
      assert.deepEqual(optionsAfter(plane, back, OUTSIDE), mss(1200));
      const six = withOptions6('tcp fd00::5 4000 > 2001:db8::8 80 S', mss(1440));
      const [{ frame: out }] = plane.passFrames({ port: INSIDE, frame: six });
      assert.deepEqual([...out.subarray(74, 78)], mss(1200));
      assert.equal(site.counts()['mss_clamped'], 3);
    }
  });
});
