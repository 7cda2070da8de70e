import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { CLOCK_SKEW_GUARD_S, DELIVERY_S_MAX } from '../../../../shm/clock.js';
import { NONE } from '../../../../shm/none.js';
import { Applied, type StateDefinition, type StateObject } from '../../../../shm/objects/core/object.js';
import { FLOW_PUT, FlowRefusal, type FlowTable, flowTable } from '../../../../shm/objects/flow/flow-table.js';
import {
  type NatBinding,
  natBinding,
  portAndProtocol,
  Rank,
  Refusal,
} from '../../../../shm/objects/nat/nat-binding.js';
import { YOUNG_S } from '../../../../shm/objects/table/half-open.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { scaled } from '../../../support/scale.js';
import { entriesOf, NatModel, validEntries } from '../nat/nat-model.js';
import { Replica, type TestRecord } from '../replica.js';

const NOW = 70_000_000;
const LIFETIME = 240;
const UDP = 17;
const EXTERNAL = 0x010200c0;
const HALF_OPEN = 0;
/** Half-open to neither: to a NAT, rank 1 (answered) is half-open too. */
const ESTABLISHED = 2;

/** A flow table and a NAT, asked the same; keys are numbers. */
interface Table<T extends StateObject> {
  define(capacity: number, halfOpen: number, records: number): StateDefinition<T>;
  /** The slot, or `NONE`. */
  add(object: T, key: number, now: number): number;
  find(object: T, key: number, now: number): number;
  refresh(object: T, slot: number, rank: number, now: number): boolean;
  replicateAgain(object: T, slot: number, now: number): boolean;
  /** The key is used again: a new generation. */
  renew(object: T, slot: number, now: number): boolean;
  /** Replaces a half-open entry's value, where there is one, by a larger one. */
  replace?(object: T, slot: number, now: number): boolean;
  locksHeld(object: T): number;
}

const key = new Int32Array(2);
const value = new Int32Array(1);
const flows: Table<FlowTable> = {
  define: (capacity, halfOpen, halfOpenRecords) =>
    flowTable({ capacity, keyWords: 2, valueWords: 1, halfOpen, halfOpenRecords }),
  add(object, n, now) {
    key[0] = n;
    key[1] = ~n;
    value[0] = n;
    return object.add(object.hash(key, 0), key, 0, value, 0, HALF_OPEN, now, idleExpiry(now, LIFETIME));
  },
  find(object, n, now) {
    key[0] = n;
    key[1] = ~n;
    return object.find(object.hash(key, 0), key, 0, now);
  },
  refresh: (object, slot, rank, now) => object.refresh(slot, rank, now, LIFETIME >> ((3 * rank) >> 1)),
  replicateAgain: (object, slot, now) => object.replicateAgain(slot, now, LIFETIME),
  renew: (object, slot, now) => object.renew(slot, value, 0, HALF_OPEN, now, LIFETIME),
  replace: (object, slot, now) => object.replaceValue(slot, Int32Array.of(object.value(slot, 0) + 1), 0, now),
  locksHeld: (object) => object.locksHeld(),
};

const port = portAndProtocol(0x1234, UDP);
const bindings: Table<NatBinding> = {
  define: (flows, halfOpen, halfOpenRecords) =>
    natBinding({ addresses: [EXTERNAL, EXTERNAL + 1], flows, allocation: 'leased', halfOpen, halfOpenRecords }),
  add: (object, n, now) => object.add(object.hash(n, port), n, port, now, idleExpiry(now, LIFETIME)),
  find: (object, n, now) => object.findOutbound(object.hash(n, port), n, port, now),
  refresh: (object, slot, rank, now) => object.refresh(slot, rank, now, LIFETIME >> ((3 * rank) >> 1)),
  replicateAgain: (object, slot, now) => object.replicateAgain(slot, now, LIFETIME),
  renew: (object, slot, now) => object.renew(slot, now, LIFETIME),
  locksHeld: (object) => object.locksHeld(),
};

function check<T extends StateObject & { generation(slot: number): number }>(
  name: string,
  table: Table<T>,
  settle: (object: T, now: number) => void,
): void {
  describe(`half-open entries: ${name}`, () => {
    it('do not put out what is established, nor flood other sites, however many come', function () {
      this.timeout(60_000);
      const established = 10_000;
      const attempts = 1_000_000;
      const quota = 8192;
      const budget = 500;
      const here = new Replica(table.define(32_768, quota, budget));
      const there = new Replica(table.define(32_768, quota, budget));
      const { object } = here;
      let replicated = 0;
      const pass = (now: number): void => {
        const records = here.drain();
        replicated += records.length;
        for (const record of records) there.apply(record, now);
      };
      for (let n = 0; n < established; n++) {
        const slot = table.add(object, n, NOW);
        assert.ok(table.refresh(object, slot, ESTABLISHED, NOW), `${n}`);
        if (n % 1000 === 0) pass(NOW);
      }
      pass(NOW);
      assert.ok(replicated <= established + budget);
      replicated = 0;
      let refused = 0;
      const seconds = 10;
      for (let n = 0; n < attempts; n++) {
        const now = NOW + Math.trunc((n * seconds) / attempts);
        if (table.add(object, established + n, now) === NONE) refused++;
        if (n % 1000 === 0) pass(now);
      }
      const now = NOW + seconds - 1;
      pass(now);
      const figures = object.describe(now);
      assert.equal(figures['half_open'], quota);
      assert.equal(figures['half_open_refused'], refused);
      assert.ok(refused > 0 && figures['half_open_evicted'] <= (quota * (seconds + 1)) / 2, `${refused} refused`);
      assert.equal(attempts - refused, figures['half_open_evicted'] + quota);
      assert.ok(replicated <= seconds * budget, `${replicated} records`);
      assert.ok(figures['half_open_local'] > 0);
      for (let n = 0; n < established; n++) {
        assert.notEqual(table.find(object, n, now), NONE, `${n} was put out`);
        assert.notEqual(table.find(there.object, n, now), NONE, `${n} was put out there`);
      }
      assert.equal(table.locksHeld(object), 0);
      settle(object, now + LIFETIME + 100);
    });

    it('are told by and by when they show a second packet, and at once when they rise', () => {
      const here = new Replica(table.define(1000, 500, 8));
      const there = new Replica(table.define(1000, 500, 8));
      const { object } = here;
      const deliver = (): number => {
        const records = here.drain();
        for (const record of records) assert.equal(there.apply(record, NOW), Applied.CHANGED);
        return records.length;
      };
      const slots = Array.from({ length: 20 }, (_, n) => table.add(object, n, NOW));
      assert.equal(deliver(), 6, 'a quarter is kept');
      for (const slot of slots) assert.ok(table.refresh(object, slot, HALF_OPEN, NOW));
      assert.equal(deliver(), 2);
      assert.equal(object.digest(NOW, true), there.object.digest(NOW, true), 'what is withheld is left out');
      for (const slot of slots) assert.ok(table.refresh(object, slot, HALF_OPEN, NOW + 1));
      assert.equal(deliver(), 8, 'another second');
      for (const slot of slots) assert.ok(table.refresh(object, slot, ESTABLISHED, NOW + 1));
      assert.equal(deliver(), 20);
      assert.equal(object.digest(NOW + 1, true), there.object.digest(NOW + 1, true));
      assert.equal(object.describe(NOW)['half_open'], 0);
      assert.equal(there.object.describe(NOW)['half_open'], 0);
    });

    const { replace } = table;
    if (replace !== undefined) itReplaces(replace);

    function itReplaces(replace: NonNullable<Table<T>['replace']>): void {
      it('have their value replaced by a larger one, within the budget, while they are half-open', () => {
        const here = new Replica(table.define(1000, 500, 4));
        const there = new Replica(table.define(1000, 500, 4));
        const slots = Array.from({ length: 8 }, (_, n) => table.add(here.object, n, NOW));
        assert.equal(slots.filter((slot) => replace(here.object, slot, NOW)).length, 1, 'a quarter is kept for them');
        assert.equal(replace(here.object, slots[7], NOW), false);
        for (const record of here.drain()) there.apply(record, NOW);
        assert.equal(here.object.digest(NOW, true), there.object.digest(NOW, true));
        assert.ok(table.refresh(here.object, slots[0], ESTABLISHED, NOW + 1));
        assert.equal(replace(here.object, slots[0], NOW + 1), false, 'not of others');
        assert.ok(replace(here.object, slots[7], NOW + 1), 'one that is local-only is replicated by it');
        for (const record of here.drain()) there.apply(record, NOW + 1);
        assert.equal(here.object.digest(NOW + 1, true), there.object.digest(NOW + 1, true));
      });
    }

    it('give way, with the table full, to others, and their slot is not used again within the guard', () => {
      const { object } = new Replica(table.define(40, 20, 1000));
      for (let n = 0; n < 40; n++)
        if (n >= 20) table.add(object, n, NOW);
        else assert.ok(table.refresh(object, table.add(object, n, NOW), ESTABLISHED, NOW));
      assert.equal(table.add(object, 98, NOW + YOUNG_S - 1), NONE, 'they are too young');
      const later = NOW + YOUNG_S;
      const before = Array.from({ length: 40 }, (_, n) => table.find(object, n, later));
      const taken = new Set<number>();
      for (let n = 40; n < 60; n++) taken.add(table.add(object, n, later));
      assert.equal(taken.size, 20);
      const put = before.filter((slot, n) => slot !== table.find(object, n, later));
      assert.ok(put.length > 0 && put.every((slot) => !taken.has(slot) && !before.slice(0, 20).includes(slot)));
      assert.equal(table.add(object, 99, later + CLOCK_SKEW_GUARD_S - 1), NONE, 'the quota was put out once');
      assert.notEqual(table.add(object, 99, later + CLOCK_SKEW_GUARD_S), NONE);
    });

    it('are young too where the key was used again within one second, and its generation is ahead of the clock', () => {
      const { object } = new Replica(table.define(4, 2, 1000));
      for (const n of [1, 2]) {
        const slot = table.add(object, n, NOW);
        assert.ok(table.renew(object, slot, NOW));
        assert.equal(object.generation(slot), NOW + 1);
      }
      for (const now of [NOW, NOW + 1]) {
        assert.equal(table.add(object, 9, now), NONE, 'nothing is evicted for it');
        for (const n of [1, 2]) assert.notEqual(table.find(object, n, now), NONE);
      }
      assert.notEqual(table.add(object, 9, NOW + 1 + YOUNG_S), NONE);
    });

    it('leave a handshake its time, though a flood turns the quota over every two seconds', () => {
      // The quota is full at once; every 50th entry is a client's, which is answered after most of
      // a second, 2400 entries later.
      const [perSecond, seconds, after] = [2500, 12, 2400];
      const { object } = new Replica(table.define(32_768, 1024, 100));
      const begun: { n: number; slot: number; at: number }[] = [];
      let [lost, done, refused] = [0, 0, 0];
      for (let n = 0; n < perSecond * seconds; n++) {
        const now = NOW + Math.trunc(n / perSecond);
        const slot = table.add(object, n, now);
        if (slot === NONE) refused++;
        else if (n % 50 === 0) begun.push({ n, slot, at: n + after });
        while (begun.length > 0 && begun[0].at <= n) {
          const client = begun.shift() as (typeof begun)[number];
          if (table.find(object, client.n, now) === client.slot && table.refresh(object, client.slot, ESTABLISHED, now))
            done++;
          else lost++;
        }
      }
      assert.ok(refused > perSecond && done > 50, `${refused} refused, ${done} done`);
      assert.equal(lost, 0, `of ${done + lost}`);
    });

    it('of other sites are held to the quota too', () => {
      const here = new Replica(table.define(1000, 500, 1000));
      const there = new Replica(table.define(1000, 10, 1000));
      for (let n = 0; n < 30; n++) table.add(here.object, n, NOW);
      const applied = here.drain().map((record, n) => there.apply(record, n < 10 ? NOW : NOW + YOUNG_S));
      assert.deepEqual(new Set(applied), new Set([Applied.CHANGED, Applied.FULL]));
      const {
        half_open: open,
        half_open_evicted: evicted,
        half_open_refused: refused,
      } = there.object.describe(NOW + YOUNG_S);
      assert.deepEqual([open, evicted, refused], [10, 10, 10]);
      // Who tries again is told again, and finds room when others have given way.
      const late = Array.from({ length: 30 }, (_, n) => n).filter((n) => table.find(there.object, n, NOW) === NONE);
      const later = NOW + 2 * YOUNG_S;
      const trying = late.slice(-10);
      for (const n of trying) assert.ok(table.replicateAgain(here.object, table.find(here.object, n, NOW), later));
      assert.deepEqual(
        here.drain().map((record) => there.apply(record, later)),
        trying.map(() => Applied.CHANGED),
      );
    });
  });
}

check('flow table', flows, (object, now) => {
  for (let i = 0; i < 10; i++) object.sweep(now, 32_768);
  assert.equal(object.emptySlots(), 65_536);
  assert.equal(object.describe(now)['used'], 0);
  assert.equal(object.describe(now)['half_open'], 0);
});
check('nat binding', bindings, (object, now) => {
  for (let i = 0; i < 10; i++) object.sweep(now, 32_768);
  assert.equal(object.describe(now)['used'], 0);
  assert.equal(object.describe(now)['half_open'], 0);
});

const step = fc.record({
  site: fc.nat(2),
  key: fc.nat(5),
  act: fc.constantFrom('packet', 'packet', 'deliver', 'deliver', 'wait'),
  rank: fc.constantFrom(0, 0, 0, 1, 2),
  pick: fc.nat(),
});

interface ReplicatedAmounts<T extends StateObject> {
  readonly records: readonly TestRecord[];
  /** An instance that heard each at once. */
  readonly heard: Replica<T>;
}

/**
 * Three sites that tell of some half-open entries only, and in the end the fold of all that was
 * told.
 */
function converges<T extends StateObject>(
  table: Table<T>,
  definition: StateDefinition<T>,
  verify: (sites: readonly Replica<T>[], replicated: ReplicatedAmounts<T>, now: number) => void,
): void {
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 80 }), (steps) => {
      const sites = [0, 1, 2].map((i) => new Replica(definition, i, 3));
      const undelivered: { record: TestRecord; said: number }[][] = [[], [], []];
      const records: TestRecord[] = [];
      const heard = new Replica(definition, 0, 3);
      let now = NOW;
      const deliver = (to: number, pick: number): void => {
        const [{ record }] = undelivered[to].splice(pick % undelivered[to].length, 1);
        const applied = sites[to].apply(record, now);
        assert.ok(applied === Applied.CHANGED || applied === Applied.UNCHANGED);
      };
      for (const { site, key: n, act, rank, pick } of steps) {
        const { object } = sites[site];
        if (act === 'deliver') {
          if (undelivered[site].length > 0) deliver(site, pick);
        } else if (act === 'wait') {
          // So that entries are over, and not yet forgotten.
          const until = now + (pick % 3 === 0 ? LIFETIME + 3 : pick % 20);
          for (let to = 0; to < 3; to++)
            while (undelivered[to].length > 0 && undelivered[to][0].said + DELIVERY_S_MAX < until) deliver(to, 0);
          now = until;
        } else {
          let slot = table.find(object, n, now);
          if (slot === NONE) slot = table.add(object, n, now);
          else if (rank === HALF_OPEN && pick % 3 === 0) table.replace?.(object, slot, now);
          else table.refresh(object, slot, rank, now);
        }
        for (const record of sites[site].drain()) {
          records.push(record);
          heard.apply(record, now);
          for (let to = 0; to < 3; to++) if (to !== site) undelivered[to].push({ record, said: now });
        }
      }
      for (let to = 0; to < 3; to++) while (undelivered[to].length > 0) deliver(to, 7 * undelivered[to].length);
      verify(sites, { records, heard }, now);
      for (const { object } of sites) assert.equal(object.digest(now, true), sites[0].object.digest(now, true));
    }),
    { numRuns: scaled(120, 300) },
  );
}

describe('withheld entries', () => {
  /** One record a second: of a second new entry nobody is told. */
  it('are no part of what a flow table replicates', () => {
    const definition = flows.define(100, 100, 1);
    converges(flows, definition, (sites, { heard }, now) => {
      for (const { object } of sites) assert.equal(object.digest(now, true), heard.object.digest(now, true));
    });
  });

  it('are no part of what a NAT replicates, ports included', () => {
    const definition = natBinding({
      addresses: [EXTERNAL],
      flows: 100,
      // More than keys, or half-open bindings would be evicted for their ports, at one site alone.
      portRange: { first: 2000, last: 2019 },
      allocation: 'shared',
      halfOpen: 100,
      halfOpenRecords: 1,
    });
    const swap = (raw: number): number => ((raw & 0xff) << 8) | (raw >>> 8);
    let localOnly = 0;
    converges(bindings, definition, (sites, { records }, now) => {
      const model = new NatModel();
      for (const record of records) model.join(record);
      for (const { object } of sites) {
        const replicated = validEntries(object, now, swap).filter((line) => model.valid(now).includes(line));
        assert.deepEqual(replicated, model.valid(now));
        localOnly += entriesOf(object, now, ({ dead }) => !dead).length - replicated.length;
        const ports = entriesOf(object, now, ({ dead }) => !dead).map((entry) => entry.externalPort);
        assert.equal(new Set(ports).size, ports.length, 'a port has two owners');
        for (const { internalAddress, externalPort } of entriesOf(object, now, ({ dead }) => !dead)) {
          const slot = bindings.find(object, internalAddress, now);
          assert.notEqual(slot, NONE);
          assert.equal(object.findInbound(object.place(EXTERNAL, swap(externalPort), UDP), now), slot);
        }
      }
    });
    assert.ok(localOnly > 0);
  });

  it('keep the port they have, also from a binding that had it before', () => {
    const definition = natBinding({
      addresses: [EXTERNAL],
      flows: 10,
      portRange: { first: 2000, last: 2001 },
      allocation: 'shared',
      halfOpen: 10,
      halfOpenRecords: 1,
    });
    const replica = new Replica(definition);
    const { object } = replica;
    const later = idleExpiry(NOW, LIFETIME) + CLOCK_SKEW_GUARD_S;
    assert.notEqual(bindings.add(object, 1, NOW), NONE);
    const other = bindings.add(object, 4, NOW + 1);
    assert.ok(object.refresh(other, ESTABLISHED, NOW + 2, 2 * LIFETIME));
    assert.equal(bindings.add(object, 2, later - 1), NONE, 'a port is kept for the guard');
    replica.drain();
    assert.equal(bindings.add(object, 4, later), other, 'which takes the one record of this second');
    assert.notEqual(bindings.add(object, 2, later), NONE);
    assert.equal(replica.drain().length, 0, 'withheld');
    assert.equal(bindings.add(object, 1, later + 1), NONE, 'the other is too young to be evicted for its port');
    assert.equal(object.refusal, Refusal.EXHAUSTED);
    assert.notEqual(bindings.find(object, 2, later + 1), NONE);
  });

  it('give way to a told entry of their key, and are left out of a merge', () => {
    const definition = flows.define(100, 100, 0);
    const [here, there] = [new Replica(definition), new Replica(definition)];
    const slot = flows.add(here.object, 1, NOW);
    assert.equal(here.drain().length, 0);
    assert.equal(there.object.merge(here.region, NOW), 0);
    const record = (generation: number) => [1, ~1, generation, 0, generation + 10, 77];
    assert.equal(here.apply({ op: FLOW_PUT, words: record(NOW - 5) }, NOW), Applied.CHANGED);
    assert.equal(here.object.value(slot, 0), 77);
    assert.equal(here.object.generation(slot), NOW - 5);
    assert.equal(there.object.merge(here.region, NOW), 1);
    // What others know is told on, whatever the budget.
    assert.notEqual(flows.add(here.object, 1, NOW + 20), NONE);
    assert.equal(here.drain().length, 1);
  });

  it('are refused as half-open, and that is said', () => {
    const { object } = new Replica(flows.define(100, 1, 0));
    flows.add(object, 1, NOW);
    flows.add(object, 2, NOW);
    assert.equal(flows.add(object, 3, NOW), NONE);
    assert.equal(object.refusal, FlowRefusal.HALF_OPEN);
    assert.throws(() => flows.define(10, 11, 1), /11 half-open entries/);
    assert.throws(() => flows.define(10, 1, -1), /-1 records/);
    assert.equal(Rank.NEW, HALF_OPEN);
  });
});
