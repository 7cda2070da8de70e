import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Applied } from '../../../../shm/objects/core/object.js';
import { CELL_COUNT, COUNT_MAX } from '../../../../shm/objects/counting/counter-cells.js';
import { type CountMin, countMin } from '../../../../shm/objects/sketch/count-min.js';
import { Site } from '../site.js';
import { FORMS, SketchCluster, sketchSteps } from './sketch-cluster.js';
import { captureOrSkip, type Key, zipf } from './sketch-streams.js';

/**
 * Counts a stream at three sites by turns; every site then reads every key within the published
 * error.
 */
function assertError(stream: readonly { key: Key; n: number }[], form: (typeof FORMS)[number]): void {
  const definition = countMin({ epsilon: 0.002, delta: 0.01, form, members: 3, seed: 'test' });
  const sites = [0, 1, 2].map((i) => new Site(definition, i, 3, 1, 1 << 16));
  const truth = new Map<string, number>();
  let total = 0;
  stream.forEach(({ key, n }, i) => {
    const site = sites[i % 3];
    assert.ok(site.workers[0].count2(...key, n));
    truth.set(key.join(), (truth.get(key.join()) ?? 0) + n);
    total += n;
    if (i % 500 === 0) exchange(sites);
  });
  exchange(sites);
  for (const { receiver } of sites) {
    assert.equal(receiver.total(), total);
    assert.equal(receiver.digest(), sites[0].receiver.digest());
    assert.ok(receiver.overcount() <= 0.002 * total);
    let over = 0;
    let least = 0;
    for (const [text, count] of truth) {
      const key = Int32Array.from(text.split(','), Number);
      const value = receiver.value(key, 0, 2);
      assert.ok(value >= count, 'a reading is never too small');
      assert.equal(receiver.value2(key[0], key[1]), value);
      if (value > count + receiver.overcount()) over++;
      if (receiver.valueAtLeast(key, 0, 2) > count) least++;
    }
    assert.ok(over <= receiver.delta * truth.size, `${over} of ${truth.size} keys are too large by more than εN`);
    assert.equal(least, over);
  }
}

function exchange(sites: readonly Site<CountMin>[]): void {
  sites.forEach((site, from) => {
    for (const message of site.flush())
      sites.forEach((other, to) => {
        if (to !== from) other.apply(message, from, 0);
      });
  });
}

for (const form of FORMS)
  describe(`count-min sketch: ${form}`, () => {
    it('reads what one sketch that saw everything would, whatever is interleaved, merged, repeated, reordered', () => {
      const definition = countMin({ width: 16, depth: 3, form, members: 3 });
      fc.assert(
        fc.property(sketchSteps, (steps) => {
          const cluster = new SketchCluster(definition, form);
          const model = new Site(definition, 0, 1, 1, 1 << 16).workers[0];
          for (const one of steps)
            cluster.step(one, (object, { key, n }) => {
              assert.ok(object.count2(key, -key, n));
              assert.ok(model.count(Int32Array.of(key, -key), 0, 2, n));
            });
          cluster.settle();
          for (const { workers, receiver } of cluster.sites)
            for (let key = 0; key <= 31; key++)
              for (const object of [...workers, receiver])
                assert.equal(object.value2(key, -key), model.value2(key, -key));
        }),
        { numRuns: 150 },
      );
    });

    it('is within εN of the truth on a Zipf stream', () => {
      assertError(
        zipf(60_000, 20_000, 1.1, 5).map((key) => ({ key, n: 1 })),
        form,
      );
    });

    for (const name of ['mixed-many-protocols.pcap', 'echo-500-flows.pcap.gz'])
      it(`is within εN of the truth on ${name}`, function () {
        assertError(
          captureOrSkip(this, name).map(({ key, bytes }) => ({ key, n: bytes })),
          form,
        );
      });
  });

describe('count-min sketch', () => {
  it('merges in any grouping', () => {
    const definition = countMin({ width: 64, depth: 2, members: 3 });
    const sites = [0, 1, 2].map((i) => new Site(definition, i, 3, 1));
    sites.forEach(({ workers }, site) => {
      for (let n = 0; n < 50; n++) workers[0].count2(n, site, n + 1);
    });
    const [left, right] = [1, 2].map(() => new Site(definition, 2, 3, 1).receiver);
    for (const site of sites) left.merge(site.snapshot());
    sites[1].receiver.merge(sites[0].snapshot());
    right.merge(sites[2].snapshot());
    assert.ok(right.merge(sites[1].snapshot()) > 0);
    assert.equal(right.merge(sites[1].snapshot()), 0);
    assert.equal(left.digest(), right.digest());
    assert.equal(left.total(), (3 * 50 * 51) / 2);
  });

  it('lists every key over the threshold, and none far below it', () => {
    const definition = countMin({ epsilon: 0.001, heavy: { threshold: 500, candidates: 64 } });
    const site = new Site(definition, 0, 1, 2, 1 << 16);
    const truth = new Map<string, number>();
    zipf(100_000, 20_000, 1.1, 9).forEach((key, i) => {
      // A key is always at the same worker, as flows are.
      assert.ok(site.workers[Math.abs(key[0]) % 2].count2(...key, 1));
      truth.set(key.join(), (truth.get(key.join()) ?? 0) + 1);
      if (i % 1000 === 0) site.flush();
    });
    const { receiver } = site;
    const heavy = receiver.heavyHitters();
    const listed = new Map(heavy.map(({ key, estimate }) => [key.join(), estimate]));
    assert.equal(receiver.describe(0)['heavy_displaced'], 0);
    for (const [key, count] of truth) if (count >= 500) assert.ok((listed.get(key) ?? 0) >= count, `${key}: ${count}`);
    for (const [key, estimate] of listed) {
      assert.ok(estimate >= 500);
      assert.ok((truth.get(key) ?? 0) >= 500 - receiver.overcount(), key);
    }
    assert.ok(listed.size > 5);
    assert.deepEqual(
      heavy.map(({ estimate }) => estimate),
      heavy.map(({ estimate }) => estimate).sort((a, b) => b - a),
    );
  });

  it('finds a key that is heavy only over all sites together', () => {
    const definition = countMin({ width: 256, depth: 3, heavy: { threshold: 100 }, members: 3 });
    const sites = [0, 1, 2].map((i) => new Site(definition, i, 3, 1));
    for (const { workers } of sites) workers[0].count2(7, 8, 40);
    exchange(sites);
    assert.deepEqual(sites[1].receiver.heavyHitters(), []);
    sites[1].workers[0].count2(7, 8, 1);
    assert.deepEqual(sites[1].receiver.heavyHitters(), [{ key: [7, 8], estimate: 121 }]);
  });

  it('keeps the keys that count most when there are too many, and counts the rest as displaced', () => {
    const definition = countMin({ width: 4096, depth: 4, heavy: { threshold: 1, candidates: 4, keyWords: 2 } });
    const { workers, receiver } = new Site(definition, 0, 1, 1, 1 << 16);
    for (let n = 1; n <= 100; n++) workers[0].count2(n, 0, n);
    const heavy = receiver.heavyHitters();
    assert.equal(heavy.length, 8);
    assert.equal(heavy[0].key[0], 100);
    assert.ok(heavy.every(({ key }) => key[0] > 90));
    assert.equal(receiver.describe(0)['heavy_displaced'], 92);
    workers[0].count(Int32Array.of(1, 2, 3), 0, 3, 1000);
    assert.equal(receiver.heavyHitters().length, 8, 'a key too long for the table is counted, not listed');
  });

  it('refuses, and counts, what is no count, and drops what is no record', () => {
    const site = new Site(countMin({ width: 16, depth: 2 }), 0, 1, 1);
    const [object] = site.workers;
    for (const n of [-1, Number.NaN, COUNT_MAX + 1]) assert.equal(object.count2(1, 2, n), false);
    assert.equal(object.value2(1, 2), 0);
    assert.equal(object.describe(0)['refused'], 6);
    assert.ok(object.count2(1, 2, COUNT_MAX));
    assert.equal(object.count2(1, 2, 1), false);
    const apply = (op: number, words: number[], origin: number): Applied =>
      site.receiver.apply(op, Int32Array.from(words), 0, words.length, origin);
    assert.equal(apply(CELL_COUNT, [32, 1, 0], 1), Applied.MALFORMED);
    assert.equal(apply(CELL_COUNT, [0, 1], 1), Applied.MALFORMED);
    assert.equal(apply(CELL_COUNT + 1, [0, 1, 0], 1), Applied.MALFORMED);
    assert.equal(apply(CELL_COUNT, [31, 1, 0], 1), Applied.CHANGED);
  });

  it('says what is wrong with a declaration, and tells seeds apart', () => {
    assert.throws(() => countMin({ epsilon: 0 }), /epsilon 0/);
    assert.throws(() => countMin({ delta: 1 }), /delta 1/);
    assert.throws(() => countMin({ depth: 17 }), /depth 17/);
    assert.throws(() => countMin({ width: 2 ** 25 }), /width/);
    assert.throws(() => countMin({ heavy: { threshold: 0 } }), /threshold 0/);
    assert.throws(() => countMin({ heavy: { threshold: 1, keyWords: 20 } }), /keys of 20 words/);
    assert.notDeepEqual(countMin({ seed: 'a' }).parameters, countMin({ seed: 'b' }).parameters);
  });
});
