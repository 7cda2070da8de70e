/**
 * Registers, numbered from 0, that all instances set. A register holds the last written value, or
 * the largest or smallest number ever set.
 *
 * A register holds (stamp, member, value words). Of two such tuples, the lexicographically larger
 * one wins everywhere, in whatever order and however often they arrive:
 *
 * | kind        | stamp                                     | value words |
 * | ----------- | ----------------------------------------- | ----------- |
 * | last writer | hybrid logical clock (Kulkarni et al., 2014): the larger of wall-clock ms and the stamp it replaces + 1; ties go to the member with the larger index | the user's |
 * | largest     | the number itself, biased to be positive  | none        |
 * | smallest    | its negative, also biased                 | none        |
 *
 * A register changes under its lock (transaction.ts), with one log record, as a whole or not at
 * all. It has two copies. A writer fills the copy that is not current; then the next version, one
 * word, makes it current. So a reader takes no lock and never waits for a preempted writer. If the
 * version changed while it read, it reads again. Numbers only grow in their order. So each thread
 * remembers the last number it saw and returns at once if a number is not beyond it, without
 * touching shared memory. If the log is full, nothing is set, and `set` and `offer` return false.
 *
 *     slot     version (24) | writer that holds the lock (8), two copies; odd versions: the second is current
 *     copy     stamp (2, low first), member, value…
 *     record   register, stamp (2, low first), member, value…
 */

import { EPOCH_MS, unixMs } from '../../clock.js';
import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD, LINE, powerOfTwo, struct } from '../../struct.js';
import { ContentDigest } from '../core/content-digest.js';
import type { Journal } from '../core/journal.js';
import { Applied, merged, type OpenContext, type StateDefinition, type StateObject } from '../core/object.js';
import { LOCK_MASK, recoverTransaction, Transaction, tryAgain } from '../core/transaction.js';

interface LastWriterOptions {
  /** Number of registers; default 1. */
  readonly length?: number;
  readonly valueWords: number;
}

/** The only operation in the log. */
export const REGISTER_SET = 1;
/** Largest absolute number that a largest or smallest register accepts. */
export const NUMBER_MAX = 2 ** 52 - 1;

const COUNTS = struct({ logFull: LINE, contended: 1, malformed: 1 });
const COPY = struct({ low: 1, high: 1, member: 1 });
const VERSION_SHIFT = 8;
const RECORD = struct({ register: 1, low: 1, high: 1, member: 1 });
const TWO_32 = 2 ** 32;
const HIGH_MAX = 2 ** 21 - 1;
const BIAS = 2 ** 52;
const VALUE_WORDS_MAX = 32;
const LENGTH_MAX = 2 ** 24;
/** No correct writer has a stamp further ahead than this (a year). */
const FUTURE_MS_MAX = 366 * 86_400_000;
/** Maximum tries of a reader if a write overtakes it each time. */
const READ_TRIES = 1_000_000;
/** Indices in `stamps`. */
const LOADED = 0;
const TO_PUT = 1;

interface Shape {
  readonly length: number;
  readonly valueWords: number;
}

function define<T extends Registers>(
  kind: string,
  shape: Shape,
  open: (context: OpenContext, shape: Shape) => T,
): StateDefinition<T> {
  const { length, valueWords } = shape;
  if (!Number.isInteger(length) || length < 1 || length > LENGTH_MAX)
    throw new RangeError(`${kind}: ${length} registers, from 1 to ${LENGTH_MAX} are possible`);
  if (!Number.isInteger(valueWords) || valueWords < 0 || valueWords > VALUE_WORDS_MAX)
    throw new RangeError(`${kind}: ${valueWords} value words, at most ${VALUE_WORDS_MAX} are possible`);
  return {
    kind,
    parameters: { ...shape },
    bytes: (COUNTS.words + length * strideOf(valueWords)) * BYTES_PER_WORD,
    open: (context) => open(context, shape),
  };
}

const strideOf = (valueWords: number): number => powerOfTwo(1 + 2 * (COPY.words + valueWords));

export function lastWriter({ length = 1, valueWords }: LastWriterOptions): StateDefinition<LastWriter> {
  if (valueWords < 1) throw new RangeError(`last writer: ${valueWords} value words are too few`);
  return define('last-writer', { length, valueWords }, (context, shape) => new LastWriter(context, shape));
}

export function largest(length = 1): StateDefinition<Extreme> {
  return define('largest', { length, valueWords: 0 }, (context, shape) => new Extreme(context, shape, 1));
}

export function smallest(length = 1): StateDefinition<Extreme> {
  return define('smallest', { length, valueWords: 0 }, (context, shape) => new Extreme(context, shape, -1));
}

/** Common part of all kinds. */
abstract class Registers implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  readonly length: number;
  protected readonly valueWords: number;
  protected readonly words: Int32Array;
  protected readonly self: number;
  /**
   * Stamps passed between methods: the stamp that `load` read (0 for a register never set), and the
   * one that `put` must write. They are in an array because a double that is passed or returned is
   * allocated on the heap if the compiler does not inline the call.
   */
  protected readonly stamps = new Float64Array(2);
  /** The member of the register that `load` read. */
  private member = 0;
  private readonly stride: number;
  private readonly recordWords: number;
  private readonly transaction: Transaction | null;

  constructor({ id, region, writer, memberIndex }: OpenContext, { length, valueWords }: Shape) {
    this.id = id;
    this.length = length;
    this.valueWords = valueWords;
    this.recordWords = RECORD.words + valueWords;
    this.stride = strideOf(valueWords);
    this.words = region.i32();
    this.self = memberIndex;
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
  }

  /** Whether a correct member can have written this stamp by `nowMs`. */
  protected abstract isPlausible(stamp: number, member: number, nowMs: number): boolean;

  private place(register: number): number {
    return COUNTS.words + register * this.stride;
  }

  /**
   * Index of the current copy of a slot whose first word is `lock`. With `ahead` 1: of the other
   * copy.
   */
  private copyOf(place: number, lock: number, ahead: number): number {
    return place + 1 + (((lock >>> VERSION_SHIFT) + ahead) & 1) * (COPY.words + this.valueWords);
  }

  /**
   * Copies a consistent value of a register to `out[at …]`, and its stamp to `stamps[LOADED]`.
   * Returns false if it was never set.
   */
  protected load(register: number, out: Int32Array, at: number): boolean {
    this.stamps[LOADED] = 0;
    if (register >>> 0 >= this.length) return false;
    const { words } = this;
    const place = this.place(register);
    for (let tries = 0; tries < READ_TRIES; tries++) {
      const before = Atomics.load(words, place);
      const copy = this.copyOf(place, before, 0);
      const low = words[copy + COPY.at.low];
      const high = words[copy + COPY.at.high];
      this.member = words[copy + COPY.at.member];
      for (let i = 0; i < this.valueWords; i++) out[at + i] = words[copy + COPY.words + i];
      // The holder of the lock writes only to the other copy.
      if (((Atomics.load(words, place) ^ before) & ~LOCK_MASK) !== 0) continue;
      this.stamps[LOADED] = (high >>> 0) * TWO_32 + (low >>> 0);
      return (low | high) !== 0;
    }
    return false;
  }

  /**
   * Sets a register to (`stamps[TO_PUT]`, member, value) if that is larger, with one log record.
   * `clock`: makes the stamp larger than the present one. Returns false if refused: the log is
   * full, the register is contended (both counted), or there is no such register.
   */
  protected put(register: number, clock: boolean, member: number, value: Int32Array, at: number): boolean {
    const { words, tx, stamps } = this;
    if (register >>> 0 >= this.length) return false;
    const place = this.place(register);
    for (let tries = 1; ; tries++) {
      const record = tx.beginLogged(REGISTER_SET, this.recordWords);
      if (record === NONE) return this.refuse(COUNTS.at.logFull);
      if (tx.lock(place)) {
        const current = this.copyOf(place, words[place], 0);
        const before = stampAt(words, current);
        const stamp = clock ? Math.max(before + 1, stamps[TO_PUT]) : stamps[TO_PUT];
        const log = tx.record;
        log[record + RECORD.at.register] = register;
        log[record + RECORD.at.low] = stamp | 0;
        log[record + RECORD.at.high] = (stamp / TWO_32) | 0;
        log[record + RECORD.at.member] = member;
        for (let i = 0; i < this.valueWords; i++) log[record + RECORD.words + i] = value[at + i];
        if (this.isLarger(log, record + RECORD.at.low, words, current)) {
          this.write(place, log, record + RECORD.at.low);
          tx.commit();
        } else tx.abort();
        return true;
      }
      tx.abort();
      if (!tryAgain(tries, false)) return this.refuse(COUNTS.at.contended);
    }
  }

  /** Whether stamp, member and value at `a` are the larger ones. */
  private isLarger(a: Int32Array, aAt: number, b: Int32Array, bAt: number): boolean {
    if (a[aAt + 1] !== b[bAt + 1]) return a[aAt + 1] >>> 0 > b[bAt + 1] >>> 0;
    if (a[aAt] !== b[bAt]) return a[aAt] >>> 0 > b[bAt] >>> 0;
    for (let i = 2; i < 3 + this.valueWords; i++)
      if (a[aAt + i] !== b[bAt + i]) return a[aAt + i] >>> 0 > b[bAt + i] >>> 0;
    return false;
  }

  /** Writes stamp, member and value to a locked register. */
  private write(place: number, from: Int32Array, at: number): void {
    const { tx, words } = this;
    const next = this.copyOf(place, words[place], 1);
    for (let i = 0; i < COPY.words + this.valueWords; i++) tx.set(next + i, from[at + i]);
    tx.setLocked(place, ((words[place] >>> VERSION_SHIFT) + 1) << VERSION_SHIFT);
  }

  apply(op: number, words: Int32Array, at: number, length: number, _origin: number, now: number): Applied {
    const register = words[at + RECORD.at.register];
    const plausible = op === REGISTER_SET && length === this.recordWords && register >>> 0 < this.length;
    if (!plausible || !this.isPlausibleAt(words, at + RECORD.at.low, now)) {
      this.count(COUNTS.at.malformed);
      return Applied.MALFORMED;
    }
    return this.joinForeign(register, words, at + RECORD.at.low);
  }

  private isPlausibleAt(words: Int32Array, at: number, now: number): boolean {
    const stamp = stampAt(words, at);
    return words[at + 1] >>> 0 <= HIGH_MAX && stamp > 0 && this.isPlausible(stamp, words[at + 2], unixMs(now));
  }

  private joinForeign(register: number, from: Int32Array, at: number): Applied {
    const { words, tx } = this;
    const place = this.place(register);
    for (let tries = 1; ; tries++) {
      tx.begin();
      if (tx.lock(place)) {
        const news = this.isLarger(from, at, words, this.copyOf(place, words[place], 0));
        if (news) this.write(place, from, at);
        tx.commit();
        return news ? Applied.CHANGED : Applied.UNCHANGED;
      }
      tx.abort();
      if (!tryAgain(tries, true)) {
        this.count(COUNTS.at.contended);
        return Applied.BUSY;
      }
    }
  }

  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return words[at + RECORD.at.register];
  }

  coalesce(_op: number, words: Int32Array, earlier: number, later: number, length: number): boolean {
    if (words[earlier] !== words[later]) return false;
    if (this.isLarger(words, later + 1, words, earlier + 1)) words.copyWithin(earlier, later, later + length);
    return true;
  }

  merge(from: Region, now: number): number {
    const theirs = from.i32();
    let changed = 0;
    for (let register = 0; register < this.length; register++) {
      const place = this.place(register);
      const at = this.copyOf(place, theirs[place], 0);
      if (stampAt(theirs, at) === 0) continue;
      if (!this.isPlausibleAt(theirs, at, now)) this.count(COUNTS.at.malformed);
      else changed += merged(this.joinForeign(register, theirs, at), this.id);
    }
    return changed;
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  digest(): string {
    const digest = new ContentDigest();
    const entry = new Int32Array(4 + this.valueWords);
    for (let register = 0; register < this.length; register++) {
      if (!this.load(register, entry, 4)) continue;
      entry[0] = register;
      entry[1] = this.stamps[LOADED] | 0;
      entry[2] = (this.stamps[LOADED] / TWO_32) | 0;
      entry[3] = this.member;
      digest.add(entry);
    }
    return digest.toString();
  }

  describe(_now: number): Record<string, number> {
    return {
      registers: this.length,
      log_full: this.words[COUNTS.at.logFull],
      contended: this.words[COUNTS.at.contended],
      malformed: this.words[COUNTS.at.malformed],
    };
  }

  locksHeld(): number {
    let held = 0;
    for (let i = 0; i < this.length; i++) if ((this.words[this.place(i)] & LOCK_MASK) !== 0) held++;
    return held;
  }

  protected get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }

  private refuse(counter: number): false {
    this.count(counter);
    return false;
  }

  private count(counter: number): void {
    Atomics.add(this.words, counter, 1);
  }
}

/** Registers of a few words each that hold the last written value. */
export class LastWriter extends Registers {
  /**
   * Sets register `i` to `value[at …]`. Returns false, and counts it, if the log is full or the
   * register is contended.
   */
  set(i: number, value: Int32Array, at: number, nowMs: number = Date.now()): boolean {
    this.stamps[TO_PUT] = nowMs - EPOCH_MS;
    return this.put(i, true, this.self, value, at);
  }

  /**
   * Copies a consistent value of register `i` to `out[at …]`. Returns false if it was never set.
   */
  read(i: number, out: Int32Array, at: number): boolean {
    return this.load(i, out, at);
  }

  protected override isPlausible(stamp: number, member: number, nowMs: number): boolean {
    return member >= 0 && stamp - (nowMs - EPOCH_MS) <= FUTURE_MS_MAX;
  }
}

const NOTHING = new Int32Array(0);

/** Registers that hold the largest (or smallest) whole number ever set, up to ±2^52 - 1. */
export class Extreme extends Registers {
  private readonly sign: 1 | -1;
  /** The largest stamp of each register that this thread saw. */
  private readonly seen: Float64Array;

  constructor(context: OpenContext, shape: Shape, sign: 1 | -1) {
    super(context, shape);
    this.sign = sign;
    this.seen = new Float64Array(shape.length);
  }

  /**
   * Offers a number to register `i`. Returns false if it was refused (counted), or is not a whole
   * number in range.
   */
  offer(i: number, value: number): boolean {
    if (!(Math.abs(value) <= NUMBER_MAX) || value % 1 !== 0) return false;
    const { stamps, seen } = this;
    const stamp = this.sign * value + BIAS;
    if (stamp <= seen[i]) return true;
    this.load(i, NOTHING, 0);
    if (stamp > stamps[LOADED]) {
      stamps[TO_PUT] = stamp;
      if (!this.put(i, false, 0, NOTHING, 0)) return false;
      seen[i] = stamp;
    } else seen[i] = stamps[LOADED];
    return true;
  }

  /** The number in register `i`. NaN if none was set. */
  value(i: number): number {
    return this.load(i, NOTHING, 0) ? this.sign * (this.stamps[LOADED] - BIAS) + 0 : Number.NaN;
  }

  protected override isPlausible(_stamp: number, member: number): boolean {
    return member === 0;
  }
}

function stampAt(words: Int32Array, at: number): number {
  return (words[at + 1] >>> 0) * TWO_32 + (words[at] >>> 0);
}
