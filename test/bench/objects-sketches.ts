/**
 * Nanoseconds per operation of the graph and the sketches, log record included. The baseline is a
 * plain `Map` or `Set`; for the count-min sketch it is the same structure in C (count-min.c).
 * Throws if an operation allocates.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StateDefinition, StateObject } from '../../shm/objects/core/object.js';
import { graph, type TrafficGraph } from '../../shm/objects/graph/graph.js';
import { type BloomFilter, bloom } from '../../shm/objects/sketch/bloom.js';
import { countMin } from '../../shm/objects/sketch/count-min.js';
import { type CountingBloom, countingBloom } from '../../shm/objects/sketch/counting-bloom.js';
import { type HyperLogLog, hyperLogLog } from '../../shm/objects/sketch/hyperloglog.js';
import { CProgram, compile } from './c-program.js';
import {
  checkAllocation,
  NOW,
  nothing,
  Opened,
  pass,
  Rows,
  repeat,
  SIZES,
  spread,
  type Work,
  whole,
} from './objects-frame.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

const ROUNDS = 3;
const WARM_KEYS = 60_000;
/** Stretches per `seconds`, as `Rows` divides it. */
const STRETCHES = 40;

/** Warms up work that cannot be repeated: runs it on a separate object until it is compiled. */
function warmUp<T extends StateObject>(definition: StateDefinition<T>, make: (opened: Opened<T>) => Work): void {
  const opened = new Opened(definition);
  pass(make(opened), opened.drain, WARM_KEYS);
}

function graphRows(rows: Rows, label: string, keys: number): void {
  const insert =
    ({ object }: Opened<TrafficGraph>): Work =>
    (from, count) => {
      for (let n = from; n < from + count; n++) object.add(spread(n), n & 0xfffff, 1, 100, NOW);
      return object.refusal;
    };
  warmUp(graph({ edges: WARM_KEYS, nodes: 2 * WARM_KEYS }), insert);
  const opened = new Opened(graph({ edges: keys, nodes: 2 * keys }));
  const { object } = opened;
  const map = new Map<number, { packets: number; bytes: number }>();
  const mapAdd: Work = (from, count) => {
    for (let n = from; n < from + count; n++) {
      const key = whole(n);
      const edge = map.get(key);
      if (edge === undefined) map.set(key, { packets: 1, bytes: 100 });
      else {
        edge.packets++;
        edge.bytes += 100;
      }
    }
    return map.size;
  };
  const add = insert(opened);
  rows.add(`graph, new edge, ${label}`, pass(add, opened.drain, keys), pass(mapAdd, nothing, keys));
  if (object.describe(NOW)['edges_used'] !== keys) throw new Error('graph: an edge was refused');
  rows.steady(`graph, edge again, ${label}`, keys, add, opened.drain, mapAdd);
  const find =
    (other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) if (object.find(spread(n), (n & 0xfffff) + other, NOW)) found++;
      return found;
    };
  const mapFind =
    (other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) if (map.get(whole(n) + other) !== undefined) found++;
      return found;
    };
  rows.steady(`graph, find, hit, ${label}`, keys, find(0), nothing, mapFind(0));
  rows.steady(`graph, find, miss, ${label}`, keys, find(2 ** 20), nothing, mapFind(0.5));
}

function setRows(rows: Rows, label: string, keys: number): void {
  const fresh = (): Set<number> => new Set<number>();
  const setAdd =
    (set: Set<number>): Work =>
    (from, count) => {
      for (let n = from; n < from + count; n++) set.add(whole(n));
      return set.size;
    };
  const setHas =
    (set: Set<number>, other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) if (set.has(whole(n) + other)) found++;
      return found;
    };

  const hllAdding =
    ({ object }: Opened<HyperLogLog>): Work =>
    (from, count) => {
      let added = 0;
      for (let n = from; n < from + count; n++) if (object.add2(spread(n), n)) added++;
      return added;
    };
  warmUp(hyperLogLog(), hllAdding);
  const distinct = new Opened(hyperLogLog());
  const hllAdd = hllAdding(distinct);
  const seen = fresh();
  rows.add(`HyperLogLog, new key, ${label}`, pass(hllAdd, distinct.drain, keys), pass(setAdd(seen), nothing, keys));
  rows.steady(`HyperLogLog, key again, ${label}`, keys, hllAdd, distinct.drain, setAdd(seen));

  const bloomAdding =
    ({ object }: Opened<BloomFilter>): Work =>
    (from, count) => {
      let added = 0;
      for (let n = from; n < from + count; n++) if (object.add2(spread(n), n)) added++;
      return added;
    };
  warmUp(bloom({ capacity: WARM_KEYS }), bloomAdding);
  const filter = new Opened(bloom({ capacity: keys }));
  const local = filter.object;
  const bloomHas =
    (other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) if (local.has2(spread(n), n + other)) found++;
      return found;
    };
  rows.add(
    `Bloom filter, new key, ${label}`,
    pass(bloomAdding(filter), nothing, keys),
    pass(setAdd(fresh()), nothing, keys),
  );
  rows.steady(`Bloom filter, hit, ${label}`, keys, bloomHas(0), nothing, setHas(seen, 0));
  rows.steady(`Bloom filter, miss, ${label}`, keys, bloomHas(keys), nothing, setHas(seen, 0.5));
}

function countingRows(rows: Rows, label: string, keys: number): void {
  const map = new Map<number, number>();
  const mapCount: Work = (from, count) => {
    for (let n = from; n < from + count; n++) map.set(whole(n), (map.get(whole(n)) ?? 0) + 1);
    return map.size;
  };
  const mapValue =
    (other: number): Work =>
    (from, count) => {
      let sum = 0;
      for (let n = from; n < from + count; n++) sum += map.get(whole(n) + other) ?? 0;
      return sum;
    };
  // Above 100 k keys with a coarser rate, for memory: each cell takes 32 bytes here.
  const rate = keys > 100_000 ? 0.1 : 0.01;
  const define = () => countingBloom({ capacity: keys, falsePositiveRate: rate, members: 2 });
  const counting =
    ({ object }: Opened<CountingBloom>): Work =>
    (from, many) => {
      let counted = 0;
      for (let n = from; n < from + many; n++) if (object.count2(spread(n), n, 1)) counted++;
      return counted;
    };
  warmUp(define(), counting);
  const opened = new Opened(define());
  const { object } = opened;
  const count = counting(opened);
  const value =
    (other: number): Work =>
    (from, many) => {
      let sum = 0;
      for (let n = from; n < from + many; n++) sum += object.value2(spread(n), n + other);
      return sum;
    };
  const name = `counting Bloom filter, ${object.cellsPerKey} cells a key`;
  rows.add(`${name}, new key, ${label}`, pass(count, opened.drain, keys), pass(mapCount, nothing, keys));
  rows.steady(`${name}, count, ${label}`, keys, count, opened.drain, mapCount);
  rows.steady(`${name}, value, hit, ${label}`, keys, value(0), nothing, mapValue(0));
  rows.steady(`${name}, value, miss, ${label}`, keys, value(keys), nothing, mapValue(0.5));
}

// ——— Count-min sketch, beside C ———

async function countMinRows(rows: Rows, label: string, keys: number, program: string, ms: number): Promise<void> {
  // As many cells per row as keys, at most a million. At 4 M keys they are far larger than the
  // cache.
  const definition = countMin({ width: Math.min(keys, 1_000_000), depth: 4, members: 2 });
  const opened = new Opened(definition);
  const { object } = opened;
  const count: Work = (from, many) => {
    let counted = 0;
    for (let n = from; n < from + many; n++) if (object.count2(spread(n), n, 1)) counted++;
    return counted;
  };
  const value: Work = (from, many) => {
    let sum = 0;
    for (let n = from; n < from + many; n++) sum += object.value2(spread(n), n);
    return sum;
  };
  const c = new CProgram(program, object.width, object.depth, keys);
  for (const [what, work] of [
    ['count', count],
    ['value', value],
  ] as const) {
    const [ours, theirs]: [number[], number[]] = [[], []];
    await c.work(ms, what);
    repeat(work, opened.drain, keys, ms);
    for (let round = 0; round < ROUNDS; round++) {
      theirs.push(await c.work(ms, what));
      ours.push(repeat(work, opened.drain, keys, ms));
    }
    checkAllocation(`count-min ${what}`, work, opened.drain, keys);
    rows.add(`count-min sketch beside C, 4 rows, ${what}, ${label}`, median(ours), median(theirs));
  }
  await c.close();
  if (keys > 100_000) return;
  // The worst case: every key is a candidate, and the table is full.
  const watched = new Opened(
    countMin({ width: keys, depth: 4, members: 2, heavy: { threshold: 1, candidates: 256, keyWords: 2 } }),
  );
  const watch: Work = (from, many) => {
    let counted = 0;
    for (let n = from; n < from + many; n++) if (watched.object.count2(spread(n), n, 1)) counted++;
    return counted;
  };
  rows.steady(`count-min sketch, every key heavy, count, ${label}`, keys, watch, watched.drain, count);
}

/** Rows of the benchmark `objects`. Throws if an operation allocates. */
export async function sketchRows(options: BenchOptions): Promise<BenchResult[]> {
  const rows = new Rows(options);
  const folder = await mkdtemp(join(tmpdir(), 'constellation-bench-'));
  try {
    const program = await compile('count-min', folder);
    const ms = (options.seconds * 1000) / STRETCHES;
    for (const [label, keys] of SIZES) await countMinRows(rows, label, keys, program, ms);
  } finally {
    await rm(folder, { recursive: true });
  }
  for (const measure of [graphRows, setRows, countingRows])
    for (const [label, keys] of SIZES) measure(rows, label, keys);
  return rows.results;
}
