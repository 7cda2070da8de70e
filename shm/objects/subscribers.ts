/**
 * How many bindings each subscriber, that is each internal address, has: for a limit on them, and
 * on how fast it makes new ones (RFC 6888 REQ-4, REQ-5).
 *
 *     bucket    lock word, 5 × (address, bindings, second (16) | new ones in it (16)), one cache line
 *
 * The bindings counted are all that are held here, other instances' too, so the limit is the
 * subscriber's at all sites together; new ones per second are this instance's alone. A subscriber
 * lies in the bucket of its address's hash, which is keyed with a secret. Counts change under the
 * bucket's lock, in the transaction that makes or ends a binding, so a thread's death undoes both;
 * but for a binding that goes for good (flow-slots.ts, `vacate`) before its thread dies, which
 * stays counted.
 *
 * There is one bucket for every two bindings that can be held. If ever more than five subscribers
 * that have bindings meet in one, the others are not counted, and not limited.
 */

import { hash2 } from '../hash.js';
import { NONE } from '../none.js';
import { powerOfTwo, struct } from '../struct.js';
import type { Transaction } from './transaction.js';

const CELL = struct({ address: 1, bindings: 1, rate: 1 });
const { address: ADDRESS, bindings: BINDINGS, rate: RATE } = CELL.at;
const CELLS = 5;
const BUCKET_SHIFT = 4;
const FIRST_CELL = 1;
/** Tells this hash from that of a flow. */
const SUBSCRIBER = 0x73756273;
const NEW_MAX = 0xffff;

export interface SubscriberLimits {
  /** Bindings of one internal address at most, at all sites; 0: no limit. */
  readonly bindingsPerSubscriber: number;
  /** New ones of it in a second at most, at one instance; 0: no limit. */
  readonly newPerSecond: number;
}

function bucketsFor(flows: number): number {
  return powerOfTwo(Math.max(16, flows >>> 1));
}

/** Words of shared memory: none where there is no limit. */
export function subscribersWords(flows: number, limits: SubscriberLimits): number {
  return limits.bindingsPerSubscriber === 0 && limits.newPerSecond === 0 ? 0 : bucketsFor(flows) << BUCKET_SHIFT;
}

export class Subscribers {
  private readonly words: Int32Array;
  private readonly base: number;
  private readonly mask: number;
  private readonly k0: number;
  private readonly k1: number;
  /** In force; where there was memory for none at the start, there is no such object. */
  limits: SubscriberLimits;

  /** The buckets at `words[base …]`, for a table of so many flows. */
  constructor(words: Int32Array, base: number, flows: number, secret: Int32Array, limits: SubscriberLimits) {
    this.words = words;
    this.base = base;
    this.mask = bucketsFor(flows) - 1;
    this.k0 = secret[0];
    this.k1 = secret[1];
    this.limits = limits;
  }

  /** Locks what is said of a raw address, in the transaction under way. */
  lock(tx: Transaction, address: number): boolean {
    return tx.lock(this.bucketOf(address));
  }

  /** Bindings of an address. */
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

  /** A locked address gets one more. `isNew`: it was made here, in this second. */
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

  /** A locked address has one less. */
  remove(tx: Transaction, address: number): void {
    const cell = this.find(address);
    if (cell !== NONE) tx.set(cell + BINDINGS, this.words[cell + BINDINGS] - 1);
  }

  /** The cell of an address that has bindings. */
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
