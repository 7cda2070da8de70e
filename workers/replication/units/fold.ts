/**
 * Records of one member's backlog, coalesced as far as their object coalesces them. So a fold is
 * never much larger than the object.
 *
 * A record weighs as many sequence numbers as it stands for, as in the staging area. A unit taken
 * from the fold takes the weight of its records in numbers. So the units made of a fold have
 * consecutive numbers, and together stand for exactly the numbers that were folded. A single unit
 * does not stand for its own numbers.
 *
 * Only the latest record of a key is tried: merging with an earlier one would skip an operation on
 * that key. Keys are compared by their hashes. So two keys with one hash that alternate do not
 * merge, and the fold may reach its bound.
 *
 *     words    … | header, payload | header, payload | …          records in the order of their keys' first operation
 *     start, weight                                               of record `i` at `i − base`; those before `first` were taken
 *     keys, values                                                open hash table: hash of key → 1 + latest record
 */

import type { StateObject } from '../../../shm/objects/core/object.js';
import { powerOfTwo } from '../../../shm/struct.js';

const WORDS_MIN = 4096;
const RECORDS_MIN = 512;
/** The most that a record weighs: a unit's count is one word. */
const WEIGHT_MAX = 2 ** 30;

export class Fold {
  /** Sequence numbers that the fold stands for. */
  numbers = 0;
  /** How often the object's own code threw an error; the record is then kept unmerged. */
  failures = 0;
  // The unit that `take` took: `words[takenAt … takenAt + takenWords)`, valid until the next call.
  takenAt = 0;
  takenWords = 0;
  takenCount = 0;
  words = new Int32Array(WORDS_MIN);
  private readonly object: StateObject;
  private used = 0;
  private start = new Int32Array(RECORDS_MIN);
  private weight = new Float64Array(RECORDS_MIN);
  private base = 0;
  private first = 0;
  private next = 0;
  private keys = new Int32Array(2 * RECORDS_MIN);
  private values = new Int32Array(2 * RECORDS_MIN);
  private filled = 0;
  /** Shifts a key's hash to its home slot in the table. */
  private shift = 32 - Math.log2(2 * RECORDS_MIN);

  constructor(object: StateObject) {
    this.object = object;
  }

  get records(): number {
    return this.next - this.first;
  }

  /** Words of the records not yet taken. */
  get liveWords(): number {
    return this.records === 0 ? 0 : this.used - this.start[this.first - this.base];
  }

  /** Bytes of memory that the fold takes. */
  get bytes(): number {
    return 4 * (this.words.length + this.start.length + 2 * this.weight.length + 2 * this.keys.length);
  }

  /** Folds in a unit of `count` numbers: the records `from[at … at + length)`. */
  addUnit(count: number, from: Int32Array, at: number, length: number): void {
    const end = at + length;
    let records = 0;
    for (let i = at; i < end; i += 1 + (from[i] & 0xff)) records++;
    // Any split of the numbers among the records is correct.
    let weight = count - records + 1;
    for (let i = at; i < end; i += 1 + (from[i] & 0xff)) {
      this.add(from, i, weight);
      weight = 1;
    }
  }

  /**
   * Takes out a unit of the oldest records, of at most `wordsMax` words or of a single record. The
   * fold must not be empty.
   */
  take(wordsMax: number): void {
    const begin = this.start[this.first - this.base];
    let count = 0;
    let end = begin;
    while (this.first < this.next) {
      const i = this.first - this.base;
      const length = 1 + (this.words[this.start[i]] & 0xff);
      if (count > 0 && (end + length - begin > wordsMax || count + this.weight[i] > WEIGHT_MAX)) break;
      count += this.weight[i];
      end += length;
      this.first++;
    }
    this.takenAt = begin;
    this.takenWords = end - begin;
    this.takenCount = count;
    this.numbers -= count;
  }

  /** Folds in the record whose header is `from[at]`. */
  private add(from: Int32Array, at: number, weight: number): void {
    const header = from[at];
    const length = header & 0xff;
    this.reserve(1 + length);
    const { words, used } = this;
    for (let i = 0; i <= length; i++) words[used + i] = from[at + i];
    this.numbers += weight;
    const op = (header >>> 8) & 0xff;
    const slot = this.slotOf(op, used + 1, length);
    if (slot >= 0 && this.merge(this.values[slot] - 1, header, op, used + 1, length, weight)) return;
    this.start[this.next - this.base] = used;
    this.weight[this.next - this.base] = weight;
    this.next++;
    this.used = used + 1 + length;
    if (slot >= 0) this.values[slot] = this.next;
  }

  private merge(record: number, header: number, op: number, at: number, length: number, weight: number): boolean {
    if (record < this.first) return false;
    const i = record - this.base;
    const place = this.start[i];
    if (this.words[place] !== header || this.weight[i] + weight > WEIGHT_MAX) return false;
    try {
      if (!this.object.coalesce(op, this.words, place + 1, at, length)) return false;
    } catch {
      this.failures++;
      return false;
    }
    this.weight[i] += weight;
    return true;
  }

  /**
   * The table slot of the key of the record at `at`, inserted if needed; −1 if the object's code
   * fails.
   */
  private slotOf(op: number, at: number, length: number): number {
    let key: number;
    try {
      key = Math.imul(this.object.coalesceKey(op, this.words, at, length) | 0, 0x9e3779b1);
    } catch {
      this.failures++;
      return -1;
    }
    const mask = this.keys.length - 1;
    let slot = key >>> this.shift;
    while (this.values[slot] !== 0 && this.keys[slot] !== key) slot = (slot + 1) & mask;
    if (this.values[slot] === 0) {
      this.filled++;
      this.keys[slot] = key;
    }
    return slot;
  }

  /** Makes room for a record of this many words. */
  private reserve(words: number): void {
    if (this.first === this.next) this.clear();
    else if (this.used + words > this.words.length || this.next - this.base === this.start.length) this.makeRoom(words);
    if (2 * this.filled >= this.keys.length) this.rehash();
  }

  /**
   * Moves the records not yet taken to the front, into larger memory if they would fill more than
   * half of the present memory.
   */
  private makeRoom(words: number): void {
    const from = this.start[this.first - this.base];
    const live = this.used - from;
    const { records } = this;
    const into = 2 * (live + words) > this.words.length ? new Int32Array(2 * this.words.length) : this.words;
    into.set(this.words.subarray(from, this.used));
    const double = 2 * (records + 1) > this.start.length;
    const start = double ? new Int32Array(2 * this.start.length) : this.start;
    const weight = double ? new Float64Array(2 * this.weight.length) : this.weight;
    const shift = this.first - this.base;
    for (let i = 0; i < records; i++) {
      start[i] = this.start[shift + i] - from;
      weight[i] = this.weight[shift + i];
    }
    this.words = into;
    this.start = start;
    this.weight = weight;
    this.used = live;
    this.base = this.first;
  }

  /** Forgets the keys of records that were taken, and sizes the table for the others. */
  private rehash(): void {
    const { keys, values } = this;
    let live = 0;
    for (let i = 0; i < values.length; i++) if (values[i] > this.first) live++;
    const size = Math.max(2 * RECORDS_MIN, powerOfTwo(4 * (live + 1)));
    this.keys = new Int32Array(size);
    this.values = new Int32Array(size);
    this.filled = live;
    this.shift = 32 - Math.log2(size);
    for (let i = 0; i < values.length; i++) {
      if (values[i] <= this.first) continue;
      let slot = keys[i] >>> this.shift;
      while (this.values[slot] !== 0) slot = (slot + 1) & (size - 1);
      this.keys[slot] = keys[i];
      this.values[slot] = values[i];
    }
  }

  /** Empties the fold, and returns to little memory. */
  private clear(): void {
    if (this.words.length > WORDS_MIN) this.words = new Int32Array(WORDS_MIN);
    if (this.start.length > RECORDS_MIN) {
      this.start = new Int32Array(RECORDS_MIN);
      this.weight = new Float64Array(RECORDS_MIN);
    }
    if (this.filled > 0) {
      if (this.keys.length > 2 * RECORDS_MIN) {
        this.keys = new Int32Array(2 * RECORDS_MIN);
        this.values = new Int32Array(2 * RECORDS_MIN);
        this.shift = 32 - Math.log2(2 * RECORDS_MIN);
      } else this.values.fill(0);
    }
    this.used = 0;
    this.base = 0;
    this.first = 0;
    this.next = 0;
    this.filled = 0;
  }
}
