/**
 * Tests what the relay does to frames, in its dry run: frames and commands go in as text,
 * deliveries come out, and no time passes.
 */

import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { compiled, findCompiler } from '../compile.js';

interface Delivery {
  readonly from: string;
  readonly to: string;
  readonly at_us: number;
  readonly id: number;
}

/**
 * Feeds the lines to a relay with these segments. Returns the deliveries in order, and the other
 * lines.
 */
function relay(
  lines: readonly string[],
  segments = ['wan=a,b'],
  seed = 1,
): { deliveries: Delivery[]; answers: string[] } {
  const out = execFileSync(compiled('relay'), ['--dry-run', '--seed', String(seed), ...segments], {
    input: `${lines.join('\n')}\n`,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  const all = out.trimEnd().split('\n');
  const deliveries = all
    .filter((line) => line.startsWith('deliver '))
    .map((line) => line.split(' '))
    .map(([, from, to, at, id]) => ({ from, to, at_us: Number(at), id: Number(id) }));
  return { deliveries, answers: all.filter((line) => !line.startsWith('deliver ') && line !== 'ok') };
}

/** `count` frames from port a, one every `everyUs`. */
function frames(count: number, everyUs: number, bytes = 100): string[] {
  return Array.from({ length: count }, (_, i) => `frame a ${i * everyUs} ${bytes} ${i}`);
}

const ids = (deliveries: readonly Delivery[]): number[] => deliveries.map((delivery) => delivery.id);
const sorted = (numbers: readonly number[]): number[] => [...numbers].sort((x, y) => x - y);

describe('testbed/relay impairment', () => {
  before(function () {
    if (findCompiler() !== null) return;
    if (process.env['CI']) throw new Error('needed in CI: a C compiler');
    this.skip();
  });

  it('passes frames on at once and in order when nothing is set', () => {
    const { deliveries } = relay(frames(50, 10));
    assert.deepEqual(
      deliveries,
      Array.from({ length: 50 }, (_, i) => ({ from: 'a', to: 'b', at_us: i * 10, id: i })),
    );
  });

  it('delays each direction by its own delay', () => {
    const { deliveries } = relay([
      'set a b delay_ms=50',
      'set b a delay_ms=0.25',
      'frame a 1000 100 1',
      'frame b 1000 100 2',
    ]);
    assert.deepEqual(deliveries, [
      { from: 'b', to: 'a', at_us: 1250, id: 2 },
      { from: 'a', to: 'b', at_us: 51_000, id: 1 },
    ]);
  });

  it('jitters within its bounds and without reordering', () => {
    const { deliveries } = relay(['set a b delay_ms=20 jitter_ms=5', ...frames(2000, 20_000)]);
    assert.deepEqual(ids(deliveries), sorted(ids(deliveries)));
    const delays = deliveries.map((delivery) => delivery.at_us - delivery.id * 20_000);
    assert.ok(Math.min(...delays) >= 15_000 && Math.max(...delays) <= 25_000);
    assert.ok(Math.max(...delays) - Math.min(...delays) > 9_000, 'the whole span is used');
    const close = relay(['set a b delay_ms=20 jitter_ms=5', ...frames(2000, 10)]).deliveries;
    assert.deepEqual(ids(close), sorted(ids(close)), 'also when frames are closer than the jitter');
  });

  it('loses the share asked for, the same for a seed, another for another', () => {
    const input = ['set a b loss=0.1', ...frames(10_000, 10), 'stats'];
    const first = relay(input);
    const lost = 10_000 - first.deliveries.length;
    assert.ok(lost > 800 && lost < 1200, `${lost} of 10000 lost`);
    assert.match(first.answers[0], new RegExp(`^a b received=10000 .* lost=${lost} `));
    assert.deepEqual(relay(input).deliveries, first.deliveries);
    assert.notDeepEqual(ids(relay(input, ['wan=a,b'], 2).deliveries), ids(first.deliveries));
    assert.equal(relay(['set a b loss=1', ...frames(100, 1)]).deliveries.length, 0);
  });

  it('duplicates, the copy behind the first', () => {
    const { deliveries, answers } = relay(['set a b duplicate=0.5', ...frames(1000, 10), 'stats']);
    const copies = deliveries.length - 1000;
    assert.ok(copies > 400 && copies < 600);
    assert.match(answers[0], new RegExp(` duplicated=${copies} `));
    assert.deepEqual(ids(deliveries), sorted(ids(deliveries)));
  });

  it('reorders: a held frame is passed by those behind it, which keep their order', () => {
    const { deliveries, answers } = relay([
      'set a b delay_ms=1 reorder=0.1 reorder_ms=2',
      ...frames(1000, 100),
      'stats',
    ]);
    assert.deepEqual(
      sorted(ids(deliveries)),
      Array.from({ length: 1000 }, (_, i) => i),
    );
    const held = deliveries.filter((delivery) => delivery.at_us === delivery.id * 100 + 3000);
    const others = deliveries.filter((delivery) => delivery.at_us === delivery.id * 100 + 1000);
    assert.equal(held.length + others.length, 1000);
    assert.ok(held.length > 60 && held.length < 140);
    assert.match(answers[0], new RegExp(` reordered=${held.length} `));
    assert.deepEqual(ids(others), sorted(ids(others)));
  });

  it('limits the rate by a token bucket, and drops at the tail of a bounded queue', () => {
    // 8 Mbit/s is one byte per microsecond. Ten frames of 1000 bytes at once, a burst of 2000
    // bytes, and a queue of 5000 bytes.
    const { deliveries, answers } = relay([
      'set a b rate_mbit=8 burst_bytes=2000 queue_bytes=5000',
      ...frames(10, 0, 1000),
      'stats',
      'frame a 20000 1000 99',
    ]);
    assert.deepEqual(
      deliveries.map((delivery) => [delivery.id, delivery.at_us]),
      [
        [0, 0],
        [1, 0],
        [2, 1000],
        [3, 2000],
        [4, 3000],
        [5, 4000],
        [6, 5000],
        [99, 20_000],
      ],
    );
    assert.match(answers[0], / overflowed=3 /);
  });

  it('keeps the long-run rate exactly', () => {
    const { deliveries } = relay(['set a b rate_mbit=8 burst_bytes=1000 queue_bytes=1e9', ...frames(5000, 100, 1000)]);
    assert.equal(deliveries.length, 5000);
    assert.ok(Math.abs(deliveries[4999].at_us - 4_999_000) < 1);
  });

  it('carries multicast and unknown addresses to all others, a learned one to its port alone', () => {
    const a = '02:00:00:00:00:0a';
    const b = '02:00:00:00:00:0b';
    const { deliveries } = relay(
      [
        `frame a 0 100 1 01:00:5e:53:00:01 ${a}`,
        `frame a 10 100 2 ${b} ${a}`,
        `frame b 20 100 3 ${a} ${b}`,
        `frame a 30 100 4 ${b} ${a}`,
        `frame d 40 100 5`,
      ],
      ['wan=a,b,c', 'lan=d,e'],
    );
    assert.deepEqual(
      deliveries.map(({ from, to, id }) => `${id} ${from}${to}`),
      ['1 ab', '1 ac', '2 ab', '2 ac', '3 ba', '4 ab', '5 de'],
    );
  });

  it('cuts and heals both directions; what is under way at the cut is lost', () => {
    const { deliveries, answers } = relay(
      [
        'set * * delay_ms=1',
        'frame a 0 100 1',
        'cut a b',
        'frame a 5000 100 2',
        'frame b 5000 100 3',
        'stats',
        'heal a b',
        'frame a 9000 100 4',
        'cut a',
        'frame a 19000 100 5',
      ],
      ['wan=a,b,c'],
    );
    assert.deepEqual(
      deliveries.map(({ to, id }) => `${id}${to}`),
      ['1c', '2c', '3c'],
      'frame 4 was under way when a was cut off',
    );
    assert.match(answers[0], /^a b received=2 delivered=0 .* cut=2 /);
  });

  it('cuts one direction alone', () => {
    const { deliveries } = relay(['set a b down=1', 'frame a 0 100 1', 'frame b 0 100 2']);
    assert.deepEqual(ids(deliveries), [2]);
  });

  it('refuses what it does not understand and changes nothing then', () => {
    const { answers, deliveries } = relay([
      'set a b delay_ms=5 los=0.1',
      'set a b loss=2',
      'set a b delay_ms=-1',
      'set a b loss=nan',
      'set a x loss=0.1',
      'set a b',
      'cut',
      'cut a c',
      'fly',
      ['set a b', ...Array(30).fill('loss=0')].join(' '),
      'frame a 0 100 1',
    ]);
    assert.deepEqual(answers, [
      'error: no such key',
      'error: a probability from 0 to 1 is needed',
      'error: a number from 0 is needed',
      'error: a number from 0 is needed',
      'error: no path between these ports',
      'error: set FROM TO KEY=VALUE… is needed',
      'error: one or two ports are needed',
      'error: no path between these ports',
      'error: no such command: set, cut, heal and stats are',
      'error: too many words',
    ]);
    assert.deepEqual(deliveries, [{ from: 'a', to: 'b', at_us: 0, id: 1 }]);
  });
});
