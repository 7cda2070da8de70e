/**
 * The foreign log: units received of one origin for one object, kept until every member has them,
 * so that they can be passed on if their origin dies before it delivered them everywhere.
 *
 *     header   head, tail                  positions, as in unit-log.ts
 *     data     2^n words                   units in the order they came, each: entry words (8), records, padded to an even count
 *     entry    total words | record words | first (f64) | incarnation (f64) | count | free | records …
 *
 * The receive thread writes, and the send thread reads while it does. Nobody waits for the reader:
 * what must make room does, whether it is safe by then or not (counted), so a reader copies a unit
 * and then looks whether it was still there.
 *
 * | step                                    | why it is safe                                                              |
 * | --------------------------------------- | --------------------------------------------------------------------------- |
 * | writer stores `head`, then writes there | the place is nobody's by then                                               |
 * | reader copies a unit, then reads `head` | if it has not passed the unit, no word of it was written meanwhile (TSO)    |
 * | writer writes a unit, then stores `tail` | a reader that sees `tail` sees the unit; a writer that dies leaves it out   |
 */

import { Region } from '../../shm/region.js';
import { LINE, powerOfTwo, struct } from '../../shm/struct.js';

const HEADER = struct({ head: LINE, tail: LINE });
const ENTRY = struct({ words: 1, recordWords: 1, first: 2, incarnation: 2, count: 1, free: 1 });
const PADDING = -1;
/** A log holds at least some units of the longest message. */
const BYTES_MIN = 64 << 10;

/** Bytes of units that one log of `bytes` for all objects and origins holds. */
function dataBytes(objects: number, members: number, bytes: number): number {
  const share = Math.max(BYTES_MIN, bytes / Math.max(1, objects * members));
  const power = powerOfTwo(share);
  return power > share ? power / 2 : power;
}

/**
 * Memory for the foreign logs of all objects and origins, `bytes` in all, but 64 KB for each at
 * least. Only what was used once takes memory: nothing for slots nobody has.
 */
export function createForeignLogs(objects: number, members: number, bytes: number): SharedArrayBuffer {
  return new SharedArrayBuffer(Math.max(1, objects) * members * (HEADER.bytes + dataBytes(objects, members, bytes)));
}

/** One thread's view of all of them: [object][origin]. */
export function openForeignLogs(buffer: SharedArrayBuffer, objects: number, members: number): ForeignLog[][] {
  const bytes = buffer.byteLength / (Math.max(1, objects) * members);
  return Array.from({ length: objects }, (_, object) =>
    Array.from(
      { length: members },
      (_, origin) => new ForeignLog(new Region(buffer, (object * members + origin) * bytes, bytes)),
    ),
  );
}

export class ForeignLog {
  // The unit that `load` copied out; its records are `records[0 … recordWords)`.
  first = 0;
  count = 0;
  incarnation = 0;
  recordWords = 0;
  records = new Int32Array(0);

  private readonly header: Int32Array;
  private readonly words: Int32Array;
  private readonly floats: Float64Array;
  private readonly mask: number;

  constructor(region: Region) {
    this.header = region.i32(0, HEADER.words);
    this.words = region.i32(HEADER.bytes);
    this.floats = region.f64(HEADER.bytes);
    this.mask = this.words.length - 1;
    if ((this.words.length & this.mask) !== 0) throw new RangeError(`foreign log of ${this.words.length} words`);
  }

  get head(): number {
    return Atomics.load(this.header, HEADER.at.head);
  }

  get tail(): number {
    return Atomics.load(this.header, HEADER.at.tail);
  }

  get usedWords(): number {
    return (this.tail - this.head) | 0;
  }

  get capacityWords(): number {
    return this.words.length;
  }

  // The receive thread.

  /**
   * Keeps a unit; `from[at … at + recordWords)` are its records. Returns how many of the oldest had
   * to make room for it: the caller has let go of those that are safe before.
   */
  append(incarnation: number, first: number, count: number, from: Int32Array, at: number, recordWords: number): number {
    const { words, header } = this;
    const need = entryWords(recordWords);
    if (need > words.length / 2) return 0; // no message holds such a unit
    let tail = header[HEADER.at.tail];
    const place = tail & this.mask;
    const skip = place + need > words.length ? words.length - place : 0;
    const dropped = this.makeRoom(need + skip);
    if (skip > 0) {
      words[place] = PADDING;
      tail = (tail + skip) | 0;
    }
    const entry = tail & this.mask;
    words[entry + ENTRY.at.words] = need;
    words[entry + ENTRY.at.recordWords] = recordWords;
    this.floats[(entry + ENTRY.at.first) >> 1] = first;
    this.floats[(entry + ENTRY.at.incarnation) >> 1] = incarnation;
    words[entry + ENTRY.at.count] = count;
    for (let i = 0; i < recordWords; i++) words[entry + ENTRY.words + i] = from[at + i];
    Atomics.store(header, HEADER.at.tail, (tail + need) | 0);
    return dropped;
  }

  /**
   * Lets go of the oldest units as long as they are safe: those of `present` through `safe`, of
   * `former` through `formerSafe`, and all of other lives.
   */
  prune(present: number, safe: number, former: number, formerSafe: number): void {
    const { header } = this;
    const tail = header[HEADER.at.tail];
    let position = header[HEADER.at.head];
    while (position !== tail) {
      const start = this.skipPadding(position);
      const entry = start & this.mask;
      const life = this.floats[(entry + ENTRY.at.incarnation) >> 1];
      const last = this.floats[(entry + ENTRY.at.first) >> 1] + this.words[entry + ENTRY.at.count] - 1;
      if (life === present ? last > safe : life === former && last > formerSafe) break;
      position = (start + this.words[entry + ENTRY.at.words]) | 0;
    }
    Atomics.store(header, HEADER.at.head, position);
  }

  // Any thread.

  /**
   * Copies out the unit at `position`. Returns the position after it, or `position` itself if it
   * had to make room.
   */
  load(position: number): number {
    const { words } = this;
    const start = this.skipPadding(position);
    const entry = start & this.mask;
    const total = words[entry + ENTRY.at.words];
    const recordWords = words[entry + ENTRY.at.recordWords];
    // What is being written over may say anything.
    if (recordWords < 1 || entryWords(recordWords) !== total || entry + total > words.length) return position;
    if (this.records.length < recordWords) this.records = new Int32Array(2 * recordWords);
    this.first = this.floats[(entry + ENTRY.at.first) >> 1];
    this.incarnation = this.floats[(entry + ENTRY.at.incarnation) >> 1];
    this.count = words[entry + ENTRY.at.count];
    this.recordWords = recordWords;
    for (let i = 0; i < recordWords; i++) this.records[i] = words[entry + ENTRY.words + i];
    return ((position - this.head) | 0) < 0 ? position : (start + total) | 0;
  }

  private makeRoom(need: number): number {
    const { header } = this;
    const tail = header[HEADER.at.tail];
    let head = header[HEADER.at.head];
    let dropped = 0;
    while (((tail - head) | 0) + need > this.words.length) {
      const start = this.skipPadding(head);
      head = (start + this.words[(start & this.mask) + ENTRY.at.words]) | 0;
      dropped++;
    }
    if (dropped > 0) Atomics.store(header, HEADER.at.head, head);
    return dropped;
  }

  private skipPadding(position: number): number {
    const place = position & this.mask;
    return this.words[place] === PADDING ? (position + this.words.length - place) | 0 : position;
  }
}

function entryWords(recordWords: number): number {
  const words = ENTRY.words + recordWords;
  return words + (words & 1);
}
