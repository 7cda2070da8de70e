import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { recordHeader } from '../../../shm/log.js';
import { Fold } from '../../../workers/replication/units/fold.js';
import { ADD, Ledger, NOTE } from '../../support/ledger.js';

type Record = readonly [op: number, ...payload: number[]];

function wordsOf(records: readonly Record[]): Int32Array {
  return Int32Array.from(records.flatMap(([op, ...payload]) => [recordHeader(0, op, payload.length), ...payload]));
}

/** Takes a unit out and applies it, as a member would. Returns its count. */
function applyUnit(fold: Fold, ledger: Ledger, wordsMax: number): number {
  fold.take(wordsMax);
  const end = fold.takenAt + fold.takenWords;
  let records = 0;
  for (let at = fold.takenAt; at < end; at += 1 + (fold.words[at] & 0xff)) {
    const header = fold.words[at];
    ledger.apply((header >>> 8) & 0xff, fold.words, at + 1, header & 0xff, 0, 0);
    records++;
  }
  assert.ok(records <= fold.takenCount, 'no unit has more records than numbers');
  assert.ok(fold.takenWords <= wordsMax || records === 1);
  return fold.takenCount;
}

describe('fold', () => {
  it('stands for exactly what was folded, whenever some of it is taken out', () => {
    const step = fc.oneof(
      fc.record({
        add: fc.array(
          fc.oneof(
            fc.tuple(fc.constant(ADD), fc.integer({ min: 0, max: 40 }), fc.integer({ min: 1, max: 9 })),
            fc.tuple(fc.constant(NOTE), fc.integer({ min: 0, max: 40 })),
          ),
          { minLength: 1, maxLength: 60 },
        ),
        merged: fc.integer({ min: 0, max: 50 }),
      }),
      fc.record({ take: fc.integer({ min: 3, max: 200 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const fold = new Fold(new Ledger(0));
        const model = new Ledger(0);
        const ledger = new Ledger(0);
        let folded = 0;
        let taken = 0;
        for (const step of steps) {
          if ('take' in step) {
            if (fold.records > 0) taken += applyUnit(fold, ledger, step.take);
            continue;
          }
          const words = wordsOf(step.add as Record[]);
          const count = step.add.length + step.merged;
          fold.addUnit(count, words, 0, words.length);
          for (const [op, ...payload] of step.add as Record[])
            model.apply(op, Int32Array.from(payload), 0, payload.length, 0, 0);
          folded += count;
          assert.equal(fold.numbers, folded - taken);
        }
        while (fold.records > 0) taken += applyUnit(fold, ledger, 100);
        assert.equal(taken, folded);
        assert.equal(fold.numbers, 0);
        assert.deepEqual(ledger.notes, model.notes, 'what does not merge keeps its order');
        assert.deepEqual([...ledger.sums].toSorted(), [...model.sums].toSorted());
      }),
      { seed: 1, numRuns: 300 },
    );
  });

  it('is never much larger than what its keys take, however much is folded', () => {
    const fold = new Fold(new Ledger(0));
    const words = wordsOf([[ADD, 0, 1]]);
    for (let i = 0; i < 300_000; i++) {
      words[1] = (i * 7919) % 2000;
      fold.addUnit(1, words, 0, words.length);
    }
    assert.equal(fold.records, 2000);
    assert.equal(fold.numbers, 300_000);
    assert.ok(fold.bytes < 2000 * 100, `${fold.bytes} bytes`);
    // In the long run too, with some of it taken out all the time.
    const ledger = new Ledger(0);
    for (let i = 0; i < 300_000; i++) {
      words[1] = (i * 7919) % 2000;
      fold.addUnit(1, words, 0, words.length);
      if (i % 10 === 0) applyUnit(fold, ledger, 20);
    }
    assert.ok(fold.bytes < 2000 * 200, `${fold.bytes} bytes`);
  });

  it('keeps counts within what a unit can say', () => {
    const fold = new Fold(new Ledger(0));
    const words = wordsOf([[ADD, 5, 1]]);
    for (let i = 0; i < 5; i++) fold.addUnit(2 ** 30, words, 0, words.length);
    let units = 0;
    for (; fold.records > 0; units++) {
      fold.take(100);
      assert.ok(fold.takenCount <= 2 ** 30);
    }
    assert.equal(units, 5);
  });

  it('keeps what its object fails to merge', () => {
    const object = new Ledger(0);
    const fold = new Fold(object);
    object.coalesce = () => {
      throw new Error('defect');
    };
    const words = wordsOf([[ADD, 5, 1]]);
    fold.addUnit(1, words, 0, words.length);
    fold.addUnit(1, words, 0, words.length);
    object.coalesceKey = () => {
      throw new Error('defect');
    };
    fold.addUnit(1, words, 0, words.length);
    assert.equal(fold.records, 3);
    assert.equal(fold.failures, 2);
  });
});
