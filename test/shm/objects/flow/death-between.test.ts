import { strict as assert } from 'node:assert';
import { committedPosition, createLogRing, recoverLog } from '../../../../shm/log.js';
import { NONE } from '../../../../shm/none.js';
import { createJournals, Journal } from '../../../../shm/objects/core/journal.js';
import { Applied, type StateDefinition, type StateObject } from '../../../../shm/objects/core/object.js';
import { FLOW_PUT, type FlowTable, flowTable } from '../../../../shm/objects/flow/flow-table.js';
import { NAT_BIND, type NatBinding, natBinding, portAndProtocol } from '../../../../shm/objects/nat/nat-binding.js';
import { growSet, type SharedSet } from '../../../../shm/objects/sets/shared-set.js';
import { Region } from '../../../../shm/region.js';
import { Countdown, Death, DyingJournal, DyingLog } from '../dying.js';
import { entriesOf } from '../nat/nat-model.js';

const NOW = 70_000_000;
/** Past all remembering, when it was added for 10 s. */
const LONG_AGO = NOW - 200;
const PORT = portAndProtocol(0x1234, 17);
/** Slots of a table for 32 entries. */
const SLOTS = 64;
/** Half-open entries it may hold: the default. */
const QUOTA = 8;
const ID = 3;

/** What the scenarios ask of an object on flow slots; keys are numbers. */
interface Table<T extends StateObject> {
  readonly definition: StateDefinition<T>;
  hash(object: T, key: number): number;
  add(object: T, key: number, now: number, seconds: number): boolean;
  sweep(object: T, now: number): void;
  has(object: T, key: number, now: number): boolean;
  /** All keys in the table, expired or not. */
  keys(object: T): number[];
  locksHeld(object: T): number;
}

const flows: Table<FlowTable> = {
  definition: flowTable({ capacity: 32, keyWords: 1, valueWords: 1 }),
  hash: (object, key) => object.hash(Int32Array.of(key), 0),
  add(object, key, now, seconds) {
    const words = Int32Array.of(key);
    return object.add(object.hash(words, 0), words, 0, words, 0, 0, now, now + seconds) !== NONE;
  },
  sweep: (object, now) => object.sweep(now, SLOTS),
  has(object, key, now) {
    const words = Int32Array.of(key);
    return object.find(object.hash(words, 0), words, 0, now) !== NONE;
  },
  keys(object) {
    const keys: number[] = [];
    object.forEach(0, (entry) => keys.push(entry[3]));
    return keys;
  },
  locksHeld: (object) => object.locksHeld(),
};

const bindings: Table<NatBinding> = {
  definition: natBinding({
    addresses: [0x010200c0],
    flows: 32,
    portRange: { first: 2000, last: 2019 },
    allocation: 'shared',
  }),
  hash: (object, key) => object.hash(key, PORT),
  add: (object, key, now, seconds) => object.add(object.hash(key, PORT), key, PORT, now, now + seconds) !== NONE,
  sweep: (object, now) => object.sweep(now, SLOTS),
  has: (object, key, now) => object.findOutbound(object.hash(key, PORT), key, PORT, now) !== NONE,
  keys: (object) => entriesOf(object, 0).map((entry) => entry.internalAddress),
  locksHeld: (object) => object.locksHeld(),
};

const elements: Table<SharedSet> = {
  definition: growSet({ capacity: 32, keyWords: 1 }),
  hash: (object, key) => object.hash(Int32Array.of(key), 0),
  add(object, key, now, seconds) {
    const words = Int32Array.of(key);
    return object.add(object.hash(words, 0), words, 0, now, now + seconds);
  },
  sweep: (object, now) => object.sweep(now, SLOTS),
  has(object, key, now) {
    const words = Int32Array.of(key);
    return object.has(object.hash(words, 0), words, 0, now);
  },
  keys(object) {
    const keys: number[] = [];
    object.forEach(0, (key) => keys.push(key[0]));
    return keys;
  },
  locksHeld: (object) => object.locksHeld(),
};

/** Two workers; the first dies at a chosen step. */
class World<T extends StateObject> {
  readonly region: Region;
  readonly mortal: T;
  readonly other: T;
  readonly countdown = new Countdown();
  private readonly journals = createJournals(2);
  readonly ring = createLogRing(1 << 12);
  private readonly table: Table<T>;

  constructor(table: Table<T>) {
    this.table = table;
    this.region = new Region(new SharedArrayBuffer(table.definition.bytes));
    this.mortal = this.open(1, this.countdown);
    this.other = this.open(2, new Countdown());
  }

  private open(id: number, countdown: Countdown): T {
    const log = new DyingLog(id === 1 ? this.ring : createLogRing(1 << 12), countdown);
    return this.table.definition.open({
      id: ID,
      region: this.region,
      secret: Int32Array.of(1, 2, 3, 4),
      writer: { id, journal: new DyingJournal(this.journals, id, countdown), log },
      memberIndex: 0,
      memberCount: 1,
    });
  }

  /** The `n`th key whose home is this slot. */
  key(home: number, n: number): number {
    for (let key = 1, seen = 0; ; key++)
      if ((this.table.hash(this.mortal, key) & (SLOTS - 1)) === home && seen++ === n) return key;
  }

  /** Whether the first worker died of it. */
  dies(step: number, act: (object: T) => void): boolean {
    this.countdown.set(step);
    try {
      act(this.mortal);
      return false;
    } catch (error) {
      if (!(error instanceof Death)) throw error;
      return true;
    } finally {
      this.countdown.clear();
    }
  }

  recover(): void {
    this.other.recover(1, new Journal(this.journals, 1), committedPosition(this.ring));
    recoverLog(this.ring);
  }
}

interface Scenario {
  readonly name: string;
  prepare<T extends StateObject>(table: Table<T>, world: World<T>): void;
  dying<T extends StateObject>(table: Table<T>, world: World<T>, object: T): void;
  /** What the other worker does between death and recovery: the key it adds, or tries to. */
  between<T extends StateObject>(world: World<T>): number;
}

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'a new entry in a slot never used, over which another is put',
    prepare: (table, world) => assert.ok(table.add(world.other, world.key(9, 0), NOW, 60)),
    dying: (table, world, object) => table.add(object, world.key(10, 0), NOW, 60),
    between: (world) => world.key(9, 1),
  },
  {
    name: 'a new entry in the slot of one that is over, which is added anew elsewhere',
    prepare(table, world) {
      assert.ok(table.add(world.other, world.key(10, 0), LONG_AGO, 1000));
      assert.ok(table.add(world.other, world.key(10, 1), LONG_AGO, 10));
    },
    dying: (table, world, object) => table.add(object, world.key(11, 0), NOW, 60),
    between: (world) => world.key(10, 1),
  },
  {
    name: 'reclaiming an entry, which is added anew',
    prepare(table, world) {
      assert.ok(table.add(world.other, world.key(10, 0), LONG_AGO, 1000));
      assert.ok(table.add(world.other, world.key(10, 1), LONG_AGO, 10));
    },
    dying: (table, _world, object) => table.sweep(object, NOW),
    between: (world) => world.key(10, 1),
  },
  {
    name: 'putting a half-open entry out, which is added anew',
    prepare(table, world) {
      for (let n = 0; n < QUOTA; n++) assert.ok(table.add(world.other, world.key(10, n), NOW, 60 + n));
    },
    dying: (table, world, object) => table.add(object, world.key(10, QUOTA), NOW, 90),
    between: (world) => world.key(10, 0),
  },
];

function check<T extends StateObject>(name: string, table: Table<T>): void {
  describe(`${name}, another writer at work between a writer's death and its recovery`, () => {
    for (const scenario of SCENARIOS)
      it(`has every key once and within reach: ${scenario.name}`, () => {
        for (let step = 1; ; step++) {
          const world = new World(table);
          const { other } = world;
          scenario.prepare(table, world);
          const died = world.dies(step, (object) => scenario.dying(table, world, object));
          const key = scenario.between(world);
          const added = table.add(other, key, NOW, 60);
          world.recover();
          assert.equal(table.locksHeld(other), 0, `step ${step}`);
          if (added) assert.ok(table.has(other, key, NOW), `step ${step}: what was added is out of reach`);
          // Again, so that a key out of reach is put in twice.
          assert.ok(table.add(other, key, NOW, 60), `step ${step}`);
          const keys = table.keys(other);
          assert.equal(new Set(keys).size, keys.length, `step ${step}: a key is twice in the table`);
          if (!died) {
            assert.ok(step > 5);
            break;
          }
        }
      });
  });
}

describe('flow table, read while a writer is at work on a current entry', () => {
  const ENTRY = Int32Array.of(5, NOW, 0, NOW + 60, 1);
  const given = (object: FlowTable, ...words: number[]): Applied =>
    object.apply(FLOW_PUT, Int32Array.from(words), 0, words.length, 9, NOW);
  /** Generation, rank, expiry and value of the entry; null if a reader does not find it. */
  function found(object: FlowTable): number[] | null {
    const slot = object.find(object.hash(ENTRY, 0), ENTRY, 0, NOW);
    if (slot === NONE) return null;
    return [object.generation(slot), object.rank(slot), object.expires(slot), object.value(slot, 0)];
  }

  for (const [name, ...record] of [
    ['a later expiry', 5, NOW, 0, NOW + 90, 1],
    ['a larger value', 5, NOW, 0, NOW + 60, 7],
    ['a larger rank', 5, NOW, 2, NOW + 10, 1],
    ['a new generation', 5, NOW + 1, 0, NOW + 60, 0],
  ] as const)
    it(`has it all the time: a record with ${name}`, () => {
      for (let step = 1; ; step++) {
        const world = new World(flows);
        given(world.other, ...ENTRY);
        const died = world.dies(step, (object) => given(object, ...record));
        assert.notEqual(found(world.other), null, `step ${step}`);
        world.recover();
        assert.equal(world.other.locksHeld(), 0);
        const [, ...after] = [ENTRY, record].find(([, ...words]) => `${words}` === `${found(world.other)}`) ?? [];
        assert.equal(after.length, 4, `step ${step}: one or the other`);
        if (!died) return assert.ok(step > 5 && `${after}` === `${record.slice(1)}`);
      }
    });

  it('has a half-open value replaced whole or not at all, as its log says', () => {
    for (let step = 1; ; step++) {
      const world = new World(flows);
      given(world.other, ...ENTRY);
      const slot = world.other.find(world.other.hash(ENTRY, 0), ENTRY, 0, NOW);
      const died = world.dies(step, (object) => object.replaceValue(slot, Int32Array.of(6), 0, NOW));
      assert.notEqual(found(world.other), null, `step ${step}`);
      world.recover();
      const isLogged = committedPosition(world.ring) > 0;
      assert.deepEqual(found(world.other), [NOW, 0, NOW + 60, isLogged ? 6 : 1], `step ${step}`);
      assert.equal(world.other.locksHeld(), 0);
      if (!died) return assert.ok(step > 5 && isLogged);
    }
  });
});

check('flow table', flows);
check('nat binding', bindings);
check('set', elements);

describe("nat binding, another writer at work between a writer's death and its recovery", () => {
  it('leaves a flow dead that was put where the dead writer had marked one as dead', () => {
    for (let step = 1; ; step++) {
      const world = new World(bindings);
      const { other } = world;
      const record = (object: NatBinding, key: number, port: number): number => {
        const words = Int32Array.of(key, PORT, 0x010200c0, port, NOW, 0xf0_0000 << 8, NOW + 60);
        return object.apply(NAT_BIND, words, 0, words.length, 9, NOW);
      };
      const [over, key, winner, taker] = [world.key(10, 0), world.key(10, 1), 0x7000_0001, 0x7000_0002];
      assert.ok(bindings.add(other, over, LONG_AGO, 10));
      const [{ externalPort }] = entriesOf(other, 0);
      const died = world.dies(step, (object) => record(object, taker, externalPort));
      if (bindings.add(other, key, NOW, 60)) {
        const [own] = entriesOf(other, NOW, (entry) => entry.internalAddress === key);
        // Somebody else has its port too, and wins.
        assert.equal(record(other, winner, own.externalPort), Applied.CHANGED);
      }
      world.recover();
      for (const { internalAddress, externalPort } of entriesOf(other, NOW, ({ dead }) => !dead)) {
        const slot = other.findOutbound(other.hash(internalAddress, PORT), internalAddress, PORT, NOW);
        assert.equal(other.findInbound((1 << 16) | externalPort, NOW), slot, `step ${step}: a port has two owners`);
      }
      if (!died) {
        assert.ok(step > 5);
        break;
      }
    }
  });
});
