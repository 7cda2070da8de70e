import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Applied } from '../../../../shm/objects/core/object.js';
import { bloom } from '../../../../shm/objects/sketch/bloom.js';
import { Replica } from '../replica.js';

describe('Bloom filter', () => {
  it('finds all that was added, and of the rest no more than its rate', () => {
    for (const [capacity, rate] of [
      [1000, 0.01],
      [30_000, 0.01],
      [5000, 0.001],
      [100, 0.3],
    ] as const) {
      const replica = new Replica(bloom({ capacity, falsePositiveRate: rate }));
      const { object } = replica;
      for (let n = 0; n < capacity; n++) object.add2(n, 1);
      for (let n = 0; n < capacity; n++) assert.ok(object.has2(n, 1));
      const tries = 100_000;
      let wrong = 0;
      for (let n = 0; n < tries; n++) if (object.has2(n, 2)) wrong++;
      // Five standard deviations above the rate.
      assert.ok(wrong <= tries * rate + 5 * Math.sqrt(tries * rate), `${wrong} of ${tries} at rate ${rate}`);
      assert.ok(object.falsePositiveRate() <= rate * 1.2, `${object.falsePositiveRate()}`);
      const keys = object.describe()['keys'];
      assert.ok(Math.abs(keys / capacity - 1) < 0.1, `${keys} keys of ${capacity}`);
      assert.equal(replica.drain().length, 0, 'nothing is logged');
    }
  });

  it('never forgets, whatever the keys', () => {
    fc.assert(
      fc.property(fc.array(fc.array(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), { maxLength: 10 })), (keys) => {
        const { object } = new Replica(bloom({ capacity: 100 }));
        for (const key of keys) {
          const had = object.has(Int32Array.from(key), 0, key.length);
          assert.equal(object.add(Int32Array.from(key), 0, key.length), !had);
        }
        for (const key of keys) assert.ok(object.has(Int32Array.from(key), 0, key.length));
        object.clear();
        for (const key of keys) assert.ok(!object.has(Int32Array.from(key), 0, key.length));
      }),
    );
  });

  it('takes nothing from others', () => {
    const replica = new Replica(bloom({ capacity: 100 }));
    const other = new Replica(bloom({ capacity: 100 }), 1);
    replica.object.add2(1, 2);
    assert.equal(replica.apply({ op: 1, words: [1] }, 1), Applied.MALFORMED);
    assert.equal(replica.object.describe()['malformed'], 1);
    assert.equal(replica.object.digest(), other.object.digest());
  });

  it('says what is wrong with a declaration', () => {
    assert.throws(() => bloom({ capacity: 0 }), /capacity 0/);
    assert.throws(() => bloom({ capacity: 10, falsePositiveRate: 0 }), /rate 0/);
    assert.throws(() => bloom({ capacity: 2 ** 30 }), /bits/);
  });
});
