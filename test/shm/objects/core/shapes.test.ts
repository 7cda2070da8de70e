/**
 * Meaning apart from layout: two instances whose objects mean the same understand each other's
 * records, and take over each other's regions, whatever their capacities and lists.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { layoutArena } from '../../../../shm/arena.js';
import { NONE } from '../../../../shm/none.js';
import type { StateDefinition, StateObject } from '../../../../shm/objects/core/object.js';
import { type FlowTable, flowTable } from '../../../../shm/objects/flow/flow-table.js';
import { tcpFlowTable } from '../../../../shm/objects/flow/tcp-flow-table.js';
import { graph, type TrafficGraph } from '../../../../shm/objects/graph/graph.js';
import { type NatBinding, natBinding, portAndProtocol } from '../../../../shm/objects/nat/nat-binding.js';
import { natSessions } from '../../../../shm/objects/nat/nat-sessions.js';
import { growSet, removeSet, type SharedSet } from '../../../../shm/objects/sets/shared-set.js';
import { type KeyedHyperLogLogs, keyedHyperLogLogs } from '../../../../shm/objects/sketch/keyed-hyperloglogs.js';
import { scaled } from '../../../support/scale.js';
import { Site } from '../site.js';

const NOW = 70_000_000;
const UDP = 17;
const EXTERNAL = 0x010200c0;

interface Kind<T extends StateObject = StateObject> {
  readonly name: string;
  /** A definition with room for so many entries. */
  define(capacity: number): StateDefinition<T>;
  put(object: T, key: number, now: number): void;
}

const key4 = new Int32Array(4);
function putFlow(table: FlowTable, key: number, now: number): void {
  key4.set([key, ~key, 7, 9]);
  const hash = table.hash(key4, 0);
  const slot = table.find(hash, key4, 0, now);
  if (slot === NONE) table.add(hash, key4, 0, Int32Array.of(key), 0, 1, now, now + 200);
  else table.refresh(slot, 2, now, 250);
}
function putElement(set: SharedSet, key: number, now: number): void {
  key4.set([key, 5]);
  set.add(set.hash(key4, 0), key4, 0, now, now + 500);
}

const limits = (capacity: number) => ({ halfOpen: capacity, halfOpenRecords: 1 << 20 });
const kinds: Kind[] = [
  {
    name: 'flow table',
    define: (capacity) => flowTable({ capacity, keyWords: 4, valueWords: 1, ...limits(capacity) }),
    put: putFlow,
  } satisfies Kind<FlowTable> as unknown as Kind,
  {
    name: 'TCP flow table',
    define: (capacity) => tcpFlowTable({ capacity, keyWords: 4, valueWords: 1, ...limits(capacity) }),
    put: putFlow,
  } satisfies Kind<FlowTable> as unknown as Kind,
  {
    name: 'NAT sessions',
    define: (sessions) => natSessions({ sessions, ...limits(sessions) }),
    put: putFlow,
  } satisfies Kind<FlowTable> as unknown as Kind,
  {
    name: 'NAT bindings',
    define: (flows) => natBinding({ addresses: [EXTERNAL], flows, allocation: 'leased', ...limits(flows) }),
    put(object, key, now) {
      const port = portAndProtocol(key & 0xfff, UDP);
      const hash = object.hash(key, port);
      const slot = object.findOutbound(hash, key, port, now);
      if (slot === NONE) object.add(hash, key, port, now, now + 300);
      else object.refresh(slot, 2, now, 300);
    },
  } satisfies Kind<NatBinding> as unknown as Kind,
  {
    name: 'NAT bindings with and without a limit for subscribers',
    define: (flows) =>
      natBinding({
        ...{ addresses: [EXTERNAL], flows, allocation: 'leased', ...limits(flows) },
        bindingsPerSubscriber: flows % 2 === 0 ? 1000 : 0,
      }),
    put(object, key, now) {
      const port = portAndProtocol(key & 0xfff, UDP);
      object.add(object.hash(key, port), key, port, now, now + 300);
    },
  } satisfies Kind<NatBinding> as unknown as Kind,
  {
    name: 'grow set',
    define: (capacity) => growSet({ capacity, keyWords: 2 }),
    put: putElement,
  } satisfies Kind<SharedSet> as unknown as Kind,
  {
    name: 'remove set',
    define: (capacity) => removeSet({ capacity, keyWords: 2, members: 3 }),
    put: putElement,
  } satisfies Kind<SharedSet> as unknown as Kind,
  {
    name: 'graph',
    define: (capacity) => graph({ edges: 2 * capacity, nodes: 4 * capacity, members: 3 }),
    put: (object, key, now) => void object.add(key, key + 1, 1, 100, now),
  } satisfies Kind<TrafficGraph> as unknown as Kind,
  {
    name: 'keyed HyperLogLogs',
    define: (capacity) =>
      keyedHyperLogLogs({ capacity: 4 * capacity, keyWords: 1, sketches: 1, epochSeconds: 1000, quiet: 0 }),
    put(object, key, now) {
      key4.set([key, 0, 0, 0]);
      const hash = object.hash(key4, 0);
      for (let i = 0; i < 3; i++) object.add(hash, key4, 0, 0, Int32Array.of(key, i), 0, 2, now);
    },
  } satisfies Kind<KeyedHyperLogLogs> as unknown as Kind,
];

const KEYS = 24;
const acts = fc.array(fc.record({ site: fc.nat(1), key: fc.integer({ min: 1, max: KEYS }) }), { maxLength: 40 });
/** Each has room for all keys. */
const capacity = fc.integer({ min: 64, max: 300 });

const named = (definition: StateDefinition) => [{ name: 'object', ...definition }];

describe('objects that mean the same', () => {
  for (const { name, define, put } of kinds) {
    it(`converge by records and by regions, whatever their capacities: ${name}`, () => {
      fc.assert(
        fc.property(capacity, capacity, acts, (first, second, changes) => {
          const definitions = [define(first), define(second)];
          const [ours, theirs] = definitions.map((definition) => layoutArena(named(definition), 3));
          assert.deepEqual(ours.meaning, theirs.meaning);
          const sites = definitions.map((definition, i) => new Site(definition, i, 3, 1, 1 << 14));
          for (const [i, { site, key }] of changes.entries()) {
            put(sites[site].workers[0], key, NOW + i);
            for (const message of sites[site].flush()) sites[1 - site].apply(message, site, NOW + i);
          }
          const now = NOW + changes.length;
          const [a, b] = sites;
          assert.equal(a.receiver.digest(now, true), b.receiver.digest(now, true), 'by records');
          // A third takes over the region of the first, as one that joins does.
          const joiner = new Site(define(second), 2, 3, 1, 1 << 14);
          const source = { shape: definitions[0].shape ?? {}, full: 0 };
          const bytes = definitions[1].withShape?.(source.shape).bytes;
          assert.equal(bytes, definitions[0].bytes, 'the donor’s region is as long as its shape says');
          joiner.receiver.merge?.(a.region, now, source);
          assert.equal(joiner.receiver.digest(now, true), a.receiver.digest(now, true), 'by its region');
          assert.equal(source.full, 0);
          assert.equal(joiner.receiver.describe(now)['malformed'], 0);
        }),
        { numRuns: name.startsWith('NAT b') ? scaled(2, 20) : scaled(8, 40) },
      );
    });
  }

  it('count what finds no room in a smaller one', () => {
    const [large, small] = [kinds[0].define(1000), kinds[0].define(64)];
    const [donor, joiner] = [large, small].map((definition, i) => new Site(definition, i, 2, 1, 1 << 16));
    for (let key = 1; key <= 600; key++) kinds[0].put(donor.workers[0], key, NOW);
    donor.flush();
    const source = { shape: large.shape ?? {}, full: 0 };
    const taken = joiner.receiver.merge?.(donor.region, NOW, source) ?? 0;
    assert.ok(source.full > 0);
    assert.equal(taken + source.full, 600, 'each was taken or counted');
    assert.equal(joiner.receiver.describe(NOW)['table_full'], source.full);
  });

  it('have another hash of meaning if anything else differs', () => {
    const base = { capacity: 64, keyWords: 4, valueWords: 1 };
    const meaning = (definition: StateDefinition, slots = 3) => layoutArena(named(definition), slots).meaning.join();
    const same = meaning(flowTable(base));
    assert.equal(meaning(flowTable({ ...base, capacity: 99 })), same);
    const larger = (): boolean => true;
    for (const other of [
      meaning(flowTable({ ...base, keyWords: 2 })),
      meaning(flowTable({ ...base, valueWords: 2 })),
      meaning(flowTable({ ...base, winner: larger })),
      meaning(flowTable(base), 4),
      meaning(natSessions({ sessions: 64, halfOpen: 1, halfOpenRecords: 1 })),
    ])
      assert.notEqual(other, same);
  });

  it('refuse a shape that cannot be', () => {
    for (const { define } of kinds) {
      const definition = define(64);
      for (const wrong of [0, -1, 1.5, 2 ** 40, '64', null, undefined]) {
        const shape = Object.fromEntries(Object.keys(definition.shape ?? {}).map((name) => [name, wrong]));
        assert.throws(() => definition.withShape?.(shape), RangeError);
      }
    }
  });
});
