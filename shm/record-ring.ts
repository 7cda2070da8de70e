/**
 * The record ring: how a data plane worker passes records of fixed layout to main, some hundred
 * thousand a second, without creating an object for each.
 *
 * It has one producer (a worker) and one consumer (main, which polls). A full ring refuses a
 * record, and the producer counts that: a slow disk may cost records, but never packets. If a
 * thread dies, records that it had not published are lost.
 *
 *     line 0   tail    words written, published by the producer, a record at a time
 *     line 1   head    words read, released by main
 *     data     2^n words; a record is kind << 16 | payload words, Unix time in ms (low, high), payload; it may wrap
 */

import { Region } from './region.js';
import { LINE, powerOfTwo, struct } from './struct.js';

const CONTROL = struct({ tail: LINE, head: LINE });
const { tail: TAIL, head: HEAD } = CONTROL.at;
const HEADER = struct({ kind: 1, low: 1, high: 1 });
const TWO_32 = 2 ** 32;

export const RECORD_WORDS_MAX = 1024;

/** Memory for at least `words` words of records, headers included. */
export function createRecordRing(words: number): SharedArrayBuffer {
  const size = powerOfTwo(Math.max(words, 2 * (RECORD_WORDS_MAX + HEADER.words)));
  return new SharedArrayBuffer(CONTROL.bytes + size * 4);
}

class RecordRing {
  protected readonly control: Int32Array;
  protected readonly data: Int32Array;
  protected readonly mask: number;

  constructor(buffer: SharedArrayBuffer) {
    const region = new Region(buffer);
    this.control = region.i32(0, CONTROL.words);
    this.data = region.i32(CONTROL.bytes);
    this.mask = this.data.length - 1;
  }
}

export class RecordWriter extends RecordRing {
  /**
   * Copies of the shared words. Only this writer changes `tail`, so it is read once. `head` is read
   * again only when the ring looks full.
   */
  private tail: number;
  private head: number;

  constructor(buffer: SharedArrayBuffer) {
    super(buffer);
    this.tail = Atomics.load(this.control, TAIL);
    this.head = Atomics.load(this.control, HEAD);
  }

  /** Returns false, and writes nothing, if the ring has no room. */
  write(kind: number, unixMs: number, payload: Int32Array): boolean {
    const { data, mask, tail } = this;
    const words = HEADER.words + payload.length;
    if (data.length - ((tail - this.head) | 0) < words) {
      this.head = Atomics.load(this.control, HEAD);
      if (data.length - ((tail - this.head) | 0) < words) return false;
    }
    data[tail & mask] = (kind << 16) | payload.length;
    data[(tail + HEADER.at.low) & mask] = unixMs | 0;
    data[(tail + HEADER.at.high) & mask] = (unixMs / TWO_32) | 0;
    for (let i = 0, at = tail + HEADER.words; i < payload.length; i++, at++) data[at & mask] = payload[i];
    this.tail = (tail + words) | 0;
    Atomics.store(this.control, TAIL, this.tail);
    return true;
  }
}

export class RecordReader extends RecordRing {
  private readonly payload = new Int32Array(RECORD_WORDS_MAX);

  /**
   * Passes the oldest records, at most `limit`, to `see`, and then releases them. `payload` is
   * reused for the next record. Returns how many records there were.
   */
  read(limit: number, see: (kind: number, unixMs: number, payload: Int32Array) => void): number {
    const { control, data, mask } = this;
    const tail = Atomics.load(control, TAIL);
    let head = Atomics.load(control, HEAD);
    let count = 0;
    for (; count < limit && head !== tail; count++) {
      const first = data[head & mask];
      const length = first & 0xffff;
      const low = data[(head + HEADER.at.low) & mask] >>> 0;
      const unixMs = data[(head + HEADER.at.high) & mask] * TWO_32 + low;
      const payload = this.payload.subarray(0, length);
      for (let i = 0, at = head + HEADER.words; i < length; i++, at++) payload[i] = data[at & mask];
      head = (head + HEADER.words + length) | 0;
      see(first >>> 16, unixMs, payload);
    }
    Atomics.store(control, HEAD, head);
    return count;
  }
}
