import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { CLOCK_SKEW_GUARD_S, DELIVERY_S_MAX, REMEMBERED_S } from '../../../../shm/clock.js';
import { NONE } from '../../../../shm/none.js';
import { Applied } from '../../../../shm/objects/core/object.js';
import { FLOW_PUT, FlowRefusal, type FlowTable, flowTable } from '../../../../shm/objects/flow/flow-table.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { Replica, type TestRecord } from '../replica.js';

const NOW = 70_000_000;
const LIFETIME = 100;

/** The n-th key of a table with keys of this size. */
function keyOf(n: number, words: number): Int32Array {
  return Int32Array.from({ length: words }, (_, i) => Math.imul(n + 1, i + 3));
}

function add(object: FlowTable, key: Int32Array, value: readonly number[], now: number, rank = 0, lifetime = LIFETIME) {
  return object.add(object.hash(key, 0), key, 0, Int32Array.from(value), 0, rank, now, now + lifetime);
}

function find(object: FlowTable, key: Int32Array, now: number): number {
  return object.find(object.hash(key, 0), key, 0, now);
}

/** What a table should hold: the fold of all records, the slow way. */
class Model {
  private readonly entries = new Map<string, readonly number[]>();
  private readonly keyWords: number;

  constructor(keyWords: number) {
    this.keyWords = keyWords;
  }

  join({ words }: TestRecord): void {
    const key = words.slice(0, this.keyWords).join();
    const [generation, rank, expires, ...value] = words.slice(this.keyWords);
    const old = this.entries.get(key);
    const order = old === undefined ? 1 : generation - old[0] || rank - old[1];
    if (order > 0) this.entries.set(key, [generation, rank, expires, ...value]);
    else if (order === 0 && old !== undefined) {
      const larger = [value, old.slice(3)].sort((a, b) => {
        for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return (b[i] >>> 0) - (a[i] >>> 0);
        return 0;
      })[0];
      this.entries.set(key, [generation, rank, Math.max(expires, old[2]), ...larger]);
    }
  }

  live(now: number): string[] {
    return [...this.entries]
      .filter(([, [, , expires]]) => expires > now)
      .map(([key, entry]) => `${key} = ${entry.join()}`)
      .sort();
  }
}

function live(object: FlowTable, keyWords: number, now: number): string[] {
  const lines: string[] = [];
  object.forEach(now, (entry) => {
    const [generation, expires, rank, ...rest] = entry;
    lines.push(`${rest.slice(0, keyWords).join()} = ${[generation, rank, expires, ...rest.slice(keyWords)].join()}`);
  });
  return lines.sort();
}

describe('flow table', () => {
  for (const keyWords of [2, 4, 10])
    it(`converges to the fold of all records with keys of ${keyWords} words`, () => {
      const valueWords = keyWords === 2 ? 1 : 3;
      const definition = flowTable({ capacity: 60, keyWords, valueWords });
      const step = fc.record({
        site: fc.nat({ max: 2 }),
        key: fc.nat({ max: 9 }),
        act: fc.constantFrom('add', 'refresh', 'renew', 'deliver', 'wait'),
        value: fc.array(fc.integer({ min: -3, max: 3 }), { minLength: valueWords, maxLength: valueWords }),
        rank: fc.nat({ max: 3 }),
        pick: fc.nat(),
      });
      fc.assert(
        fc.property(fc.array(step, { maxLength: 70 }), (steps) => {
          const sites = [0, 1, 2].map((i) => new Replica(definition, i, 3));
          const undelivered: { readonly record: TestRecord; readonly said: number }[][] = [[], [], []];
          const model = new Model(keyWords);
          let now = NOW;
          const deliver = (site: number, pick: number): void => {
            const queue = undelivered[site];
            const earlier = queue[pick % queue.length];
            const later = queue[(pick >> 4) % queue.length];
            // Coalesced where that can be, in either order; some twice.
            const both = Int32Array.from([...earlier.record.words, ...later.record.words]);
            const length = earlier.record.words.length;
            const coalesced = earlier !== later && sites[site].object.coalesce(FLOW_PUT, both, 0, length, length);
            const merged = coalesced ? { op: FLOW_PUT, words: [...both.subarray(0, length)] } : earlier.record;
            undelivered[site] = queue.filter((one) => one !== earlier && !(coalesced && one === later));
            const applied = sites[site].apply(merged, now);
            assert.ok(applied === Applied.CHANGED || applied === Applied.UNCHANGED);
            if (pick % 5 === 0) assert.equal(sites[site].apply(merged, now), Applied.UNCHANGED);
          };
          for (const { site, key: n, act, value, rank, pick } of steps) {
            const { object } = sites[site];
            const key = keyOf(n, keyWords);
            const slot = find(object, key, now);
            if (act === 'wait') {
              const until = now + (pick % 40);
              // No record gets later than that; the oldest are first.
              for (let other = 0; other < 3; other++)
                while (undelivered[other].length > 0 && undelivered[other][0].said + DELIVERY_S_MAX < until)
                  deliver(other, pick);
              now = until;
              sites[site].object.sweep(now, 30);
            } else if (act === 'deliver') {
              if (undelivered[site].length > 0) deliver(site, pick);
            } else if (slot === NONE) assert.notEqual(add(object, key, value, now, rank), NONE);
            else if (act === 'renew') object.renew(slot, Int32Array.from(value), 0, rank, now, LIFETIME);
            else assert.ok(object.refresh(slot, rank, now, LIFETIME >> rank));
            for (const record of sites[site].drain()) {
              model.join(record);
              for (let other = 0; other < 3; other++)
                if (other !== site) undelivered[other].push({ record, said: now });
            }
          }
          for (let site = 0; site < 3; site++)
            while (undelivered[site].length > 0) deliver(site, steps.length * 7 + undelivered[site].length);
          for (const { object } of sites) {
            assert.deepEqual(live(object, keyWords, now), model.live(now));
            assert.equal(object.digest(now, true), sites[0].object.digest(now, true));
            assert.equal(object.locksHeld(), 0);
          }
        }),
        { numRuns: 200 },
      );
    });

  it('finds many keys at once as it finds each', () => {
    const { object } = new Replica(flowTable({ capacity: 300, keyWords: 4, valueWords: 2 }));
    // Expired and live ones.
    for (let n = 0; n < 200; n++) add(object, keyOf(n, 4), [n, 7], NOW - (n % 3) * 60, 1);
    const { keys, hashes, slots, values, find: findAll } = object.lookup(64);
    for (let round = 0; round < 8; round++) {
      for (let i = 0; i < 64; i++) keys.set(keyOf(i * 4 + round, 4), 4 * i);
      slots.fill(0);
      findAll(60, NOW);
      for (let i = 0; i < 60; i++) {
        const key = keyOf(i * 4 + round, 4);
        assert.equal(hashes[i], object.hash(key, 0));
        assert.equal(slots[i], find(object, key, NOW));
        if (slots[i] !== NONE) assert.equal(values[i], i * 4 + round);
      }
      assert.ok(slots.some((slot) => slot > 0) && slots.includes(NONE));
      assert.equal(slots[60], 0, 'no more than asked');
    }
    const two = new Replica(flowTable({ capacity: 30, keyWords: 2, valueWords: 1 }));
    assert.throws(() => two.object.lookup(64), /keys of four words/);
  });

  it('keeps entries until their expiry and the guard are over, then takes the slot again', () => {
    const { object } = new Replica(flowTable({ capacity: 32, keyWords: 2, valueWords: 1 }));
    const key = keyOf(1, 2);
    const slot = add(object, key, [5], NOW);
    assert.equal(find(object, key, NOW + LIFETIME - 1), slot);
    assert.equal(find(object, key, NOW + LIFETIME), NONE);
    assert.equal(object.sweep(NOW + LIFETIME + CLOCK_SKEW_GUARD_S - 1, 1000, true), 0);
    assert.equal(object.sweep(NOW + LIFETIME + REMEMBERED_S - 1, 1000), 0);
    assert.equal(object.sweep(NOW + LIFETIME + REMEMBERED_S, 1000), 1);
    assert.equal(object.describe(NOW)['used'], 0);
    const again = add(object, key, [6], NOW + 200);
    assert.equal(object.generation(again), NOW + 200, 'a generation that supersedes the forgotten one');
    assert.equal(object.value(again, 0), 6);
  });

  it('starts a new generation for a key whose entry has expired and is still there', () => {
    const { object } = new Replica(flowTable({ capacity: 32, keyWords: 2, valueWords: 1 }));
    const key = keyOf(1, 2);
    add(object, key, [5], NOW, 3);
    const slot = add(object, key, [4], NOW + LIFETIME, 0);
    assert.equal(object.generation(slot), NOW + LIFETIME);
    assert.equal(object.rank(slot), 0);
    assert.equal(object.value(slot, 0), 4);
    assert.equal(add(object, key, [9], NOW + LIFETIME), slot, 'there already');
    assert.equal(object.value(slot, 0), 4);
  });

  it('tells others of a refresh only when it matters', () => {
    const replica = new Replica(flowTable({ capacity: 32, keyWords: 2, valueWords: 1 }));
    const { object } = replica;
    const slot = add(object, keyOf(1, 2), [5], NOW);
    assert.equal(replica.drain().length, 1);
    assert.ok(object.refresh(slot, 0, NOW, LIFETIME));
    assert.equal(object.expires(slot), NOW + LIFETIME + 1 + 12, 'promises an eighth of the timeout more');
    assert.equal(replica.drain().length, 1);
    assert.ok(object.refresh(slot, 0, NOW + 12, LIFETIME));
    assert.equal(replica.drain().length, 0, 'covered');
    assert.ok(object.refresh(slot, 0, NOW + 13, LIFETIME));
    assert.equal(replica.drain().length, 1);
    assert.equal(object.expires(slot), NOW + 13 + LIFETIME + 13);
    assert.ok(object.prolong(slot, 1, NOW + 13, 20));
    assert.equal(object.expires(slot), NOW + 13 + LIFETIME + 13, 'prolonged: a higher rank does not shorten');
    assert.ok(object.refresh(slot, 2, NOW + 13, 20));
    assert.equal(object.expires(slot), NOW + 36, 'refreshed: a higher rank may shorten');
    assert.ok(object.refresh(slot, 1, NOW + 14, 10));
    assert.equal(object.rank(slot), 2, 'a lower one changes nothing');
  });

  it('lets no entry live for ever by renewing it all the time', () => {
    const { object } = new Replica(flowTable({ capacity: 32, keyWords: 2, valueWords: 1 }));
    const slot = add(object, keyOf(1, 2), [5], NOW);
    let renewed = 0;
    for (let i = 0; i < 300; i++) if (object.renew(slot, Int32Array.of(i), 0, 0, NOW, LIFETIME)) renewed++;
    assert.equal(renewed, LIFETIME);
    assert.equal(object.expires(slot), idleExpiry(NOW, LIFETIME));
    assert.equal(object.value(slot, 0), LIFETIME - 1, 'what was refused has changed nothing');
  });

  it('refuses what is over its capacity, and takes it once others are over', () => {
    const replica = new Replica(flowTable({ capacity: 50, keyWords: 2, valueWords: 1 }));
    const { object } = replica;
    for (let n = 0; n < 50; n++) assert.notEqual(add(object, keyOf(n, 2), [n], NOW, 1), NONE);
    replica.drain();
    assert.equal(add(object, keyOf(50, 2), [50], NOW, 1), NONE);
    assert.equal(object.refusal, FlowRefusal.TABLE_FULL);
    assert.equal(object.describe(NOW)['table_full'], 1);
    assert.equal(replica.drain().length, 0, 'nothing was said');
    for (let n = 0; n < 50; n++) assert.notEqual(find(object, keyOf(n, 2), NOW), NONE, 'nobody was put out');
    assert.notEqual(add(object, keyOf(50, 2), [50], NOW + LIFETIME + CLOCK_SKEW_GUARD_S, 1), NONE);
  });

  it('changes nothing when the log has no room', () => {
    const replica = new Replica(flowTable({ capacity: 5000, keyWords: 2, valueWords: 1 }), 0, 1, 1);
    const { object } = replica;
    let n = 0;
    while (add(object, keyOf(n, 2), [n], NOW) !== NONE) n++;
    assert.equal(object.refusal, FlowRefusal.LOG_FULL);
    assert.equal(find(object, keyOf(n, 2), NOW), NONE);
    assert.equal(object.refresh(find(object, keyOf(0, 2), NOW), 1, NOW, LIFETIME), false);
    assert.equal(object.rank(find(object, keyOf(0, 2), NOW)), 0);
    assert.equal(replica.drain().length, n);
    assert.equal(object.describe(NOW)['used'], n);
    assert.notEqual(add(object, keyOf(n, 2), [n], NOW), NONE);
    assert.equal(object.locksHeld(), 0);
  });

  it('keeps searches short: slots are emptied again behind the last entry of a run', () => {
    const { object } = new Replica(flowTable({ capacity: 200, keyWords: 2, valueWords: 1 }));
    for (let round = 0; round < 30; round++) {
      const now = NOW + round * 200;
      for (let n = 0; n < 150; n++) assert.notEqual(add(object, keyOf(round * 1000 + n, 2), [n], now, 1), NONE);
      for (let n = 0; n < 150; n++) assert.notEqual(find(object, keyOf(round * 1000 + n, 2), now), NONE);
    }
    const end = NOW + 30 * 200;
    for (let i = 0; i < 3; i++) object.sweep(end, 512);
    assert.equal(object.emptySlots(), 512, 'a table swept empty is empty');
  });

  it('drops, counts and survives any words that are no record', () => {
    const definition = flowTable({ capacity: 40, keyWords: 2, valueWords: 2 });
    fc.assert(
      fc.property(
        fc.nat({ max: 255 }),
        fc.array(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), { maxLength: 12 }),
        (op, words) => {
          const replica = new Replica(definition);
          const before = replica.object.digest(NOW, true);
          const applied = replica.apply({ op, words }, NOW);
          assert.equal(replica.object.locksHeld(), 0);
          if (op !== FLOW_PUT || words.length !== 7) assert.equal(applied, Applied.MALFORMED);
          if (applied === Applied.MALFORMED) {
            assert.equal(replica.object.describe(NOW)['malformed'], 1);
            assert.equal(replica.object.digest(NOW, true), before);
          }
        },
      ),
      { numRuns: 300 },
    );
    const { object } = new Replica(definition);
    const put = (...life: number[]): Applied =>
      object.apply(FLOW_PUT, Int32Array.from([1, 2, ...life, 8, 9]), 0, 7, 1, NOW);
    assert.equal(put(NOW, 0, NOW + 10), Applied.CHANGED);
    assert.equal(put(0, 0, NOW + 10), Applied.MALFORMED, 'no generation');
    assert.equal(put(NOW + 11, 0, NOW + 10), Applied.MALFORMED, 'generation after expiry');
    assert.equal(put(NOW, 128, NOW + 10), Applied.MALFORMED, 'rank');
    assert.equal(put(NOW, 0, 2 ** 31 - 1), Applied.MALFORMED, 'expiry out of all reason');
    const { object: second } = new Replica(definition);
    const old = Int32Array.of(1, 2, NOW - 100, 0, NOW - REMEMBERED_S, 8, 9);
    assert.equal(second.apply(FLOW_PUT, old, 0, 7, 1, NOW), Applied.UNCHANGED, 'not worth remembering');
    assert.equal(second.describe(NOW)['used'], 0);
  });

  it('is not revived by a record that was overtaken by the one that ended it', () => {
    const replica = new Replica(flowTable({ capacity: 40, keyWords: 2, valueWords: 1 }));
    const put = (rank: number, expires: number, now: number): Applied =>
      replica.apply({ op: FLOW_PUT, words: [1, 2, NOW, rank, expires, 7] }, now);
    const late = NOW + 100 + REMEMBERED_S - 1;
    assert.equal(put(2, NOW + 100, late), Applied.CHANGED, 'expired already, and good to know');
    replica.object.sweep(late, 1000);
    assert.equal(put(1, NOW + 7440, late), Applied.UNCHANGED);
    assert.equal(find(replica.object, Int32Array.of(1, 2), late), NONE);
    replica.object.sweep(late + 1, 1000);
    assert.equal(replica.object.describe(late)['used'], 0);
  });

  it('gives its locks back when the winner rule throws', () => {
    let broken = false;
    const winner = (): boolean => {
      if (broken) throw new Error('no winner');
      return false;
    };
    const replica = new Replica(flowTable({ capacity: 40, keyWords: 2, valueWords: 1, winner }));
    const put = (generation: number, value: number): Applied =>
      replica.apply({ op: FLOW_PUT, words: [1, 2, generation, 0, NOW + 60, value] }, NOW);
    assert.equal(put(NOW, 1), Applied.CHANGED);
    const digest = replica.object.digest(NOW, true);
    broken = true;
    assert.throws(() => put(NOW, 2), /no winner/);
    assert.equal(replica.object.locksHeld(), 0);
    assert.equal(replica.object.digest(NOW, true), digest);
    broken = false;
    assert.equal(put(NOW + 1, 3), Applied.CHANGED);
  });

  it('says what is wrong with a shape', () => {
    assert.throws(() => flowTable({ capacity: 0, keyWords: 2, valueWords: 1 }), /capacity 0/);
    assert.throws(() => flowTable({ capacity: 10, keyWords: 50, valueWords: 20 }), /more than 60/);
    assert.throws(() => flowTable({ capacity: 2 ** 28, keyWords: 10, valueWords: 8 }), /4 GiB/);
  });

  it('is read only where it was opened so', () => {
    const definition = flowTable({ capacity: 40, keyWords: 2, valueWords: 1 });
    const { region } = new Replica(definition);
    const object = definition.open({
      id: 0,
      region,
      secret: Int32Array.of(1, 2),
      writer: null,
      memberIndex: 0,
      memberCount: 1,
    });
    assert.equal(find(object, keyOf(1, 2), NOW), NONE);
    assert.throws(() => add(object, keyOf(1, 2), [1], NOW), /read only/);
  });
});
