/**
 * Nanoseconds per operation of every state object, log record included. The baseline is a plain
 * array, `Map` or `Set` in one thread that shares nothing. Throws if an operation allocates.
 */

import { NONE } from '../../shm/none.js';
import type { StateDefinition } from '../../shm/objects/core/object.js';
import { counter, counterVector } from '../../shm/objects/counting/counters.js';
import { flowTable } from '../../shm/objects/flow/flow-table.js';
import { largest, lastWriter } from '../../shm/objects/sets/register.js';
import { growSet, removeSet, type SharedSet } from '../../shm/objects/sets/shared-set.js';
import { flowsBesideC } from './objects-flows.js';
import { NOW, nothing, Opened, pass, Rows, repeat, SIZES, spread, type Work, whole } from './objects-frame.js';
import { sketchRows } from './objects-sketches.js';
import type { Bench } from './result.js';

const WARM_MS = 100;
const MOMENT = Date.UTC(2026, 1);

/** A cell far from the last one, from the loop's index. */
const scatter = (n: number, cells: number): number => (spread(n) >>> 1) % cells;

function counterRows(rows: Rows): void {
  const one = new Opened(counter());
  const up: Work = (_from, count) => {
    for (let i = 0; i < count; i++) one.object.add(64);
    return one.object.value();
  };
  const plain = new Float64Array(1);
  const plainUp: Work = (_from, count) => {
    for (let i = 0; i < count; i++) plain[0] += 64;
    return plain[0];
  };
  rows.steady('counter, add', 100_000, up, one.drain, plainUp);
  // The cost of a count as two 32-bit words with a carry, instead of a double. Neither shares
  // anything here.
  const pairs = new Uint32Array(2 * 1000);
  const pairUp: Work = (from, count) => {
    for (let n = from; n < from + count; n++) {
      const at = 2 * scatter(n, 1000);
      const sum = pairs[at] + 64;
      pairs[at] = sum;
      if (sum > 0xffff_ffff) pairs[at + 1]++;
    }
    return pairs[0];
  };
  const doubles = new Float64Array(1000);
  const doubleUp: Work = (from, count) => {
    for (let n = from; n < from + count; n++) doubles[scatter(n, 1000)] += 64;
    return doubles[0];
  };
  for (const work of [doubleUp, pairUp]) repeat(work, nothing, 100_000, WARM_MS);
  const [asDouble, asPair] = [doubleUp, pairUp].map((work) => repeat(work, nothing, 100_000, WARM_MS));
  rows.add('a plain double, beside two words with a carry', asDouble, asPair);
  const both = new Opened(counter({ upDown: true }));
  const upDown: Work = (from, count) => {
    for (let i = from; i < from + count; i++) both.object.add((i & 1) === 0 ? 64 : -64);
    return both.object.value();
  };
  rows.steady('counter, up and down', 100_000, upDown, both.drain, plainUp);
}

function vectorRows(rows: Rows, label: string, cells: number): void {
  for (const form of ['totals', 'increments'] as const) {
    const vector = new Opened(counterVector({ length: cells, form, members: 2 }));
    const { object } = vector;
    const add: Work = (from, count) => {
      let added = 0;
      for (let n = from; n < from + count; n++) if (object.add(scatter(n, cells), 64)) added++;
      return added;
    };
    const value: Work = (from, count) => {
      let sum = 0;
      for (let n = from; n < from + count; n++) sum += object.value(scatter(n, cells));
      return sum;
    };
    const plain = new Float64Array(cells);
    const plainAdd: Work = (from, count) => {
      for (let n = from; n < from + count; n++) plain[scatter(n, cells)] += 64;
      return plain[0];
    };
    const plainValue: Work = (from, count) => {
      let sum = 0;
      for (let n = from; n < from + count; n++) sum += plain[scatter(n, cells)];
      return sum;
    };
    rows.steady(`counter vector, ${form}, add, ${label}`, 4_000_000, add, vector.drain, plainAdd);
    rows.steady(`counter vector, ${form}, value, ${label}`, 4_000_000, value, nothing, plainValue);
  }
}

function registerRows(rows: Rows, label: string, registers: number): void {
  const opened = new Opened(lastWriter({ length: registers, valueWords: 2 }));
  const { object } = opened;
  const value = Int32Array.of(1, 2);
  const plain = new Int32Array(2 * registers);
  const set: Work = (from, count) => {
    for (let n = from; n < from + count; n++) object.set(scatter(n, registers), value, 0, MOMENT);
    return 0;
  };
  const plainSet: Work = (from, count) => {
    for (let n = from; n < from + count; n++) plain.set(value, 2 * scatter(n, registers));
    return plain[0];
  };
  const read: Work = (from, count) => {
    let sum = 0;
    for (let n = from; n < from + count; n++) if (object.read(scatter(n, registers), value, 0)) sum += value[0];
    return sum;
  };
  const plainRead: Work = (from, count) => {
    let sum = 0;
    for (let n = from; n < from + count; n++) sum += plain[2 * scatter(n, registers)];
    return sum;
  };
  rows.steady(`last writer, set, ${label}`, registers, set, opened.drain, plainSet);
  rows.steady(`last writer, read, ${label}`, registers, read, nothing, plainRead);

  const top = new Opened(largest(registers));
  const plainTop = new Float64Array(registers);
  let round = 0;
  const news: Work = (from, count) => {
    for (let n = from; n < from + count; n++) top.object.offer(scatter(n, registers), ++round);
    return round;
  };
  const known: Work = (from, count) => {
    let offered = 0;
    for (let n = from; n < from + count; n++) if (top.object.offer(scatter(n, registers), 1)) offered++;
    return offered;
  };
  const plainOffer: Work = (from, count) => {
    for (let n = from; n < from + count; n++) {
      const i = scatter(n, registers);
      if (n > plainTop[i]) plainTop[i] = n;
    }
    return plainTop[0];
  };
  rows.steady(`largest, a larger number, ${label}`, registers, news, top.drain, plainOffer);
  rows.steady(`largest, no news, ${label}`, registers, known, nothing, plainOffer);
}

function setRows(
  rows: Rows,
  kind: string,
  define: (capacity: number) => StateDefinition<SharedSet>,
  label: string,
  keys: number,
): void {
  const key = new Int32Array(2);
  const adding =
    ({ object }: Opened<SharedSet>): Work =>
    (from, count) => {
      let added = 0;
      for (let n = from; n < from + count; n++) {
        key[0] = spread(n);
        key[1] = n;
        if (object.add(object.hash(key, 0), key, 0, NOW, NOW + 3600)) added++;
      }
      return added;
    };
  const having =
    ({ object }: Opened<SharedSet>, other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) {
        key[0] = spread(n);
        key[1] = n + other;
        if (object.has(object.hash(key, 0), key, 0, NOW)) found++;
      }
      return found;
    };
  const plain = new Set<number>();
  const plainAdd: Work = (from, count) => {
    for (let n = from; n < from + count; n++) plain.add(whole(n));
    return plain.size;
  };
  const plainHas =
    (other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) if (plain.has(whole(n) + other)) found++;
      return found;
    };
  const warm = new Opened(define(20_000));
  pass(adding(warm), warm.drain, 10_000);
  const opened = new Opened(define(keys));
  const add = adding(opened);
  rows.add(`${kind}, new key, ${label}`, pass(add, opened.drain, keys), pass(plainAdd, nothing, keys));
  if (opened.object.describe(NOW)['used'] !== keys) throw new Error(`${kind}: a key was refused`);
  rows.steady(`${kind}, key again, ${label}`, keys, add, opened.drain, plainAdd);
  rows.steady(`${kind}, hit, ${label}`, keys, having(opened, 0), nothing, plainHas(0));
  rows.steady(`${kind}, miss, ${label}`, keys, having(opened, 2 ** 24), nothing, plainHas(0.5));
  if (kind !== 'remove set') return;
  const remove: Work = (from, count) => {
    let removed = 0;
    for (let n = from; n < from + count; n++) {
      key[0] = spread(n);
      key[1] = n;
      if (opened.object.remove(opened.object.hash(key, 0), key, 0, NOW)) removed++;
    }
    return removed;
  };
  const plainRemove: Work = (from, count) => {
    let removed = 0;
    for (let n = from; n < from + count; n++) if (plain.delete(whole(n))) removed++;
    return removed;
  };
  rows.add(`${kind}, remove, ${label}`, pass(remove, opened.drain, keys), pass(plainRemove, nothing, keys));
}

function flowRows(rows: Rows, label: string, flows: number): void {
  const key = new Int32Array(4);
  const value = Int32Array.of(1, 2);
  const load = (n: number): void => {
    key[0] = spread(n);
    key[1] = n;
    key[2] = n >>> 8;
    key[3] = 6;
  };
  // All flows are half-open and replicated.
  const define = (capacity: number) =>
    flowTable({ capacity, keyWords: 4, valueWords: 2, halfOpen: capacity, halfOpenRecords: 2 * capacity });
  type Table = ReturnType<ReturnType<typeof define>['open']>;
  const adding =
    ({ object }: Opened<Table>): Work =>
    (from, count) => {
      let added = 0;
      for (let n = from; n < from + count; n++) {
        load(n);
        if (object.add(object.hash(key, 0), key, 0, value, 0, 0, NOW, NOW + 300) !== NONE) added++;
      }
      return added;
    };
  const map = new Map<number, { rank: number; expires: number; value: number }>();
  const mapAdd: Work = (from, count) => {
    for (let n = from; n < from + count; n++) map.set(whole(n), { rank: 0, expires: NOW + 300, value: 1 });
    return map.size;
  };
  const warm = new Opened(define(20_000));
  pass(adding(warm), warm.drain, 10_000);
  const opened = new Opened(define(flows));
  const { object } = opened;
  const finding =
    (other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) {
        load(n);
        key[3] += other;
        const slot = object.find(object.hash(key, 0), key, 0, NOW);
        if (slot !== NONE) found += object.value(slot, 0);
      }
      return found;
    };
  const mapFind =
    (other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) {
        const flow = map.get(whole(n) + other);
        if (flow !== undefined && flow.expires > NOW) found += flow.value;
      }
      return found;
    };
  rows.add(`flow table, new flow, ${label}`, pass(adding(opened), opened.drain, flows), pass(mapAdd, nothing, flows));
  if (object.describe(NOW)['used'] !== flows) throw new Error('flow table: a flow was refused');
  rows.steady(`flow table, hit, ${label}`, flows, finding(0), nothing, mapFind(0));
  rows.steady(`flow table, miss, ${label}`, flows, finding(1), nothing, mapFind(0.5));
  let now = NOW;
  const refresh: Work = (from, count) => {
    now += from === 0 ? 100 : 0; // each pass an expiry that moves enough to be told
    let refreshed = 0;
    for (let n = from; n < from + count; n++) {
      load(n);
      const slot = object.find(object.hash(key, 0), key, 0, NOW);
      if (slot !== NONE && object.refresh(slot, 0, now, 300)) refreshed++;
    }
    return refreshed;
  };
  const mapRefresh: Work = (from, count) => {
    for (let n = from; n < from + count; n++) {
      const flow = map.get(whole(n));
      if (flow !== undefined) flow.expires = now + 300;
    }
    return map.size;
  };
  rows.steady(`flow table, find and refresh, ${label}`, flows, refresh, opened.drain, mapRefresh);
}

export const run: Bench = async (options) => {
  const rows = new Rows(options);
  counterRows(rows);
  for (const [label, size] of SIZES) vectorRows(rows, label, size);
  for (const [label, size] of SIZES.slice(0, 2)) registerRows(rows, label, size);
  for (const [label, size] of SIZES)
    setRows(rows, 'grow set', (capacity) => growSet({ capacity, keyWords: 2 }), label, size);
  for (const [label, size] of SIZES)
    setRows(rows, 'remove set', (capacity) => removeSet({ capacity, keyWords: 2, members: 2 }), label, size);
  for (const [label, size] of SIZES) flowRows(rows, label, size);
  return [...rows.results, ...(await flowsBesideC(options)), ...(await sketchRows(options))];
};
