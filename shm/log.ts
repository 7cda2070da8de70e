/**
 * The log ring: how a worker passes to the send thread the records of its changes to shared state.
 *
 * It has one producer (a data plane worker) and one consumer (the send thread). It is wait-free and
 * carries whole records. A record is a header word and up to 255 payload words, and never wraps: if
 * it would, a padding word sends the reader to the start.
 *
 *     header   object id (16) | operation (8) | payload words (8)
 *
 * Positions are free-running 32-bit word counts. The index in the ring is `position & mask`.
 *
 *     line 0   tail       published by the producer           read by the consumer
 *     line 1   head       released by the consumer            read by the producer
 *     line 2   committed  the producer's own, ahead of tail   read by recovery after the producer has died
 *     data     2^n words
 *
 * | transition                | who      | how                                                                    |
 * | ------------------------- | -------- | ---------------------------------------------------------------------- |
 * | free → claimed            | producer | `claim`: only its own memory; no other thread reads past `tail`        |
 * | claimed → committed       | producer | `commit`: a plain store of `committed` after the payload               |
 * | claimed → free            | producer | `abort`, or the producer dies: the words are simply written again      |
 * | committed → published     | producer | `publish`, once a batch: one atomic store of `tail`, which releases the |
 * |                           |          | plain stores before it to the consumer's atomic load                    |
 * | committed → published     | recovery | `recoverLog`, only after the producer has died                         |
 * | published → free          | consumer | `release`: one atomic store of `head`                                  |
 * | anything else             |          | does not happen                                                        |
 *
 * `committed` is a plain store because its only other reader runs after the producer's thread has
 * ended.
 */

import { NONE } from './none.js';
import { Region } from './region.js';
import { BYTES_PER_WORD, LINE, powerOfTwo, struct } from './struct.js';

const CONTROL = struct({ tail: LINE, head: LINE, committed: LINE });
const { tail: TAIL, head: HEAD, committed: COMMITTED } = CONTROL.at;

/** A header that no record has. The reader continues at the start of the ring. */
const PADDING = -1;

export const MAX_PAYLOAD_WORDS = 255;
/** 0xffff would make a header equal to the padding word. */
export const MAX_OBJECT_ID = 0xfffe;

export function recordHeader(objectId: number, op: number, words: number): number {
  return (objectId << 16) | (op << 8) | words;
}

/** Shared memory for a log ring that holds at least `words` words. */
export function createLogRing(words: number): SharedArrayBuffer {
  const capacity = powerOfTwo(Math.max(words, 4 * (MAX_PAYLOAD_WORDS + 1)));
  return new SharedArrayBuffer(CONTROL.bytes + capacity * BYTES_PER_WORD);
}

function open(buffer: SharedArrayBuffer): { control: Int32Array; data: Int32Array } {
  const region = new Region(buffer);
  const data = region.i32(CONTROL.bytes);
  if (data.length !== powerOfTwo(data.length)) throw new RangeError(`log ring of ${data.length} words`);
  return { control: region.i32(0, CONTROL.words), data };
}

/** The worker's side. */
export class LogProducer {
  /**
   * The ring's data. The payload of a claimed record is written at `words[at]`, `words[at + 1]`, …
   */
  readonly words: Int32Array;
  private readonly control: Int32Array;
  private readonly capacity: number;
  private readonly mask: number;
  /** Copy of `head`, read again only when the ring looks full. */
  private cachedHead: number;
  private committed: number;
  private published: number;
  private claimed: number;
  /** Number of the current batch. It grows with every `publish` that published something. */
  batch = 1;

  /**
   * Opens the ring where the last producer left it. First publishes the records that it committed
   * but did not publish.
   */
  constructor(buffer: SharedArrayBuffer) {
    const { control, data } = open(buffer);
    this.words = data;
    this.control = control;
    this.capacity = data.length;
    this.mask = data.length - 1;
    recoverLog(buffer);
    this.committed = Atomics.load(control, TAIL);
    this.published = this.committed;
    this.claimed = this.committed;
    this.cachedHead = Atomics.load(control, HEAD);
  }

  /**
   * Words committed so far, modulo 2^32. A journal notes it, to find out whether the record of an
   * operation was written.
   */
  get position(): number {
    return this.committed;
  }

  /** The position after the claimed record is committed. */
  get claimedPosition(): number {
    return this.claimed;
  }

  /**
   * Claims room for one record. Returns the index in `words` of its payload, or `NONE` if the ring
   * is full.
   */
  claim(objectId: number, op: number, payloadWords: number): number {
    const need = payloadWords + 1;
    let position = this.committed;
    const at = position & this.mask;
    const toEnd = this.capacity - at;
    const skip = toEnd < need ? toEnd : 0;
    if (this.capacity - ((position - this.cachedHead) | 0) < need + skip) {
      this.cachedHead = Atomics.load(this.control, HEAD);
      if (this.capacity - ((position - this.cachedHead) | 0) < need + skip) return NONE;
    }
    if (skip !== 0) {
      this.words[at] = PADDING;
      position = (position + skip) | 0;
    }
    const header = position & this.mask;
    this.words[header] = (objectId << 16) | (op << 8) | payloadWords;
    this.claimed = (position + need) | 0;
    return header + 1;
  }

  /** Commits the claimed record. Its payload must be complete. */
  commit(): void {
    this.committed = this.claimed;
    this.control[COMMITTED] = this.claimed;
  }

  /**
   * Claims and commits a record in one step, with its first payload word. The send thread fills in
   * the others (`StateObject.fillIn`). Returns false if the ring is full.
   */
  note(objectId: number, op: number, payloadWords: number, first: number): boolean {
    const position = this.committed;
    const at = position & this.mask;
    const end = at + payloadWords + 1;
    if (end > this.capacity || this.capacity - ((position - this.cachedHead) | 0) <= payloadWords) {
      const claimed = this.claim(objectId, op, payloadWords);
      if (claimed === NONE) return false;
      this.words[claimed] = first;
      this.commit();
      return true;
    }
    this.words[at] = (objectId << 16) | (op << 8) | payloadWords;
    this.words[at + 1] = first;
    const committed = (position + payloadWords + 1) | 0;
    this.committed = committed;
    this.claimed = committed;
    this.control[COMMITTED] = committed;
    return true;
  }

  /** Gives up the claimed record. */
  abort(): void {
    this.claimed = this.committed;
  }

  /** Publishes all committed records to the consumer. Returns whether there were any. */
  publish(): boolean {
    if (this.published === this.committed) return false;
    this.published = this.committed;
    this.batch++;
    Atomics.store(this.control, TAIL, this.committed);
    return true;
  }
}

/** The send thread's side. `next()` steps to a record. Its fields stay valid until `release()`. */
export class LogConsumer {
  readonly words: Int32Array;
  objectId = 0;
  op = 0;
  /** Index into `words` of the payload. */
  at = 0;
  /** Payload words. */
  length = 0;
  /**
   * Words stepped over, modulo 2^32. Equal to the producer's `position` once all are stepped over.
   */
  position: number;
  private readonly control: Int32Array;
  private readonly mask: number;
  private limit: number;

  constructor(buffer: SharedArrayBuffer) {
    const { control, data } = open(buffer);
    this.words = data;
    this.control = control;
    this.mask = data.length - 1;
    this.position = Atomics.load(control, HEAD);
    this.limit = this.position;
  }

  /** Words published and not yet stepped over. */
  get backlog(): number {
    return (Atomics.load(this.control, TAIL) - this.position) | 0;
  }

  next(): boolean {
    if (this.position === this.limit) {
      this.limit = Atomics.load(this.control, TAIL);
      if (this.position === this.limit) return false;
    }
    let at = this.position & this.mask;
    let header = this.words[at];
    if (header === PADDING) {
      this.position = (this.position + this.words.length - at) | 0;
      at = 0;
      header = this.words[0];
    }
    this.objectId = header >>> 16;
    this.op = (header >>> 8) & 0xff;
    this.length = header & 0xff;
    this.at = at + 1;
    this.position = (this.position + this.length + 1) | 0;
    return true;
  }

  /** Gives the words of all records stepped over back to the producer. */
  release(): void {
    Atomics.store(this.control, HEAD, this.position);
  }
}

/** Publishes what a dead producer had committed. Only when no producer is alive. */
export function recoverLog(buffer: SharedArrayBuffer): void {
  const { control } = open(buffer);
  Atomics.store(control, TAIL, control[COMMITTED]);
}

/** Position up to which the producer committed. Read it after the producer has died. */
export function committedPosition(buffer: SharedArrayBuffer): number {
  return open(buffer).control[COMMITTED];
}
