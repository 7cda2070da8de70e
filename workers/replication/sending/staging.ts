/**
 * The staging area of one object: records drained in this round are coalesced here before they are
 * cut into units.
 *
 * A record that the object merges into an earlier one adds no words, only weight. A staged record
 * weighs as many records as it stands for, and the unit that carries it takes that many sequence
 * numbers. So a unit's numbers are those of exactly the operations it carries.
 *
 * Only the latest staged record of a key is tried: merging with an earlier one would skip an
 * operation on that key.
 */

import { MAX_PAYLOAD_WORDS, recordHeader } from '../../../shm/log.js';
import { NONE } from '../../../shm/none.js';
import type { StateObject } from '../../../shm/objects/core/object.js';

/**
 * Usually large enough for the records that are drained at once after throttling
 * (workers/engine/send.ts).
 */
export const STAGING_WORDS = 1 << 17;
export const RECORD_WORDS_MAX = MAX_PAYLOAD_WORDS + 1;
const TABLE_BITS = 15;
/** Up to this many records, the table is emptied entry by entry: most rounds stage only a few. */
const SPARSE_RECORDS = 1 << 11;

export class StagingArea {
  readonly words = new Int32Array(STAGING_WORDS);
  /**
   * Words in use; the number of staged records; per record, where it starts and how many records it
   * stands for.
   */
  used = 0;
  records = 0;
  readonly start = new Int32Array(STAGING_WORDS);
  readonly weight = new Int32Array(STAGING_WORDS);
  /** How often the object's own code threw an error; the record is then sent unmerged. */
  failures = 0;
  private readonly object: StateObject;
  /**
   * Hash of the coalescing key → 1 + the latest staged record with it. And per record, the index of
   * that hash, or `NONE`.
   */
  private readonly latest = new Int32Array(1 << TABLE_BITS);
  private readonly slot = new Int32Array(SPARSE_RECORDS);

  constructor(object: StateObject) {
    this.object = object;
  }

  /**
   * Copies a record in, for which there must be room. Returns whether it added no words: it was
   * merged, or has nothing to replicate.
   */
  add(op: number, from: Int32Array, at: number, length: number): boolean {
    const { words, used } = this;
    const header = recordHeader(this.object.id, op, length);
    words[used] = header;
    for (let i = 0; i < length; i++) words[used + 1 + i] = from[at + i];
    if (this.isReplicated(op, used + 1, length)) return true;
    const slot = this.slotOf(op, used + 1, length);
    if (slot === NONE) this.failures++;
    else if (this.merge(slot, header, op, used + 1, length)) return true;
    this.start[this.records] = used;
    this.weight[this.records] = 1;
    if (this.records < SPARSE_RECORDS) this.slot[this.records] = slot;
    this.records++;
    if (slot !== NONE) this.latest[slot] = this.records;
    this.used = used + 1 + length;
    return false;
  }

  /**
   * The table index of the latest record of this record's key; `NONE` if the object's code fails.
   */
  private slotOf(op: number, at: number, length: number): number {
    try {
      return Math.imul(this.object.coalesceKey(op, this.words, at, length) | 0, 0x9e3779b1) >>> (32 - TABLE_BITS);
    } catch {
      return NONE;
    }
  }

  /** Merges the record at `at` into the latest one of its key, if the object can coalesce them. */
  private merge(slot: number, header: number, op: number, at: number, length: number): boolean {
    const earlier = this.latest[slot] - 1;
    if (earlier < 0) return false;
    const place = this.start[earlier];
    if (this.words[place] !== header) return false;
    try {
      if (!this.object.coalesce(op, this.words, place + 1, at, length)) return false;
    } catch {
      this.failures++;
      return false;
    }
    this.weight[earlier]++;
    return true;
  }

  /**
   * Lets the object fill in the record with its present values. Returns whether these were
   * replicated already.
   */
  private isReplicated(op: number, at: number, length: number): boolean {
    const { object } = this;
    if (object.fillIn === undefined) return false;
    try {
      return !object.fillIn(op, this.words, at, length);
    } catch {
      this.failures++;
      return true; // what it would say is not known
    }
  }

  clear(): void {
    if (this.records === 0) return;
    if (this.records > SPARSE_RECORDS) this.latest.fill(0);
    else for (let i = 0; i < this.records; i++) if (this.slot[i] !== NONE) this.latest[this.slot[i]] = 0;
    this.used = 0;
    this.records = 0;
    this.failures = 0;
  }
}
