/**
 * Who began what lately: TCP connections, UDP exchanges and pings of the last `LIFE_S` seconds, at
 * this instance and, of sources that look suspicious, at the others. An answer or a refusal counts
 * only for an attempt that is found here.
 *
 *     local memory   the table: BUCKETS of WAYS entries, shared by the instance's workers; services.ts; the pending bytes
 *     entry          tag (0: free), since (coarse seconds), bits, value (TCP: initial sequence number of the SYN-ACK)
 *     record         two words of hash, bits
 *
 * A key is the unordered pair of ends with both ports, protocol and link. Its *low* end is the
 * smaller one, and each bit exists once for either end. Records only add bits, so they commute and
 * may be repeated.
 *
 * **Bounds.** The table is fixed. A new entry replaces the oldest of its bucket, so a flood of
 * attempts shortens how long attempts are remembered, and costs nothing else: a refusal that finds
 * no attempt is not counted, and the scan is found by the silence of what it tried. Each worker
 * replicates `RECORDS_PER_SECOND` attempts at most.
 *
 * **Concurrent writers.** Plain stores. The tag is cleared first and written last. If two workers
 * write one entry at the same instant, one of two real attempts may be lost, or may get the bits of
 * the other.
 *
 * **Pending bytes.** Whether a packet of a connection under way has to be looked up: a byte per
 * class of port pairs and addresses says when something was expected last. Almost all packets find
 * that nothing is.
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
} from '../../api.js';
import { ADDRESS_WORDS, DESTINATION, LINK, SOURCE } from './ends.js';
import { SERVICE_WORDS, Services } from './services.js';

/** What an end did: shifted left by one for the high end. */
export const Did = {
  /** It sent what begins something: a SYN, a UDP datagram to a service, a ping. */
  BEGIN: 1,
  /** What it began was answered. */
  GET_ANSWER: 4,
  /** It sent a bare ACK, or took part, in a connection that nobody was seen to begin. */
  PROBE: 16,
  /** The connection it began was completed. */
  COMPLETE: 64,
} as const;
const EITHER = 3;
const ALL_BITS = 0xff;

const BUCKETS = 1 << 16;
const WAYS = 4;
const ENTRY = struct({ tag: 1, since: 1, bits: 1, value: 1 });
const TABLE_WORDS = BUCKETS * WAYS * ENTRY.words;
const PENDING = 1 << 16;
/** How long an attempt is remembered, and how long something stays expected. */
export const LIFE_S = 32;
const EXPECTED_S = 3;
const RECORDS_PER_SECOND = 1000;
const RECORD_WORDS = 3;
const ATTEMPT = 1;
const KEY_WORDS = 2 * ADDRESS_WORDS + 2;
const COUNTS = struct({ malformed: LINE, postponed: 1, logFull: 1, replaced: 1 });
/** What is remembered for seconds is not compared between instances. */
const NOTHING_COMPARED = '0000000000000000';

export function attempts(seed: string): StateDefinition<Attempts> {
  const { parameters, hash } = seeded('idps-attempts', { BUCKETS, WAYS, LIFE_S }, seed);
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
  /** Of the key of the last `find`: which end the source is, 0 the low one, 1 the high one. */
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
  /** What the last `find` returned, or the entry that was made since. */
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
   * The entry of what the ends at `ends[0 …]` have to do with each other, by a raw port pair and a
   * protocol; `NONE` if there is none. Sets `side`.
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
   * Whether the source, or (`ofOther`) the destination, of the entry's last `find` did something.
   */
  did(entry: number, what: number, ofOther = false): boolean {
    return (this.table[entry + ENTRY.at.bits] & (what << (this.side ^ (ofOther ? 1 : 0)))) !== 0;
  }

  /** Whether either end did. */
  eitherDid(entry: number, what: number): boolean {
    return (this.table[entry + ENTRY.at.bits] & (what * EITHER)) !== 0;
  }

  valueIn(entry: number): number {
    return this.table[entry + ENTRY.at.value];
  }

  /**
   * Notes what the source, or (`ofOther`) the destination, of the last `find` did. `replicate`: the
   * other sites learn it too.
   */
  note(what: number, ofOther: boolean, value: number, now: number, replicate: boolean): void {
    const bits = what << (this.side ^ (ofOther ? 1 : 0));
    this.put(bits, value, now);
    if (replicate) this.log(bits, now);
  }

  /** The end begins anew with the same ports: what became of its connection before is forgotten. */
  restart(entry: number, ofOther: boolean): void {
    const side = this.side ^ (ofOther ? 1 : 0);
    this.table[entry + ENTRY.at.bits] &= ~((Did.GET_ANSWER | Did.COMPLETE) << side);
  }

  /**
   * Whether a packet between these ends has to be looked up; see the head. The place is the same
   * for both directions.
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
      if (table[entry] === second && now - table[entry + ENTRY.at.since] <= LIFE_S) return entry;
    return NONE;
  }

  /** Adds to the entry that was found, or makes one. */
  private put(bits: number, value: number, now: number): void {
    const { table } = this;
    const known = this.found;
    // Unless another worker took the entry since.
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
    if (now - table[oldest + ENTRY.at.since] <= LIFE_S) this.counts[COUNTS.at.replaced]++;
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

  /** Nothing: the attempts of the last seconds are in no snapshot. */
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
      if (table[entry] !== 0 && now - table[entry + ENTRY.at.since] <= LIFE_S) entries++;
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

/** Whether the source is the larger of the two ends. */
function isHigh(ends: Int32Array, ports: number): boolean {
  for (let i = ADDRESS_WORDS - 1; i >= 0; i--)
    if (ends[SOURCE + i] !== ends[DESTINATION + i]) return ends[SOURCE + i] > ends[DESTINATION + i];
  return (ports & 0xffff) > ports >>> 16;
}
