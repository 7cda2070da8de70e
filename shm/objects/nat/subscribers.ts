/**
 * Counts the bindings of each subscriber, that is, of each internal address. This limits their
 * number and how fast a subscriber makes new ones (RFC 6888 REQ-4, REQ-5).
 *
 *     bucket    lock word, 5 × (address, bindings, second (16) | new ones in it (16)), one cache line
 *
 * All bindings of this instance's table are counted, including those of other instances. So the
 * limit holds for a subscriber at all sites together. New bindings per second are counted for this
 * instance only. A subscriber is in the bucket of its address's hash, which is keyed with a secret.
 * Counts change under the bucket's lock, in the transaction that makes or ends a binding, so a
 * thread's death undoes both. There is one exception: a binding that is removed for good
 * (table-slots.ts, `vacate`) before its thread dies stays counted.
 *
 * There is one bucket for every two bindings that the table can have. If more than five subscribers
 * with bindings ever share a bucket, the others are neither counted nor limited.
 */

import { hash2 } from '../../hash.js';
import { NONE } from '../../none.js';
import { powerOfTwo, struct } from '../../struct.js';
import type { Transaction } from '../core/transaction.js';

const CELL = struct({ address: 1, bindings: 1, rate: 1 });
const { address: ADDRESS, bindings: BINDINGS, rate: RATE } = CELL.at;
const CELLS = 5;
const BUCKET_SHIFT = 4;
const FIRST_CELL = 1;
/** Distinguishes this hash from that of a flow. */
const SUBSCRIBER = 0x73756273;
const NEW_MAX = 0xffff;

export interface SubscriberLimits {
  /** Maximum number of bindings of one internal address, at all sites; 0: no limit. */
  readonly bindingsPerSubscriber: number;
  /** Maximum number of its new bindings per second, at one instance; 0: no limit. */
  readonly newPerSecond: number;
}

function bucketsFor(flows: number): number {
  return powerOfTwo(Math.max(16, flows >>> 1));
}

/** Words of shared memory; 0 if there is no limit. */
export function subscribersWords(flows: number, limits: SubscriberLimits): number {
  return limits.bindingsPerSubscriber === 0 && limits.newPerSecond === 0 ? 0 : bucketsFor(flows) << BUCKET_SHIFT;
}

export class Subscribers {
  private readonly words: Int32Array;
  private readonly base: number;
  private readonly mask: number;
  private readonly k0: number;
  private readonly k1: number;
  /** The limits in force. If no limit was set at the start, there is no such object. */
  limits: SubscriberLimits;

  /** The buckets are at `words[base …]`, for a table of `flows` flows. */
  constructor(words: Int32Array, base: number, flows: number, secret: Int32Array, limits: SubscriberLimits) {
    this.words = words;
    this.base = base;
    this.mask = bucketsFor(flows) - 1;
    this.k0 = secret[0];
    this.k1 = secret[1];
    this.limits = limits;
  }

  /** Locks the bucket of a raw address, in the current transaction. */
  lock(tx: Transaction, address: number): boolean {
    return tx.lock(this.bucketOf(address));
  }

  /** Number of bindings of an address. */
  count(address: number): number {
    const cell = this.find(address);
    return cell === NONE ? 0 : this.words[cell + BINDINGS];
  }

  /** Whether one more binding of a locked address is within the limit. */
  hasRoom(address: number): boolean {
    const { bindingsPerSubscriber } = this.limits;
    return bindingsPerSubscriber === 0 || this.count(address) < bindingsPerSubscriber;
  }

  /** Whether a locked address may make a new binding in this second. */
  mayHurry(address: number, now: number): boolean {
    const { newPerSecond } = this.limits;
    const cell = this.find(address);
    if (newPerSecond === 0 || cell === NONE) return true;
    const rate = this.words[cell + RATE];
    return rate >>> 16 !== (now & 0xffff) || (rate & 0xffff) < newPerSecond;
  }

  /** Counts one more binding of a locked address. `isNew`: it was made here, in this second. */
  add(tx: Transaction, address: number, now: number, isNew: boolean): void {
    let cell = this.find(address);
    if (cell === NONE) {
      cell = this.unused(address);
      if (cell === NONE) return;
      tx.set(cell + ADDRESS, address);
      tx.set(cell + RATE, 0);
    }
    tx.set(cell + BINDINGS, this.words[cell + BINDINGS] + 1);
    if (!isNew) return;
    const rate = this.words[cell + RATE];
    const made = rate >>> 16 === (now & 0xffff) ? rate & 0xffff : 0;
    tx.set(cell + RATE, ((now & 0xffff) << 16) | Math.min(made + 1, NEW_MAX));
  }

  /** Counts one binding less of a locked address. */
  remove(tx: Transaction, address: number): void {
    const cell = this.find(address);
    if (cell !== NONE) tx.set(cell + BINDINGS, this.words[cell + BINDINGS] - 1);
  }

  /** The cell of an address that has bindings, or `NONE`. */
  private find(address: number): number {
    const { words } = this;
    let cell = this.bucketOf(address) + FIRST_CELL;
    for (let i = 0; i < CELLS; i++, cell += CELL.words)
      if (words[cell + ADDRESS] === address && words[cell + BINDINGS] > 0) return cell;
    return NONE;
  }

  private unused(address: number): number {
    let cell = this.bucketOf(address) + FIRST_CELL;
    for (let i = 0; i < CELLS; i++, cell += CELL.words) if (this.words[cell + BINDINGS] <= 0) return cell;
    return NONE;
  }

  /** Word index of the bucket, which is its lock. */
  private bucketOf(address: number): number {
    return this.base + ((hash2(this.k0, this.k1, address, SUBSCRIBER) & this.mask) << BUCKET_SHIFT);
  }
}
