/**
 * The state message: one UDP datagram about one state object, from one member to the others.
 *
 * ## Format, version 1
 *
 * All fields are little-endian 32-bit words. A number of two words is unsigned, its low word first, and below 2^53.
 *
 *     word  field
 *     0     magic, the bytes "CNST"
 *     1     version (8 bits, lowest) | flags (8): 0 | acknowledgement entries (8) | units (8)
 *     2     CRC-32 (ISO-HDLC, as in zlib) of the whole message with this word 0
 *     3     cluster id: the first 32 bits of the SHA-256 of the cluster's name
 *     4–5   layout hash: members whose state objects differ do not understand each other's records
 *     6     sender's member id (16) | object id (16, high)
 *     7     view number
 *     8–9   sender's incarnation, at least 1: tells one life of an instance from the next
 *     10–11 datagram number: fresh for every message of this sender, object and incarnation; from 1
 *     12    send timestamp: the sender's own microseconds, modulo 2^32; echoed, never compared with another clock
 *     13–14 floor: lowest sequence number the sender can still send; what is below it is never sent again
 *     15–16 highest sequence number the sender has sent on this channel, floor − 1 if none is held
 *
 * Then the acknowledgement entries, each about one origin:
 *
 *     0     origin's member id (16) | ranges (8) | flags (8): bit 0, the echo is valid
 *     1–2   origin's incarnation
 *     3–4   contiguous: everything of the origin through this number is here
 *     5–6   echo: the origin's latest datagram number seen on this channel
 *     7     echo: that datagram's send timestamp
 *     8     echo: microseconds since it came
 *     9 …   per range beyond `contiguous`, ascending and not touching: first number − contiguous, and count of numbers
 *
 * Then the units, each a contiguous range of sequence numbers and the records left of it after coalescing:
 *
 *     0–1   first sequence number
 *     2     count of sequence numbers, at least 1
 *     3     words of records, at least 1
 *     4 …   records: header word (object id 16 | operation 8 | payload words 8), payload words
 *
 * Nothing follows the last unit. A round trip is now − timestamp − delay of an echo of our own datagram: numbered afresh
 * even when its units were sent before, so it is never ambiguous which sending was answered (Karn's problem).
 *
 * The checksum finds damage, not forgery. 32 bytes of the path MTU stay free for sealing.
 */

import { crc32 } from 'node:zlib';
import { MAX_RANGES, type VectorRecord } from '../../shm/ack-board.js';

const MAGIC = 0x54534e43;
export const FORMAT_VERSION = 1;

const HEADER = {
  magic: 0,
  shape: 1,
  checksum: 2,
  cluster: 3,
  layout: 4,
  route: 6,
  view: 7,
  incarnation: 8,
  datagram: 10,
  stamp: 12,
  floor: 13,
  highest: 15,
} as const;
export const HEADER_WORDS = 17;

const ENTRY = { shape: 0, incarnation: 1, contiguous: 3, datagram: 5, stamp: 7, delay: 8 } as const;
export const ENTRY_WORDS = 9;
const ECHO_VALID = 1;

const UNIT = { first: 0, count: 2, words: 3 } as const;
export const UNIT_WORDS = 4;

const HIGH_MAX = 0x1fffff;
/** Most entries, and most units, of a message. */
const COUNT_MAX = 255;
/** An echo older than this says nothing about the path any more. */
const ECHO_MS_MAX = 60_000;

/** Why a message is dropped whole; in the order of the checks. */
export const REJECTS = [
  'length',
  'magic',
  'version',
  'checksum',
  'cluster',
  'layout',
  'object',
  'malformed',
  'view',
  'sender',
  'own',
  'ack_unsent',
  'incarnation',
] as const;
export type Reject = (typeof REJECTS)[number];

/** Every message of a channel begins alike. */
export interface Envelope {
  readonly clusterId: number;
  readonly layoutHash: readonly [number, number];
  readonly view: number;
  /** Member id. */
  readonly sender: number;
  readonly incarnation: number;
}

/** A datagram's memory. `words` and `bytes` are the same memory, from its start. */
export class Datagram {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;

  constructor(byteLength: number) {
    this.words = new Int32Array(byteLength >>> 2);
    this.bytes = new Uint8Array(this.words.buffer);
  }
}

function putNumber(words: Int32Array, at: number, value: number): void {
  words[at] = value | 0;
  words[at + 1] = Math.floor(value / 2 ** 32);
}

/** -1 if it is not below 2^53. */
function getNumber(words: Int32Array, at: number): number {
  const high = words[at + 1];
  return high >>> 0 > HIGH_MAX ? -1 : high * 2 ** 32 + (words[at] >>> 0);
}

/** Milliseconds of our clock as a send timestamp. */
export function stampOf(nowMs: number): number {
  return Math.floor((nowMs * 1000) % 2 ** 32) >>> 0;
}

/** Writes one message at a time into a datagram: `begin`, entries, units, `finish`. */
export class MessageWriter {
  entries = 0;
  units = 0;
  private words: Int32Array = new Int32Array(0);
  private bytes: Uint8Array = new Uint8Array(0);
  private next = 0;
  private readonly envelope: Envelope;
  private readonly limit: number;

  /** `messageBytes`: how long a message may be. */
  constructor(envelope: Envelope, messageBytes: number) {
    this.envelope = envelope;
    this.limit = messageBytes >>> 2;
  }

  begin(into: Datagram, object: number, datagram: number, nowMs: number): void {
    const words = into.words;
    const { envelope } = this;
    words[HEADER.magic] = MAGIC;
    words[HEADER.cluster] = envelope.clusterId;
    words[HEADER.layout] = envelope.layoutHash[0];
    words[HEADER.layout + 1] = envelope.layoutHash[1];
    words[HEADER.route] = envelope.sender | (object << 16);
    words[HEADER.view] = envelope.view;
    putNumber(words, HEADER.incarnation, envelope.incarnation);
    putNumber(words, HEADER.datagram, datagram);
    words[HEADER.stamp] = stampOf(nowMs);
    this.words = words;
    this.bytes = into.bytes;
    this.next = HEADER_WORDS;
    this.entries = 0;
    this.units = 0;
  }

  /**
   * Adds what we have of `origin`, whole, if that leaves `reserve` words free. False: no room for it; a message of its own
   * always has room. Entries come before units.
   */
  addEntry(origin: number, vector: VectorRecord, nowMs: number, reserve: number): boolean {
    const { words, next } = this;
    const { ranges } = vector;
    if (next + ENTRY_WORDS + 2 * ranges + reserve > this.limit || this.entries === COUNT_MAX) return false;
    const delayMs = Math.max(0, nowMs - vector.arrivalMs);
    const echo = vector.datagram > 0 && delayMs < ECHO_MS_MAX ? ECHO_VALID : 0;
    words[next + ENTRY.shape] = origin | (ranges << 16) | (echo << 24);
    putNumber(words, next + ENTRY.incarnation, vector.incarnation);
    putNumber(words, next + ENTRY.contiguous, vector.contiguous);
    putNumber(words, next + ENTRY.datagram, vector.datagram);
    words[next + ENTRY.stamp] = vector.stamp;
    words[next + ENTRY.delay] = echo ? Math.round(delayMs * 1000) : 0;
    let at = next + ENTRY_WORDS;
    for (let i = 0; i < ranges; i++) {
      words[at++] = vector.start(i) - vector.contiguous;
      words[at++] = vector.end(i) - vector.start(i) + 1;
    }
    this.next = at;
    this.entries++;
    return true;
  }

  /** Whether a unit of so many words of records still fits. */
  fits(recordWords: number): boolean {
    return this.units < COUNT_MAX && this.next + UNIT_WORDS + recordWords <= this.limit;
  }

  /** Adds a unit that fits; its records are `from[at … at + recordWords)`. */
  addUnit(first: number, count: number, from: Int32Array, at: number, recordWords: number): void {
    const { words, next } = this;
    putNumber(words, next + UNIT.first, first);
    words[next + UNIT.count] = count;
    words[next + UNIT.words] = recordWords;
    const to = next + UNIT_WORDS;
    for (let i = 0; i < recordWords; i++) words[to + i] = from[at + i];
    this.next = to + recordWords;
    this.units++;
  }

  /** Completes the message; returns its length in bytes. */
  finish(floor: number, highest: number): number {
    const { words } = this;
    putNumber(words, HEADER.floor, floor);
    putNumber(words, HEADER.highest, highest);
    words[HEADER.shape] = FORMAT_VERSION | (this.entries << 16) | (this.units << 24);
    words[HEADER.checksum] = 0;
    const length = this.next << 2;
    words[HEADER.checksum] = crc32(this.bytes.subarray(0, length));
    return length;
  }
}

/**
 * Reads one message at a time. `read` copies the datagram first, checks every length, count and range in it, and only
 * then are its fields worth anything; nothing is allocated and nothing outside the copy is touched.
 */
export class MessageReader {
  sender = 0;
  object = 0;
  view = 0;
  incarnation = 0;
  datagram = 0;
  stamp = 0;
  floor = 0;
  highest = 0;
  entries = 0;
  units = 0;

  // The entry that `entry(i)` stepped to.
  origin = 0;
  originIncarnation = 0;
  contiguous = 0;
  echoValid = false;
  echoDatagram = 0;
  echoStamp = 0;
  echoDelayUs = 0;
  ranges = 0;
  private rangesAt = 0;

  // The unit that `unit(i)` stepped to. Its records are `words[recordsAt … recordsAt + recordWords)`.
  first = 0;
  count = 0;
  recordsAt = 0;
  recordWords = 0;

  readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly entryAt = new Int32Array(COUNT_MAX);
  private readonly unitAt = new Int32Array(COUNT_MAX);
  private readonly clusterId: number;
  private readonly layoutHash: readonly [number, number];
  private readonly objects: number;

  /** `bytesMax`: longer messages are refused. */
  constructor(clusterId: number, layoutHash: readonly [number, number], objects: number, bytesMax: number) {
    const copy = new Datagram(bytesMax);
    this.words = copy.words;
    this.bytes = copy.bytes;
    this.clusterId = clusterId | 0;
    this.layoutHash = layoutHash;
    this.objects = objects;
  }

  /** Returns why the message is refused, or null. */
  read(message: Uint8Array): Reject | null {
    const length = message.byteLength;
    if (length < HEADER_WORDS << 2 || length > this.bytes.byteLength || (length & 3) !== 0) return 'length';
    this.bytes.set(message);
    const { words } = this;
    if (words[HEADER.magic] !== MAGIC) return 'magic';
    const shape = words[HEADER.shape];
    if ((shape & 0xff) !== FORMAT_VERSION) return 'version';
    const checksum = words[HEADER.checksum];
    words[HEADER.checksum] = 0;
    if ((crc32(this.bytes.subarray(0, length)) | 0) !== checksum) return 'checksum';
    if (words[HEADER.cluster] !== this.clusterId) return 'cluster';
    if (words[HEADER.layout] !== this.layoutHash[0] || words[HEADER.layout + 1] !== this.layoutHash[1]) return 'layout';
    this.sender = words[HEADER.route] & 0xffff;
    this.object = words[HEADER.route] >>> 16;
    if (this.object >= this.objects) return 'object';
    this.view = words[HEADER.view] >>> 0;
    this.incarnation = getNumber(words, HEADER.incarnation);
    this.datagram = getNumber(words, HEADER.datagram);
    this.stamp = words[HEADER.stamp] >>> 0;
    this.floor = getNumber(words, HEADER.floor);
    this.highest = getNumber(words, HEADER.highest);
    this.entries = (shape >>> 16) & 0xff;
    this.units = shape >>> 24;
    if (this.incarnation < 1 || this.datagram < 1 || this.floor < 1 || this.highest < this.floor - 1)
      return 'malformed';
    if (((shape >>> 8) & 0xff) !== 0) return 'malformed';
    const end = length >>> 2;
    const units = this.checkEntries(HEADER_WORDS, end);
    return units !== -1 && this.checkUnits(units, end) === end ? null : 'malformed';
  }

  /** Steps to entry `i`. */
  entry(i: number): void {
    const { words } = this;
    const at = this.entryAt[i];
    this.origin = words[at + ENTRY.shape] & 0xffff;
    this.ranges = (words[at + ENTRY.shape] >>> 16) & 0xff;
    this.echoValid = words[at + ENTRY.shape] >>> 24 === ECHO_VALID;
    this.originIncarnation = getNumber(words, at + ENTRY.incarnation);
    this.contiguous = getNumber(words, at + ENTRY.contiguous);
    this.echoDatagram = getNumber(words, at + ENTRY.datagram);
    this.echoStamp = words[at + ENTRY.stamp] >>> 0;
    this.echoDelayUs = words[at + ENTRY.delay] >>> 0;
    this.rangesAt = at + ENTRY_WORDS;
  }

  /** First number of range `i` of the present entry. */
  rangeStart(i: number): number {
    return this.contiguous + (this.words[this.rangesAt + 2 * i] >>> 0);
  }

  /** Last number of range `i` of the present entry. */
  rangeEnd(i: number): number {
    return this.rangeStart(i) + (this.words[this.rangesAt + 2 * i + 1] >>> 0) - 1;
  }

  /** Steps to unit `i`. */
  unit(i: number): void {
    const at = this.unitAt[i];
    this.first = getNumber(this.words, at + UNIT.first);
    this.count = this.words[at + UNIT.count] >>> 0;
    this.recordWords = this.words[at + UNIT.words];
    this.recordsAt = at + UNIT_WORDS;
  }

  /** Checks the entries from `at` on; returns where they end, or -1. */
  private checkEntries(at: number, end: number): number {
    const { words } = this;
    let next = at;
    for (let i = 0; i < this.entries; i++) {
      if (next + ENTRY_WORDS > end) return -1;
      this.entryAt[i] = next;
      this.entry(i);
      if (this.ranges > MAX_RANGES || words[next + ENTRY.shape] >>> 24 > ECHO_VALID) return -1;
      if (this.originIncarnation < 1 || this.contiguous < 0 || this.echoDatagram < 0) return -1;
      next += ENTRY_WORDS + 2 * this.ranges;
      if (next > end) return -1;
      let missingFrom = this.contiguous + 1;
      for (let r = 0; r < this.ranges; r++) {
        const start = this.rangeStart(r);
        const last = this.rangeEnd(r);
        if (start <= missingFrom || last < start) return -1;
        missingFrom = last + 1;
      }
      if (missingFrom > Number.MAX_SAFE_INTEGER) return -1;
    }
    return next;
  }

  /** Checks the units from `at` on, record by record; returns where they end, or -1. */
  private checkUnits(at: number, end: number): number {
    const { words } = this;
    let next = at;
    for (let i = 0; i < this.units; i++) {
      if (next + UNIT_WORDS > end) return -1;
      this.unitAt[i] = next;
      this.unit(i);
      next = this.recordsAt;
      if (this.recordWords < 1 || this.recordWords > end - next) return -1;
      if (this.first < this.floor || this.count < 1 || this.first + this.count - 1 > this.highest) return -1;
      const unitEnd = next + this.recordWords;
      let records = 0;
      while (next < unitEnd) {
        if (words[next] >>> 16 !== this.object) return -1;
        next += 1 + (words[next] & 0xff);
        records++;
      }
      if (next !== unitEnd || records > this.count) return -1;
    }
    return next;
  }
}
