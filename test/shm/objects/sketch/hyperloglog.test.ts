import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { createJournals, Journal, JournalState } from '../../../../shm/objects/core/journal.js';
import { Applied } from '../../../../shm/objects/core/object.js';
import { HLL_RAISE, hyperLogLog } from '../../../../shm/objects/sketch/hyperloglog.js';
import { OBJECT_ID, Replica, type TestRecord } from '../replica.js';

const NOW = 70_000_000;

describe('HyperLogLog', () => {
  it('is within 1.04 / √m of the truth, from nothing to far past its registers', () => {
    // 48 seeds a size: the root mean square error of that many is within a third of the standard
    // error (χ², 1 in 1000).
    const seeds = 48;
    for (const precision of [6, 10])
      for (const size of [10, 100, 1000, 20_000]) {
        let squares = 0;
        let sum = 0;
        for (let seed = 0; seed < seeds; seed++) {
          const replica = new Replica(hyperLogLog({ precision, seed: `seed ${seed}` }));
          for (let n = 0; n < size; n++) {
            assert.ok(replica.object.add2(n, seed));
            if (n % 4096 === 0) replica.drain();
          }
          const error = replica.object.estimate() / size - 1;
          sum += error;
          squares += error * error;
        }
        const { object } = new Replica(hyperLogLog({ precision }));
        const bound = object.standardError;
        assert.equal(bound, 1.04 / Math.sqrt(2 ** precision));
        const rms = Math.sqrt(squares / seeds);
        assert.ok(rms <= bound * 1.34, `${size} keys, precision ${precision}: ${rms} of ${bound}`);
        // The mean of so many is within 4 standard errors of the mean: no bias.
        assert.ok(Math.abs(sum / seeds) <= (4 * bound) / Math.sqrt(seeds), `${size} keys: bias ${sum / seeds}`);
      }
  });

  it('estimates 0 for nothing, and counts a key once however it is given', () => {
    const replica = new Replica(hyperLogLog());
    const { object } = replica;
    assert.equal(object.estimate(), 0);
    for (let i = 0; i < 5; i++) assert.ok(object.add2(7, -9));
    assert.ok(object.add(Int32Array.of(7, -9), 0, 2));
    assert.equal(replica.drain().length, 1, 'only a register that grows is told of');
    assert.ok(Math.abs(object.estimate() - 1) < 0.01);
    object.add(Int32Array.of(7, -9, 0), 0, 3);
    assert.ok(Math.abs(object.estimate() - 2) < 0.01, 'a longer key is another key');
  });

  it('converges to the union whatever is delivered when, twice, or coalesced', () => {
    const definition = hyperLogLog({ precision: 4 });
    const step = fc.record({
      site: fc.nat({ max: 2 }),
      key: fc.nat({ max: 400 }),
      act: fc.nat({ max: 3 }),
      pick: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const sites = [0, 1, 2].map((i) => new Replica(definition, i, 3));
        const model = new Replica(definition);
        const undelivered: TestRecord[][] = [[], [], []];
        const deliver = (site: number, pick: number): void => {
          const queue = undelivered[site];
          const i = pick % queue.length;
          const j = (pick >> 5) % queue.length;
          const both = Int32Array.of(queue[i].words[0], queue[j].words[0]);
          let record = queue[i];
          if (i !== j && sites[site].object.coalesce(HLL_RAISE, both, 0, 1)) {
            record = { op: HLL_RAISE, words: [both[0]] };
            assert.equal(
              sites[site].object.coalesceKey(HLL_RAISE, Int32Array.from(queue[i].words), 0),
              sites[site].object.coalesceKey(HLL_RAISE, Int32Array.from(queue[j].words), 0),
            );
            undelivered[site] = queue.filter((_, n) => n !== i && n !== j);
          } else undelivered[site] = queue.filter((_, n) => n !== i);
          assert.notEqual(sites[site].apply(record, NOW), Applied.MALFORMED);
          if (pick % 3 === 0) assert.equal(sites[site].apply(record, NOW), Applied.UNCHANGED);
        };
        for (const { site, key, act, pick } of steps) {
          if (act === 0) {
            if (undelivered[site].length > 0) deliver(site, pick);
            continue;
          }
          assert.ok(sites[site].object.add2(key, 1));
          model.object.add2(key, 1);
          for (const record of sites[site].drain())
            for (let other = 0; other < 3; other++) if (other !== site) undelivered[other].push(record);
        }
        for (let site = 0; site < 3; site++)
          while (undelivered[site].length > 0) deliver(site, steps.length * 31 + undelivered[site].length);
        for (const { object } of sites) {
          assert.equal(object.digest(), model.object.digest());
          assert.equal(object.estimate(), model.object.estimate());
        }
      }),
      { numRuns: 200 },
    );
  });

  it('merges whole registers, in any grouping', () => {
    const definition = hyperLogLog({ precision: 8 });
    const sites = [0, 1, 2].map((site) => {
      const replica = new Replica(definition, site, 3);
      for (let n = 0; n < 400; n++) replica.object.add2(n + 300 * site, 0);
      return replica;
    });
    const union = new Replica(definition);
    for (let n = 0; n < 1000; n++) union.object.add2(n, 0);
    const [left, right] = [new Replica(definition), new Replica(definition)];
    for (const { region } of sites) left.object.merge(region);
    right.object.merge(sites[2].region);
    sites[1].object.merge(sites[0].region);
    assert.ok(right.object.merge(sites[1].region) > 0);
    assert.equal(right.object.merge(sites[1].region), 0, 'again');
    assert.equal(left.object.digest(), union.object.digest());
    assert.equal(right.object.digest(), union.object.digest());
  });

  it('refuses, counts and changes nothing when the log is full', () => {
    const replica = new Replica(hyperLogLog(), 0, 1, 1);
    const { object } = replica;
    let n = 0;
    while (object.add2(n, 0)) n++;
    const before = object.digest();
    assert.equal(object.add2(n, 0), false);
    assert.equal(object.digest(), before);
    assert.equal(object.describe()['log_full'], 2);
    replica.drain();
    assert.ok(object.add2(n, 0));
  });

  it('drops and counts what is no record', () => {
    const replica = new Replica(hyperLogLog({ precision: 6 }));
    const before = replica.object.digest();
    const word = (register: number, rank: number): number[] => [(register << 8) | rank];
    for (const [op, words] of [
      [2, word(0, 1)],
      [HLL_RAISE, []],
      [HLL_RAISE, [...word(0, 1), 0]],
      [HLL_RAISE, word(64, 1)],
      [HLL_RAISE, word(-1, 1)],
      [HLL_RAISE, word(0, 0)],
      [HLL_RAISE, word(0, 60)],
    ] as const)
      assert.equal(replica.apply({ op, words }, NOW), Applied.MALFORMED);
    assert.equal(replica.object.digest(), before);
    assert.equal(replica.object.describe()['malformed'], 7);
    assert.equal(replica.apply({ op: HLL_RAISE, words: word(63, 59) }, NOW), Applied.CHANGED);
  });

  it('finishes what a dead writer had logged, and nothing else', () => {
    for (const committed of [false, true]) {
      const { object } = new Replica(hyperLogLog());
      const journal = new Journal(createJournals(1), 1);
      journal.open(JournalState.LOGGED, OBJECT_ID, 10);
      journal.noteWord(5, 9);
      assert.equal(object.recover(1, journal, committed ? 12 : 10), committed ? 1 : 0);
      assert.equal(object.describe()['used'], committed ? 1 : 0);
      assert.equal(journal.state, JournalState.EMPTY);
    }
  });

  it('has a layout hash that tells the seed apart and does not show it', () => {
    const open = hyperLogLog();
    const secret = hyperLogLog({ seed: 'correct horse' });
    assert.notDeepEqual(open.parameters, secret.parameters);
    assert.deepEqual(hyperLogLog({ seed: 'correct horse' }).parameters, secret.parameters);
    assert.ok(!JSON.stringify(secret.parameters).includes('horse'));
    const [a, b] = [new Replica(open), new Replica(secret)];
    for (let n = 0; n < 100; n++) {
      a.object.add2(n, n);
      b.object.add2(n, n);
    }
    assert.notEqual(a.object.digest(), b.object.digest());
  });

  it('says what is wrong with a declaration', () => {
    assert.throws(() => hyperLogLog({ precision: 3 }), /precision 3/);
    assert.throws(() => hyperLogLog({ precision: 19 }), /precision 19/);
  });
});
