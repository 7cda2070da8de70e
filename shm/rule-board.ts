/**
 * Compiled rules in shared memory. Main replaces them while workers use them, and no thread waits.
 *
 *     version   0: no rules yet; the rules of version v are in half v & 1
 *     taken     a line per worker: the version it uses
 *     counts    per half, worker and entry: packets, bytes
 *     halves    two, of `RULE_WORDS_MAX` words
 *
 * A worker reads `version`, a plain word, before each batch (and some times a second if no batch
 * comes). It notes in `taken` which version it changes to. Main writes version v + 1 into the half
 * of version v - 1. So it writes only when every worker has taken v or has no rules; until then
 * `publish` returns false. A worker that starts notes what it takes and then reads `version` again.
 * Main writes `version` before it reads `taken`, so it cannot have missed the worker (both are
 * atomic).
 *
 * Memory without rules is never touched, so the kernel does not allocate it.
 */

import { Region } from './region.js';
import { BYTES_PER_LINE, roundUp } from './struct.js';

/** Maximum words of compiled rules: 16 MiB. */
export const RULE_WORDS_MAX = 1 << 22;
/** Maximum number of counted entries. */
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

interface RuleCount {
  packets: number;
  bytes: number;
}

const NOTHING: RuleCount = { packets: 0, bytes: 0 };

/** Main's side. */
export class RuleBoard {
  private readonly at: Layout;
  /**
   * By entry: the sum of counts under older versions. `before` is the entry's index in the previous
   * version, as long as that version still counts.
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
   * Whether all running workers have taken the rules published last. If so, the first call adds up
   * what they counted under the version before.
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
   * Replaces the rules. `before[entry]` is the entry of the previous version whose counts the entry
   * continues, or -1. Returns false, and changes nothing, while a worker still uses older rules
   * than those published last. Throws if there are too many words or entries.
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

  /** The total of an entry of the rules published last. */
  count(entry: number): RuleCount {
    const count = { ...(this.carried[entry] ?? NOTHING) };
    if (!this.settled) this.add(count, this.version - 1, this.before[entry]);
    this.add(count, this.version, entry);
    return count;
  }

  /** Main calls this for a dead worker: it no longer uses any rules. */
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
    // Write only words that were counted in: the others were never touched.
    for (let worker = 0; worker < workers; worker++) {
      const at = from + worker * RULE_ENTRIES_MAX * COUNTS;
      for (let i = at; i < at + RULE_ENTRIES_MAX * COUNTS; i++) if (f64[i] !== 0) f64[i] = 0;
    }
  }
}

/** A worker's side. Its rules start at `words[base]`. */
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
   * Changes to the rules published last. Call it before each batch. Returns whether the rules
   * changed.
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

  /** Counts a packet of `bytes` bytes to which an entry applied. */
  count(entry: number, bytes: number): void {
    const at = this.countsAt + entry * COUNTS;
    this.counts[at + COUNT_PACKETS]++;
    this.counts[at + COUNT_BYTES] += bytes;
  }
}
