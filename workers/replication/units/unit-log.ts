/**
 * The unit log of one object: the units cut from its records that some member may still lack, in
 * order.
 *
 * Only the send thread uses it. It is in shared memory so that a send thread that dies loses no
 * operation: its successor opens the log and resumes. (The rings are released only after their
 * records are in the log.)
 *
 *     header   head, tail, floor            one writer; `tail` is stored after the unit, `floor` before `head`
 *     data     2^n words                    units, each: entry words (8), records, padded to an even count
 *     entry    total words | record words | first (f64) | count | attempts | sentAt (f64) | records …
 *
 * Positions are free-running 32-bit word counts. The place in the ring is `position & mask`. A unit
 * never wraps: if it would, a padding word sends the reader to the start. Sequence numbers are
 * consecutive: a unit's first number is the previous unit's first number plus its count. If the log
 * is empty, the next number is `floor`.
 *
 * | transition     | by                    | how                                                                            |
 * | -------------- | --------------------- | ------------------------------------------------------------------------------ |
 * | free → held    | `append`              | the entry is written, then `tail` stored                                       |
 * | held → sent    | `markSent`            | attempts grows from 0; units are first sent in order                           |
 * | sent → sent    | `forgetAttempts`      | attempts falls to 1                                                            |
 * | sent → free    | `prune`, all have it  | `floor`, then `head`; if the thread dies in between, `open` completes it       |
 * | sent → free    | `prune`, log full     | the same, though silent members lack it: they skip below `floor`               |
 * | held → free    | never                 | what was not sent is not lost                                                  |
 */

import { Region } from '../../../shm/region.js';
import { BYTES_PER_WORD, LINE, powerOfTwo, struct } from '../../../shm/struct.js';

const HEADER = struct({ head: LINE, tail: 1, floor: 2 });
const ENTRY = struct({ words: 1, recordWords: 1, first: 2, count: 1, attempts: 1, sentAt: 2 });
const PADDING = -1;

/** Number of the first record of an incarnation. */
export const FIRST_SEQUENCE = 1;

function logBytes(bytes: number): number {
  return HEADER.bytes + powerOfTwo(bytes >>> 2) * BYTES_PER_WORD;
}

/**
 * Allocates the unit logs of all objects, for `bytes` of units each. `first`: the first number, for
 * tests that start near a boundary.
 */
export function createUnitLogs(objects: number, bytes: number, first: number = FIRST_SEQUENCE): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(Math.max(1, objects) * logBytes(bytes));
  for (let object = 0; object < objects; object++)
    unitLogRegion(buffer, object, objects).f64(HEADER.at.floor * BYTES_PER_WORD, 1)[0] = first;
  return buffer;
}

export function unitLogRegion(buffer: SharedArrayBuffer, object: number, objects: number): Region {
  const bytes = buffer.byteLength / Math.max(1, objects);
  return new Region(buffer, object * bytes, bytes);
}

export class UnitLog {
  readonly words: Int32Array;
  nextSequence: number;
  /** The number of units in the log. */
  units = 0;
  /** Position of the first unit never sent. */
  unsent: number;

  // The unit that `load` read. Its records are `words[recordsAt … recordsAt + recordWords)`.
  first = 0;
  count = 0;
  attempts = 0;
  sentAt = 0;
  recordsAt = 0;
  recordWords = 0;

  /** The highest `attempts` among the units pruned last. */
  prunedAttempts = 0;

  private readonly floats: Float64Array;
  private readonly header: Int32Array;
  private readonly floorAt: Float64Array;
  private readonly mask: number;

  /** Opens the log as the last thread left it. */
  constructor(region: Region) {
    this.header = region.i32(0, HEADER.words);
    this.floorAt = region.f64(HEADER.at.floor * BYTES_PER_WORD, 1);
    this.words = region.i32(HEADER.bytes);
    this.floats = region.f64(HEADER.bytes);
    this.mask = this.words.length - 1;
    if ((this.words.length & this.mask) !== 0) throw new RangeError(`unit log of ${this.words.length} words`);
    this.nextSequence = this.floor;
    this.unsent = this.tail;
    this.open();
  }

  get head(): number {
    return this.header[HEADER.at.head];
  }

  get tail(): number {
    return this.header[HEADER.at.tail];
  }

  /** Lowest sequence number that can still be sent. */
  get floor(): number {
    return this.floorAt[0];
  }

  get usedWords(): number {
    return (this.tail - this.head) | 0;
  }

  get capacityWords(): number {
    return this.words.length;
  }

  /**
   * How many words of records surely fit, whatever their boundaries, if cut into units of at most
   * `unitWords`. Each unit but the last is filled to within a record (`recordWordsMax`) and costs
   * its entry and a word of padding. One unit may have to skip to the start of the ring.
   */
  room(unitWords: number, recordWordsMax: number): number {
    const filled = unitWords - recordWordsMax + 1;
    const cost = ENTRY.words + 1;
    const free = this.words.length - this.usedWords - (unitWords + cost) - 2 * cost;
    return free <= 0 ? 0 : Math.floor((free * filled) / (filled + cost));
  }

  /**
   * Appends a unit of these records, with the next `count` sequence numbers. Call `room` before.
   * Throws a `RangeError` if the log is full.
   */
  append(count: number, from: Int32Array, at: number, recordWords: number): void {
    const need = (ENTRY.words + recordWords + 1) & ~1;
    let tail = this.tail;
    let place = tail & this.mask;
    const toEnd = this.words.length - place;
    if (toEnd < need) {
      if (this.usedWords + toEnd + need > this.words.length) throw new RangeError('the unit log is full');
      this.words[place] = PADDING;
      tail = (tail + toEnd) | 0;
      place = 0;
    } else if (this.usedWords + need > this.words.length) throw new RangeError('the unit log is full');
    this.words[place + ENTRY.at.words] = need;
    this.words[place + ENTRY.at.recordWords] = recordWords;
    this.floats[(place + ENTRY.at.first) >> 1] = this.nextSequence;
    this.words[place + ENTRY.at.count] = count;
    this.words[place + ENTRY.at.attempts] = 0;
    this.floats[(place + ENTRY.at.sentAt) >> 1] = 0;
    this.words.set(from.subarray(at, at + recordWords), place + ENTRY.words);
    Atomics.store(this.header, HEADER.at.tail, (tail + need) | 0);
    this.nextSequence += count;
    this.units++;
  }

  /** Reads the unit at `position`. Returns the position after it. */
  load(position: number): number {
    const start = this.skipPadding(position);
    const place = start & this.mask;
    this.first = this.floats[(place + ENTRY.at.first) >> 1];
    this.count = this.words[place + ENTRY.at.count];
    this.attempts = this.words[place + ENTRY.at.attempts];
    this.sentAt = this.floats[(place + ENTRY.at.sentAt) >> 1];
    this.recordsAt = place + ENTRY.words;
    this.recordWords = this.words[place + ENTRY.at.recordWords];
    return (start + this.words[place + ENTRY.at.words]) | 0;
  }

  /** Marks the unit at `position` as sent at `now` (ms). Returns the position after it. */
  markSent(position: number, now: number): number {
    const start = this.skipPadding(position);
    const place = start & this.mask;
    const next = (start + this.words[place + ENTRY.at.words]) | 0;
    this.words[place + ENTRY.at.attempts]++;
    this.floats[(place + ENTRY.at.sentAt) >> 1] = now;
    if (position === this.unsent) this.unsent = next;
    return next;
  }

  /** Sets `attempts` of every unit that was sent to 1. */
  forgetAttempts(): void {
    for (let position = this.head; position !== this.unsent; position = this.load(position))
      this.words[(this.skipPadding(position) & this.mask) + ENTRY.at.attempts] = 1;
  }

  /**
   * Deletes the sent units that lie wholly at or below `sequence`, oldest first, until `wordsMax`
   * words are free. Returns the number of units.
   */
  prune(sequence: number, wordsMax: number = Number.POSITIVE_INFINITY): number {
    const { head } = this;
    let position = head;
    let pruned = 0;
    let floor = this.floor;
    this.prunedAttempts = 0;
    while (position !== this.unsent && ((position - head) | 0) < wordsMax) {
      const next = this.load(position);
      const last = this.first + this.count - 1;
      if (last > sequence) break;
      floor = last + 1;
      position = next;
      this.prunedAttempts = Math.max(this.prunedAttempts, this.attempts);
      pruned++;
    }
    if (pruned === 0) return 0;
    this.floorAt[0] = floor;
    Atomics.store(this.header, HEADER.at.head, position);
    this.units -= pruned;
    return pruned;
  }

  private skipPadding(position: number): number {
    const place = position & this.mask;
    return this.words[place] === PADDING ? (position + this.words.length - place) | 0 : position;
  }

  /** Determines where the last thread left off. */
  private open(): void {
    const { floor, tail } = this;
    let position = this.head;
    let head = position;
    while (position !== tail) {
      const next = this.load(position);
      if (this.first < floor) head = next;
      else {
        if (this.attempts === 0 && this.unsent === tail) this.unsent = position;
        this.units++;
        this.nextSequence = this.first + this.count;
      }
      position = next;
    }
    Atomics.store(this.header, HEADER.at.head, head);
  }
}
