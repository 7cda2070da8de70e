/**
 * Half-open entries of a flow table: those of the lowest ranks, up to `FlowShape.halfOpenRank`. The
 * requester has not established them. A SYN that a server answered is half-open too, because any
 * server answers any SYN. A sender can make any number of them, so they must cost others neither
 * room in the table nor room on the state channel.
 *
 * **Quota.** Half-open entries have a fixed part of the table. A new one beyond the quota evicts an
 * older one, and so does any entry if the table is full. An entry that is past half-open is never
 * evicted. Nor is one younger than `YOUNG_S`: a handshake has that time, whatever flood is going
 * on. The oldest entry that this thread made is evicted, so a flood evicts its own entries, as far
 * as all of it comes to one worker. A slot is reused only after the guard (table-slots.ts). So at
 * most the quota can be evicted in two seconds. Beyond that, or if no entry to evict was found, a
 * new half-open entry is refused.
 *
 * If this thread has no entry that is old enough, evict whichever of the next few half-open entries
 * after the new key's home slot expires first. (Other threads, or a predecessor that died, may have
 * older ones.) The table is not searched, so work is bounded. Homes are hashed with a secret, so
 * nobody can choose which entry is evicted.
 *
 * **Budget of records.** Each thread replicates a limited number of new half-open entries per
 * second. The others are *local-only* (`LOCAL_ONLY`). A quarter of the budget is reserved for flows
 * that send a second packet while local-only. So a client that tries again is replicated even
 * during a flood of new keys. A flow whose rank rises is always replicated, and its record is
 * complete. A peer's quota may have had no room for a replicated entry. If its packet comes again,
 * it is replicated again (`replicateAgain`), from the same budget.
 *
 * **Convergence.** A local-only entry is not part of the replicated content. Digests and merges
 * leave it out. A peer's record of its key replaces it, whatever the two say. A key becomes
 * local-only only if no replicated entry of it is remembered, so local-only content never hides
 * replicated content. An evicted entry is forgotten before its time, as in a full table. An
 * instance may then lack a half-open entry that others have, until the entry rises, is refreshed,
 * or expires.
 *
 * All threads add to the counts atomically. If a thread is killed, a count may be off by one.
 */

import { NONE } from '../../none.js';
import { struct } from '../../struct.js';
import type { Transaction } from '../core/transaction.js';
import { Arrivals } from './arrivals.js';
import type { FlowSlots } from './table-slots.js';

export interface HalfOpenOptions {
  /** Maximum number of half-open entries; default a quarter of the capacity. */
  readonly halfOpen?: number;
  /**
   * Maximum number of records of new half-open entries per second, over all workers; default a
   * sixteenth of the capacity, at least 1000.
   */
  readonly halfOpenRecords?: number;
}

export const HALF_OPEN_COUNTS = struct({ open: 1, evicted: 1, refused: 1, localOnly: 1 });
const { open: OPEN, evicted: EVICTED, refused: REFUSED, localOnly: LOCAL_ONLY } = HALF_OPEN_COUNTS.at;

/** Coarse seconds, so at least one real second, in which a new entry is not evicted. */
export const YOUNG_S = 2;
/**
 * A generation may be this far ahead of the clock, in seconds, and its entry still counts as young.
 * A key that is used again within one second has the next generation, and another member's clock
 * may be ahead. If it is further ahead, a sender is renewing the entry to keep it.
 */
const AHEAD_MAX_S = 8;
/** Entries of this thread that are no longer half-open, skipped at most to find one. */
const PASSED_OVER = 32;
/**
 * Half-open entries that are compared, and slots that are checked for them, from the new entry's
 * home slot on.
 */
const COMPARED = 4;
const LOOKED_AT = 64;
/** Slots that are checked elsewhere, in turn, if there were none. */
const LOOKED_AT_ELSEWHERE = 512;
/** After this many fruitless searches in a second, no other search is made in it. */
const FRUITLESS_MAX = 8;
/** The part of the budget reserved for flows that are local-only already, as a right shift. */
const AGAIN_SHIFT = 2;

/**
 * The options with their defaults, for a table of `capacity` entries. Throws a `RangeError` if one
 * is out of range.
 */
export function halfOpenLimits(capacity: number, options: HalfOpenOptions): Required<HalfOpenOptions> {
  const { halfOpen = Math.max(1, capacity >>> 2), halfOpenRecords = Math.max(1000, capacity >>> 4) } = options;
  if (!Number.isInteger(halfOpen) || halfOpen < 1 || halfOpen > capacity)
    throw new RangeError(`flow table: ${halfOpen} half-open entries of ${capacity}, from 1 to all are possible`);
  if (!Number.isInteger(halfOpenRecords) || halfOpenRecords < 0)
    throw new RangeError(
      `flow table: ${halfOpenRecords} records of half-open entries a second, 0 or more are possible`,
    );
  return { halfOpen, halfOpenRecords };
}

/** Whether an entry of this generation is too young to be evicted. */
export function isYoung(generation: number, now: number): boolean {
  const age = now - generation;
  return age < YOUNG_S && age >= -AHEAD_MAX_S;
}

export class HalfOpen {
  quota: number;
  private readonly words: Int32Array;
  private readonly at: number;
  private readonly slots: FlowSlots;
  private readonly lockMore: (slot: number, now: number) => boolean;
  /** Records of this thread: per second, and left in the current second. */
  private share: number;
  private left: number;
  private second = 0;
  /** Searches in this second that found no entry to evict. */
  private fruitless = 0;
  /**
   * Entries evicted so far by all threads, at the beginning of the second before this one and of
   * this one.
   */
  private evictedBefore = 0;
  private evictedLately = 0;
  private hand: number;
  private arrivals: Arrivals;
  private readonly workers: number;

  /**
   * The counts are at `words[at …]`. The budget is divided among `workers` threads. `lockMore`
   * takes the further locks of a slot's entry, besides the slot's own, in the current transaction.
   * It returns false if they are not available.
   */
  constructor(
    words: Int32Array,
    at: number,
    slots: FlowSlots,
    limits: Required<HalfOpenOptions>,
    workers: number,
    lockMore: (slot: number, now: number) => boolean,
  ) {
    this.words = words;
    this.at = at;
    this.slots = slots;
    this.quota = limits.halfOpen;
    this.workers = workers;
    this.share = Math.ceil(limits.halfOpenRecords / workers);
    this.left = this.share;
    this.lockMore = lockMore;
    this.hand = 0;
    this.arrivals = new Arrivals(Math.max(1, limits.halfOpen));
  }

  /**
   * Applies new limits from now on. Entries beyond a smaller quota stay, and new ones evict them.
   */
  setLimits({ halfOpen, halfOpenRecords }: Required<HalfOpenOptions>): void {
    if (halfOpen > this.quota) this.arrivals = new Arrivals(Math.max(1, halfOpen));
    this.quota = halfOpen;
    this.share = Math.ceil(halfOpenRecords / this.workers);
    this.left = Math.min(this.left, this.share);
  }

  /** Whether one more half-open entry is within the quota. */
  hasRoom(): boolean {
    return this.words[this.at + OPEN] < this.quota;
  }

  /**
   * Counts that the entry in `slot` changes its rank, in the generation that it then has. `NONE`
   * stands for no entry.
   */
  moved(slot: number, before: number, after: number, generation: number, now: number): void {
    const { slots } = this;
    if (slots.isHalfOpenRank(before)) {
      if (!slots.isHalfOpenRank(after)) Atomics.sub(this.words, this.at + OPEN, 1);
    } else if (slots.isHalfOpenRank(after)) {
      Atomics.add(this.words, this.at + OPEN, 1);
      this.arrivals.push(slot, generation, now);
    }
  }

  refused(): void {
    Atomics.add(this.words, this.at + REFUSED, 1);
  }

  // ——— The budget ———

  /**
   * Takes one record from the budget. False if the budget is spent: the entry stays local-only.
   * `again`: the entry is half-open here already, so the reserved part may be used.
   */
  mayReplicate(now: number, again: boolean): boolean {
    if (now !== this.second) this.begin(now);
    if (this.left > (again ? 0 : this.share >> AGAIN_SHIFT)) {
      this.left--;
      return true;
    }
    Atomics.add(this.words, this.at + LOCAL_ONLY, 1);
    return false;
  }

  private begin(now: number): void {
    const evicted = this.words[this.at + EVICTED];
    this.evictedBefore = now === this.second + 1 ? this.evictedLately : evicted;
    this.evictedLately = evicted;
    this.second = now;
    this.fruitless = 0;
    this.left = this.share;
  }

  // ——— Eviction ———

  /**
   * Evicts a half-open entry: this thread's oldest, or else one near the home slot of `hash`. False
   * if that is not possible now.
   */
  evict(tx: Transaction, hash: number, now: number): boolean {
    if (now !== this.second) this.begin(now);
    if (((this.words[this.at + EVICTED] - this.evictedBefore) | 0) >= this.quota) return false;
    const { slots } = this;
    let slot = this.oldest(now);
    if (slot === NONE && this.fruitless === FRUITLESS_MAX) return false;
    if (slot === NONE) slot = this.choose(hash & (slots.slots - 1), LOOKED_AT, now);
    if (slot === NONE) {
      slot = this.choose(this.hand, LOOKED_AT_ELSEWHERE, now);
      this.hand = (this.hand + LOOKED_AT_ELSEWHERE) & (slots.slots - 1);
    }
    if (slot === NONE) {
      this.fruitless++;
      return false;
    }
    return this.evictSlot(tx, slot, now);
  }

  /** Evicts the half-open entry in `slot`. False if that is not possible now. */
  evictSlot(tx: Transaction, slot: number, now: number): boolean {
    const { slots } = this;
    tx.begin();
    if (!tx.tryLock(slots.lockOf(slot)) || !slots.isHalfOpen(slot) || !this.lockMore(slot, now)) {
      tx.abort();
      return false;
    }
    slots.evict(tx, slot, now);
    tx.commit();
    Atomics.add(this.words, this.at + EVICTED, 1);
    this.moved(slot, 0, NONE, 0, now);
    return true;
  }

  /**
   * The slot of the oldest half-open entry that this thread made, or `NONE` if it is too young or
   * there is none.
   */
  private oldest(now: number): number {
    const { arrivals, slots } = this;
    for (let n = 0; n < PASSED_OVER; n++) {
      const slot = arrivals.look();
      if (slot === NONE) return NONE;
      if (slots.isHalfOpen(slot) && slots.generation(slot) === arrivals.generation)
        return now - arrivals.since < YOUNG_S ? NONE : slot;
      arrivals.drop();
    }
    return NONE;
  }

  /**
   * Compares the first few half-open entries in `count` slots from `from` on. Returns the slot of
   * the one that expires first and is not too young, or `NONE`.
   */
  private choose(from: number, count: number, now: number): number {
    const { slots } = this;
    let chosen: number = NONE;
    let compared = 0;
    for (let i = 0; i < count && compared < COMPARED; i++) {
      const slot = (from + i) & (slots.slots - 1);
      if (!slots.isHalfOpen(slot)) continue;
      compared++;
      if (isYoung(slots.generation(slot), now)) continue;
      if (chosen === NONE || slots.expires(slot) < slots.expires(chosen)) chosen = slot;
    }
    return chosen;
  }

  describe(): Record<string, number> {
    const { words, at } = this;
    return {
      half_open: words[at + OPEN],
      half_open_quota: this.quota,
      half_open_evicted: words[at + EVICTED],
      half_open_refused: words[at + REFUSED],
      half_open_local: words[at + LOCAL_ONLY],
    };
  }
}
