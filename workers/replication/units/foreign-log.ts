/**
 * The foreign log: units received of one origin for one object, kept until every member has them.
 * If the origin dies before it delivered them everywhere, they can be passed on.
 *
 *     header   head, tail                  positions, as in unit-log.ts
 *     data     2^n words                   units in the order they came, each: entry words (8), records, padded to an even count
 *     entry    total words | record words | first (f64) | incarnation (f64) | count | free | records …
 *
 * The receive thread writes while the send thread reads. The writer never waits for the reader: the
 * oldest units are dropped to make room, safe or not, and counted. So a reader copies a unit and
 * then checks that the unit was still there.
 *
 * | step                                    | why it is safe                                                              |
 * | --------------------------------------- | --------------------------------------------------------------------------- |
 * | writer stores `head`, then writes there | no unit is there any more                                                   |
 * | reader copies a unit, then reads `head` | if it has not passed the unit, no word of it was written meanwhile (TSO)    |
 * | writer writes a unit, then stores `tail` | a reader that sees `tail` sees the unit; a writer that dies leaves it out   |
 */

import { Region } from '../../../shm/region.js';
import { LINE, powerOfTwo, struct } from '../../../shm/struct.js';

const HEADER = struct({ head: LINE, tail: LINE });
const ENTRY = struct({ words: 1, recordWords: 1, first: 2, incarnation: 2, count: 1, free: 1 });
const PADDING = -1;
/** A log has room for at least a few units of the longest message. */
const BYTES_MIN = 64 << 10;

/** Data bytes of each log if the logs of all objects and origins take `bytes` together. */
function dataBytes(objects: number, members: number, bytes: number): number {
  const share = Math.max(BYTES_MIN, bytes / Math.max(1, objects * members));
  const power = powerOfTwo(share);
  return power > share ? power / 2 : power;
}

/**
 * Allocates the foreign logs of all objects and origins: `bytes` in all, but at least 64 KB each.
 * Only pages that were used take memory, so unused slots cost nothing.
 */
export function createForeignLogs(objects: number, members: number, bytes: number): SharedArrayBuffer {
  return new SharedArrayBuffer(Math.max(1, objects) * members * (HEADER.bytes + dataBytes(objects, members, bytes)));
}

/** Opens one thread's view of all of them: [object][origin]. */
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
   * Appends a unit, whose records are `from[at … at + recordWords)`. Returns how many of the oldest
   * units were dropped to make room: the caller has pruned those that are safe before.
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
   * Deletes the oldest units while they are safe: those of `present` through `safe`, those of
   * `former` through `formerSafe`, and all of other incarnations.
   */
  prune(present: number, safe: number, former: number, formerSafe: number): void {
    const { header } = this;
    const tail = header[HEADER.at.tail];
    let position = header[HEADER.at.head];
    while (position !== tail) {
      const start = this.skipPadding(position);
      const entry = start & this.mask;
      const incarnation = this.floats[(entry + ENTRY.at.incarnation) >> 1];
      const last = this.floats[(entry + ENTRY.at.first) >> 1] + this.words[entry + ENTRY.at.count] - 1;
      if (incarnation === present ? last > safe : incarnation === former && last > formerSafe) break;
      position = (start + this.words[entry + ENTRY.at.words]) | 0;
    }
    Atomics.store(header, HEADER.at.head, position);
  }

  // Any thread.

  /**
   * Copies out the unit at `position`. Returns the position after it, or `position` itself if the
   * unit was overwritten.
   */
  load(position: number): number {
    const { words } = this;
    const start = this.skipPadding(position);
    const entry = start & this.mask;
    const total = words[entry + ENTRY.at.words];
    const recordWords = words[entry + ENTRY.at.recordWords];
    // A unit that is being overwritten may contain anything.
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
