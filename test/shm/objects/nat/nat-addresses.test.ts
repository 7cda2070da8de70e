/** NAT bindings of instances whose lists of external addresses differ. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { layoutArena } from '../../../../shm/arena.js';
import { NONE } from '../../../../shm/none.js';
import type { StateDefinition } from '../../../../shm/objects/core/object.js';
import { type NatBinding, natBinding, portAndProtocol, Refusal } from '../../../../shm/objects/nat/nat-binding.js';
import { formatAddress } from '../../../../shm/objects/ports/external-places.js';
import { scaled } from '../../../support/scale.js';
import { Replica } from '../replica.js';
import { Site } from '../site.js';

const NOW = 70_000_000;
const UDP = 17;
/** 203.0.113.n as it lies in a packet; some above and some below as signed words. */
const external = (n: number): number => (n << 24) | (113 << 16) | 203 | 0;
const define = (
  addresses: readonly number[],
  flows = 100,
  allocation: 'leased' | 'keyed' = 'leased',
): StateDefinition<NatBinding> =>
  natBinding({ addresses, flows, allocation, pooling: 'paired', halfOpen: flows, halfOpenRecords: 1 << 20 });

function bind(object: NatBinding, host: number, port: number, now = NOW): number {
  const key = portAndProtocol(port, UDP);
  const hash = object.hash(host, key);
  const slot = object.findOutbound(hash, host, key, now);
  if (slot === NONE) return object.add(hash, host, key, now, now + 300);
  object.refresh(slot, 2, now, 300);
  return slot;
}

const shapeOf = (definition: StateDefinition) => definition.shape ?? assert.fail();

describe('nat bindings where lists of external addresses differ', () => {
  const common = [external(1), external(200)];
  const more = fc.uniqueArray(fc.integer({ min: 2, max: 199 }).map(external), { maxLength: 3 });
  const acts = fc.array(
    fc.record({ site: fc.nat(1), host: fc.integer({ min: 1, max: 12 }), port: fc.integer({ min: 1, max: 3 }) }),
    { maxLength: 30 },
  );

  it('converge, while new bindings have only addresses that all have; and a region is taken over whole', () => {
    fc.assert(
      fc.property(more, more, fc.boolean(), acts, (here, there, reversed, changes) => {
        const lists = [
          [...common, ...here],
          [...there, ...(reversed ? common.toReversed() : common)],
        ];
        const definitions = lists.map((list, i) => define(list, 100 + 50 * i));
        const meanings = definitions.map((definition) => layoutArena([{ name: 'nat', ...definition }]).meaning);
        assert.deepEqual(meanings[0], meanings[1]);
        const sites = definitions.map((definition, i) => new Site(definition, i, 3, 1, 1 << 14));
        for (const [i, site] of sites.entries())
          for (const object of [site.receiver, site.workers[0]]) object.heedShapes([shapeOf(definitions[1 - i])]);
        for (const [i, { site, host, port }] of changes.entries()) {
          const object = sites[site].workers[0];
          const slot = bind(object, host, port, NOW + i);
          assert.notEqual(slot, NONE);
          assert.ok(lists[1 - site].includes(object.externalAddress(slot)), 'an address that the other has');
          for (const message of sites[site].flush()) sites[1 - site].apply(message, site, NOW + i);
        }
        const now = NOW + changes.length;
        const [a, b] = sites.map(({ receiver }) => receiver);
        assert.equal(a.digest(now, true), b.digest(now, true));
        for (const object of [a, b])
          assert.deepEqual([object.describe(now)['foreign_address'], object.describe(now)['malformed']], [0, 0]);
        const joiner = new Site(definitions[1], 2, 3, 1);
        joiner.receiver.heedShapes([shapeOf(definitions[0])]);
        const source = { shape: shapeOf(definitions[0]), full: 0 };
        joiner.receiver.merge(sites[0].region, now, source);
        assert.equal(source.full, 0);
        assert.equal(joiner.receiver.digest(now, true), a.digest(now, true));
      }),
      { numRuns: scaled(3, 30) },
    );
  });

  it('count records and entries of an address that is not theirs, and keep the others', () => {
    const [wide, narrow] = [define([external(1), external(9)]), define([external(1)])];
    const [donor, other] = [new Site(wide, 0, 2, 1, 1 << 14), new Site(narrow, 1, 2, 1)];
    let foreign = 0;
    const HOSTS = 40;
    for (let host = 1; host <= HOSTS; host++) {
      bind(donor.workers[0], host, 7);
      // Established: a half-open one is nobody's loss.
      const slot = bind(donor.workers[0], host, 7);
      if (donor.workers[0].externalAddress(slot) === external(9)) foreign++;
    }
    assert.ok(foreign > 5 && foreign < HOSTS - 5, `${foreign} of the address that the other lacks`);
    for (const message of donor.flush()) other.apply(message, 0, NOW);
    assert.equal(other.receiver.describe(NOW)['foreign_address'], foreign);
    assert.equal(other.receiver.describe(NOW)['used'], HOSTS - foreign);
    const joiner = new Site(narrow, 1, 2, 1);
    const source = { shape: shapeOf(wide), full: 0 };
    joiner.receiver.merge(donor.region, NOW, source);
    assert.equal(source.full, foreign);
    assert.equal(joiner.receiver.describe(NOW)['used'], HOSTS - foreign);
    assert.equal(joiner.receiver.locksHeld(), 0);
  });

  it('bar an address from new bindings alone, and say so', () => {
    const site = new Site(define([external(1), external(9)]), 0, 2, 1, 1 << 14);
    const [object] = site.workers;
    const before = Array.from({ length: 30 }, (_, host) => bind(object, host + 1, 7));
    const addresses = before.map((slot) => object.externalAddress(slot));
    assert.equal(site.receiver.heedShapes([]), null);
    const said = site.receiver.heedShapes([{ addresses: [external(1)] }, { addresses: [external(1), external(9)] }]);
    assert.match(said ?? '', /do not use 203\.0\.113\.9, which not every member has/);
    for (let host = 1; host <= 30; host++)
      assert.equal(object.externalAddress(bind(object, host, 8)), external(1), 'of a new binding');
    before.forEach((slot, i) => {
      assert.equal(object.externalAddress(slot), addresses[i], 'of one that was there');
      assert.equal(bind(object, i + 1, 7), slot);
    });
    assert.match(site.receiver.heedShapes([{ addresses: [external(5)] }]) ?? '', /no new bindings are made/);
    assert.equal(bind(object, 99, 7), NONE);
    assert.equal(object.refusal, Refusal.EXHAUSTED);
    assert.equal(site.receiver.heedShapes([]), null);
    assert.notEqual(bind(object, 99, 7), NONE);
    assert.throws(() => site.receiver.heedShapes([{ addresses: 'x' }]), RangeError);
    assert.equal(formatAddress(external(9)), '203.0.113.9');
  });

  it('pair a host with one address, whatever the order of the list; a new address moves only its own hosts', () => {
    const HOSTS = 400;
    const paired = (addresses: readonly number[]): number[] => {
      const { object } = new Replica(define(addresses, 1000, 'keyed'));
      return Array.from({ length: HOSTS }, (_, host) => object.externalAddress(bind(object, host + 1, 7)));
    };
    const list = [1, 77, 130, 201].map(external);
    const before = paired(list);
    assert.deepEqual(paired(list.toReversed()), before);
    const after = paired([...list, external(90)]);
    const moved = after.filter((address, i) => address !== before[i]);
    assert.ok(moved.every((address) => address === external(90)));
    assert.ok(moved.length > HOSTS / 10 && moved.length < (HOSTS * 3) / 10, `${moved.length} of ${HOSTS} moved`);
    for (const address of list) {
      const share = before.filter((each) => each === address).length;
      assert.ok(share > HOSTS / 8 && share < (HOSTS * 3) / 8, `${share} of ${HOSTS} at ${formatAddress(address)}`);
    }
  });
});
