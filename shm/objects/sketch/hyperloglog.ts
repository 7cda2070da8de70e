/**
 * A count of distinct keys, shared by all instances: HyperLogLog (Flajolet, Fusy, Gandouet and
 * Meunier, "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm", 2007).
 *
 * Each of `2^precision` registers holds the largest rank of its keys. The rank is the position of
 * the first set bit in a 64-bit hash, without the bits that choose the register. A merge takes the
 * maximum of each register. So records may arrive in any order, any number of times, and a key seen
 * at several instances counts once.
 *
 *     counts      rare events
 *     registers   a byte each
 *     record      register << 8 | rank
 *
 * **Concurrent writers.** A register only grows, by compare-exchange on its byte. A plain read
 * first shows, nearly always, that no change is needed. Every thread of the instance may write. A
 * plain read returns some value that the register had.
 *
 * **Death of a writer.** The writer notes the change in the journal, commits the record, and then
 * raises the register. If the record was committed, recovery raises the register again. Otherwise
 * nothing has happened.
 */

import type { LogProducer } from '../../log.js';
import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD, LINE, struct } from '../../struct.js';
import { ContentDigest } from '../core/content-digest.js';
import { type Journal, JournalState } from '../core/journal.js';
import { Applied, type OpenContext, type StateDefinition, type StateObject, type Writer } from '../core/object.js';
import { estimateOf } from './hyperloglog-estimate.js';
import { type SketchHash, seeded } from './sketch-hash.js';

interface HyperLogLogOptions {
  /**
   * A HyperLogLog has 2^precision registers, 4…18. The standard error is 1.04 / √registers. Default
   * 14: 16 KiB, 0.8 %.
   */
  readonly precision?: number;
  /** See sketch-hash.ts. */
  readonly seed?: string;
}

/** The only operation in the log. */
export const HLL_RAISE = 1;

const COUNTS = struct({ logFull: LINE, malformed: 1 });
const HASH_BITS = 64;
const RECORD_WORDS = 1;

export function hyperLogLog({ precision = 14, seed = '' }: HyperLogLogOptions = {}): StateDefinition<HyperLogLog> {
  if (!Number.isInteger(precision) || precision < 4 || precision > 18)
    throw new RangeError(`HyperLogLog: precision ${precision} is not a whole number from 4 to 18`);
  const { parameters, hash } = seeded('hyperloglog', { precision }, seed);
  return {
    kind: 'hyperloglog',
    parameters,
    bytes: COUNTS.bytes + 2 ** precision,
    open: (context) => new HyperLogLog(context, precision, hash()),
  };
}

export class HyperLogLog implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  /** Number of registers. */
  readonly registers: number;
  private readonly precision: number;
  private readonly rankMax: number;
  private readonly counts: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly hasher: SketchHash;
  private readonly writer: Writer | null;

  constructor({ id, region, writer }: OpenContext, precision: number, hash: SketchHash) {
    this.id = id;
    this.precision = precision;
    this.registers = 2 ** precision;
    this.rankMax = HASH_BITS - precision + 1;
    this.counts = region.i32(0, COUNTS.bytes / BYTES_PER_WORD);
    this.bytes = region.u8(COUNTS.bytes, this.registers);
    this.hasher = hash;
    this.writer = writer;
  }

  /** Counts a key of two words. Returns false, and changes nothing, if the log is full. */
  add2(key0: number, key1: number): boolean {
    this.hasher.hash2(key0, key1);
    return this.addHashed();
  }

  /**
   * The same for the key `words[at … at + count)`. A key of two words is the same key in both
   * methods.
   */
  add(words: Int32Array, at: number, count: number): boolean {
    this.hasher.hash(words, at, count);
    return this.addHashed();
  }

  private addHashed(): boolean {
    const { first } = this.hasher;
    const { precision } = this;
    const register = first & (this.registers - 1);
    // The low bits choose the register. If the rest of the first word is 0, the rank continues in
    // the second word.
    const rank = first >>> precision !== 0 ? Math.clz32(first) + 1 : 33 - precision + Math.clz32(this.hasher.second);
    return this.bytes[register] >= rank || this.record(register, rank);
  }

  private record(register: number, rank: number): boolean {
    const { writer } = this;
    if (writer === null || writer.log === null)
      throw new Error(`state object ${this.id}: this thread has no log, its operations cannot be replicated`);
    const log: LogProducer = writer.log;
    const { journal } = writer;
    const at = log.claim(this.id, HLL_RAISE, RECORD_WORDS);
    if (at === NONE) {
      Atomics.add(this.counts, COUNTS.at.logFull, 1);
      return false;
    }
    log.words[at] = (register << 8) | rank;
    journal.open(JournalState.LOGGED, this.id, log.position);
    journal.noteWord(register, rank);
    log.commit();
    this.raise(register, rank);
    journal.close();
    return true;
  }

  /** Raises a register to `rank`. Returns whether it was lower. */
  private raise(register: number, rank: number): boolean {
    const { bytes } = this;
    for (let old = bytes[register]; old < rank; ) {
      const seen = Atomics.compareExchange(bytes, register, old, rank);
      if (seen === old) return true;
      old = seen;
    }
    return false;
  }

  /**
   * Estimates how many distinct keys were added at all instances. Reads every register: off the
   * packet path.
   */
  estimate(): number {
    const { registers, bytes, rankMax } = this;
    const having = new Float64Array(rankMax + 1);
    for (let i = 0; i < registers; i++) having[bytes[i]]++;
    return estimateOf(having, registers);
  }

  /**
   * The relative standard error of the estimate, 1.04 / √registers. Two estimates in three are
   * within it.
   */
  get standardError(): number {
    return 1.04 / Math.sqrt(this.registers);
  }

  apply(op: number, words: Int32Array, at: number, length: number): Applied {
    const word = words[at];
    const register = word >> 8;
    const rank = word & 0xff;
    if (
      op !== HLL_RAISE ||
      length !== RECORD_WORDS ||
      register < 0 ||
      register >= this.registers ||
      rank < 1 ||
      rank > this.rankMax
    ) {
      Atomics.add(this.counts, COUNTS.at.malformed, 1);
      return Applied.MALFORMED;
    }
    return this.raise(register, rank) ? Applied.CHANGED : Applied.UNCHANGED;
  }

  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return words[at] >> 8;
  }

  /** Keeps the larger rank of one register. */
  coalesce(_op: number, words: Int32Array, earlier: number, later: number): boolean {
    if (words[earlier] >> 8 !== words[later] >> 8) return false;
    words[earlier] = Math.max(words[earlier], words[later]);
    return true;
  }

  /** Takes the larger rank of each register. Skips ranks that are too large to be valid. */
  merge(from: Region): number {
    const theirs = from.u8(COUNTS.bytes, this.registers);
    let changed = 0;
    for (let i = 0; i < this.registers; i++)
      if (theirs[i] > this.bytes[i] && theirs[i] <= this.rankMax && this.raise(i, theirs[i])) changed++;
    return changed;
  }

  recover(_writerId: number, journal: Journal, logPosition: number): number {
    if (journal.state === JournalState.EMPTY || journal.objectId !== this.id) return 0;
    const stands = journal.wordCount === 1 && logPosition !== journal.position;
    const recovered = stands && this.raise(journal.wordAt(0), journal.oldAt(0)) ? 1 : 0;
    journal.close();
    return recovered;
  }

  digest(): string {
    const digest = new ContentDigest();
    const entry = new Int32Array(2);
    for (let i = 0; i < this.registers; i++) {
      if (this.bytes[i] === 0) continue;
      entry[0] = i;
      entry[1] = this.bytes[i];
      digest.add(entry);
    }
    return digest.toString();
  }

  describe(): Record<string, number> {
    let used = 0;
    for (let i = 0; i < this.registers; i++) if (this.bytes[i] !== 0) used++;
    return {
      registers: this.registers,
      used,
      estimate: Math.round(this.estimate()),
      log_full: this.counts[COUNTS.at.logFull],
      malformed: this.counts[COUNTS.at.malformed],
    };
  }
}
