import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Applied } from '../../../../shm/objects/core/object.js';
import { isLargerKey } from '../../../../shm/objects/ports/port-claims.js';
import { PORT_CLAIM, portPool } from '../../../../shm/objects/ports/port-pool.js';
import { Replica, type TestRecord } from '../replica.js';

const NOW = 70_000_000;
const definition = portPool({ protocols: 1, addresses: 1 });

describe('port pool', () => {
  it('gives a port to one owner at a time', () => {
    const { object } = new Replica(definition);
    const place = object.place(0, 0, 80);
    const key = new Int32Array(2);
    assert.ok(object.isFree(place));
    assert.equal(object.owner(place, key, 0), false);
    assert.ok(object.acquire(place, 5, 6, NOW));
    assert.ok(object.owner(place, key, 0));
    assert.deepEqual([...key], [5, 6]);
    assert.equal(object.acquire(place, 7, 8, NOW), false, 'taken');
    assert.equal(object.release(place, 7, 8, NOW), false, 'not theirs');
    assert.ok(object.release(place, 5, 6, NOW));
    assert.ok(object.acquire(place, 1, 2, NOW), 'a smaller key, but later');
    assert.throws(() => object.acquire(place, 0, 0, NOW), /nobody/);
  });

  it('believes a member that has started again without its state', () => {
    const other = new Replica(definition, 1, 2);
    const before = new Replica(definition, 0, 2);
    for (let n = 0; n < 10; n++) {
      assert.ok(before.object.acquire(80, 9, 9, NOW + 128 * n) && before.object.release(80, 9, 9, NOW + 128 * n));
      for (const record of before.drain()) other.apply(record, NOW);
    }
    assert.ok(before.object.acquire(80, 9, 9, NOW + 1800));
    for (const record of before.drain()) other.apply(record, NOW);
    const after = new Replica(definition, 0, 2);
    assert.ok(after.object.acquire(80, 1, 1, NOW + 2000), 'it knows of no owner');
    for (const record of after.drain()) assert.equal(other.apply(record, NOW), Applied.CHANGED);
    assert.ok(other.object.isOwner(80, 1, 1));
  });

  it('converges to the largest claim of every port, whatever the order, repetition and coalescing', () => {
    const step = fc.record({
      site: fc.nat({ max: 2 }),
      port: fc.nat({ max: 2 }),
      key: fc.integer({ min: -3, max: 3 }),
      act: fc.constantFrom('acquire', 'acquire', 'release', 'deliver'),
      pick: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const sites = [0, 1, 2].map((i) => new Replica(definition, i, 3));
        const undelivered: TestRecord[][] = [[], [], []];
        const largest = new Map<number, readonly number[]>();
        const deliver = (site: number, pick: number): void => {
          const queue = undelivered[site];
          let [record] = queue.splice(pick % queue.length, 1);
          const other = queue[0];
          if (pick % 3 === 0 && other !== undefined) {
            const both = Int32Array.from([...record.words, ...other.words]);
            if (sites[site].object.coalesce(PORT_CLAIM, both, 0, 4, 4)) {
              queue.shift();
              record = { op: PORT_CLAIM, words: [...both.subarray(0, 4)] };
            }
          }
          assert.ok(sites[site].apply(record, 0) <= Applied.UNCHANGED);
          assert.equal(sites[site].apply(record, 0), Applied.UNCHANGED);
        };
        for (const { site, port, key, act, pick } of steps) {
          const { object } = sites[site];
          const mine = new Int32Array(2);
          if (act === 'deliver') {
            if (undelivered[site].length > 0) deliver(site, pick);
          } else if (act === 'acquire') object.acquire(port, key, 9, NOW);
          else if (object.owner(port, mine, 0)) assert.ok(object.release(port, mine[0], mine[1], NOW));
          for (const record of sites[site].drain()) {
            const [place, generation, key0, key1] = record.words;
            const old = largest.get(place) ?? [0, 0, 0, 0];
            if (generation > old[1] || (generation === old[1] && isLargerKey(key0, key1, old[2], old[3])))
              largest.set(place, record.words);
            for (let i = 0; i < 3; i++) if (i !== site) undelivered[i].push(record);
          }
        }
        for (let site = 0; site < 3; site++)
          while (undelivered[site].length > 0) deliver(site, undelivered[site].length * 7);
        for (const { object } of sites) {
          assert.equal(object.digest(), sites[0].object.digest());
          assert.equal(object.locksHeld(), 0);
          for (const [place, , key0, key1] of largest.values()) assert.ok(object.isOwner(place, key0, key1));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('drops, counts and survives any words that are no claim', () => {
    const replica = new Replica(definition);
    const { object } = replica;
    const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
    fc.assert(
      fc.property(fc.nat({ max: 255 }), fc.array(word, { maxLength: 8 }), (op, words) => {
        const applied = replica.apply({ op, words }, 0);
        if (op !== PORT_CLAIM || words.length !== 4) assert.equal(applied, Applied.MALFORMED);
      }),
    );
    for (const words of [
      [-1, 1, 1, 1],
      [3 * 65_536, 1, 1, 1],
      [1, 0, 1, 1],
      [1, 2 ** 24, 1, 1],
    ])
      assert.equal(replica.apply({ op: PORT_CLAIM, words }, 0), Applied.MALFORMED);
    assert.ok(object.describe()['malformed'] >= 4);
    assert.throws(() => portPool({ protocols: 3, addresses: 1000 }), /at most/);
  });
});
