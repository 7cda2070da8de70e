import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { NONE } from '../../../shm/none.js';
import { type FlowTable, flowTable } from '../../../shm/objects/flow-table.js';
import type { StateDefinition, StateObject } from '../../../shm/objects/object.js';
import { type PortPool, portPool } from '../../../shm/objects/port-pool.js';
import { Site } from './site.js';

const NOW = 70_000_000;
const SITES = 3;
const acts = fc.array(fc.record({ site: fc.nat(SITES - 1), key: fc.nat(9), n: fc.nat(50) }), { maxLength: 40 });
type Act = { site: number; key: number; n: number };

/** The halves of a partition, each with its own changes, merge in some grouping: all end the same, and once is enough. */
function mergesAlike<T extends StateObject>(
  definition: StateDefinition<T>,
  act: (object: T, act: Act, now: number) => void,
  digest: (object: T, now: number) => string,
): void {
  fc.assert(
    fc.property(acts, fc.shuffledSubarray([0, 1, 2], { minLength: 3 }), (changes, order) => {
      const sites = Array.from({ length: SITES }, (_, i) => new Site(definition, i, SITES, 1, 1 << 14));
      for (const [i, change] of changes.entries()) act(sites[change.site].workers[0], change, NOW + i);
      const now = NOW + changes.length;
      const [a, b, c] = order.map((i) => sites[i]);
      b.receiver.merge?.(c.region, now);
      a.receiver.merge?.(b.region, now);
      b.receiver.merge?.(a.region, now);
      c.receiver.merge?.(a.region, now);
      assert.equal(c.receiver.merge?.(b.region, now), 0);
      for (const site of sites) {
        assert.equal(digest(site.receiver, now), digest(a.receiver, now));
        assert.equal(site.receiver.describe(now)['malformed'], 0);
      }
    }),
    { numRuns: 200 },
  );
}

describe('merging the halves of a healed partition', () => {
  it('flow table', () => {
    const key = new Int32Array(3);
    const value = new Int32Array(2);
    mergesAlike(
      flowTable({ capacity: 40, keyWords: 3, valueWords: 2 }),
      (table: FlowTable, { key: k, n }, now) => {
        key.set([k, ~k, 7]);
        value.set([n, k]);
        const hash = table.hash(key, 0);
        const slot = table.find(hash, key, 0, now);
        if (slot === NONE) assert.ok(table.add(hash, key, 0, value, 0, n % 3, now, now + 100 + n) !== NONE);
        else if (n % 2 === 0) table.renew(slot, value, 0, n % 3, now, 100 + n);
        else table.refresh(slot, n % 4, now, 100 + n);
      },
      (table, now) => table.digest(now),
    );
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
});
