/**
 * The slots of a flow table: where an entry is, its content, and which locks protect it. This file
 * knows neither log nor records. The flow table and the NAT binding are built on it.
 *
 *     slot     lock word, generation, expires, tag and rank, key, value…, rounded up to a power of two words
 *     lock     version (16) | state (8) | writer that holds the lock (8)
 *     tag      24 bits of the key's hash | local-only (1) | rank (7)
 *
 * Open addressing with linear probing from the key's home slot. There are at least twice as many
 * slots as entries in a full table. So in practice no window of `WINDOW` slots is ever full: at
 * half load the chance of a run of 64 taken slots is about 10^-6 per table (Knuth, vol. 3, 6.4). If
 * a window is full, the key is refused and counted.
 *
 * | state   | a search     | transitions                                                                      |
 * | ------- | ------------ | -------------------------------------------------------------------------------- |
 * | EMPTY   | ends         | → GONE by `vacate`, under the home's and the slot's lock                           |
 * | USED    | compares     | → GONE by `vacate`, once expired for the guard; → GONE and back by `hide`          |
 * | GONE    | goes on      | → USED by `put`; → EMPTY by `tidy`, only when the next slot is EMPTY               |
 * | EVICTED | goes on      | USED → EVICTED by `evict`; → GONE by `put` or `tidy`, the guard after that         |
 *
 * **Insertion.** A key is inserted under the lock of its home slot, after a search under that lock.
 * So a key is never twice in the table. The entry's slot is then locked too, because it may have
 * another home. A search ends at the first EMPTY slot, so no slot between home and entry may be
 * EMPTY. `acquire` checks that downwards with the entry's slot locked, and `tidy` empties a slot
 * only while it holds the lock of an EMPTY next one. The check goes downwards because a slot seen
 * in use stays in use while the one after it does, and the last one is locked.
 *
 * **A writer's death.** If a thread dies in a transaction, its changes are undone (transaction.ts),
 * but other threads may have seen them. So a change of state that others act on must either be
 * final the moment it is seen, or be seen only by those that cannot act on it.
 * - `vacate` is final: it is one store that is not undone. It turns an EMPTY slot into one over
 *   which searches continue, which is harmless. It turns an expired entry into a forgotten one,
 *   which is correct. If it were undone, a key that was inserted behind the slot meanwhile would be
 *   unreachable behind an EMPTY slot, or a key that was inserted again would be in the table twice.
 * - `hide` is undone. So a writer that hides an entry that may come back holds the lock of its
 *   key's home, and no thread inserts that key until the writer's death is recovered.
 * - An entry that a reader may still use is not hidden but changed in place, word by word. A reader
 *   that missed it would treat its packet as one without a flow.
 *
 * **Forgetting.** An entry is *over* once it has been expired for `CLOCK_SKEW_GUARD_S`: no instance
 * relies on it. If an expiry can move back (with a rank, or a new generation), the entry is still
 * kept for `rememberedS`, because it supersedes late records (clock.ts). It is not kept if a key
 * finds no other slot.
 *
 * **Evicting** removes a half-open entry before its time (half-open.ts). A reader may have found it
 * just before and still use the slot. So the slot keeps its words, and no other entry gets it until
 * the guard is over, as if the entry had expired then.
 *
 * **Local-only** (`LOCAL_ONLY`) is an entry of rank 0 that only this instance has: no record of it
 * was replicated.
 *
 * **Reads take no lock.** A reader loads the lock word first and then the rest. A writer that gives
 * a slot to another key first takes the state away from USED, then changes the words, then sets
 * USED again. With x86-64's ordering (TSO), a reader that sees the new USED sees all of the new
 * entry. A reader that loaded the old USED just before can meet words of both entries. It finds
 * nothing: a slot changes its key only after its entry has been expired for `CLOCK_SKEW_GUARD_S`,
 * the key words of two entries seldom form a third key, and if they do, its 24-bit tag does not
 * fit. A slot that was found keeps its entry for the guard's seconds, and a batch takes
 * microseconds. A thread that is stopped for seconds in the middle of a batch could send the
 * packets of that batch by an entry that is gone. Single words (rank, expiry, a value) are read
 * whole. Several value words are read together through `read`, a sequence lock over `version`.
 *
 * **Writes** happen under the slot's lock, through a `Transaction`.
 */

import { CLOCK_SKEW_GUARD_S } from '../../clock.js';
import { hash2, hash4, hashWords } from '../../hash.js';
import { NONE } from '../../none.js';
import { BYTES_PER_WORD, powerOfTwo } from '../../struct.js';
import { LOCK_MASK, type Transaction } from '../core/transaction.js';
import { FLOW_HEAD, type FlowPlace, FlowState, STATE_SHIFT, WINDOW } from './slot-layout.js';

const { lock: LOCK, generation: GENERATION, expires: EXPIRES, rank: RANK } = FLOW_HEAD.at;
const KEY = FLOW_HEAD.words;
const { EMPTY, USED, GONE, EVICTED } = FlowState;
const VERSION_STEP = 1 << 16;

/** The largest rank: it has 7 bits beside the tag. */
export const MAX_RANK = 0x7f;
/**
 * Passed to `put` and `update` instead of a rank: the entry is local-only, of rank 0. Larger than
 * any rank.
 */
export const LOCAL_ONLY = 0x80;
export { WINDOW } from './slot-layout.js';

/** `acquire` met a lock that was not released in time. */
export const CONTENDED = -2;
/** Tries of `read` while a writer has the slot. */
const READ_TRIES = 1_000;

export interface FlowShape {
  /** Maximum number of entries. */
  readonly capacity: number;
  readonly keyWords: number;
  readonly valueWords: number;
  /** The largest rank of half-open entries; 0 by default. */
  readonly halfOpenRank?: number;
}

function strideOf(shape: FlowShape): number {
  return powerOfTwo(KEY + shape.keyWords + shape.valueWords);
}

/** Number of slots of a table of this shape. */
export function flowSlotCount(shape: FlowShape): number {
  return Math.max(WINDOW, powerOfTwo(2 * shape.capacity));
}

/**
 * Words of shared memory for a table of this shape. Throws a `RangeError` if the shape is not
 * possible or needs 4 GiB or more.
 */
export function flowSlotsWords(shape: FlowShape): number {
  const { valueWords, halfOpenRank = 0, ...positive } = shape;
  for (const [name, value] of Object.entries(positive))
    if (!Number.isInteger(value) || value < 1)
      throw new RangeError(`flow table: ${name} ${value} is not a positive whole number`);
  if (!Number.isInteger(valueWords) || valueWords < 0)
    throw new RangeError(`flow table: valueWords ${valueWords} is not a whole number from 0`);
  if (!Number.isInteger(halfOpenRank) || halfOpenRank < 0 || halfOpenRank > MAX_RANK)
    throw new RangeError(`flow table: halfOpenRank ${halfOpenRank} is not a whole number from 0 to ${MAX_RANK}`);
  if (strideOf(shape) > 64)
    throw new RangeError(`flow table: ${shape.keyWords} key and ${shape.valueWords} value words, more than 60`);
  const words = flowSlotCount(shape) * strideOf(shape);
  if (words * BYTES_PER_WORD >= 2 ** 32)
    throw new RangeError(
      `flow table: capacity ${shape.capacity} needs ${words * BYTES_PER_WORD} bytes, more than 4 GiB`,
    );
  return words;
}

export class FlowSlots {
  readonly slots: number;
  readonly keyWords: number;
  readonly valueWords: number;
  private readonly halfOpenRank: number;
  private readonly rememberedS: number;
  private readonly words: Int32Array;
  private readonly base: number;
  private readonly mask: number;
  private readonly shift: number;
  private readonly valueAt: number;
  private readonly k0: number;
  private readonly k1: number;
  /** What `touch` read. It is kept so that the compiler keeps the read. */
  private touched = 0;

  /**
   * The table of this shape at `words[base …]`. `secret`: two words of key for the hash. Entries
   * are remembered for `rememberedS` seconds past their expiry.
   */
  constructor(
    words: Int32Array,
    base: number,
    shape: FlowShape,
    secret: Int32Array,
    rememberedS: number = CLOCK_SKEW_GUARD_S,
  ) {
    this.halfOpenRank = shape.halfOpenRank ?? 0;
    this.rememberedS = rememberedS;
    this.words = words;
    this.base = base;
    this.slots = flowSlotCount(shape);
    this.mask = this.slots - 1;
    this.shift = Math.log2(strideOf(shape));
    this.keyWords = shape.keyWords;
    this.valueWords = shape.valueWords;
    this.valueAt = KEY + shape.keyWords;
    this.k0 = secret[0];
    this.k1 = secret[1];
  }

  /** Position of the table in memory, to look up many keys at once: flow-lookup.ts. */
  get place(): FlowPlace {
    const { words, base, mask, shift, valueAt, k0, k1 } = this;
    return { words, base, mask, shift, valueAt, k0, k1 };
  }

  // ——— Finding ———

  hash(words: Int32Array, at: number): number {
    if (this.keyWords === 4) return hash4(this.k0, this.k1, words[at], words[at + 1], words[at + 2], words[at + 3]);
    return hashWords(this.k0, this.k1, words, at, this.keyWords);
  }

  /** Hash of a key of two words; equal to `hash` of the same key. */
  hash2(key0: number, key1: number): number {
    return hash2(this.k0, this.k1, key0, key1);
  }

  /** Loads the home slot of a hash into the cache. */
  touch(hash: number): void {
    this.touched ^= this.words[this.base + ((hash & this.mask) << this.shift)];
  }

  /** The slot of a key of two words, expired or not. `NONE` if the key is not in the table. */
  find2(hash: number, key0: number, key1: number): number {
    const words = this.words;
    const tag = hash >>> 8;
    let slot = hash & this.mask;
    for (let i = 0; i < WINDOW; i++) {
      const at = this.base + (slot << this.shift);
      const state = (words[at + LOCK] >>> STATE_SHIFT) & 0xff;
      if (state === USED) {
        if (words[at + RANK] >>> 8 === tag && words[at + KEY] === key0 && words[at + KEY + 1] === key1) return slot;
      } else if (state === EMPTY) return NONE;
      slot = (slot + 1) & this.mask;
    }
    return NONE;
  }

  /**
   * The slot of the key at `key[keyAt …]`, expired or not. `NONE` if the key is not in the table.
   */
  find(hash: number, key: Int32Array, keyAt: number): number {
    const words = this.words;
    const tag = hash >>> 8;
    let slot = hash & this.mask;
    for (let i = 0; i < WINDOW; i++) {
      const at = this.base + (slot << this.shift);
      const state = (words[at + LOCK] >>> STATE_SHIFT) & 0xff;
      if (state === USED) {
        if (words[at + RANK] >>> 8 === tag && this.hasKey(slot, key, keyAt)) return slot;
      } else if (state === EMPTY) return NONE;
      slot = (slot + 1) & this.mask;
    }
    return NONE;
  }

  private hasKey(slot: number, key: Int32Array, keyAt: number): boolean {
    const at = this.base + (slot << this.shift) + KEY;
    for (let i = 0; i < this.keyWords; i++) if (this.words[at + i] !== key[keyAt + i]) return false;
    return true;
  }

  // ——— Reading ———

  isUsed(slot: number): boolean {
    return ((this.words[this.base + (slot << this.shift) + LOCK] >>> STATE_SHIFT) & 0xff) === USED;
  }

  generation(slot: number): number {
    return this.words[this.base + (slot << this.shift) + GENERATION];
  }

  /** Coarse seconds at which the entry expires. */
  expires(slot: number): number {
    return this.words[this.base + (slot << this.shift) + EXPIRES];
  }

  rank(slot: number): number {
    return this.words[this.base + (slot << this.shift) + RANK] & MAX_RANK;
  }

  /** The rank, or `LOCAL_ONLY` for a local-only entry. */
  standing(slot: number): number {
    return this.words[this.base + (slot << this.shift) + RANK] & 0xff;
  }

  /** Whether the entry is replicated, by this instance or by a peer. False: it is local-only. */
  isReplicated(slot: number): boolean {
    return this.standing(slot) < LOCAL_ONLY;
  }

  /** Whether the slot has a half-open entry, which may be evicted. */
  isHalfOpen(slot: number): boolean {
    return this.isUsed(slot) && this.rank(slot) <= this.halfOpenRank;
  }

  /** Whether an entry of this rank is half-open. `NONE` stands for no entry. */
  isHalfOpenRank(rank: number): boolean {
    return rank !== NONE && rank <= this.halfOpenRank;
  }

  /** Whether the slot has an entry, or an evicted one that may still be in use. */
  isOccupied(slot: number): boolean {
    const state = this.state(slot);
    return state === USED || state === EVICTED;
  }

  key(slot: number, i: number): number {
    return this.words[this.base + (slot << this.shift) + KEY + i];
  }

  value(slot: number, i: number): number {
    return this.words[this.base + (slot << this.shift) + this.valueAt + i];
  }

  /**
   * Copies the whole entry, as it was at one moment, into `out[outAt …]`: generation, expires,
   * rank, key words, value words. Returns false if the slot has no entry, or if writers kept it
   * locked.
   */
  read(slot: number, out: Int32Array, outAt: number): boolean {
    const words = this.words;
    const at = this.base + (slot << this.shift);
    const count = this.keyWords + this.valueWords;
    for (let i = 0; i < READ_TRIES; i++) {
      const before = Atomics.load(words, at + LOCK);
      if ((before & LOCK_MASK) !== 0) continue;
      if (((before >>> STATE_SHIFT) & 0xff) !== USED) return false;
      out[outAt] = words[at + GENERATION];
      out[outAt + 1] = words[at + EXPIRES];
      out[outAt + 2] = words[at + RANK] & MAX_RANK;
      for (let j = 0; j < count; j++) out[outAt + 3 + j] = words[at + KEY + j];
      if (Atomics.load(words, at + LOCK) === before) return true;
    }
    return false;
  }

  /** Whether the entry is over: no instance with a clock within the guard relies on it. */
  isOver(slot: number, now: number): boolean {
    return this.expires(slot) + CLOCK_SKEW_GUARD_S <= now;
  }

  /**
   * Whether an entry can be forgotten: it is over, and no record that would revive it can still
   * arrive. `urgent`: it is enough that the entry is over.
   */
  isForgettable(slot: number, now: number, urgent = false): boolean {
    return this.expires(slot) + (urgent ? CLOCK_SKEW_GUARD_S : this.rememberedS) <= now;
  }

  // ——— Changing, within a transaction ———

  /** Word index of a slot's lock, for `Transaction.lock`. */
  lockOf(slot: number): number {
    return this.base + (slot << this.shift) + LOCK;
  }

  /** Word index of a value word, for `Transaction.set`. */
  wordOf(slot: number, i: number): number {
    return this.base + (slot << this.shift) + this.valueAt + i;
  }

  /**
   * Locks the key's home slot and the slot where the key is or may be put. `holds` says which of
   * the two it is. Returns `NONE` if every slot in the window has an entry that is not over, and
   * `CONTENDED` if a lock was not available. In both cases the caller aborts the transaction.
   */
  acquire(tx: Transaction, hash: number, key: Int32Array, keyAt: number, now: number): number {
    const home = hash & this.mask;
    if (!tx.lock(this.lockOf(home))) return CONTENDED;
    const found = this.find(hash, key, keyAt);
    if (found !== NONE) {
      if (!tx.lock(this.lockOf(found))) return CONTENDED;
      // It may have been reclaimed between the search and the lock.
      return this.holds(found, key, keyAt) ? found : CONTENDED;
    }
    const slot = this.lockFree(tx, home, now, this.rememberedS);
    return slot === NONE ? this.lockFree(tx, home, now, CLOCK_SKEW_GUARD_S) : slot;
  }

  /**
   * Finds and locks a slot that has no entry, or whose entry has been expired for `overS`, or was
   * evicted and is over.
   */
  private lockFree(tx: Transaction, home: number, now: number, overS: number): number {
    let slot = home;
    for (let i = 0; i < WINDOW; i++) {
      if (this.isFree(slot, now, overS) && tx.tryLock(this.lockOf(slot))) {
        if (this.isFree(slot, now, overS)) return this.isReachable(home, slot) ? slot : CONTENDED;
        if (slot !== home) tx.unlockLast();
      }
      slot = (slot + 1) & this.mask;
    }
    return NONE;
  }

  /** Whether the slot has this key. */
  holds(slot: number, key: Int32Array, keyAt: number): boolean {
    return this.isUsed(slot) && this.hasKey(slot, key, keyAt);
  }

  private isFree(slot: number, now: number, overS: number): boolean {
    const state = this.state(slot);
    if (state === EVICTED) return this.isOver(slot, now);
    return state !== USED || this.expires(slot) + overS <= now;
  }

  /**
   * Whether no slot from `home` to the one before `slot` is EMPTY. The head of this file says why
   * the check goes downwards.
   */
  private isReachable(home: number, slot: number): boolean {
    for (let i = slot; i !== home; ) {
      i = (i - 1) & this.mask;
      if (this.state(i) === EMPTY) return false;
    }
    return true;
  }

  /**
   * Hides a locked slot's entry from readers, until `put`; without `put`, the commit removes it. An
   * abort or a recovery undoes this, so the lock of the key's home must be held as well.
   */
  hide(tx: Transaction, slot: number): void {
    this.setState(tx, slot, GONE);
  }

  /**
   * Removes a locked slot's entry, which must be over. This is final even if the transaction is not
   * committed. If the slot has no entry, prepares it for `put`. Searches still continue over the
   * slot until `tidy`.
   */
  vacate(tx: Transaction, slot: number): void {
    const at = this.lockOf(slot);
    tx.setForGood(at, this.nextVersion(at) | (GONE << STATE_SHIFT));
  }

  /**
   * Removes a locked slot's entry before its time. This is final. The entry's expiry becomes `now`
   * if it was later.
   */
  evict(tx: Transaction, slot: number, now: number): void {
    const at = this.lockOf(slot);
    if (this.expires(slot) > now) tx.set(at - LOCK + EXPIRES, now);
    // If a death undoes this, the old expiry comes back, and the slot is only kept longer.
    tx.setForGood(at, this.nextVersion(at) | (EVICTED << STATE_SHIFT));
  }

  /**
   * Writes an entry into a locked slot that was hidden or vacated. Set the value words before,
   * through `wordOf`. `standing`: the entry's rank, or `LOCAL_ONLY`.
   */
  put(
    tx: Transaction,
    slot: number,
    hash: number,
    key: Int32Array,
    keyAt: number,
    generation: number,
    standing: number,
    expires: number,
  ): void {
    const at = this.base + (slot << this.shift);
    tx.set(at + GENERATION, generation);
    tx.set(at + EXPIRES, expires);
    tx.set(at + RANK, ((hash >>> 8) << 8) | standing);
    for (let i = 0; i < this.keyWords; i++) tx.set(at + KEY + i, key[keyAt + i]);
    this.setState(tx, slot, USED);
  }

  /** Changes generation, rank and expiry of a locked slot's entry. */
  update(tx: Transaction, slot: number, generation: number, standing: number, expires: number): void {
    const at = this.base + (slot << this.shift);
    if (this.words[at + GENERATION] !== generation) tx.set(at + GENERATION, generation);
    if (this.words[at + EXPIRES] !== expires) tx.set(at + EXPIRES, expires);
    if (this.standing(slot) !== standing) tx.set(at + RANK, (this.words[at + RANK] & ~0xff) | standing);
    this.setState(tx, slot, USED);
  }

  private setState(tx: Transaction, slot: number, state: number): void {
    const at = this.lockOf(slot);
    tx.setLocked(at, this.nextVersion(at) | (state << STATE_SHIFT));
  }

  private nextVersion(at: number): number {
    return (this.words[at] & ~(VERSION_STEP - 1)) + VERSION_STEP;
  }

  /**
   * Makes a GONE slot, and the GONE slots before it, EMPTY if the next slot is EMPTY. This keeps
   * searches short. Never waits for a lock. A slot whose evicted entry is over by `now` first
   * becomes GONE.
   */
  tidy(tx: Transaction, slot: number, now = 0): void {
    if (this.state(slot) === EVICTED && this.isOver(slot, now)) {
      tx.begin();
      if (tx.tryLock(this.lockOf(slot)) && this.state(slot) === EVICTED && this.isOver(slot, now))
        this.vacate(tx, slot);
      tx.commit();
    }
    for (let i = 0; i < WINDOW; i++) {
      if (this.state(slot) !== GONE) return;
      const next = (slot + 1) & this.mask;
      if (this.state(next) !== EMPTY) return;
      tx.begin();
      const locked = tx.tryLock(this.lockOf(slot)) && tx.tryLock(this.lockOf(next));
      if (locked && this.state(slot) === GONE && this.state(next) === EMPTY) this.setState(tx, slot, EMPTY);
      tx.commit();
      if (!locked) return;
      slot = (slot - 1) & this.mask;
    }
  }

  /** Number of locks held now: 0 if no operation is under way. Reads every slot. */
  locksHeld(): number {
    let held = 0;
    for (let slot = 0; slot < this.slots; slot++) if ((this.words[this.lockOf(slot)] & LOCK_MASK) !== 0) held++;
    return held;
  }

  /** Number of slots at which a search ends. Reads every slot. */
  emptySlots(): number {
    let empty = 0;
    for (let slot = 0; slot < this.slots; slot++) if (this.state(slot) === EMPTY) empty++;
    return empty;
  }

  private state(slot: number): number {
    return (this.words[this.lockOf(slot)] >>> STATE_SHIFT) & 0xff;
  }

  /** Whether a search ends at this slot. */
  endsSearch(slot: number): boolean {
    return this.state(slot) === EMPTY;
  }

  /** Whether a sweep has something to do here: an entry to forget, or a slot to make EMPTY. */
  isWaste(slot: number, now: number, urgent = false): boolean {
    const state = this.state(slot);
    if (state === USED) return this.isForgettable(slot, now, urgent);
    return state === GONE || (state === EVICTED && this.isOver(slot, now));
  }
}
