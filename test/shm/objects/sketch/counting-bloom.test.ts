import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Applied } from '../../../../shm/objects/core/object.js';
import { CELL_COUNT } from '../../../../shm/objects/counting/counter-cells.js';
import { type CountingBloom, countingBloom } from '../../../../shm/objects/sketch/counting-bloom.js';
import { Site } from '../site.js';
import { FORMS, SketchCluster, sketchSteps } from './sketch-cluster.js';
import { captureOrSkip, type Key, zipf } from './sketch-streams.js';

const RATE = 0.02;
const ABSENT = 20_000;

/**
 * Counts a stream at two sites by turns; both then know every key, and few others, and few counts
 * are too large.
 */
function assertError(keys: readonly Key[], form: (typeof FORMS)[number]): void {
  const truth = new Map<string, number>();
  for (const key of keys) truth.set(key.join(), (truth.get(key.join()) ?? 0) + 1);
  const definition = countingBloom({ capacity: truth.size, falsePositiveRate: RATE, form, members: 2, seed: 'test' });
  const sites = [0, 1].map((i) => new Site(definition, i, 2, 1, 1 << 16));
  keys.forEach((key, i) => {
    assert.ok(sites[i % 2].workers[0].count2(...key, 1));
    if (i % 500 === 0) exchange(sites);
  });
  exchange(sites);
  for (const { receiver } of sites) {
    assert.equal(receiver.digest(), sites[0].receiver.digest());
    let over = 0;
    for (const [text, count] of truth) {
      const key = Int32Array.from(text.split(','), Number);
      assert.ok(receiver.has(key, 0, 2));
      const value = receiver.value(key, 0, 2);
      assert.ok(value >= count, 'a reading is never too small');
      if (value > count) over++;
    }
    // Five standard deviations above what is declared.
    const bound = (n: number): number => n * RATE + 5 * Math.sqrt(n * RATE);
    assert.ok(over <= bound(truth.size), `${over} of ${truth.size} keys are too large`);
    let wrong = 0;
    for (let n = 0; n < ABSENT; n++) if (receiver.has(Int32Array.of(n, n, 1), 0, 3)) wrong++;
    assert.ok(wrong <= bound(ABSENT), `${wrong} of ${ABSENT} keys were found and never counted`);
    assert.ok(receiver.falsePositiveRate() <= RATE * 1.3);
  }
}

function exchange(sites: readonly Site<CountingBloom>[]): void {
  sites.forEach((site, from) => {
    for (const message of site.flush()) sites[1 - from].apply(message, from, 0);
  });
}

for (const form of FORMS)
  describe(`counting Bloom filter: ${form}`, () => {
    for (const removable of [false, true])
      it(`reads what one filter that saw everything would${removable ? ', with counts taken back' : ''}`, () => {
        const definition = countingBloom({ capacity: 8, removable, form, members: 3 });
        fc.assert(
          fc.property(sketchSteps, (steps) => {
            const cluster = new SketchCluster(definition, form);
            const model = new Site(definition, 0, 1, 1, 1 << 16).workers[0];
            const counted = new Map<string, number>();
            for (const one of steps)
              cluster.step(one, (object, { site, key, n }) => {
                const mine = counted.get(`${site} ${key}`) ?? 0;
                const amount = removable && n % 3 === 0 ? -Math.min(n, mine) : n;
                counted.set(`${site} ${key}`, mine + amount);
                assert.ok(object.count2(key, 1, amount));
                assert.ok(model.count(Int32Array.of(key, 1), 0, 2, amount));
              });
            cluster.settle();
            for (const { workers, receiver } of cluster.sites)
              for (let key = 0; key <= 31; key++)
                for (const object of [...workers, receiver]) {
                  assert.equal(object.value2(key, 1), model.value2(key, 1));
                  assert.equal(object.has2(key, 1), model.has2(key, 1));
                  const sum = [0, 1, 2].reduce((all, site) => all + (counted.get(`${site} ${key}`) ?? 0), 0);
                  assert.ok(object.value2(key, 1) >= sum);
                }
          }),
          { numRuns: 150 },
        );
      });

    it('errs upward, and no more often than declared, on a Zipf stream', () => {
      assertError(zipf(30_000, 10_000, 1, 3), form);
    });

    for (const name of ['mixed-many-protocols.pcap', 'echo-500-flows.pcap.gz'])
      it(`errs upward, and no more often than declared, on ${name}`, function () {
        assertError(
          captureOrSkip(this, name).map(({ key }) => key),
          form,
        );
      });
  });

describe('counting Bloom filter', () => {
  it('forgets a key whose counts were all taken back', () => {
    const [object] = new Site(countingBloom({ capacity: 100, removable: true }), 0, 1, 1).workers;
    object.count2(1, 2, 3);
    object.count2(3, 4, 1);
    object.count2(1, 2, -3);
    assert.equal(object.has2(1, 2), false);
    assert.equal(object.value2(3, 4), 1);
    const [grows] = new Site(countingBloom({ capacity: 100 }), 0, 1, 1).workers;
    assert.equal(grows.count2(1, 2, -1), false, 'without `removable` it is refused');
    assert.ok(grows.describe(0)['refused'] > 0);
  });

  it('drops what is no record', () => {
    const { receiver } = new Site(countingBloom({ capacity: 10 }), 0, 1, 1);
    assert.equal(receiver.apply(CELL_COUNT, Int32Array.of(1 << 20, 1, 0), 0, 3, 1), Applied.MALFORMED);
    assert.equal(receiver.apply(CELL_COUNT, Int32Array.of(0, 1, 0), 0, 3, 1), Applied.CHANGED);
    assert.equal(receiver.describe(0)['malformed'], 1);
  });

  it('says what is wrong with a declaration, and tells seeds apart', () => {
    assert.throws(() => countingBloom({ capacity: 0 }), /capacity 0/);
    assert.throws(() => countingBloom({ capacity: 1, falsePositiveRate: 0.6 }), /rate 0.6/);
    assert.throws(() => countingBloom({ capacity: 2 ** 24 }), /cells/);
    assert.notDeepEqual(
      countingBloom({ capacity: 9, seed: 'a' }).parameters,
      countingBloom({ capacity: 9, seed: 'b' }).parameters,
    );
  });
});
