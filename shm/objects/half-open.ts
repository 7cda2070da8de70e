/**
 * Half-open entries of a flow table: those of the lowest ranks, up to `FlowShape.halfOpenRank`. The
 * requester has not established them: a SYN that a server answered is one too, because any server
 * answers any SYN. A sender can make as many as it likes, so they must not cost others anything:
 * neither room in the table, nor room on the state channel.
 *
 * **A quota.** Half-open entries have so much of the table and no more. A new one beyond it takes
 * the place of an older one; and so does any entry when the table is full. What is past half-open
 * is never put out, nor what is younger than `YOUNG_S`: a handshake under way has that time,
 * whatever floods. The oldest that this thread has made goes, so who floods puts out his own, as
 * far as all of it comes to one worker. Since a slot is used again only after the guard
 * (flow-slots.ts), as many as the quota can be put out in two seconds; beyond that, or where none
 * was found, a new half-open entry is refused.
 *
 * Where this thread knows of none that is old enough (others may: other threads', or those of a
 * predecessor that died), of a few half-open entries from the new one's home on the one next to
 * expire goes: no search of the table, work is bounded, and as homes are hashed with a secret,
 * nobody can choose whom he puts out.
 *
 * **A budget of records.** Of new half-open entries each thread tells others so many in a second;
 * the others are *withheld*. A quarter of the budget is kept for flows that show a second packet
 * while withheld: a client that tries again is told even while a flood of ever new keys goes on. A
 * flow that rises is always told, and its record says all there is. One that was told may have
 * found no room within another's quota: whose packet comes again is told again (`tellAgain`), from
 * the same budget.
 *
 * **What this means for convergence.** A withheld entry is not part of what is replicated: digests
 * and merges leave it out, and a record of its key, which another instance told, takes its place,
 * whatever either says. Only a key of which no told entry is remembered is withheld: so what others
 * told is never covered by what they do not know. An entry put out is forgotten before its time, as
 * where a table is full: one instance may then lack a half-open entry that others have, until it
 * rises, is refreshed, or expires.
 *
 * Counts are added atomically by all threads; one of a thread that is killed may be missing, or one
 * too many.
 */

import { NONE } from '../none.js';
import { struct } from '../struct.js';
import { Arrivals } from './arrivals.js';
import type { FlowSlots } from './flow-slots.js';
import type { Transaction } from './transaction.js';

export interface HalfOpenOptions {
  /** Half-open entries held at most; default a quarter of all. */
  readonly halfOpen?: number;
  /**
   * Records of new half-open entries told in a second at most; default a sixteenth of all entries,
   * at least 1000.
   */
  readonly halfOpenRecords?: number;
}

export const HALF_OPEN_COUNTS = struct({ open: 1, evicted: 1, refused: 1, withheld: 1 });
const { open: OPEN, evicted: EVICTED, refused: REFUSED, withheld: WITHHELD } = HALF_OPEN_COUNTS.at;

/** Coarse seconds, so a real one at least, in which an entry is not evicted. */
export const YOUNG_S = 2;
/**
 * A generation may be ahead of the clock by this much, and its entry is still young: a key that is
 * used again within one second has the next generation, and another member's clock may be ahead.
 * Further ahead, somebody renews the entry to keep it.
 */
const AHEAD_MAX_S = 8;
/** Entries of this thread's passed over that are half-open no more, to find one. */
const PASSED_OVER = 32;
/** Half-open entries compared, and slots looked at for them, from the new entry's home on. */
const COMPARED = 4;
const LOOKED_AT = 64;
/** Slots looked at elsewhere, in turn, where there were none. */
const LOOKED_AT_ELSEWHERE = 512;
/** After so many searches in a second that found none, there is no other in it. */
const FRUITLESS_MAX = 8;
/** Part of the budget that is for flows withheld before. */
const AGAIN_SHIFT = 2;

/** The options with their defaults, for a table of `capacity`. Throws when they make no sense. */
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

/** Whether an entry of this generation began so lately that it is not evicted. */
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
  /** Records of this thread: in a second, and left in this one. */
  private share: number;
  private left: number;
  private second = 0;
  /** Searches in this second that found none to put out. */
  private fruitless = 0;
  /** Entries put out, by all threads, at the beginning of this second and of the one before. */
  private evictedBefore = 0;
  private evictedLately = 0;
  private hand: number;
  private arrivals: Arrivals;
  private readonly workers: number;

  /**
   * The counts are at `words[at …]`. `workers` share the budget. `lockMore` takes what locks a
   * slot's entry beside the slot's own, in the transaction under way; false when it is not to be
   * had.
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

  /** Other limits from now on. Entries beyond a smaller quota stay; new ones take their places. */
  setLimits({ halfOpen, halfOpenRecords }: Required<HalfOpenOptions>): void {
    if (halfOpen > this.quota) this.arrivals = new Arrivals(Math.max(1, halfOpen));
    this.quota = halfOpen;
    this.share = Math.ceil(halfOpenRecords / this.workers);
    this.left = Math.min(this.left, this.share);
  }

  /** Whether one more is within the quota. */
  hasRoom(): boolean {
    return this.words[this.at + OPEN] < this.quota;
  }

  /**
   * The entry in `slot` goes from one rank to another, in the generation it then has; `NONE`: there
   * is no entry.
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
   * Takes one from the budget of records; false when it is spent, and the entry is withheld.
   * `again`: it was already.
   */
  mayTell(now: number, again: boolean): boolean {
    if (now !== this.second) this.begin(now);
    if (this.left > (again ? 0 : this.share >> AGAIN_SHIFT)) {
      this.left--;
      return true;
    }
    Atomics.add(this.words, this.at + WITHHELD, 1);
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
   * Puts a half-open entry out: the oldest of this thread's, or else one near the home of `hash`.
   * False when that is not possible now.
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

  /** Evicts the half-open entry in `slot`. False when that is not possible now. */
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

  /** The oldest half-open entry that this thread made, if it is not too young. */
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
   * Of the first few half-open entries in `count` slots from `from` on, the one next to expire that
   * is not too young.
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
      half_open_withheld: words[at + WITHHELD],
    };
  }
}
