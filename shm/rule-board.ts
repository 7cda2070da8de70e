/**
 * Compiled rules in shared memory: main replaces them while workers work with them, and nobody
 * waits.
 *
 *     version   0: none yet; of version v the rules are in half v & 1
 *     taken     a line per worker: the version it works with
 *     counts    per half, worker and entry: packets, bytes
 *     halves    two, of `HALF_WORDS`
 *
 * A worker looks at `version`, a plain word, before each batch (and some times a second when none
 * comes), and notes in `taken` what it goes over to. Main writes version v + 1 into the half of
 * version v - 1, and so only when every worker has taken v, or has no rules: `publish` returns
 * false until then. A worker that starts notes what it takes and then looks again: main, which
 * wrote `version` before it looked at `taken`, cannot have missed it (both are atomic).
 *
 * Memory that no rules were written to is never touched, so the kernel does not give it.
 */

import { Region } from './region.js';
import { BYTES_PER_LINE, roundUp } from './struct.js';

/** Words of compiled rules, at most: 16 MiB. */
export const RULE_WORDS_MAX = 1 << 22;
/** Entries that are counted, at most. */
export const RULE_ENTRIES_MAX = 1 << 15;

const WORDS_PER_LINE = BYTES_PER_LINE / 4;
const VERSION = 0;
const COUNT_PACKETS = 0;
const COUNT_BYTES = 1;
const COUNTS = 2;

interface Layout {
  readonly i32: Int32Array;
  readonly f64: Float64Array;
  readonly workers: number;
  /** Words before the halves. */
  readonly halves: number;
}

function headBytes(workers: number): number {
  return (1 + workers) * BYTES_PER_LINE;
}

function countBytes(workers: number): number {
  return 2 * workers * RULE_ENTRIES_MAX * COUNTS * 8;
}

export function createRuleBoard(workers: number): SharedArrayBuffer {
  const bytes = headBytes(workers) + countBytes(workers) + 2 * RULE_WORDS_MAX * 4;
  return new SharedArrayBuffer(roundUp(bytes, BYTES_PER_LINE));
}

function layout(buffer: SharedArrayBuffer, workers: number): Layout {
  const region = new Region(buffer);
  return {
    i32: region.i32(),
    f64: region.f64(headBytes(workers), countBytes(workers) / 8),
    workers,
    halves: (headBytes(workers) + countBytes(workers)) / 4,
  };
}

function takenAt(worker: number): number {
  return (1 + worker) * WORDS_PER_LINE;
}

function countsAt(version: number, workers: number, worker: number): number {
  return ((version & 1) * workers + worker) * RULE_ENTRIES_MAX * COUNTS;
}

export interface RuleCount {
  packets: number;
  bytes: number;
}

const NOTHING: RuleCount = { packets: 0, bytes: 0 };

/** Main's side. */
export class RuleBoard {
  private readonly at: Layout;
  /**
   * By entry: what was counted under other versions, and the place of the entry in the version
   * before, while that still counts.
   */
  private carried: RuleCount[] = [];
  private before: Int32Array = new Int32Array(0);
  private settled = true;

  constructor(buffer: SharedArrayBuffer, workers: number) {
    this.at = layout(buffer, workers);
  }

  get version(): number {
    return this.at.i32[VERSION];
  }

  /**
   * Whether all workers that run have taken the rules published last. Looking at it settles what
   * they counted before.
   */
  settle(): boolean {
    if (this.settled) return true;
    const { i32, workers } = this.at;
    for (let worker = 0; worker < workers; worker++) {
      const taken = Atomics.load(i32, takenAt(worker));
      if (taken !== 0 && taken !== this.version) return false;
    }
    for (const [entry, count] of this.carried.entries()) this.add(count, this.version - 1, this.before[entry]);
    this.clear(this.version - 1);
    this.settled = true;
    return true;
  }

  /**
   * Replaces the rules. `before[entry]`: the entry of the version before whose counts an entry goes
   * on with, or -1. False, and nothing is changed, while some worker still works with older rules
   * than those published last.
   */
  publish(words: Int32Array, before: Int32Array): boolean {
    if (words.length > RULE_WORDS_MAX)
      throw new RangeError(`compiled rules of ${words.length} words; ${RULE_WORDS_MAX} are possible`);
    if (before.length > RULE_ENTRIES_MAX)
      throw new RangeError(`${before.length} rules; ${RULE_ENTRIES_MAX} are possible`);
    if (!this.settle()) return false;
    const { i32, halves } = this.at;
    const next = this.version + 1;
    i32.set(words, halves + (next & 1) * RULE_WORDS_MAX);
    const { carried } = this;
    this.carried = Array.from(before, (old) => ({ ...(carried[old] ?? NOTHING) }));
    this.before = before;
    this.settled = next === 1;
    Atomics.store(i32, VERSION, next);
    return true;
  }

  /** What was counted of an entry of the rules published last. */
  count(entry: number): RuleCount {
    const count = { ...(this.carried[entry] ?? NOTHING) };
    if (!this.settled) this.add(count, this.version - 1, this.before[entry]);
    this.add(count, this.version, entry);
    return count;
  }

  /** A worker that is dead has no rules. */
  forget(worker: number): void {
    if (worker < this.at.workers) Atomics.store(this.at.i32, takenAt(worker), 0);
  }

  private add(count: RuleCount, version: number, entry: number): void {
    if (entry < 0) return;
    const { f64, workers } = this.at;
    for (let worker = 0; worker < workers; worker++) {
      const at = countsAt(version, workers, worker) + entry * COUNTS;
      count.packets += f64[at + COUNT_PACKETS];
      count.bytes += f64[at + COUNT_BYTES];
    }
  }

  private clear(version: number): void {
    const { f64, workers } = this.at;
    const from = countsAt(version, workers, 0);
    // Only what was counted in: the rest was never touched.
    for (let worker = 0; worker < workers; worker++) {
      const at = from + worker * RULE_ENTRIES_MAX * COUNTS;
      for (let i = at; i < at + RULE_ENTRIES_MAX * COUNTS; i++) if (f64[i] !== 0) f64[i] = 0;
    }
  }
}

/** A worker's side. Its rules are at `words[base …]`. */
export class RuleReader {
  readonly words: Int32Array;
  base = 0;
  version = 0;
  private readonly counts: Float64Array;
  private readonly at: Layout;
  private readonly worker: number;
  private countsAt = 0;

  constructor(buffer: SharedArrayBuffer, workers: number, worker: number) {
    this.at = layout(buffer, workers);
    this.worker = worker;
    this.words = this.at.i32;
    this.counts = this.at.f64;
    this.refresh();
  }

  /**
   * Goes over to the rules published last. To be called before each batch; true when they are
   * others than before.
   */
  refresh(): boolean {
    if (this.words[VERSION] === this.version) return false;
    do {
      this.version = Atomics.load(this.words, VERSION);
      Atomics.store(this.words, takenAt(this.worker), this.version);
    } while (Atomics.load(this.words, VERSION) !== this.version);
    this.base = this.at.halves + (this.version & 1) * RULE_WORDS_MAX;
    this.countsAt = countsAt(this.version, this.at.workers, this.worker);
    return true;
  }

  /** Counts a packet of so many bytes that an entry applied to. */
  count(entry: number, bytes: number): void {
    const at = this.countsAt + entry * COUNTS;
    this.counts[at + COUNT_PACKETS]++;
    this.counts[at + COUNT_BYTES] += bytes;
  }
}
