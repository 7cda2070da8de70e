import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { NONE } from '../../../../shm/none.js';
import { Applied } from '../../../../shm/objects/core/object.js';
import {
  KEYED_RAISE,
  type KeyedHyperLogLogs,
  keyedHyperLogLogs,
} from '../../../../shm/objects/sketch/keyed-hyperloglogs.js';
import { Death } from '../dying.js';
import { Site } from '../site.js';

const EPOCH_S = 100;
/** The beginning of an epoch. */
const NOW = 70_000_000;
const SHAPE = { capacity: 64, keyWords: 2, sketches: 3, epochSeconds: EPOCH_S, quiet: 3 };

const keyOf = (n: number): Int32Array => Int32Array.of(n, n ^ 0x55);

function add(object: KeyedHyperLogLogs, key: number, sketch: number, thing: number, now = NOW): number {
  const words = keyOf(key);
  return object.add(object.hash(words, 0), words, 0, sketch, Int32Array.of(thing, 1), 0, 2, now);
}

function estimate(object: KeyedHyperLogLogs, key: number, sketch: number, now = NOW): number {
  const words = keyOf(key);
  const slot = object.find(object.hash(words, 0), words, 0);
  return slot === NONE ? 0 : object.estimate(slot, sketch, now);
}

const site = (member = 0, options: Partial<typeof SHAPE & { promotions: number }> = {}, workers = 1) =>
  new Site(keyedHyperLogLogs({ ...SHAPE, ...options }), member, 3, workers, 1 << 14);

function tell(from: Site<KeyedHyperLogLogs>, to: Site<KeyedHyperLogLogs>, now = NOW): number {
  let words = 0;
  for (const message of from.flush()) {
    to.apply(message, 0, now);
    words += message.length;
  }
  return words;
}

describe('keyed HyperLogLogs', () => {
  it('count different things by key and sketch, small numbers nearly exactly', () => {
    let squares = 0;
    for (let key = 0; key < 40; key++) {
      const { workers } = site();
      for (let thing = 0; thing < 10; thing++) {
        add(workers[0], key, 0, thing * 977 + key);
        add(workers[0], key, 0, thing * 977 + key);
      }
      add(workers[0], key, 2, 1);
      squares += (estimate(workers[0], key, 0) / 10 - 1) ** 2;
      assert.equal(estimate(workers[0], key, 1), 0);
      assert.ok(Math.abs(estimate(workers[0], key, 2) - 1) < 0.1);
      assert.equal(estimate(workers[0], key + 1, 0), 0);
    }
    assert.ok(Math.sqrt(squares / 40) < 0.18, 'within the standard error of 32 registers');
  });

  it('know this epoch and the last, and no more', () => {
    const { workers } = site();
    for (let thing = 0; thing < 8; thing++) add(workers[0], 1, 0, thing);
    const [early, late] = [estimate(workers[0], 1, 0), NOW + EPOCH_S];
    assert.equal(estimate(workers[0], 1, 0, late), early);
    add(workers[0], 1, 0, 3, late);
    assert.equal(estimate(workers[0], 1, 0, late), early, 'seen in both, counted once');
    const later = NOW + 2 * EPOCH_S;
    assert.ok(Math.abs(estimate(workers[0], 1, 0, later) - 1) < 0.1);
    assert.equal(estimate(workers[0], 1, 0, later + EPOCH_S), 0);
    assert.equal(workers[0].describe(later + EPOCH_S)['keys'], 0);
  });

  it('tell of no key that is quiet, and then all that is known of it', () => {
    const [a, b] = [site(0), site(1)];
    for (let thing = 0; thing < 3; thing++) add(a.workers[0], 1, 0, thing);
    assert.equal(tell(a, b), 0);
    assert.equal(a.receiver.digest(NOW), b.receiver.digest(NOW), 'what is told to nobody is no difference');
    add(a.workers[0], 1, 1, 7);
    add(a.workers[0], 1, 1, 8);
    assert.ok(tell(a, b) > 0);
    for (const sketch of [0, 1]) assert.equal(estimate(b.receiver, 1, sketch), estimate(a.receiver, 1, sketch));
    assert.equal(a.receiver.digest(NOW), b.receiver.digest(NOW));
    assert.notEqual(a.receiver.digest(NOW), site().receiver.digest(NOW));
  });

  it('join what a key split over two sites showed to either', () => {
    const [a, b] = [site(0), site(1)];
    for (let thing = 0; thing < 16; thing++) add((thing % 2 === 0 ? a : b).workers[0], 1, 0, thing);
    tell(a, b);
    tell(b, a);
    const alone = site();
    for (let thing = 0; thing < 16; thing++) add(alone.workers[0], 1, 0, thing);
    assert.equal(a.receiver.digest(NOW), b.receiver.digest(NOW));
    // Of what was quiet here when the other told, a little may be missing.
    assert.ok(Math.abs(estimate(a.receiver, 1, 0) - estimate(alone.receiver, 1, 0)) <= 5);
  });

  it('give quiet keys up for others, and never one that was told of, in a flood of random keys', () => {
    const [a, b] = [site(0), site(1)];
    for (let thing = 0; thing < 20; thing++) add(a.workers[0], -1, 0, thing);
    tell(a, b);
    const before = estimate(a.workers[0], -1, 0);
    for (let key = 0; key < 5000; key++) add(a.workers[0], key, 0, 7);
    assert.equal(tell(a, b), 0, 'a flood at one site is none between sites');
    assert.equal(estimate(a.workers[0], -1, 0), before);
    const { keys, displaced, refused } = a.workers[0].describe(NOW);
    assert.ok(keys <= 64 && displaced > 4000 && refused === 0);
  });

  it('refuse new keys where all that there are were told of, until these are over', () => {
    const { workers, receiver } = site(0, { quiet: 0 });
    let refused = 0;
    for (let key = 0; key < 500; key++)
      for (const thing of [1, 2]) if (add(workers[0], key, 0, thing) === NONE) refused++;
    assert.ok(refused > 500);
    assert.equal(receiver.describe(NOW)['refused'], refused);
    for (let key = 1000; key < 1010; key++) assert.notEqual(add(workers[0], key, 0, 1, NOW + 2 * EPOCH_S), NONE);
  });

  it('tell of so many new keys a second, and of the others when they may', () => {
    const a = site(0, { quiet: 0, promotions: 3, capacity: 1024 });
    const both = (now: number): void => {
      for (let key = 0; key < 5; key++) for (const thing of [1, 2, 3]) add(a.workers[0], key, 0, thing + now, now);
    };
    both(NOW);
    assert.equal(a.receiver.describe(NOW)['replicated'], 3);
    both(NOW + 1);
    assert.equal(a.receiver.describe(NOW + 1)['replicated'], 5);
  });

  it('tell all that is known of a key that had to wait long until it might be told of', () => {
    const [a, b] = [site(0, { quiet: 0, promotions: 1 }), site(1, { quiet: 0, promotions: 1 })];
    for (const thing of [1, 2]) add(a.workers[0], 1, 0, thing); // takes the second's one
    for (let thing = 0; thing < 60; thing++) add(a.workers[0], 2, thing % 3, thing);
    for (let thing = 60; thing < 70; thing++) add(a.workers[0], 2, 1, thing, NOW + 1);
    tell(a, b, NOW + 1);
    assert.equal(a.receiver.describe(NOW + 1)['replicated'], 2);
    assert.equal(a.receiver.digest(NOW + 1), b.receiver.digest(NOW + 1));
  });

  it('converge whatever is delivered when, and twice', () => {
    const act = fc.record({ site: fc.nat(2), key: fc.nat(2), sketch: fc.nat(2), thing: fc.nat(30), at: fc.nat(250) });
    fc.assert(
      fc.property(
        fc.array(act, { maxLength: 60 }),
        fc.array(fc.nat(), { minLength: 8, maxLength: 8 }),
        (acts, dice) => {
          const sites = [0, 1, 2].map((member) => site(member, { quiet: 0 }));
          const said: { message: Int32Array; from: number }[] = [];
          let now = NOW;
          for (const [i, { site: from, key, sketch, thing, at }] of acts.entries()) {
            now = Math.max(now, NOW + at);
            add(sites[from].workers[0], key, sketch, thing, now);
            for (const message of sites[from].flush()) said.push({ message, from });
            if (dice[i % 8] % 3 !== 0 || said.length === 0) continue;
            const { message, from: origin } = said[dice[(i + 1) % 8] % said.length];
            const to = sites[dice[(i + 2) % 8] % 3];
            if (to !== sites[origin]) to.apply(message, origin, now);
          }
          for (const { message, from } of said.toReversed())
            for (const [to, each] of sites.entries()) if (to !== from) each.apply(message, from, now);
          // What a site had not told when another told of the key, it forgot; all have the same in
          // the end.
          for (const message of sites.flatMap((each) => each.flush()))
            for (const to of sites) to.apply(message, 0, now);
          const digests = sites.map(({ receiver }) => receiver.digest(now));
          assert.deepEqual(digests, [digests[0], digests[0], digests[0]]);
          for (const { receiver } of sites) assert.equal(receiver.describe(now)['malformed'], 0);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('merge with another region as if it had told everything', () => {
    const [a, b] = [site(0), site(1)];
    for (let thing = 0; thing < 30; thing++) add((thing % 2 === 0 ? a : b).workers[0], thing % 3, thing % 2, thing);
    a.flush();
    b.flush();
    assert.ok(a.receiver.merge(b.region, NOW) > 0);
    b.receiver.merge(a.region, NOW);
    assert.equal(a.receiver.digest(NOW), b.receiver.digest(NOW));
    assert.equal(a.receiver.merge(b.region, NOW), 0);
  });

  it('survive a worker that dies at any step: told is done, and nothing stays locked', () => {
    for (let step = 1; ; step++) {
      const [a, b] = [site(0), site(1)];
      for (let thing = 0; thing < 4; thing++) add(a.workers[0], 1, 0, thing);
      a.countdown.set(step);
      let died = false;
      try {
        for (let thing = 4; thing < 9; thing++) add(a.workers[0], 1, 1, thing);
      } catch (error) {
        if (!(error instanceof Death)) throw error;
        died = true;
      }
      a.buryWorker(0);
      tell(a, b);
      assert.equal(a.receiver.digest(NOW), b.receiver.digest(NOW), `step ${step}`);
      assert.notEqual(add(a.workers[0], 1, 2, 99), NONE, `step ${step}`);
      if (died) continue;
      assert.ok(step > 10);
      break;
    }
  });

  it('refuse records that no instance can have sent', () => {
    const { receiver } = site();
    const epoch = NOW / EPOCH_S + 2;
    const item = (1 << 16) | (3 << 8) | 5;
    const good = [1, 2, epoch, item];
    const apply = (words: number[], op: number = KEYED_RAISE) =>
      receiver.apply(op, Int32Array.from(words), 0, words.length, 1, NOW);
    assert.equal(apply(good), Applied.CHANGED);
    assert.equal(apply(good), Applied.UNCHANGED);
    assert.equal(apply([1, 2, epoch - 2, item]), Applied.UNCHANGED, 'forgotten');
    for (const bad of [
      [1, 2, epoch],
      [1, 2, epoch + 2, item],
      [1, 2, 0, item],
      [1, 2, epoch, item + (3 << 16)],
      [1, 2, epoch, item + (32 << 8)],
      [1, 2, epoch, item - 5],
      [1, 2, epoch, item + 200],
      [1, 2, epoch, -1],
    ])
      assert.equal(apply(bad), Applied.MALFORMED, String(bad));
    assert.equal(apply(good, 2), Applied.MALFORMED);
    assert.throws(() => keyedHyperLogLogs({ ...SHAPE, sketches: 8 }), /sketches 8 is not a whole number from 1 to 7/);
    assert.throws(() => keyedHyperLogLogs({ ...SHAPE, quiet: 99 }), /quiet 99 is not/);
  });
});
