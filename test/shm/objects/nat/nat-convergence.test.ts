import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { DELIVERY_S_MAX, REMEMBERED_S } from '../../../../shm/clock.js';
import { NONE } from '../../../../shm/none.js';
import { Applied, type StateDefinition } from '../../../../shm/objects/core/object.js';
import {
  type Allocation,
  type NatBinding,
  natBinding,
  portAndProtocol,
  Rank,
} from '../../../../shm/objects/nat/nat-binding.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { scaled } from '../../../support/scale.js';
import { Replica, type TestRecord } from '../replica.js';
import { entriesOf, NatModel, validEntries } from './nat-model.js';

const UDP = 17;
const START = 70_000_000;
const EXTERNAL = 0x010200c0;
const LIFETIME = 300;

const swap = (port: number): number => ((port & 0xff) << 8) | (port >>> 8);

/**
 * Few ports and few hosts, so that everything that can collide does; but no want of ports, for
 * which sites evict bindings.
 */
function definitionOf(allocation: Allocation): StateDefinition<NatBinding> {
  return natBinding({ addresses: [EXTERNAL], flows: 40, portRange: { first: 2000, last: 2019 }, allocation });
}
const definition = definitionOf('shared');

type Action =
  | { readonly do: 'packet'; readonly site: number; readonly host: number; readonly rank: number }
  | { readonly do: 'renew'; readonly site: number; readonly host: number }
  | { readonly do: 'deliver'; readonly site: number; readonly count: number; readonly coalesce: boolean }
  | { readonly do: 'wait'; readonly seconds: number };

/** Members that choose ports in different ways are compatible. */
const allocations = fc.constantFrom<readonly Allocation[]>(
  ['shared', 'shared', 'shared'],
  ['keyed', 'keyed', 'keyed'],
  ['shared', 'keyed', 'leased'],
);
const site = fc.nat({ max: 2 });
const host = fc.nat({ max: 7 });

function actions(waitMax: number): fc.Arbitrary<Action[]> {
  return fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant('packet' as const), site, host, rank: fc.nat({ max: 3 }) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('renew' as const), site, host }) },
      {
        weight: 3,
        arbitrary: fc.record({
          do: fc.constant('deliver' as const),
          site,
          count: fc.nat({ max: 5 }),
          coalesce: fc.boolean(),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.integer({ min: 1, max: waitMax }) }),
      },
    ),
    { maxLength: 80 },
  );
}

/** Merges what can be merged, as the send thread does with what is waiting. */
function coalesced(object: NatBinding, records: readonly TestRecord[]): TestRecord[] {
  const out: { op: number; words: Int32Array; key: number }[] = [];
  for (const { op, words } of records) {
    const both = Int32Array.from([...words, ...words]);
    const key = object.coalesceKey(op, both, 0, words.length);
    const merged = out.some((earlier) => {
      both.set(earlier.words, 0);
      if (earlier.key !== key || !object.coalesce(op, both, 0, words.length, words.length)) return false;
      earlier.words = both.slice(0, words.length);
      return true;
    });
    if (!merged) out.push({ op, words: Int32Array.from(words), key });
  }
  return out.map(({ op, words }) => ({ op, words: [...words] }));
}

interface Undelivered {
  readonly record: TestRecord;
  readonly said: number;
}

class Cluster {
  readonly sites: readonly Replica<NatBinding>[];
  readonly model = new NatModel();
  now = START;
  /** What each site has yet to hear, in the order it was said, and when that was. */
  private readonly undelivered: Undelivered[][] = [[], [], []];
  private draw: number;

  /** `allocations`: how each member chooses ports. */
  constructor(seed: number, allocations: readonly Allocation[]) {
    this.draw = seed;
    this.sites = allocations.map((allocation, i) => new Replica(definitionOf(allocation), i, 3));
  }

  private random(below: number): number {
    this.draw = (Math.imul(this.draw, 1664525) + 1013904223) | 0;
    return (this.draw >>> 8) % below;
  }

  act(action: Action): void {
    if (action.do === 'wait') this.wait(action.seconds);
    else if (action.do === 'deliver') this.deliver(action.site, action.count, action.coalesce);
    else {
      const { object } = this.sites[action.site];
      const key = portAndProtocol(swap(2000 + action.host), UDP);
      const hash = object.hash(action.host, key);
      let slot = object.findOutbound(hash, action.host, key, this.now);
      if (action.do === 'renew') {
        if (slot !== NONE) object.renew(slot, this.now, LIFETIME);
      } else {
        if (slot === NONE) slot = object.add(hash, action.host, key, this.now, this.now + LIFETIME);
        if (slot !== NONE) object.refresh(slot, action.rank, this.now, LIFETIME >> object.rank(slot));
      }
      this.collect(action.site);
      this.check(object);
    }
  }

  /** Time passes; what would get later than `DELIVERY_S_MAX` is delivered before. */
  private wait(seconds: number): void {
    for (let site = 0; site < 3; site++) {
      const isDue = ({ said }: Undelivered): boolean => said + DELIVERY_S_MAX < this.now + seconds;
      const due = this.undelivered[site].filter(isDue);
      this.undelivered[site] = this.undelivered[site].filter((one) => !isDue(one));
      while (due.length > 0) this.apply(site, due.splice(this.random(due.length), 1)[0].record);
    }
    this.now += seconds;
    for (const { object } of this.sites) object.sweep(this.now, 40);
  }

  private apply(site: number, record: TestRecord): void {
    const applied = this.sites[site].apply(record, this.now);
    assert.ok(applied === Applied.CHANGED || applied === Applied.UNCHANGED);
    this.check(this.sites[site].object);
  }

  private collect(site: number): void {
    for (const record of this.sites[site].drain()) {
      this.model.join(record);
      this.undelivered.forEach((queue, i) => {
        if (i !== site) queue.push({ record, said: this.now });
      });
    }
  }

  /** Delivers some of what a site is owed, in any order, some of it twice. */
  private deliver(site: number, count: number, coalesce: boolean): void {
    const replica = this.sites[site];
    const queue = this.undelivered[site];
    if (coalesce) {
      const said = Math.min(...queue.map((one) => one.said));
      const merged = coalesced(
        replica.object,
        queue.map(({ record }) => record),
      );
      queue.length = 0;
      queue.push(...merged.map((record) => ({ record, said })));
    }
    for (let i = 0; i < count && queue.length > 0; i++) {
      const at = this.random(queue.length);
      const [one] = queue.splice(at, 1);
      if (this.random(4) === 0) queue.push(one);
      this.apply(site, one.record);
    }
  }

  settle(): void {
    for (let site = 0; site < 3; site++)
      while (this.undelivered[site].length > 0) this.deliver(site, this.undelivered[site].length, this.random(2) === 0);
  }

  /** At any moment: no port has two owners, and both directions agree. */
  check(object: NatBinding): void {
    const taken = new Set<number>();
    for (const entry of entriesOf(object, this.now, ({ dead }) => !dead)) {
      assert.ok(!taken.has(entry.externalPort), `port ${entry.externalPort} has two owners`);
      taken.add(entry.externalPort);
      const key = portAndProtocol(swap(entry.internalPort), UDP);
      const hash = object.hash(entry.internalAddress, key);
      const slot = object.findOutbound(hash, entry.internalAddress, key, this.now);
      assert.notEqual(slot, NONE);
      assert.equal(object.findInbound(object.place(EXTERNAL, swap(entry.externalPort), UDP), this.now), slot);
    }
  }
}

describe('nat binding at several sites', () => {
  it('converges to the fold of all records, whatever their order, repetition and coalescing', () => {
    fc.assert(
      fc.property(actions(20), fc.integer(), allocations, (list, seed, how) => {
        const cluster = new Cluster(seed, how);
        for (const action of list) cluster.act(action);
        cluster.settle();
        const expected = cluster.model.valid(cluster.now);
        for (const { object } of cluster.sites) {
          cluster.check(object);
          assert.deepEqual(validEntries(object, cluster.now, swap), expected);
          assert.equal(object.digest(cluster.now, true), cluster.sites[0].object.digest(cluster.now, true));
        }
      }),
      { numRuns: scaled(150, 400) },
    );
  });

  it('converges while entries are forgotten and ports reused, as long as records are late by `DELIVERY_S_MAX` at most', () => {
    fc.assert(
      fc.property(actions(400), fc.integer(), allocations, (list, seed, how) => {
        const cluster = new Cluster(seed, how);
        for (const action of list) cluster.act(action);
        cluster.settle();
        for (const { object } of cluster.sites) {
          cluster.check(object);
          assert.deepEqual(validEntries(object, cluster.now, swap), cluster.model.valid(cluster.now));
          assert.equal(object.digest(cluster.now, true), cluster.sites[0].object.digest(cluster.now, true));
        }
      }),
      { numRuns: scaled(150, 400) },
    );
  });

  describe('that hear of a binding late', () => {
    const host = 5;
    const key = portAndProtocol(swap(2000), UDP);
    /** A binding that was established for two hours, and is closing at once. */
    const said = (): TestRecord[] => {
      const replica = new Replica(definition);
      const { object } = replica;
      const slot = object.add(object.hash(host, key), host, key, START, START + 240);
      assert.ok(
        object.refresh(slot, Rank.ESTABLISHED, START + 1, 7440) && object.refresh(slot, Rank.CLOSING, START + 2, 240),
      );
      return replica.drain();
    };

    it('do not revive it, in whatever order they hear it', () => {
      const [bound, established, closing] = said();
      const end = idleExpiry(START + 2, 240);
      for (const late of [end + 1, end + REMEMBERED_S - 1]) {
        const replica = new Replica(definition);
        const { object } = replica;
        const apply = (record: TestRecord): Applied => replica.apply(record, late);
        assert.equal(apply(closing), Applied.CHANGED, 'expired already, and good to know');
        object.sweep(late, 1000);
        assert.equal(apply(established), Applied.UNCHANGED);
        assert.equal(apply(bound), Applied.UNCHANGED);
        assert.deepEqual(validEntries(object, late, swap), []);
        object.sweep(end + REMEMBERED_S, 1000);
        assert.equal(object.describe(late)['used'], 0, 'and then it is forgotten');
      }
    });

    it('free its port once the guard is over, and forget it early when there is no room', () => {
      const one = natBinding({
        addresses: [EXTERNAL],
        flows: 1,
        portRange: { first: 2000, last: 2000 },
        allocation: 'shared',
      });
      const { object } = new Replica(one);
      assert.ok(
        object.refresh(object.add(object.hash(1, key), 1, key, START, START + 10), Rank.ESTABLISHED, START, 10),
      );
      assert.equal(object.add(object.hash(2, key), 2, key, idleExpiry(START, 10) + 1, START + 90), NONE);
      assert.notEqual(object.add(object.hash(2, key), 2, key, idleExpiry(START, 10) + 2, START + 90), NONE);
      assert.equal(object.describe(START)['used'], 1);
    });
  });

  it('believes a member that has started again without its state, on the ports it had before', () => {
    const ports = natBinding({
      addresses: [EXTERNAL],
      flows: 2000,
      portRange: { first: 3000, last: 3099 },
      allocation: 'shared',
    });
    const other = new Replica(ports, 1, 2);
    let now = START;
    const bindAll = (member: Replica<NatBinding>, from: number): void => {
      const key = portAndProtocol(swap(3000), UDP);
      for (let n = from; n < from + 100; n++)
        assert.notEqual(member.object.add(member.object.hash(n, key), n, key, now, now + 60), NONE);
      for (const record of member.drain()) other.apply(record, now);
    };
    const before = new Replica(ports, 0, 2);
    for (let life = 0; life < 20; life++, now += 64) bindAll(before, 10_000 - life * 100);
    // Smaller keys than before: it is the generation that decides.
    const after = new Replica(ports, 0, 2);
    bindAll(after, 1);
    assert.equal(validEntries(other.object, now, swap).length, 100);
    assert.equal(after.object.digest(now, true), other.object.digest(now, true));
  });

  it('gives a port two sites took to the larger endpoint at both, and tells the loser to take another', () => {
    const one = natBinding({
      addresses: [EXTERNAL],
      flows: 10,
      portRange: { first: 3000, last: 3000 },
      allocation: 'shared',
    });
    const two = [new Replica(one, 0, 2), new Replica(one, 1, 2)];
    const key = portAndProtocol(swap(3000), UDP);
    const hosts = [0x0100000a, 0x0200000a];
    const find = (at: number, host: number): number =>
      two[at].object.findOutbound(two[at].object.hash(host, key), host, key, START);
    hosts.forEach((h, i) => {
      assert.notEqual(two[i].object.add(two[i].object.hash(h, key), h, key, START, START + 60), NONE);
    });
    const records = two.map((replica) => replica.drain());
    assert.equal(two[0].apply(records[1][0], START), Applied.CHANGED);
    assert.equal(two[1].apply(records[0][0], START), Applied.CHANGED);
    for (let at = 0; at < 2; at++) {
      const { object } = two[at];
      assert.equal(find(at, hosts[0]), NONE, 'the smaller is dead');
      const winner = find(at, hosts[1]);
      assert.notEqual(winner, NONE);
      assert.equal(object.findInbound(object.place(EXTERNAL, swap(3000), UDP), START), winner);
      assert.equal(object.describe(START)['collisions'], 1);
      assert.equal(object.digest(START, true), two[0].object.digest(START, true));
    }
  });
});
