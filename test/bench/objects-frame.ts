/**
 * Measures a state object, opened as in a worker. It visits keys in turn, which lie where their
 * hash puts them. The log's consumer runs between the timed stretches. Each figure is beside a
 * plain baseline, and operations must not allocate.
 */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createLogRing, LogConsumer, LogProducer } from '../../shm/log.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import type { StateDefinition, StateObject } from '../../shm/objects/core/object.js';
import { Region } from '../../shm/region.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

export const SIZES = [
  ['1 k', 1000],
  ['100 k', 100_000],
  ['4 M', 4_000_000],
] as const;
export const NOW = 70_000_000;
/** Operations between two looks at the clock, and between two runs of the log's consumer. */
const CHUNK = 500;
const ROUNDS = 3;
/**
 * Operations of an allocation check: a single byte per operation would show, and no garbage
 * collection happens meanwhile.
 */
const CHECKED = 50_000;

/** Runs over `count` keys from `from` on. Returns a value that depends on all of them. */
export type Work = (from: number, count: number) => number;

let kept = 0;

/** An object as a worker opens it. */
export class Opened<T extends StateObject> {
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

  /** Drains the log, as the send thread does. */
  readonly drain = (): void => {
    this.log.publish();
    while (this.consumer.next());
    this.consumer.release();
  };
}

export const nothing = (): void => {};
/** A well distributed word of the n-th key. */
export const spread = (n: number): number => Math.imul(n, 0x9e3779b1);
/** The n-th key as one number, for a Map. */
export const whole = (n: number): number => (spread(n) >>> 0) * 2 ** 20 + (n & 0xfffff);

/** Nanoseconds per operation of one pass over `keys`. */
export function pass(work: Work, between: () => void, keys: number): number {
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

/** Nanoseconds per operation, in repeated passes over the keys for about `ms`. */
export function repeat(work: Work, between: () => void, keys: number, ms: number): number {
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
export function checkAllocation(name: string, work: Work, between: () => void, keys: number): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  let bytes = Number.POSITIVE_INFINITY;
  // The smallest of several tries: the compiler, which runs meanwhile, allocates too.
  for (let tries = 0; tries < 20 && bytes >= CHECKED; tries++) {
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let from = 0, done = 0; done < CHECKED; done += CHUNK) {
      kept ^= work(from, Math.min(CHUNK, keys));
      between();
      from = from + 2 * CHUNK > keys ? 0 : from + CHUNK;
    }
    bytes = Math.min(bytes, process.memoryUsage().heapUsed - before);
  }
  if (bytes >= CHECKED) throw new Error(`${name}: ${(bytes / CHECKED).toFixed(1)} bytes are allocated per operation`);
}

export class Rows {
  readonly results: BenchResult[] = [];
  private readonly ms: number;

  constructor({ seconds }: BenchOptions) {
    this.ms = (seconds * 1000) / 40;
  }

  /** Measures `work` and `baseline` in turn, over keys that are present. */
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
    if (kept === 0.5) throw new Error('the work was left out');
    this.results.push({ name: `objects/${name}`, value, unit: 'ns', baseline, ratio: baseline / value });
  }
}
