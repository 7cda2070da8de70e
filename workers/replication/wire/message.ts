/**
 * The state message: one UDP datagram about one state object, from one member to the others.
 * docs/state-message.md specifies both versions of its format. The offsets below are its tables.
 */

import { crc32 } from 'node:zlib';
import { MAX_RANGES, PeerFlag, type VectorRecord } from '../../../shm/ack-board.js';

const MAGIC = 0x54534e43;
/**
 * The highest format version that is spoken. Every version down to 1 is read, and is written if
 * some member speaks no higher one.
 */
export const FORMAT_VERSION = 2;

const HEADER = {
  magic: 0,
  shape: 1,
  checksum: 2,
  cluster: 3,
  meaning: 4,
  route: 6,
  view: 7,
  incarnation: 8,
  datagram: 10,
  stamp: 12,
  floor: 13,
  highest: 15,
  // From here on: version 2.
  wall: 17,
  excluded: 19,
  origin: 21,
  originIncarnation: 22,
  vectorHash: 24,
  digest: 26,
} as const;
const HEADER_WORDS_1 = HEADER.wall;
/**
 * The most words before the first entry of ours or the first unit: a header of version 1 is
 * followed by an announcement.
 */
export const HEADER_WORDS = 28;

const ENTRY = { shape: 0, incarnation: 1, contiguous: 3, datagram: 5, stamp: 7, delay: 8 } as const;
export const ENTRY_WORDS = 9;
/** Flags of an entry. `RETAINS`, `FROZEN`: version 2 only. */
const ECHO_VALID = 1;
export const RETAINS = 2;
export const FROZEN = 4;
/** First version that can say that an incarnation has ended. */
export const FREEZING_VERSION = 2;
const ENTRY_FLAGS = [0, ECHO_VALID, ECHO_VALID | RETAINS | FROZEN] as const;

/** The entry about origin 0 in messages of version 1. */
const ANNOUNCEMENT = { shape: 0, incarnation: 1, speaks: 3, wall: 5, excluded: 7 } as const;

const PEER_FLAGS = PeerFlag.JOINING | PeerFlag.LEAVING;
/** Flag of a message: its units were folded for the one member that receives it. */
const FOLDED = 4;
const MESSAGE_FLAGS = [0, 0, PEER_FLAGS | FOLDED] as const;

const UNIT = { first: 0, count: 2, words: 3 } as const;
export const UNIT_WORDS = 4;

const HIGH_MAX = 0x1fffff;
/** Most entries, and most units, of a message. */
const COUNT_MAX = 255;
/** An older echo, in ms, says nothing about the path any more. */
const ECHO_MS_MAX = 60_000;

/** Why a message is dropped whole, in the order of the checks. */
export const REJECTS = [
  'length',
  'magic',
  'version',
  'checksum',
  'cluster',
  'meaning',
  'object',
  'malformed',
  'view',
  'sender',
  'own',
  'ack_unsent',
  'incarnation',
  'unclosed',
] as const;
export type Reject = (typeof REJECTS)[number];

/** What every message of a channel has in its header. */
export interface Envelope {
  readonly clusterId: number;
  readonly meaningHash: readonly [number, number];
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

/** Returns -1 if the number is not below 2^53. */
function getNumber(words: Int32Array, at: number): number {
  const high = words[at + 1];
  return high >>> 0 > HIGH_MAX ? -1 : high * 2 ** 32 + (words[at] >>> 0);
}

/** The send timestamp for a time of our clock: microseconds modulo 2^32. `nowMs` is in ms. */
export function stampOf(nowMs: number): number {
  return Math.floor((nowMs * 1000) % 2 ** 32) >>> 0;
}

/** Writes one message at a time into a datagram: `begin`, entries, units, `finish`. */
export class MessageWriter {
  /**
   * Format version, flags (`PeerFlag`) and wall clock (Unix ms; 0: not given) of the messages begun
   * from now on.
   */
  version = FORMAT_VERSION;
  flags = 0;
  wallMs = 0;
  entries = 0;
  units = 0;
  /** Slots 0–31 and 32–63 that the current message excludes. */
  private excludedLow = 0;
  private excludedHigh = 0;
  private folded = false;
  private words: Int32Array = new Int32Array(0);
  private bytes: Uint8Array = new Uint8Array(0);
  private next = 0;
  private readonly envelope: Envelope;
  private readonly limit: number;

  /** `messageBytes`: the longest message, in bytes. */
  constructor(envelope: Envelope, messageBytes: number) {
    this.envelope = envelope;
    this.limit = messageBytes >>> 2;
  }

  begin(into: Datagram, object: number, datagram: number, nowMs: number): void {
    const words = into.words;
    const { envelope } = this;
    words[HEADER.magic] = MAGIC;
    words[HEADER.cluster] = envelope.clusterId;
    words[HEADER.meaning] = envelope.meaningHash[0];
    words[HEADER.meaning + 1] = envelope.meaningHash[1];
    words[HEADER.route] = envelope.sender | (object << 16);
    words[HEADER.view] = envelope.view;
    putNumber(words, HEADER.incarnation, envelope.incarnation);
    putNumber(words, HEADER.datagram, datagram);
    words[HEADER.stamp] = stampOf(nowMs);
    this.words = words;
    this.bytes = into.bytes;
    this.entries = 0;
    this.units = 0;
    this.excludedLow = 0;
    this.excludedHigh = 0;
    this.folded = false;
    if (this.version === 1) this.announce();
    else {
      putNumber(words, HEADER.wall, this.wallMs);
      words[HEADER.origin] = envelope.sender;
      putNumber(words, HEADER.originIncarnation, envelope.incarnation);
      words.fill(0, HEADER.vectorHash, HEADER_WORDS);
      this.next = HEADER_WORDS;
    }
  }

  /**
   * Adds an entry for what a header of version 1 has no words for. Readers of version 1 skip it.
   */
  private announce(): void {
    const { words } = this;
    const at = HEADER_WORDS_1;
    words[at + ANNOUNCEMENT.shape] = 0;
    putNumber(words, at + ANNOUNCEMENT.incarnation, this.envelope.incarnation);
    putNumber(words, at + ANNOUNCEMENT.wall, this.wallMs);
    this.next = at + ENTRY_WORDS;
    this.entries = 1;
  }

  /**
   * Excludes the slots whose bits are set from the units, floor and highest of the current message.
   */
  exclude(low: number, high: number): void {
    this.excludedLow = low;
    this.excludedHigh = high;
  }

  /** Marks the units of the current message as folded for the one member that is not excluded. */
  markFolded(): void {
    this.folded = true;
  }

  /** Sets the origin of the current message's units, floor and highest. Version 2 only. */
  speakFor(origin: number, incarnation: number): void {
    this.words[HEADER.origin] = origin;
    putNumber(this.words, HEADER.originIncarnation, incarnation);
  }

  /**
   * Adds our state of the object to the current message: the hash of its vector and its digest, two
   * words each. Version 2 only.
   */
  addDigest(vectorHash: Int32Array, digest: Int32Array): void {
    this.words.set(vectorHash, HEADER.vectorHash);
    this.words.set(digest, HEADER.digest);
  }

  /**
   * Adds the whole of what we have of `origin` if that leaves `reserve` words free. Returns false
   * if there is no room; a message of its own always has room. Entries come before units. `flags`:
   * `RETAINS`, `FROZEN`, lost in version 1.
   */
  addEntry(origin: number, vector: VectorRecord, nowMs: number, reserve: number, flags = 0): boolean {
    const { words, next } = this;
    const { ranges } = vector;
    if (next + ENTRY_WORDS + 2 * ranges + reserve > this.limit || this.entries === COUNT_MAX) return false;
    const delayMs = Math.max(0, nowMs - vector.arrivalMs);
    const echo = vector.datagram > 0 && delayMs < ECHO_MS_MAX ? ECHO_VALID : 0;
    words[next + ENTRY.shape] = origin | (ranges << 16) | (((echo | flags) & ENTRY_FLAGS[this.version]) << 24);
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

  /** Whether a unit of this many words of records still fits. */
  fits(recordWords: number): boolean {
    return this.units < COUNT_MAX && this.next + UNIT_WORDS + recordWords <= this.limit;
  }

  /** Adds a unit that fits. Its records are `from[at … at + recordWords)`. */
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

  /** Completes the message. Returns its length in bytes. */
  finish(floor: number, highest: number): number {
    const { words } = this;
    putNumber(words, HEADER.floor, floor);
    putNumber(words, HEADER.highest, highest);
    const excluded = this.version === 1 ? HEADER_WORDS_1 + ANNOUNCEMENT.excluded : HEADER.excluded;
    words[excluded] = this.excludedLow;
    words[excluded + 1] = this.excludedHigh;
    const flags = this.flags | (this.folded ? FOLDED : 0);
    if (this.version === 1) putNumber(words, HEADER_WORDS_1 + ANNOUNCEMENT.speaks, FORMAT_VERSION + 256 * flags);
    words[HEADER.shape] =
      this.version | ((this.version === 1 ? 0 : flags) << 8) | (this.entries << 16) | (this.units << 24);
    words[HEADER.checksum] = 0;
    const length = this.next << 2;
    words[HEADER.checksum] = crc32(this.bytes.subarray(0, length));
    return length;
  }
}

/**
 * Reads one message at a time. `read` copies the datagram first and checks every length, count and
 * range in it. Only then are the fields valid. It allocates nothing, and touches nothing outside
 * the copy.
 */
export class MessageReader {
  version = 0;
  /** The highest version that the sender speaks. */
  speaks = 0;
  /** `PeerFlag`. */
  flags = 0;
  /**
   * The units were folded for us alone: at other members, their numbers stand for other records.
   */
  folded = false;
  sender = 0;
  object = 0;
  view = 0;
  incarnation = 0;
  datagram = 0;
  stamp = 0;
  floor = 0;
  highest = 0;
  /** The sender's wall clock, Unix ms; 0: not given. */
  wallMs = 0;
  /** Origin of the units, floor and highest: member id and incarnation. */
  unitsOrigin = 0;
  unitsIncarnation = 0;
  /** Two words each; 0 if not given. */
  readonly vectorHash = new Int32Array(2);
  readonly digest = new Int32Array(2);
  entries = 0;
  units = 0;
  /** Slots 0–31 and 32–63 that are excluded from the units, floor and highest. */
  excludedLow = 0;
  excludedHigh = 0;

  // The entry that `entry(i)` read.
  origin = 0;
  originIncarnation = 0;
  contiguous = 0;
  echoValid = false;
  echoDatagram = 0;
  echoStamp = 0;
  echoDelayUs = 0;
  ranges = 0;
  /** `RETAINS`, `FROZEN`. */
  entryFlags = 0;
  private rangesAt = 0;

  // The unit that `unit(i)` read. Its records are `words[recordsAt … recordsAt + recordWords)`.
  first = 0;
  count = 0;
  recordsAt = 0;
  recordWords = 0;

  readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly entryAt = new Int32Array(COUNT_MAX);
  private readonly unitAt = new Int32Array(COUNT_MAX);
  private readonly clusterId: number;
  private readonly meaningHash: readonly [number, number];
  private readonly objects: number;

  /** `bytesMax`: longer messages are refused. */
  constructor(clusterId: number, meaningHash: readonly [number, number], objects: number, bytesMax: number) {
    const copy = new Datagram(bytesMax);
    this.words = copy.words;
    this.bytes = copy.bytes;
    this.clusterId = clusterId | 0;
    this.meaningHash = meaningHash;
    this.objects = objects;
  }

  /** Returns why the message is refused, or null. */
  read(message: Uint8Array): Reject | null {
    const length = message.byteLength;
    if (length < HEADER_WORDS_1 << 2 || length > this.bytes.byteLength || (length & 3) !== 0) return 'length';
    this.bytes.set(message);
    const { words } = this;
    if (words[HEADER.magic] !== MAGIC) return 'magic';
    const shape = words[HEADER.shape];
    this.version = shape & 0xff;
    if (this.version < 1 || this.version > FORMAT_VERSION) return 'version';
    const checksum = words[HEADER.checksum];
    words[HEADER.checksum] = 0;
    if ((crc32(this.bytes.subarray(0, length)) | 0) !== checksum) return 'checksum';
    if (words[HEADER.cluster] !== this.clusterId) return 'cluster';
    if (words[HEADER.meaning] !== this.meaningHash[0] || words[HEADER.meaning + 1] !== this.meaningHash[1])
      return 'meaning';
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
    const end = length >>> 2;
    const header = this.version === 1 ? HEADER_WORDS_1 : HEADER_WORDS;
    if (end < header) return 'malformed';
    if (this.version === 1) this.readHeader1();
    else this.readHeader2();
    if (((shape >>> 8) & 0xff & ~MESSAGE_FLAGS[this.version]) !== 0) return 'malformed';
    this.takeFlags((shape >>> 8) & 0xff);
    const units = this.checkEntries(header, end);
    if (units === -1 || this.checkUnits(units, end) !== end) return 'malformed';
    if (this.entries > 0 && words[header] === 0) this.readAnnouncement(header);
    const told = this.speaks >= this.version && this.wallMs >= 0 && this.unitsOrigin > 0 && this.unitsIncarnation >= 1;
    return told ? null : 'malformed';
  }

  /** Whether the member in this slot is excluded from the units, floor and highest. */
  excludes(slot: number): boolean {
    return (((slot < 32 ? this.excludedLow : this.excludedHigh) >>> (slot & 31)) & 1) === 1;
  }

  private takeFlags(flags: number): void {
    this.flags = flags & PEER_FLAGS;
    this.folded = (flags & FOLDED) !== 0;
  }

  private readHeader1(): void {
    this.speaks = 1;
    this.wallMs = 0;
    this.excludedLow = 0;
    this.excludedHigh = 0;
    this.unitsOrigin = this.sender;
    this.unitsIncarnation = this.incarnation;
    this.vectorHash.fill(0);
    this.digest.fill(0);
  }

  private readHeader2(): void {
    const { words, vectorHash, digest } = this;
    this.speaks = this.version;
    this.wallMs = getNumber(words, HEADER.wall);
    this.excludedLow = words[HEADER.excluded];
    this.excludedHigh = words[HEADER.excluded + 1];
    this.unitsOrigin = words[HEADER.origin] >>> 16 === 0 ? words[HEADER.origin] : 0;
    this.unitsIncarnation = getNumber(words, HEADER.originIncarnation);
    for (let i = 0; i < 2; i++) {
      vectorHash[i] = words[HEADER.vectorHash + i];
      digest[i] = words[HEADER.digest + i];
    }
  }

  /**
   * Reads the first entry if it is about origin 0: the sender speaks a higher version than it
   * writes.
   */
  private readAnnouncement(at: number): void {
    const { words } = this;
    const speaks = getNumber(words, at + ANNOUNCEMENT.speaks);
    this.speaks = speaks % 256;
    if (this.version > 1) return;
    this.takeFlags(Math.floor(speaks / 256));
    this.wallMs = getNumber(words, at + ANNOUNCEMENT.wall);
    this.excludedLow = words[at + ANNOUNCEMENT.excluded];
    this.excludedHigh = words[at + ANNOUNCEMENT.excluded + 1];
  }

  /** Reads entry `i` into the entry fields. */
  entry(i: number): void {
    const { words } = this;
    const at = this.entryAt[i];
    this.origin = words[at + ENTRY.shape] & 0xffff;
    this.ranges = (words[at + ENTRY.shape] >>> 16) & 0xff;
    const flags = words[at + ENTRY.shape] >>> 24;
    this.echoValid = (flags & ECHO_VALID) !== 0;
    this.entryFlags = flags & ~ECHO_VALID;
    this.originIncarnation = getNumber(words, at + ENTRY.incarnation);
    this.contiguous = getNumber(words, at + ENTRY.contiguous);
    this.echoDatagram = getNumber(words, at + ENTRY.datagram);
    this.echoStamp = words[at + ENTRY.stamp] >>> 0;
    this.echoDelayUs = words[at + ENTRY.delay] >>> 0;
    this.rangesAt = at + ENTRY_WORDS;
  }

  /** First number of range `i` of the current entry. */
  rangeStart(i: number): number {
    return this.contiguous + (this.words[this.rangesAt + 2 * i] >>> 0);
  }

  /** Last number of range `i` of the current entry. */
  rangeEnd(i: number): number {
    return this.rangeStart(i) + (this.words[this.rangesAt + 2 * i + 1] >>> 0) - 1;
  }

  /** Reads unit `i` into the unit fields. */
  unit(i: number): void {
    const at = this.unitAt[i];
    this.first = getNumber(this.words, at + UNIT.first);
    this.count = this.words[at + UNIT.count] >>> 0;
    this.recordWords = this.words[at + UNIT.words];
    this.recordsAt = at + UNIT_WORDS;
  }

  /** Checks the entries from `at` on. Returns where they end, or -1. */
  private checkEntries(at: number, end: number): number {
    const { words } = this;
    const known = ENTRY_FLAGS[this.version];
    let next = at;
    for (let i = 0; i < this.entries; i++) {
      if (next + ENTRY_WORDS > end) return -1;
      this.entryAt[i] = next;
      this.entry(i);
      if (this.ranges > MAX_RANGES || ((words[next + ENTRY.shape] >>> 24) & ~known) !== 0) return -1;
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

  /** Checks the units from `at` on, record by record. Returns where they end, or -1. */
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
