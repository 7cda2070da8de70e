/**
 * Sets of keys, shared by all instances: grow-only, and observed-remove, where an add wins over a
 * remove that did not see it. Every element expires, or lasts for ever (`FOREVER`).
 *
 * **Grow-only**: an element is present until it expires. Adding it again extends the expiry.
 *
 * **Observed-remove** (Shapiro et al., "A comprehensive study of Convergent and Commutative
 * Replicated Data Types", 2011, 3.3.5, with one *dot* per origin in place of a set of unique tags).
 * An element has per member its latest add, as (stamp, removed, expires). It is present while some
 * member's dot is neither removed nor expired. A join takes, dot by dot, the larger stamp, and of
 * equal stamps the removed one. So records may arrive in any order, any number of times, and a
 * remove removes exactly the adds that it saw. A stamp is at least the coarse time of the add, and
 * never beyond its expiry. So an add after an expired one of the same origin has the larger stamp,
 * even where the old one was forgotten.
 *
 * **No tombstones except dots that expire**: a removed dot is kept until its add would have
 * expired. After that it has no effect, and every member forgets it without a message. A removed
 * add without expiry is never forgotten. An add after a remove can expire before the removed add
 * would have. So an element is remembered `REMEMBERED_S` past its last expiry, so that a late
 * record does not revive what it superseded. This covers records up to `DELIVERY_S_MAX` late. A
 * full set forgets earlier, `CLOCK_SKEW_GUARD_S` after the expiry.
 *
 * For the layout, and the safety of lock-free reads and of a thread's death, see table-slots.ts and
 * transaction.ts. `generation` is the time until which the element is present, by its dots;
 * `expires` is when it can be forgotten. If the set or the log is full, `add` returns false and
 * counts it.
 *
 *     value    per member (grow-only: once): dot = stamp << 1 | removed, expires
 *     ADD      key, stamp, expires
 *     REMOVE   key, then per member dot, expires
 */

import { CLOCK_SKEW_GUARD_S, coarseSeconds, FUTURE_S_MAX, REMEMBERED_S } from '../../clock.js';
import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD, LINE, struct } from '../../struct.js';
import { ContentDigest } from '../core/content-digest.js';
import type { Journal } from '../core/journal.js';
import { capacityAt, capacityOf, type MergeSource } from '../core/merge-source.js';
import { Applied, merged, type OpenContext, type StateDefinition, type StateObject } from '../core/object.js';
import { recoverTransaction, Transaction, tryAgain } from '../core/transaction.js';
import { CONTENDED, type FlowShape, FlowSlots, flowSlotsWords } from '../table/table-slots.js';

interface GrowSetOptions {
  /** Maximum number of elements, including removed ones that are not yet forgotten. */
  readonly capacity: number;
  readonly keyWords: number;
}

interface RemoveSetOptions extends GrowSetOptions {
  /** Maximum members of the cluster; default 8. Each costs 8 bytes an element. */
  readonly members?: number;
}

export const SET_ADD = 1;
export const SET_REMOVE = 2;
/** Expiry of an element that never expires. */
export const FOREVER = 0x7fff_ffff;

/** Why a change was refused. */
export const SetRefusal = { NONE: 0, FULL: 1, LOG_FULL: 2, CONTENDED: 3 } as const;
export type SetRefusal = (typeof SetRefusal)[keyof typeof SetRefusal];

const COUNTS = struct({ inserted: LINE, reclaimed: 1, full: 1, logFull: 1, contended: 1, malformed: 1 });
const ADD_TAIL = struct({ stamp: 1, expires: 1 });
/** The words that `FlowSlots.read` puts before the key. */
const ENTRY = struct({ generation: 1, expires: 1, rank: 1 });
const REMOVED = 1;
/** Largest stamp of a dot. */
const STAMP_MAX = 0x7fff_ffff;
/**
 * An add extends the requested time by this fraction (a right shift). idle-expiry.ts gives the
 * reason.
 */
const COVERED_SHIFT = 3;
const SWEEP_SLOTS = 4;
const SWEEP_SLOTS_FULL = 512;
const MEMBERS_MAX = 24;

function define(kind: string, { capacity, keyWords }: GrowSetOptions, members: number): StateDefinition<SharedSet> {
  const shape = { capacity, keyWords, valueWords: 2 * Math.max(1, members) };
  return {
    kind,
    parameters: { keyWords, members },
    shape: { capacity },
    bytes: (COUNTS.words + flowSlotsWords(shape)) * BYTES_PER_WORD,
    withShape: (theirs) => define(kind, { capacity: capacityOf(theirs), keyWords }, members),
    open: (context) => new SharedSet(context, shape, members),
  };
}

export function growSet(options: GrowSetOptions): StateDefinition<SharedSet> {
  return define('grow-set', options, 0);
}

/** An observed-remove set. */
export function removeSet({ members = 8, ...options }: RemoveSetOptions): StateDefinition<SharedSet> {
  if (!Number.isInteger(members) || members < 1 || members > MEMBERS_MAX)
    throw new RangeError(`set: ${members} members, from 1 to ${MEMBERS_MAX} are possible`);
  return define('remove-set', options, members);
}

export class SharedSet implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  /** Why the last `add` or `remove` returned false. `NONE`: nothing was there to remove. */
  refusal: SetRefusal = SetRefusal.NONE;

  private readonly shape: FlowShape;
  /** 0: grow-only. */
  private readonly members: number;
  private readonly words: Int32Array;
  private readonly slots: FlowSlots;
  private readonly secret: Int32Array;
  private readonly transaction: Transaction | null;
  /** The dots that are being joined into an element. */
  private readonly dots: Int32Array;
  /** Index of this member's dot. */
  private readonly own: number;
  private readonly entry: Int32Array;
  private sweepCursor: number;

  constructor(
    { id, region, secret, writer, memberIndex, memberCount }: OpenContext,
    shape: FlowShape,
    members: number,
  ) {
    if (members > 0 && memberCount > members)
      throw new RangeError(`state object ${id} has room for ${members} members, not ${memberCount}: raise its members`);
    this.id = id;
    this.shape = shape;
    this.members = members;
    this.own = members === 0 ? 0 : 2 * memberIndex;
    this.words = region.i32();
    this.secret = secret;
    this.slots = new FlowSlots(this.words, COUNTS.words, shape, secret, REMEMBERED_S);
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
    this.dots = new Int32Array(shape.valueWords);
    this.entry = new Int32Array(ENTRY.words + shape.keyWords + shape.valueWords);
    // Threads sweep from different places.
    this.sweepCursor = Math.trunc((this.slots.slots / 8) * (writer?.id ?? 0)) & (this.slots.slots - 1);
  }

  // ——— Packet path ———

  /** Hash of the key at `key[at …]`, for the other methods. */
  hash(key: Int32Array, at: number): number {
    return this.slots.hash(key, at);
  }

  /**
   * Starts fetching the words that `has` will read. Call it for a whole batch first, so that the
   * cache misses overlap.
   */
  touch(hash: number): void {
    this.slots.touch(hash);
  }

  has(hash: number, key: Int32Array, at: number, now: number): boolean {
    const slot = this.slots.find(hash, key, at);
    return slot !== NONE && this.slots.generation(slot) > now;
  }

  /**
   * Adds a key at least until `expires`, with one log record. The element lasts an eighth of the
   * time longer, so that later adds need no record for a while. No record is written if the element
   * lasts until `expires` anyway and, in a set with removes, this member has already added it in
   * this second. Returns false if refused.
   */
  add(hash: number, key: Int32Array, at: number, now: number, expires: number): boolean {
    this.refusal = SetRefusal.NONE;
    const slot = this.slots.find(hash, key, at);
    if (slot !== NONE && this.slots.generation(slot) >= expires)
      if (this.members === 0 || this.isFresh(this.slots.value(slot, this.own), now)) return true;
    for (let tries = 1; ; tries++) {
      const outcome = this.tryAdd(hash, key, at, now, expires);
      if (outcome !== CONTENDED) return outcome === Applied.CHANGED;
      if (!tryAgain(tries, false)) return this.refuse(SetRefusal.CONTENDED);
    }
  }

  private isFresh(dot: number, now: number): boolean {
    return (dot & REMOVED) === 0 && dot >>> 1 >= now;
  }

  private tryAdd(hash: number, key: Int32Array, at: number, now: number, expires: number): number {
    const { slots, tx, dots, shape } = this;
    const record = tx.beginLogged(SET_ADD, shape.keyWords + ADD_TAIL.words);
    if (record === NONE) {
      this.refuse(SetRefusal.LOG_FULL);
      return Applied.FULL;
    }
    const slot = slots.acquire(tx, hash, key, at, now);
    if (slot < 0 || (!slots.isUsed(slot) && this.used >= shape.capacity)) {
      tx.abort();
      if (slot === CONTENDED || (slot >= 0 && this.sweep(now, SWEEP_SLOTS_FULL, true) > 0)) return CONTENDED;
      this.refuse(SetRefusal.FULL);
      return Applied.FULL;
    }
    const { own } = this;
    const known = slots.holds(slot, key, at);
    const before = known ? slots.value(slot, own) : REMOVED;
    const stamp = this.members === 0 ? 1 : Math.min(Math.max((before >>> 1) + 1, now), STAMP_MAX);
    const promised = Math.min(expires + ((expires - now) >>> COVERED_SHIFT), FOREVER);
    const until = Math.max(promised, stamp, (before & REMOVED) === 0 ? slots.value(slot, own + 1) : 0);
    dots.fill(0);
    dots[own] = stamp << 1;
    dots[own + 1] = until;
    this.join(slot, hash, key, at);
    const words = tx.record;
    for (let i = 0; i < shape.keyWords; i++) words[record + i] = key[at + i];
    words[record + shape.keyWords + ADD_TAIL.at.stamp] = stamp;
    words[record + shape.keyWords + ADD_TAIL.at.expires] = until;
    tx.commit();
    this.sweep(now, SWEEP_SLOTS);
    return Applied.CHANGED;
  }

  /**
   * Removes a key as far as it was added here or by adds replicated to us, with one log record.
   * Adds that we have not seen win. Returns false if the key was not present, or for the reason in
   * `refusal`. Throws for a grow-only set.
   */
  remove(hash: number, key: Int32Array, at: number, now: number): boolean {
    if (this.members === 0) throw new Error(`state object ${this.id} is a set that only grows`);
    this.refusal = SetRefusal.NONE;
    const { slots, tx, dots, shape } = this;
    const slot = slots.find(hash, key, at);
    if (slot === NONE || slots.generation(slot) <= now) return false;
    const record = tx.beginLogged(SET_REMOVE, shape.keyWords + dots.length);
    if (record === NONE) return this.refuse(SetRefusal.LOG_FULL);
    if (!tx.lock(slots.lockOf(slot)) || !slots.holds(slot, key, at)) {
      tx.abort();
      return this.refuse(SetRefusal.CONTENDED);
    }
    const words = tx.record;
    for (let i = 0; i < shape.keyWords; i++) words[record + i] = key[at + i];
    for (let i = 0; i < dots.length; i += 2) {
      const dot = slots.value(slot, i);
      dots[i] = dot === 0 ? 0 : dot | REMOVED;
      dots[i + 1] = slots.value(slot, i + 1);
      words[record + shape.keyWords + i] = dots[i];
      words[record + shape.keyWords + i + 1] = dots[i + 1];
    }
    this.join(slot, hash, key, at);
    tx.commit();
    return true;
  }

  /**
   * Joins `dots` into the element of a locked slot. If the slot is not the key's yet, inserts the
   * element. Returns whether it changed.
   */
  private join(slot: number, hash: number, key: Int32Array, at: number): boolean {
    const { slots, tx, dots } = this;
    const known = slots.holds(slot, key, at);
    if (!known) {
      if (slots.isUsed(slot)) this.count(COUNTS.at.reclaimed);
      slots.vacate(tx, slot);
      this.count(COUNTS.at.inserted);
    }
    let changed = !known;
    let hereUntil = 0;
    let expires = 0;
    for (let i = 0; i < dots.length; i += 2) {
      if (known && !isLarger(dots, i, slots.value(slot, i), slots.value(slot, i + 1))) {
        dots[i] = slots.value(slot, i);
        dots[i + 1] = slots.value(slot, i + 1);
      } else {
        tx.set(slots.wordOf(slot, i), dots[i]);
        tx.set(slots.wordOf(slot, i + 1), dots[i + 1]);
        changed = true;
      }
      expires = Math.max(expires, dots[i + 1]);
      if ((dots[i] & REMOVED) === 0) hereUntil = Math.max(hereUntil, dots[i + 1]);
    }
    if (!known) slots.put(tx, slot, hash, key, at, hereUntil, 0, expires);
    else if (changed) slots.update(tx, slot, hereUntil, 0, expires);
    return changed;
  }

  get tableSlots(): number {
    return this.slots.slots;
  }

  /**
   * Forgets what can be forgotten in the next `slots` slots, in turn. If `urgent`, room is needed,
   * and everything expired is forgotten. Returns the number of elements forgotten. `add` calls it.
   */
  sweep(now: number, slots: number, urgent = false): number {
    let reclaimed = 0;
    for (let i = 0; i < slots; i++) {
      this.sweepCursor = (this.sweepCursor + 1) & (this.slots.slots - 1);
      if (this.slots.isWaste(this.sweepCursor, now, urgent) && this.reclaim(this.sweepCursor, now, urgent)) reclaimed++;
    }
    return reclaimed;
  }

  private reclaim(slot: number, now: number, urgent: boolean): boolean {
    const { slots, tx } = this;
    let reclaimed = false;
    if (slots.isUsed(slot)) {
      tx.begin();
      reclaimed = tx.tryLock(slots.lockOf(slot)) && slots.isUsed(slot) && slots.isForgettable(slot, now, urgent);
      if (reclaimed) {
        slots.vacate(tx, slot);
        this.count(COUNTS.at.reclaimed);
        tx.commit();
      } else tx.abort();
    }
    slots.tidy(tx, slot);
    return reclaimed;
  }

  // ——— Replication ———

  apply(op: number, words: Int32Array, at: number, length: number, origin: number, now: number): Applied {
    const { keyWords } = this.shape;
    const tail = at + keyWords;
    if (!this.takeDots(op, words, tail, length - keyWords, origin) || !this.isPlausible(now)) {
      this.count(COUNTS.at.malformed);
      return Applied.MALFORMED;
    }
    return this.joinForeign(words, at, now);
  }

  /**
   * Copies a record's dots to `dots`. Returns false if this set cannot have been sent the record.
   */
  private takeDots(op: number, words: Int32Array, tail: number, length: number, origin: number): boolean {
    const { dots, members } = this;
    if (op === SET_REMOVE && members > 0 && length === dots.length) {
      for (let i = 0; i < length; i++) dots[i] = words[tail + i];
      for (let i = 0; i < length; i += 2) if (dots[i] !== 0 && (dots[i] & REMOVED) === 0) return false;
      return true;
    }
    const stamp = words[tail + ADD_TAIL.at.stamp];
    if (op !== SET_ADD || length !== ADD_TAIL.words || stamp < 1) return false;
    if (members === 0 ? stamp !== 1 : origin < 0 || origin >= members) return false;
    dots.fill(0);
    dots[2 * (members === 0 ? 0 : origin)] = stamp << 1;
    dots[2 * (members === 0 ? 0 : origin) + 1] = words[tail + ADD_TAIL.at.expires];
    return true;
  }

  /** Whether `dots` can be those of a correct member's element. */
  private isPlausible(now: number): boolean {
    const { dots } = this;
    let any = false;
    for (let i = 0; i < dots.length; i += 2) {
      const stamp = dots[i] >>> 1;
      const expires = dots[i + 1];
      if (dots[i] === 0 && expires === 0) continue;
      if (stamp < 1 || stamp > expires || stamp - now > FUTURE_S_MAX) return false;
      if (expires !== FOREVER && expires - now > FUTURE_S_MAX) return false;
      any = true;
    }
    return any;
  }

  private joinForeign(key: Int32Array, at: number, now: number): Applied {
    const hash = this.slots.hash(key, at);
    let expires = 0;
    for (let i = 1; i < this.dots.length; i += 2) expires = Math.max(expires, this.dots[i]);
    for (let tries = 1; ; tries++) {
      const applied = this.tryJoin(hash, key, at, expires, now);
      if (applied !== CONTENDED) return applied as Applied;
      if (!tryAgain(tries, true)) {
        this.count(COUNTS.at.contended);
        return Applied.BUSY;
      }
    }
  }

  private tryJoin(hash: number, key: Int32Array, at: number, expires: number, now: number): number {
    const { slots, tx } = this;
    tx.begin();
    const slot = slots.acquire(tx, hash, key, at, now);
    const known = slot >= 0 && slots.holds(slot, key, at);
    const forgotten = expires + REMEMBERED_S <= now;
    if (slot === CONTENDED || (!known && (forgotten || slot === NONE))) {
      tx.abort();
      if (slot === CONTENDED) return CONTENDED;
      if (expires + CLOCK_SKEW_GUARD_S <= now) return Applied.UNCHANGED; // already forgotten
      this.count(COUNTS.at.full);
      return Applied.FULL;
    }
    const changed = this.join(slot, hash, key, at);
    tx.commit();
    return changed ? Applied.CHANGED : Applied.UNCHANGED;
  }

  coalesceKey(op: number, words: Int32Array, at: number): number {
    return this.slots.hash(words, at) ^ op;
  }

  /**
   * Keeps the later of two adds. For removes, keeps the larger of each dot, as every member would.
   */
  coalesce(op: number, words: Int32Array, earlier: number, later: number, length: number): boolean {
    const { keyWords } = this.shape;
    for (let i = 0; i < keyWords; i++) if (words[earlier + i] !== words[later + i]) return false;
    if (op !== SET_ADD && op !== SET_REMOVE) return false;
    for (let i = keyWords; i < length; i += 2) {
      if (!isLarger(words, later + i, words[earlier + i], words[earlier + i + 1])) continue;
      words[earlier + i] = words[later + i];
      words[earlier + i + 1] = words[later + i + 1];
    }
    return true;
  }

  merge(from: Region, now: number, source?: MergeSource): number {
    const shape = { ...this.shape, capacity: capacityAt(source, this.shape.capacity) };
    const theirs = new FlowSlots(from.i32(), COUNTS.words, shape, this.secret);
    const entry = new Int32Array(this.entry.length);
    const key = ENTRY.words;
    let changed = 0;
    for (let slot = 0; slot < theirs.slots; slot++) {
      if (!theirs.isUsed(slot) || !theirs.read(slot, entry, 0)) continue;
      this.dots.set(entry.subarray(key + this.shape.keyWords));
      if (!this.isPlausible(now)) {
        this.count(COUNTS.at.malformed);
        continue;
      }
      changed += merged(this.joinForeign(entry, key, now), this.id, source);
    }
    return changed;
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  // ——— Inspection ———

  /** Calls `see` with the key words of every element present. The array is reused. */
  forEach(now: number, see: (key: Int32Array) => void): void {
    const key = this.entry.subarray(ENTRY.words, ENTRY.words + this.shape.keyWords);
    this.forEachEntry(now, (entry) => {
      if (entry[ENTRY.at.generation] > now) see(key);
    });
  }

  private forEachEntry(now: number, see: (entry: Int32Array) => void): void {
    const { slots, entry } = this;
    for (let slot = 0; slot < slots.slots; slot++)
      if (slots.isUsed(slot) && slots.read(slot, entry, 0) && entry[ENTRY.at.expires] > now) see(entry);
  }

  /**
   * Covers every dot that has not expired by `now`, including removed ones. Compare digests of the
   * same `now`.
   */
  digest(now = coarseSeconds(Date.now())): string {
    const { keyWords } = this.shape;
    const digest = new ContentDigest();
    const words = new Int32Array(keyWords + 3);
    this.forEachEntry(now, (entry) => {
      for (let i = 0; i < keyWords; i++) words[i] = entry[ENTRY.words + i];
      for (let i = 0; i < this.dots.length; i += 2) {
        const at = ENTRY.words + keyWords + i;
        if (entry[at] === 0 || entry[at + 1] <= now) continue;
        words[keyWords] = i;
        words[keyWords + 1] = entry[at];
        words[keyWords + 2] = entry[at + 1];
        digest.add(words);
      }
    });
    return digest.toString();
  }

  describe(_now: number): Record<string, number> {
    return {
      capacity: this.shape.capacity,
      used: this.used,
      full: this.words[COUNTS.at.full],
      log_full: this.words[COUNTS.at.logFull],
      contended: this.words[COUNTS.at.contended],
      malformed: this.words[COUNTS.at.malformed],
      reclaimed: this.words[COUNTS.at.reclaimed],
    };
  }

  locksHeld(): number {
    return this.slots.locksHeld();
  }

  private get used(): number {
    return (this.words[COUNTS.at.inserted] - this.words[COUNTS.at.reclaimed]) | 0;
  }

  private get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }

  private refuse(reason: SetRefusal): false {
    this.refusal = reason;
    if (reason === SetRefusal.FULL) this.count(COUNTS.at.full);
    else if (reason === SetRefusal.LOG_FULL) this.count(COUNTS.at.logFull);
    else this.count(COUNTS.at.contended);
    return false;
  }

  private count(counter: number): void {
    Atomics.add(this.words, counter, 1);
  }
}

/** Whether the dot at `dots[at …]` is larger: by stamp, then removed, then by expiry. */
function isLarger(dots: Int32Array, at: number, dot: number, expires: number): boolean {
  return dots[at] === dot ? dots[at + 1] > expires : dots[at] >>> 0 > dot >>> 0;
}
