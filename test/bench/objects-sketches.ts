/**
 * Nanoseconds per operation of the graph and of the sketches, log record included, beside what one would do with a plain `Map`
 * or `Set`; the count-min sketch beside the same structure in C (count-min.c). And that no operation allocates.
 *
 * Keys are visited in turn and lie where their hash puts them. The log's consumer runs between the timed stretches.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createLogRing, LogConsumer, LogProducer } from '../../shm/log.js';
import { bloom } from '../../shm/objects/bloom.js';
import { countMin } from '../../shm/objects/count-min.js';
import { countingBloom } from '../../shm/objects/counting-bloom.js';
import { graph } from '../../shm/objects/graph.js';
import { hyperLogLog } from '../../shm/objects/hyperloglog.js';
import { createJournals, Journal } from '../../shm/objects/journal.js';
import type { StateDefinition, StateObject } from '../../shm/objects/object.js';
import { Region } from '../../shm/region.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

const SIZES = [
  ['1 k', 1000],
  ['100 k', 100_000],
  ['4 M', 4_000_000],
] as const;
/** Operations between two looks at the clock, and between two rounds of the log's consumer. */
const CHUNK = 500;
const ROUNDS = 3;
const NOW = 70_000_000;
/** Operations of an allocation check: a byte each would show, and nothing is collected on the way. */
const CHECKED = 50_000;

/** Runs over the keys `from … from + count)`; returns anything that depends on all of them. */
type Work = (from: number, count: number) => number;

let kept = 0;

class Opened<T extends StateObject> {
  readonly object: T;
  private readonly log: LogProducer;
  private readonly consumer: LogConsumer;

  constructor(definition: StateDefinition<T>) {
    const ring = createLogRing(1 << 16);
    this.log = new LogProducer(ring);
    this.consumer = new LogConsumer(ring);
    this.object = definition.open({
      id: 1,
      region: new Region(new SharedArrayBuffer(definition.bytes)),
      secret: Int32Array.of(1, 2, 3, 4),
      writer: { id: 1, journal: new Journal(createJournals(1), 1), log: this.log },
      memberIndex: 0,
      memberCount: 2,
      local: new Region(new SharedArrayBuffer(definition.localBytes?.(1) ?? 0)),
      stripes: 1,
    });
  }

  /** What the send thread does with the log. */
  readonly drain = (): void => {
    this.log.publish();
    while (this.consumer.next());
    this.consumer.release();
  };
}

const nothing = (): void => {};
/** The second word of the n-th key; its first is n, spread. */
const spread = (n: number): number => Math.imul(n, 0x9e3779b1);
/** The same key as one number, for a Map. */
const whole = (n: number): number => (spread(n) >>> 0) * 2 ** 20 + (n & 0xfffff);

/** Nanoseconds per operation of one pass over `keys`. */
function pass(work: Work, between: () => void, keys: number): number {
  let time = 0;
  for (let from = 0; from < keys; from += CHUNK) {
    const count = Math.min(CHUNK, keys - from);
    const start = performance.now();
    kept ^= work(from, count);
    time += performance.now() - start;
    between();
  }
  return (time * 1e6) / keys;
}

/** Nanoseconds per operation, over and over the keys for about `ms`. */
function repeat(work: Work, between: () => void, keys: number, ms: number): number {
  let time = 0;
  let done = 0;
  let from = 0;
  const until = performance.now() + ms;
  do {
    const count = Math.min(CHUNK, keys - from);
    const start = performance.now();
    kept ^= work(from, count);
    time += performance.now() - start;
    between();
    done += count;
    from = from + count === keys ? 0 : from + count;
  } while (performance.now() < until);
  return (time * 1e6) / done;
}

let collect: (() => void) | undefined;

/** Throws if an operation allocates. */
function checkAllocation(name: string, work: Work, between: () => void, keys: number): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  let bytes = Number.POSITIVE_INFINITY;
  // The least of some: the compiler, which runs along, allocates too.
  for (let tries = 0; tries < 5 && bytes >= CHECKED; tries++) {
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let from = 0, done = 0; done < CHECKED; done += CHUNK) {
      kept ^= work(from, CHUNK);
      between();
      from = from + 2 * CHUNK > keys ? 0 : from + CHUNK;
    }
    bytes = Math.min(bytes, process.memoryUsage().heapUsed - before);
  }
  if (bytes >= CHECKED) throw new Error(`${name}: ${(bytes / CHECKED).toFixed(1)} bytes are allocated per operation`);
}

class Rows {
  readonly results: BenchResult[] = [];
  private readonly ms: number;

  constructor({ seconds }: BenchOptions) {
    this.ms = (seconds * 1000) / 40;
  }

  /** Measures `work`, and `baseline` in turn with it, over keys that are there. */
  steady(name: string, keys: number, work: Work, between: () => void, baseline: Work): void {
    repeat(work, between, keys, this.ms);
    repeat(baseline, nothing, keys, this.ms);
    const [ours, theirs]: [number[], number[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      theirs.push(repeat(baseline, nothing, keys, this.ms));
      ours.push(repeat(work, between, keys, this.ms));
    }
    checkAllocation(name, work, between, keys);
    this.add(name, median(ours), median(theirs));
  }

  add(name: string, value: number, baseline: number): void {
    this.results.push({ name: `objects/${name}`, value, unit: 'ns', baseline, ratio: baseline / value });
  }
}

function graphRows(rows: Rows, label: string, keys: number): void {
  // Every warm-up is on an object of its own: an insertion cannot be repeated.
  const insert = (opened: Opened<ReturnType<ReturnType<typeof graph>['open']>>): Work => {
    const { object } = opened;
    return (from, count) => {
      for (let n = from; n < from + count; n++) object.add(spread(n), n & 0xfffff, 1, 100, NOW);
      return object.refusal;
    };
  };
  const warm = new Opened(graph({ edges: 20_000, nodes: 20_000 }));
  pass(insert(warm), warm.drain, 10_000);
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

  const distinct = new Opened(hyperLogLog());
  const hllAdd: Work = (from, count) => {
    let added = 0;
    for (let n = from; n < from + count; n++) if (distinct.object.add2(spread(n), n)) added++;
    return added;
  };
  const seen = fresh();
  rows.add(`HyperLogLog, new key, ${label}`, pass(hllAdd, distinct.drain, keys), pass(setAdd(seen), nothing, keys));
  rows.steady(`HyperLogLog, key again, ${label}`, keys, hllAdd, distinct.drain, setAdd(seen));

  const local = new Opened(bloom({ capacity: keys })).object;
  const bloomAdd: Work = (from, count) => {
    let added = 0;
    for (let n = from; n < from + count; n++) if (local.add2(spread(n), n)) added++;
    return added;
  };
  const bloomHas =
    (other: number): Work =>
    (from, count) => {
      let found = 0;
      for (let n = from; n < from + count; n++) if (local.has2(spread(n), n + other)) found++;
      return found;
    };
  rows.add(`Bloom filter, new key, ${label}`, pass(bloomAdd, nothing, keys), pass(setAdd(fresh()), nothing, keys));
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
  // Past 100 k at a coarser rate, for memory: each cell takes 32 bytes here.
  const rate = keys > 100_000 ? 0.1 : 0.01;
  const opened = new Opened(countingBloom({ capacity: keys, falsePositiveRate: rate, members: 2 }));
  const { object } = opened;
  const count: Work = (from, many) => {
    let counted = 0;
    for (let n = from; n < from + many; n++) if (object.count2(spread(n), n, 1)) counted++;
    return counted;
  };
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

/** The C program as a process; `work` asks it to work for a while and tells nanoseconds per operation. */
class CSketch {
  private readonly child;
  private readonly lines;

  constructor(program: string, width: number, depth: number, keys: number) {
    this.child = spawn(program, [width, depth, keys].map(String), { stdio: ['pipe', 'pipe', 'inherit'] });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async work(what: 'count' | 'value', ms: number): Promise<number> {
    this.child.stdin.write(`${what} ${Math.ceil(ms)}\n`);
    const { value, done } = await this.lines.next();
    if (done === true) throw new Error('count-min ended early: see its message above');
    const [operations, nanoseconds] = String(value).split(' ').map(Number);
    return nanoseconds / operations;
  }

  async close(): Promise<void> {
    this.child.stdin.end();
    await once(this.child, 'close');
  }
}

async function compile(folder: string): Promise<string> {
  const source = fileURLToPath(new URL('../../../test/bench/count-min.c', import.meta.url));
  const program = join(folder, 'count-min');
  const cc = spawn('cc', ['-O2', '-o', program, source], { stdio: 'inherit' });
  const [code] = (await once(cc, 'close')) as [number];
  if (code !== 0) throw new Error(`cc could not compile ${source}`);
  return program;
}

async function countMinRows(rows: Rows, label: string, keys: number, program: string, ms: number): Promise<void> {
  // As many cells in a row as keys, at most a million: at 4 M keys they are far out of the cache.
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
  const c = new CSketch(program, object.width, object.depth, keys);
  for (const [what, work] of [
    ['count', count],
    ['value', value],
  ] as const) {
    const [ours, theirs]: [number[], number[]] = [[], []];
    await c.work(what, ms);
    repeat(work, opened.drain, keys, ms);
    for (let round = 0; round < ROUNDS; round++) {
      theirs.push(await c.work(what, ms));
      ours.push(repeat(work, opened.drain, keys, ms));
    }
    checkAllocation(`count-min ${what}`, work, opened.drain, keys);
    rows.add(`count-min sketch beside C, 4 rows, ${what}, ${label}`, median(ours), median(theirs));
  }
  await c.close();
}

/** Rows of the benchmark `objects`. Throws when an operation allocates. */
export async function sketchRows(options: BenchOptions): Promise<BenchResult[]> {
  const rows = new Rows(options);
  const folder = await mkdtemp(join(tmpdir(), 'constellation-bench-'));
  try {
    const program = await compile(folder);
    for (const [label, keys] of SIZES) await countMinRows(rows, label, keys, program, (options.seconds * 1000) / 40);
  } finally {
    await rm(folder, { recursive: true });
  }
  for (const measure of [graphRows, setRows, countingRows])
    for (const [label, keys] of SIZES) measure(rows, label, keys);
  if (kept === 0.5) throw new Error('the work was left out');
  return rows.results;
}
