import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { NONE } from '../../../../shm/none.js';
import type { StateDefinition, StateObject } from '../../../../shm/objects/core/object.js';
import { counterCells } from '../../../../shm/objects/counting/counter-cells.js';
import { counter, counterVector } from '../../../../shm/objects/counting/counters.js';
import { type FlowTable, flowTable } from '../../../../shm/objects/flow/flow-table.js';
import { graph } from '../../../../shm/objects/graph/graph.js';
import {
  NAT_BIND,
  type NatBinding,
  natBinding,
  portAndProtocol,
  Rank,
} from '../../../../shm/objects/nat/nat-binding.js';
import { type PortPool, portPool } from '../../../../shm/objects/ports/port-pool.js';
import { largest, lastWriter, smallest } from '../../../../shm/objects/sets/register.js';
import { growSet, removeSet } from '../../../../shm/objects/sets/shared-set.js';
import { bloom } from '../../../../shm/objects/sketch/bloom.js';
import { countMin } from '../../../../shm/objects/sketch/count-min.js';
import { countingBloom } from '../../../../shm/objects/sketch/counting-bloom.js';
import { hyperLogLog } from '../../../../shm/objects/sketch/hyperloglog.js';
import { type KeyedHyperLogLogs, keyedHyperLogLogs } from '../../../../shm/objects/sketch/keyed-hyperloglogs.js';
import { type Message, Site } from '../site.js';

const NOW = 70_000_000;
const SITES = 3;
const EXTERNAL = 0x010200c0;
const UDP = 17;
const acts = fc.array(fc.record({ site: fc.nat(SITES - 1), key: fc.nat(9), n: fc.nat(50) }), { maxLength: 40 });
type Act = { site: number; key: number; n: number };

/**
 * The halves of a partition, each with its own changes, merge in some grouping: all end the same,
 * as one that heard all records does, and once is enough.
 */
function mergesAlike<T extends StateObject>(
  definition: StateDefinition<T>,
  act: (object: T, act: Act, now: number) => void,
  digest: (object: T, now: number) => string,
): void {
  fc.assert(
    fc.property(acts, fc.shuffledSubarray([0, 1, 2], { minLength: 3 }), fc.nat(SITES - 1), (changes, order, early) => {
      const sites = Array.from({ length: SITES }, (_, i) => new Site(definition, i, SITES, 1, 1 << 14));
      const said: { message: Message; origin: number }[] = [];
      const now = NOW + changes.length;
      for (const [i, change] of changes.entries()) {
        act(sites[change.site].workers[0], change, NOW + i);
        for (const message of sites[change.site].flush()) {
          said.push({ message, origin: change.site });
          // Halves that heard of each other in part.
          if (i % 3 === 0 && early !== change.site) sites[early].apply(message, change.site, NOW + i);
        }
      }
      const [a, b, c] = order.map((i) => sites[i]);
      b.receiver.merge?.(c.region, now);
      a.receiver.merge?.(b.region, now);
      b.receiver.merge?.(a.region, now);
      c.receiver.merge?.(a.region, now);
      assert.equal(c.receiver.merge?.(b.region, now), 0);
      const replicated = new Site(definition, 0, SITES, 1);
      for (const { message, origin } of said.toReversed()) replicated.apply(message, origin, now);
      for (const site of [...sites, replicated]) {
        assert.equal(digest(site.receiver, now), digest(a.receiver, now));
        assert.equal(site.receiver.describe(now)['malformed'], 0);
      }
    }),
    { numRuns: 60 },
  );
}

describe('merging the halves of a healed partition', () => {
  it('keyed HyperLogLogs', () => {
    const key = new Int32Array(1);
    const thing = new Int32Array(2);
    mergesAlike(
      keyedHyperLogLogs({ capacity: 64, keyWords: 1, sketches: 2, epochSeconds: 10, quiet: 0 }),
      (object: KeyedHyperLogLogs, { key: k, n }, now) => {
        // A key's first thing is told of with its second, and lost where another tells first: so
        // each comes again.
        for (let i = 0; i < 3; i++) {
          key[0] = k;
          thing[0] = n + 1000 * (i % 2);
          object.add(object.hash(key, 0), key, 0, n % 2, thing, 0, 2, now);
        }
      },
      (object, now) => object.digest(now),
    );
  });

  it('flow table', () => {
    const key = new Int32Array(3);
    const value = new Int32Array(2);
    mergesAlike(
      flowTable({ capacity: 40, keyWords: 3, valueWords: 2, halfOpen: 40 }),
      (table: FlowTable, { key: k, n }, now) => {
        key.set([k, ~k, 7]);
        value.set([n, k]);
        const hash = table.hash(key, 0);
        const slot = table.find(hash, key, 0, now);
        if (slot === NONE) assert.ok(table.add(hash, key, 0, value, 0, n % 3, now, now + 100 + n) !== NONE);
        else if (n % 2 === 0) table.renew(slot, value, 0, n % 3, now, 100 + n);
        else table.refresh(slot, n % 4, now, 100 + n);
      },
      (table, now) => table.digest(now, true),
    );
  });

  describe('nat binding', () => {
    /** Few ports, so that bindings collide and die. */
    const definition = natBinding({
      addresses: [EXTERNAL],
      flows: 40,
      // So many that no half-open binding is evicted for its port, which each instance does for
      // itself.
      portRange: { first: 2048, last: 2175 },
      halfOpen: 40,
      allocation: 'shared',
    });

    it('like all its records', () => {
      mergesAlike(
        definition,
        (object: NatBinding, { key: host, n }, now) => {
          const key = portAndProtocol(n % 2, UDP);
          const hash = object.hash(host, key);
          const slot = object.findOutbound(hash, host, key, now);
          if (slot === NONE) object.add(hash, host, key, now, now + 100 + n);
          else if (n % 3 === 0) object.renew(slot, now, 100 + n);
          else object.refresh(slot, n % 4, now, 100 + n);
        },
        (object, now) => object.digest(now, true),
      );
    });

    it('counts what finds no room, and joins the rest', () => {
      const small = natBinding({ addresses: [EXTERNAL], flows: 10, allocation: 'shared' });
      const [here, there] = [0, 1].map((i) => new Site(small, i, 2, 1));
      const bind = (site: Site<NatBinding>, host: number): void => {
        const words = Int32Array.of(
          host,
          portAndProtocol(7, UDP),
          EXTERNAL,
          2000 + host,
          NOW,
          (9 << 8) | Rank.ESTABLISHED,
          NOW + 90,
        );
        site.receiver.apply(NAT_BIND, words, 0, words.length, 1, NOW);
      };
      // A table for 10 flows has 64 slots, all of which others may fill.
      for (let host = 0; host < 60; host++) bind(here, host);
      for (let host = 30; host < 90; host++) bind(there, host);
      here.receiver.merge(there.region, NOW);
      const { table_full: full, used } = here.receiver.describe(NOW);
      assert.equal(used, 64);
      assert.equal(full, 26);
      assert.equal(here.receiver.locksHeld(), 0);
    });

    it('counts what is no binding', () => {
      const [here, there] = [0, 1].map((i) => new Site(definition, i, 2, 1));
      const { workers, region } = there;
      const slot = workers[0].add(
        workers[0].hash(5, portAndProtocol(1, UDP)),
        5,
        portAndProtocol(1, UDP),
        NOW,
        NOW + 90,
      );
      // Every word that looks like its expiry.
      const words = region.i32();
      words.forEach((word, i) => {
        if (word === workers[0].expires(slot)) words[i] = 0x7fff_ffff;
      });
      here.receiver.merge(region, NOW);
      assert.equal(here.receiver.describe(NOW)['malformed'], 1);
      assert.equal(here.receiver.describe(NOW)['used'], 0);
    });
  });

  it('port pool', () => {
    mergesAlike(
      portPool({ protocols: 1, addresses: 1 }),
      (pool: PortPool, { key, n }, now) => {
        if (!pool.acquire(1000 + key, 1 + (n % 5), 9, now)) pool.release(1000 + key, 1 + (n % 5), 9, now);
      },
      (pool) => pool.digest(),
    );
  });

  it('is there for every kind of object', () => {
    const kinds: StateDefinition[] = [
      bloom({ capacity: 10 }),
      counter(),
      counterCells({ cells: 4, form: 'increments' }),
      counterVector({ length: 3 }),
      countingBloom({ capacity: 10 }),
      countMin(),
      flowTable({ capacity: 4, keyWords: 2, valueWords: 1 }),
      graph({ edges: 8 }),
      growSet({ capacity: 4, keyWords: 1 }),
      hyperLogLog(),
      largest(),
      lastWriter({ valueWords: 1 }),
      natBinding({ addresses: [EXTERNAL], flows: 8, allocation: 'leased' }),
      portPool({ protocols: 1, addresses: 1 }),
      removeSet({ capacity: 4, keyWords: 1 }),
      smallest(),
    ];
    for (const definition of kinds) {
      const [here, there] = [0, 1].map((i) => new Site(definition, i, 2, 1));
      const { merge } = here.receiver;
      assert.ok(merge !== undefined, definition.kind);
      assert.equal(here.receiver.merge?.(there.region, NOW), 0, definition.kind);
    }
  });
});
