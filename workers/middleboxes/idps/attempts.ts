/**
 * Table of recent attempts: TCP connections, UDP exchanges and pings of the last `ATTEMPT_S`
 * seconds at this instance. For sources that look suspicious, it also has those of the other
 * instances. An answer or a refusal counts only for an attempt in this table.
 *
 *     local memory   the table: BUCKETS of WAYS entries, shared by the instance's workers; services.ts; the pending bytes
 *     entry          tag (0: free), since (coarse seconds), bits, value (TCP: initial sequence number of the SYN-ACK)
 *     record         two words of hash, bits
 *
 * A key is the unordered pair of ends with both ports, the protocol and the link. Its *low* end is
 * the smaller one. Each bit exists once per end. Records only add bits, so they commute and may be
 * repeated.
 *
 * **Bounds.** The table is fixed. If its bucket is full, a new entry replaces the oldest. So a
 * flood of attempts only shortens the time for which attempts are remembered. A refusal without an
 * attempt is not counted, and the scan is then found by the silence of the hosts that it tried.
 * Each worker replicates at most `RECORDS_PER_SECOND` attempts.
 *
 * **Concurrent writers.** Stores are plain. The tag is cleared first and written last. If two
 * workers write one entry at the same instant, one of two real attempts may be lost, or may get the
 * bits of the other.
 *
 * **Pending bytes** tell whether a packet of a connection under way must be looked up. A byte per
 * class of port pairs and addresses holds the time when something was last expected. For almost all
 * packets nothing is expected.
 */

import {
  Applied,
  LINE,
  NONE,
  type OpenContext,
  type SketchHash,
  type StateDefinition,
  type StateObject,
  seeded,
  struct,
  type Writer,
} from '../../api/api.js';
import { ADDRESS_WORDS, DESTINATION, LINK, SOURCE } from './ends.js';
import { SERVICE_WORDS, Services } from './services.js';

/** What an end did. For the high end, shift the bit left by one. */
export const Did = {
  /** It began something: sent a SYN, a UDP datagram to a service, or a ping. */
  BEGIN: 1,
  /** It got an answer to what it began. */
  GET_ANSWER: 4,
  /** It sent a bare ACK, or a packet, on a connection whose beginning nobody saw. */
  PROBE: 16,
  /** The connection that it began was completed. */
  COMPLETE: 64,
} as const;
const EITHER = 3;
const ALL_BITS = 0xff;

const BUCKETS = 1 << 16;
const WAYS = 4;
const ENTRY = struct({ tag: 1, since: 1, bits: 1, value: 1 });
const TABLE_WORDS = BUCKETS * WAYS * ENTRY.words;
const PENDING = 1 << 16;
/**
 * Seconds for which an attempt is remembered. `EXPECTED_S` is that for which something stays
 * expected.
 */
const ATTEMPT_S = 32;
const EXPECTED_S = 3;
const RECORDS_PER_SECOND = 1000;
const RECORD_WORDS = 3;
const ATTEMPT = 1;
const KEY_WORDS = 2 * ADDRESS_WORDS + 2;
const COUNTS = struct({ malformed: LINE, postponed: 1, logFull: 1, replaced: 1 });
/** Content that lasts only seconds is not compared between instances. */
const NOTHING_COMPARED = '0000000000000000';

export function attempts(seed: string): StateDefinition<Attempts> {
  const { parameters, hash } = seeded('idps-attempts', { BUCKETS, WAYS, ATTEMPT_S }, seed);
  return {
    kind: 'idps-attempts',
    parameters,
    bytes: COUNTS.bytes,
    localBytes: () => (TABLE_WORDS + SERVICE_WORDS) * 4 + PENDING,
    open: (context) => new Attempts(context, hash()),
  };
}

export class Attempts implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  /** Which end the source is in the key of the last `find`: 0 the low one, 1 the high one. */
  side = 0;
  readonly services: Services;
  private readonly counts: Int32Array;
  private readonly table: Int32Array;
  private readonly pending: Uint8Array;
  private readonly hasher: SketchHash;
  private readonly factor: number;
  private readonly writer: Writer | null;
  private readonly key = new Int32Array(KEY_WORDS);
  private first = 0;
  private second = 0;
  /** The result of the last `find`, or the entry that was made since. */
  found: number = NONE;
  private replicated = 0;
  private lately = 0;

  constructor({ id, region, local, secret, writer }: OpenContext, hasher: SketchHash) {
    if (local === undefined) throw new Error('the table of attempts needs local memory');
    this.id = id;
    this.counts = region.i32(0, COUNTS.words);
    this.table = local.i32(0, TABLE_WORDS);
    this.services = new Services(local.i32(TABLE_WORDS * 4, SERVICE_WORDS), hasher);
    this.pending = local.u8().subarray((TABLE_WORDS + SERVICE_WORDS) * 4);
    this.hasher = hasher;
    this.factor = secret[0] | 1;
    this.writer = writer;
  }

  // ——— Packet path ———

  /**
   * Returns the entry of the ends at `ends[0 …]`, for a raw port pair and a protocol, or `NONE`.
   * Sets `side`.
   */
  find(ends: Int32Array, ports: number, protocol: number, now: number): number {
    const { key, hasher } = this;
    this.side = isHigh(ends, ports) ? 1 : 0;
    const low = this.side === 0 ? SOURCE : DESTINATION;
    for (let i = 0; i < ADDRESS_WORDS; i++) {
      key[i] = ends[low + i];
      key[ADDRESS_WORDS + i] = ends[(low ^ DESTINATION) + i];
    }
    key[2 * ADDRESS_WORDS] = this.side === 0 ? ports : (ports << 16) | (ports >>> 16);
    key[2 * ADDRESS_WORDS + 1] = protocol | (ends[LINK] << 8);
    hasher.hash(key, 0, KEY_WORDS);
    this.first = hasher.first;
    this.second = hasher.second || 1;
    this.found = this.lookUp(now);
    return this.found;
  }

  /**
   * Returns true if the source of the last `find` did something, or with `ofOther`, the
   * destination.
   */
  did(entry: number, what: number, ofOther = false): boolean {
    return (this.table[entry + ENTRY.at.bits] & (what << (this.side ^ (ofOther ? 1 : 0)))) !== 0;
  }

  /** Returns true if either end did something. */
  eitherDid(entry: number, what: number): boolean {
    return (this.table[entry + ENTRY.at.bits] & (what * EITHER)) !== 0;
  }

  valueIn(entry: number): number {
    return this.table[entry + ENTRY.at.value];
  }

  /**
   * Notes what the source of the last `find` did, or with `ofOther`, the destination. If
   * `replicate` is true, the other sites get it too.
   */
  note(what: number, ofOther: boolean, value: number, now: number, replicate: boolean): void {
    const bits = what << (this.side ^ (ofOther ? 1 : 0));
    this.put(bits, value, now);
    if (replicate) this.log(bits, now);
  }

  /** The end begins again with the same ports. Forgets the outcome of its previous connection. */
  restart(entry: number, ofOther: boolean): void {
    const side = this.side ^ (ofOther ? 1 : 0);
    this.table[entry + ENTRY.at.bits] &= ~((Did.GET_ANSWER | Did.COMPLETE) << side);
  }

  /**
   * Returns true if a packet between these ends must be looked up (see the head of this file). The
   * place is the same for both directions.
   */
  isExpected(place: number, now: number): boolean {
    return ((now - this.pending[place]) & 0xff) < EXPECTED_S;
  }

  placeOf(ends: Int32Array, ports: number): number {
    const both = ports ^ ((ports << 16) | (ports >>> 16));
    return Math.imul(both ^ ends[SOURCE + 3] ^ ends[DESTINATION + 3], this.factor) >>> 16;
  }

  expect(place: number, now: number): void {
    this.pending[place] = now;
  }

  unexpect(place: number, now: number): void {
    this.pending[place] = now - 2 * EXPECTED_S;
  }

  private lookUp(now: number): number {
    const { table, second } = this;
    const bucket = (this.first & (BUCKETS - 1)) * WAYS * ENTRY.words;
    for (let entry = bucket; entry < bucket + WAYS * ENTRY.words; entry += ENTRY.words)
      if (table[entry] === second && now - table[entry + ENTRY.at.since] <= ATTEMPT_S) return entry;
    return NONE;
  }

  /** Adds bits to the entry that was found, or makes an entry. */
  private put(bits: number, value: number, now: number): void {
    const { table } = this;
    const known = this.found;
    // Another worker may have replaced the entry since.
    if (known !== NONE && table[known] === this.second) {
      table[known + ENTRY.at.bits] |= bits;
      table[known + ENTRY.at.since] = now;
      if (value !== 0) table[known + ENTRY.at.value] = value;
      return;
    }
    const entry = this.placeForNew(now);
    table[entry] = 0;
    table[entry + ENTRY.at.since] = now;
    table[entry + ENTRY.at.bits] = bits;
    table[entry + ENTRY.at.value] = value;
    table[entry] = this.second;
    this.found = entry;
  }

  private placeForNew(now: number): number {
    const { table } = this;
    const bucket = (this.first & (BUCKETS - 1)) * WAYS * ENTRY.words;
    let oldest = bucket;
    for (let entry = bucket; entry < bucket + WAYS * ENTRY.words; entry += ENTRY.words) {
      if (table[entry] === 0) return entry;
      if (table[entry + ENTRY.at.since] < table[oldest + ENTRY.at.since]) oldest = entry;
    }
    if (now - table[oldest + ENTRY.at.since] <= ATTEMPT_S) this.counts[COUNTS.at.replaced]++;
    return oldest;
  }

  private log(bits: number, now: number): void {
    const log = this.writer?.log;
    if (log === undefined || log === null) return;
    if (now !== this.lately) {
      this.lately = now;
      this.replicated = 0;
    }
    if (this.replicated >= RECORDS_PER_SECOND) {
      this.counts[COUNTS.at.postponed]++;
      return;
    }
    this.replicated++;
    const at = log.claim(this.id, ATTEMPT, RECORD_WORDS);
    if (at === NONE) {
      this.counts[COUNTS.at.logFull]++;
      return;
    }
    log.words[at] = this.first;
    log.words[at + 1] = this.second;
    log.words[at + 2] = bits;
    log.commit();
  }

  // ——— Replication ———

  apply(op: number, words: Int32Array, at: number, length: number, _origin: number, now: number): Applied {
    const bits = words[at + 2];
    if (op !== ATTEMPT || length !== RECORD_WORDS || words[at + 1] === 0 || bits <= 0 || bits > ALL_BITS) {
      Atomics.add(this.counts, COUNTS.at.malformed, 1);
      return Applied.MALFORMED;
    }
    this.first = words[at];
    this.second = words[at + 1];
    this.found = this.lookUp(now);
    this.put(bits, 0, now);
    return Applied.CHANGED;
  }

  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return words[at] ^ words[at + 1];
  }

  coalesce(_op: number, words: Int32Array, earlier: number, later: number): boolean {
    if (words[earlier] !== words[later] || words[earlier + 1] !== words[later + 1]) return false;
    words[earlier + 2] |= words[later + 2];
    return true;
  }

  /** Merges nothing: snapshots do not contain the attempts of the last seconds. */
  merge(): number {
    return 0;
  }

  digest(): string {
    return NOTHING_COMPARED;
  }

  /** An entry that a dead worker was writing has no tag. */
  recover(): number {
    return 0;
  }

  describe(now: number): Record<string, number> {
    const { table, counts } = this;
    let entries = 0;
    for (let entry = 0; entry < TABLE_WORDS; entry += ENTRY.words)
      if (table[entry] !== 0 && now - table[entry + ENTRY.at.since] <= ATTEMPT_S) entries++;
    return {
      capacity: BUCKETS * WAYS,
      entries,
      replaced: counts[COUNTS.at.replaced],
      postponed: counts[COUNTS.at.postponed],
      log_full: counts[COUNTS.at.logFull],
      malformed: counts[COUNTS.at.malformed],
    };
  }
}

/** Returns true if the source is the larger of the two ends. */
function isHigh(ends: Int32Array, ports: number): boolean {
  for (let i = ADDRESS_WORDS - 1; i >= 0; i--)
    if (ends[SOURCE + i] !== ends[DESTINATION + i]) return ends[SOURCE + i] > ends[DESTINATION + i];
  return (ports & 0xffff) > ports >>> 16;
}
