/**
 * The slots of a flow table: where an entry is, what it says, and who may change it. Knows no log
 * and no records; the flow table and the NAT binding are built on it.
 *
 *     slot     lock word, generation, expires, tag and rank, key, value…, rounded up to a power of two words
 *     lock     version (16) | state (8) | writer that holds the lock (8)
 *     tag      24 bits of the key's hash | withheld (1) | rank (7)
 *
 * Open addressing with linear probing from the key's home slot. There are at least twice as many
 * slots as entries meant to be held, so that of all windows of `WINDOW` slots none is ever full in
 * practice: at half load the chance of a run of 64 taken slots is about 10^-6 a table (Knuth, vol.
 * 3, 6.4), and such a key is refused and counted.
 *
 * | state   | a search     | who                                                                              |
 * | ------- | ------------ | -------------------------------------------------------------------------------- |
 * | EMPTY   | ends         | → GONE by `vacate`, under the home's and the slot's lock                           |
 * | USED    | compares     | → GONE by `vacate`, once expired for the guard; → GONE and back by `hide`          |
 * | GONE    | goes on      | → USED by `put`; → EMPTY by `tidy`, only when the next slot is EMPTY               |
 * | EVICTED | goes on      | USED → EVICTED by `evict`; → GONE by `put` or `tidy`, the guard after that         |
 *
 * **Insertion.** A key is inserted under the lock of its home slot, after a search under that lock:
 * so no key is ever twice in the table. The slot itself is then locked too (its home may be
 * elsewhere). A search ends at the first EMPTY slot, so between home and entry none may be:
 * `acquire` checks that downwards with the entry's slot locked, and `tidy` empties a slot only
 * while it holds the lock of an EMPTY next one. Downwards, because a slot seen in use stays so
 * while the one after it does, and the last is locked.
 *
 * **A writer's death.** What a transaction changes is put back when its thread dies in it
 * (transaction.ts), but other threads have seen it meanwhile. So a change of state that others act
 * on is either for good the moment it is seen, or seen only by those who cannot act on it. `vacate`
 * is for good: one store, not undone. It makes of an EMPTY slot one that searches go on over, which
 * is no harm; and of an expired entry a forgotten one, which it is. Were it undone, a key that was
 * inserted behind the slot meanwhile would be out of reach behind an EMPTY one, or a key inserted
 * anew would be there twice. `hide` is undone: so whoever hides an entry that may come back holds
 * the lock of its key's home, and nobody inserts that key until the death has been mended. An entry
 * of which a reader may still make use is not hidden but changed in place, word by word: a reader
 * that missed it would take its packet for one of no flow.
 *
 * **Forgetting.** An entry is *over* once expired for `CLOCK_SKEW_GUARD_S`: nobody counts on it.
 * Where an expiry can move back (with a rank, or a new generation), it is kept for `rememberedS`
 * all the same, for what it says of late records (clock.ts); unless a key finds no other slot.
 *
 * **Evicting** takes a half-open entry away before its time (half-open.ts). A reader may have found
 * it just before and still use the slot: so the slot keeps its words, and is nobody else's until
 * the guard is over, as if the entry had expired then.
 *
 * **Withheld** is an entry of this instance alone, of rank 0: no record told it to others.
 *
 * **Reads take no lock.** A reader loads the lock word first and then the rest; a writer that gives
 * a slot to another key first takes the state away from USED, then changes the words, then sets
 * USED again: with x86-64's ordering (TSO) a reader that sees the new USED sees all of the new
 * entry. One that loaded the old USED just before can meet words of both; since a slot changes its
 * key only after its entry has been expired for `CLOCK_SKEW_GUARD_S`, and key words of two entries
 * seldom make a third, and if they do its 24-bit tag does not fit, such a reader finds nothing. A
 * slot found stays the same entry's for the guard's seconds, a batch takes microseconds; a thread
 * stopped for seconds in the middle of a batch could send the packets of that one batch by an entry
 * that is no more. Single words (rank, expiry, a value) are read whole by nature; several value
 * words together through `read`, a sequence lock over `version`.
 *
 * **Writes** happen under the slot's lock, through a `Transaction`.
 */

import { CLOCK_SKEW_GUARD_S } from '../clock.js';
import { hash2, hash4, hashWords } from '../hash.js';
import { NONE } from '../none.js';
import { BYTES_PER_WORD, powerOfTwo } from '../struct.js';
import { FLOW_HEAD, type FlowPlace, FlowState, STATE_SHIFT, WINDOW } from './flow-layout.js';
import { LOCK_MASK, type Transaction } from './transaction.js';

const { lock: LOCK, generation: GENERATION, expires: EXPIRES, rank: RANK } = FLOW_HEAD.at;
const KEY = FLOW_HEAD.words;
const { EMPTY, USED, GONE, EVICTED } = FlowState;
const VERSION_STEP = 1 << 16;

/** A rank is 7 bits beside the tag. */
export const MAX_RANK = 0x7f;
/** Added to rank 0 in `put` and `update`: the entry is withheld. Larger than any rank. */
export const WITHHELD = 0x80;
export { WINDOW } from './flow-layout.js';

/** `acquire` met a lock that was not let go in time. */
export const CONTENDED = -2;
/** Tries of `read` while a writer has the slot. */
const READ_TRIES = 1_000;

export interface FlowShape {
  /** Entries meant to be held at most. */
  readonly capacity: number;
  readonly keyWords: number;
  readonly valueWords: number;
  /** The largest rank of entries that are half-open; 0 by default. */
  readonly halfOpenRank?: number;
}

function strideOf(shape: FlowShape): number {
  return powerOfTwo(KEY + shape.keyWords + shape.valueWords);
}

/** Slots of a table of this shape. */
export function flowSlotCount(shape: FlowShape): number {
  return Math.max(WINDOW, powerOfTwo(2 * shape.capacity));
}

/** Words of shared memory for a table of this shape. Throws when it cannot be indexed. */
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
  /** What `touch` read: kept, so that the compiler keeps the read. */
  private touched = 0;

  /**
   * The table of this shape at `words[base …]`. `secret`: two words of key for the hash. Entries
   * are remembered for `rememberedS` past their expiry.
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

  /** For lookups of many keys at once: flow-lookup.ts. */
  get place(): FlowPlace {
    const { words, base, mask, shift, valueAt, k0, k1 } = this;
    return { words, base, mask, shift, valueAt, k0, k1 };
  }

  // ——— Finding ———

  hash(words: Int32Array, at: number): number {
    if (this.keyWords === 4) return hash4(this.k0, this.k1, words[at], words[at + 1], words[at + 2], words[at + 3]);
    return hashWords(this.k0, this.k1, words, at, this.keyWords);
  }

  /** Hash of a key of two words; equals `hash` of the same. */
  hash2(key0: number, key1: number): number {
    return hash2(this.k0, this.k1, key0, key1);
  }

  /** Brings the home slot of a hash into the cache. */
  touch(hash: number): void {
    this.touched ^= this.words[this.base + ((hash & this.mask) << this.shift)];
  }

  /** The slot of a key of two words, whether expired or not. `NONE` when it is not in the table. */
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
   * The slot of the key at `key[keyAt …]`, whether expired or not. `NONE` when it is not in the
   * table.
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

  /** Coarse seconds from which on the entry is no more. */
  expires(slot: number): number {
    return this.words[this.base + (slot << this.shift) + EXPIRES];
  }

  rank(slot: number): number {
    return this.words[this.base + (slot << this.shift) + RANK] & MAX_RANK;
  }

  /** The rank, or `WITHHELD`. */
  standing(slot: number): number {
    return this.words[this.base + (slot << this.shift) + RANK] & 0xff;
  }

  /** Whether an entry's content was told to others, as far as it is not others' who told it. */
  isTold(slot: number): boolean {
    return this.standing(slot) < WITHHELD;
  }

  /** Whether the slot has an entry that may be evicted. */
  isHalfOpen(slot: number): boolean {
    return this.isUsed(slot) && this.rank(slot) <= this.halfOpenRank;
  }

  /** Whether an entry of this rank is half-open. `NONE`: there is no entry. */
  isHalfOpenRank(rank: number): boolean {
    return rank !== NONE && rank <= this.halfOpenRank;
  }

  /** Whether the slot has an entry, or one that was evicted and may still be in use. */
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
   * Copies the whole entry as it was at one moment: generation, expires, rank, key words, value
   * words, into `out[outAt …]`. Returns false when the slot holds no entry, or a writer would not
   * leave it.
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

  /** Whether no instance with a clock within the guard still counts on an entry. */
  isOver(slot: number, now: number): boolean {
    return this.expires(slot) + CLOCK_SKEW_GUARD_S <= now;
  }

  /**
   * Whether an entry can be forgotten: it is over, and no record that would revive it can be under
   * way any more. `urgent`: there is no room to wait for that.
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
   * Locks the key's home and the slot where it is, or may be put. `holds` tells which. `NONE` when
   * every slot in its window holds an entry that is not over, `CONTENDED` when a lock was not to be
   * had: then the transaction is to be aborted.
   */
  acquire(tx: Transaction, hash: number, key: Int32Array, keyAt: number, now: number): number {
    const home = hash & this.mask;
    if (!tx.lock(this.lockOf(home))) return CONTENDED;
    const found = this.find(hash, key, keyAt);
    if (found !== NONE) {
      if (!tx.lock(this.lockOf(found))) return CONTENDED;
      // Between the search and the lock it may have been reclaimed.
      return this.holds(found, key, keyAt) ? found : CONTENDED;
    }
    const slot = this.lockFree(tx, home, now, this.rememberedS);
    return slot === NONE ? this.lockFree(tx, home, now, CLOCK_SKEW_GUARD_S) : slot;
  }

  /** Locks a slot without an entry, or with one expired for `overS`, or evicted for the guard. */
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

  /** Whether the slot is this key's. */
  holds(slot: number, key: Int32Array, keyAt: number): boolean {
    return this.isUsed(slot) && this.hasKey(slot, key, keyAt);
  }

  private isFree(slot: number, now: number, overS: number): boolean {
    const state = this.state(slot);
    if (state === EVICTED) return this.isOver(slot, now);
    return state !== USED || this.expires(slot) + overS <= now;
  }

  /**
   * Whether no slot from `home` to the one before `slot` is EMPTY. Downwards: see the head of this
   * file.
   */
  private isReachable(home: number, slot: number): boolean {
    for (let i = slot; i !== home; ) {
      i = (i - 1) & this.mask;
      if (this.state(i) === EMPTY) return false;
    }
    return true;
  }

  /**
   * Hides a locked slot's entry from readers, until `put` or the end of the transaction; or takes
   * it away with it. Undone with the transaction: the lock of its key's home is held as well.
   */
  hide(tx: Transaction, slot: number): void {
    this.setState(tx, slot, GONE);
  }

  /**
   * Takes a locked slot's entry, which is over, away for good, also if the transaction is not
   * committed; of a slot without an entry, makes one that can be `put`. Searches still go on over
   * the slot: `tidy` ends that.
   */
  vacate(tx: Transaction, slot: number): void {
    const at = this.lockOf(slot);
    tx.setForGood(at, this.nextVersion(at) | (GONE << STATE_SHIFT));
  }

  /**
   * Takes a locked slot's entry away for good before its time: it has expired at `now`, if not
   * before.
   */
  evict(tx: Transaction, slot: number, now: number): void {
    const at = this.lockOf(slot);
    if (this.expires(slot) > now) tx.set(at - LOCK + EXPIRES, now);
    // Undone by a death, the expiry comes back, and the slot is kept the longer.
    tx.setForGood(at, this.nextVersion(at) | (EVICTED << STATE_SHIFT));
  }

  /**
   * Gives a locked slot that was hidden or vacated its entry, without the value words: they are set
   * before, through `wordOf`. `standing`: its rank, or `WITHHELD`.
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

  /** Changes what a locked slot's entry says of its life. */
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
   * Makes a slot that is GONE, and those GONE before it, EMPTY again, if the slot after it is: so
   * searches stay short. Never waits for a lock. A slot evicted for the guard by `now` is GONE
   * first.
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

  /** Locks held at the moment: none when no operation is under way. Looks at every slot. */
  locksHeld(): number {
    let held = 0;
    for (let slot = 0; slot < this.slots; slot++) if ((this.words[this.lockOf(slot)] & LOCK_MASK) !== 0) held++;
    return held;
  }

  /** Slots at which a search ends. Looks at every slot. */
  emptySlots(): number {
    let empty = 0;
    for (let slot = 0; slot < this.slots; slot++) if (this.state(slot) === EMPTY) empty++;
    return empty;
  }

  private state(slot: number): number {
    return (this.words[this.lockOf(slot)] >>> STATE_SHIFT) & 0xff;
  }

  /** Whether a search that comes to this slot goes no further. */
  endsSearch(slot: number): boolean {
    return this.state(slot) === EMPTY;
  }

  /**
   * Whether `sweep`'s caller has something to do here: an entry to forget, or a slot to make EMPTY.
   */
  isWaste(slot: number, now: number, urgent = false): boolean {
    const state = this.state(slot);
    if (state === USED) return this.isForgettable(slot, now, urgent);
    return state === GONE || (state === EVICTED && this.isOver(slot, now));
  }
}
