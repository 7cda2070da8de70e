/**
 * A flow table: a map from a flow's key to a few value words, shared by all instances, whose
 * entries expire.
 *
 * Per key it holds (generation, rank, expires, value). Merge takes the lexicographically larger
 * (generation, rank); between equals the winner rule decides the value, and the later expiry is
 * kept. So connection state is a rank that only grows (new < established < closing < closed),
 * expiry grows within a rank, and a key used again starts a new generation, of at least the coarse
 * time then. A generation never exceeds its expiry (checked in records too): when an entry was
 * forgotten after its expiry, a later one of that key supersedes it wherever it is still held. That
 * makes the merge a lattice: whatever order records come in, and however often, all instances end
 * up the same.
 *
 * An expired entry is reclaimed locally, `REMEMBERED_S` after its expiry, without a message and
 * without a tombstone. Till then it is known to have superseded what comes late: a larger rank can
 * have the earlier expiry. So instances converge as long as every record reaches each of them
 * within `DELIVERY_S_MAX`, and no table is full; past that, one may show what the others have
 * forgotten, until its expiry. A full table forgets `CLOCK_SKEW_GUARD_S` after the expiry.
 *
 * Entries of rank 0 are *half-open* (half-open.ts). An entry that is to stay until its expiry
 * begins with rank 1.
 *
 * Layout and reads without locks: flow-slots.ts. An operation is one log record, applied whole or
 * not at all: transaction.ts.
 *
 *     record   key words, generation, rank, expires, value words
 */

import { CLOCK_SKEW_GUARD_S, coarseSeconds, REMEMBERED_S } from '../clock.js';
import { NONE } from '../none.js';
import type { Region } from '../region.js';
import { BYTES_PER_WORD } from '../struct.js';
import { COUNTS, describeCounts } from './flow-counts.js';
import { entriesDigest, flowEntries, flowRecords, walkEntries, writeFlow } from './flow-entries.js';
import { type FlowLookup, finder4 } from './flow-lookup.js';
import { FlowRefusal, type FlowTableOptions } from './flow-options.js';
import { FLOW_PUT, isLife, joinFlow, LIFE, largerValue, type Winner } from './flow-record.js';
import { CONTENDED, type FlowShape, FlowSlots, flowSlotsWords, MAX_RANK, WITHHELD } from './flow-slots.js';
import { HalfOpen, type HalfOpenOptions, halfOpenLimits } from './half-open.js';
import { coversPacket, idleExpiry } from './idle-expiry.js';
import type { Journal } from './journal.js';
import { capacityAt, capacityOf, type MergeSource } from './merge-source.js';
import { Applied, merged, type OpenContext, type StateDefinition, type StateObject } from './object.js';
import { recoverTransaction, Transaction, tryAgain } from './transaction.js';

export type { FlowLookup } from './flow-lookup.js';
export * from './flow-options.js';
export { FLOW_PUT, largerValue, type Winner } from './flow-record.js';

/**
 * Slots looked at for waste with every new entry; with twice as many slots as entries, the table in
 * capacity / 2 adds.
 */
const SWEEP_SLOTS = 4;
const SWEEP_SLOTS_FULL = 512;
/**
 * An outcome of a try: the slot has an entry that others know of, so they are to be told what
 * becomes of it.
 */
const KNOWN_TO_OTHERS = -3;

export function flowTable(options: FlowTableOptions): StateDefinition<FlowTable> {
  const { capacity, keyWords, valueWords, winner = largerValue } = options;
  const shape = { capacity, keyWords, valueWords };
  const bytes = (COUNTS.words + flowSlotsWords(shape)) * BYTES_PER_WORD;
  const limits = halfOpenLimits(capacity, options);
  return {
    kind: 'flow-table',
    parameters: { keyWords, valueWords, winner: winner.name },
    shape: { capacity },
    bytes,
    withShape: (theirs) => flowTable({ ...options, capacity: capacityOf(theirs), halfOpen: 1 }),
    open: (context) => new FlowTable(context, shape, limits, winner),
    reconfigure: (object) => (object as FlowTable).halfOpen.setLimits(limits),
  };
}

export class FlowTable implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  /** Why the last `add` returned `NONE`. */
  refusal: FlowRefusal = FlowRefusal.NONE;

  readonly capacity: number;
  private readonly keyWords: number;
  private readonly valueWords: number;
  private readonly recordWords: number;
  private readonly words: Int32Array;
  protected readonly slots: FlowSlots;
  readonly halfOpen: HalfOpen;
  private readonly winner: Winner;
  private readonly transaction: Transaction | null;
  /** An entry as `FlowSlots.read` gives it, and the joined record of an operation under way. */
  private readonly entry: Int32Array;
  private readonly joined: Int32Array;
  private sweepCursor = 0;

  constructor(
    { id, region, secret, writer, stripes = 1 }: OpenContext,
    shape: FlowShape,
    limits: Required<HalfOpenOptions>,
    winner: Winner,
  ) {
    this.id = id;
    this.capacity = shape.capacity;
    this.keyWords = shape.keyWords;
    this.valueWords = shape.valueWords;
    this.recordWords = shape.keyWords + LIFE.words + shape.valueWords;
    this.words = region.i32();
    this.slots = new FlowSlots(this.words, COUNTS.words, shape, secret, REMEMBERED_S);
    this.halfOpen = new HalfOpen(this.words, COUNTS.at.halfOpen, this.slots, limits, stripes, () => true);
    this.winner = winner;
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
    this.entry = new Int32Array(this.recordWords);
    this.joined = new Int32Array(this.recordWords);
    // Threads sweep from different places.
    if (writer !== null) this.sweepCursor = Math.trunc((this.slots.slots / 8) * writer.id) & (this.slots.slots - 1);
  }

  // ——— Packet path: plain reads ———

  /** Hash of the key at `key[keyAt …]`, for `touch`, `find` and `add`. */
  hash(key: Int32Array, keyAt: number): number {
    return this.slots.hash(key, keyAt);
  }

  /**
   * Starts fetching what `find` will read. Call it for a whole batch first, and the misses overlap.
   */
  touch(hash: number): void {
    this.slots.touch(hash);
  }

  /** The slot of a key's entry, or `NONE` when there is none or it has expired. */
  find(hash: number, key: Int32Array, keyAt: number, now: number): number {
    const slot = this.slots.find(hash, key, keyAt);
    return slot !== NONE && this.slots.expires(slot) > now ? slot : NONE;
  }

  /** Columns for looking up many keys of four words at once; made once per thread. */
  lookup(capacity: number): FlowLookup {
    if (this.keyWords !== 4) throw new Error(`state object ${this.id}: only keys of four words are looked up at once`);
    const column = (words: number): Int32Array => new Int32Array(words * capacity);
    const [keys, hashes, slots, values] = [column(4), column(1), column(1), column(1)];
    return { keys, hashes, slots, values, find: finder4(this.slots.place, keys, hashes, slots, values) };
  }

  /** One word of a slot's value. Several that belong together: `read`. */
  value(slot: number, i: number): number {
    return this.slots.value(slot, i);
  }

  rank(slot: number): number {
    return this.slots.rank(slot);
  }

  expires(slot: number): number {
    return this.slots.expires(slot);
  }

  generation(slot: number): number {
    return this.slots.generation(slot);
  }

  /**
   * Copies a slot's value words into `out[outAt …]` as they were at one moment. False when there is
   * no entry any more.
   */
  read(slot: number, out: Int32Array, outAt: number): boolean {
    if (!this.slots.read(slot, this.entry, 0)) return false;
    for (let i = 0; i < this.valueWords; i++) out[outAt + i] = this.entry[LIFE.words + this.keyWords + i];
    return true;
  }

  // ——— Packet path: changes ———

  /**
   * Puts a key in the table, in a new generation: one log record. Returns its slot; that of the
   * entry there is, unchanged, if it has not expired. `NONE`: `refusal` says why, and nothing was
   * changed. `expires`: `idleExpiry` of what packets refresh, `expiryAfter` of what lasts a fixed
   * time.
   */
  add(
    hash: number,
    key: Int32Array,
    keyAt: number,
    value: Int32Array,
    valueAt: number,
    rank: number,
    now: number,
    expires: number,
  ): number {
    this.refusal = FlowRefusal.NONE;
    let told = rank !== 0 || this.halfOpen.mayTell(now, false);
    for (let tries = 1; ; tries++) {
      const slot = this.tryAdd(hash, key, keyAt, value, valueAt, rank, now, expires, told);
      if (slot === KNOWN_TO_OTHERS) told = true;
      else if (slot !== CONTENDED) return slot;
      else if (!tryAgain(tries, false)) return this.refuse(FlowRefusal.CONTENDED);
    }
  }

  /**
   * A packet of the flow at `now`: raises its rank to `rank` if that is larger, and keeps it for
   * `timeout` at least, which is that of the rank it then has: `max(rank, this.rank(slot))`.
   * Changes the entry, and replicates it, only if the rank grows or the expiry does not cover the
   * packet (idle-expiry.ts). A larger rank may expire sooner. Returns false if that was not
   * possible now (log full, contended, entry gone): the next packet tries again.
   */
  refresh(slot: number, rank: number, now: number, timeout: number): boolean {
    return this.use(slot, rank, now, timeout, false);
  }

  /**
   * As `refresh`, but never shortens what is left, by a larger rank neither. With timeout 0: raises
   * the rank alone.
   */
  prolong(slot: number, rank: number, now: number, timeout: number): boolean {
    return this.use(slot, rank, now, timeout, true);
  }

  private use(slot: number, rank: number, now: number, timeout: number, keeps: boolean): boolean {
    const slots = this.slots;
    const standing = slots.standing(slot);
    const covered = coversPacket(slots.expires(slot), now, timeout);
    if (standing < WITHHELD)
      return (rank <= standing && covered) || this.change(slot, rank, now, timeout, keeps, null, 0, true);
    const told = rank !== 0 || this.halfOpen.mayTell(now, true);
    return (!told && covered) || this.change(slot, rank, now, timeout, keeps, null, 0, told);
  }

  /**
   * A new life for a slot's key: the rank and value given, in a new generation. As for `refresh`;
   * and false for an entry renewed faster than once a second for longer than `timeout`:
   * generations, which may not run ahead of the expiry, are not to carry it with them, or whoever
   * sends the packets could make an entry live for ever.
   */
  renew(slot: number, value: Int32Array, valueAt: number, rank: number, now: number, timeout: number): boolean {
    const told = rank !== 0 || this.slots.isTold(slot) || this.halfOpen.mayTell(now, true);
    return this.change(slot, rank, now, timeout, false, value, valueAt, told);
  }

  /**
   * Others are told of a half-open entry once more, within the budget: they may have had no room
   * for it.
   */
  tellAgain(slot: number, now: number, timeout: number): boolean {
    return this.halfOpen.mayTell(now, true) && this.change(slot, 0, now, timeout, false, null, 0, true);
  }

  /**
   * Replaces a half-open entry's value within its generation, if the new one wins by the winner
   * rule: one record, from the budget of half-open entries. False if nothing was changed: the
   * budget is spent, the entry is no longer half-open, its value is as good, the log is full, or
   * another thread holds its lock.
   */
  replaceValue(slot: number, value: Int32Array, valueAt: number, now: number): boolean {
    const { slots, tx, keyWords, valueWords } = this;
    if (!slots.isHalfOpen(slot) || !this.halfOpen.mayTell(now, true)) return false;
    const at = this.begin(true);
    if (at === NONE) {
      this.count(COUNTS.at.logFull);
      return false;
    }
    const isOpen = tx.lock(slots.lockOf(slot)) && slots.isHalfOpen(slot) && slots.expires(slot) > now;
    // The winner rule is the user's. If it throws, the next transaction repairs this one.
    if (!isOpen || !this.winner(value, valueAt, this.entryOf(slot), keyWords + LIFE.words, valueWords)) {
      tx.abort();
      return false;
    }
    slots.update(tx, slot, slots.generation(slot), 0, slots.expires(slot));
    this.setValue(slot, value, valueAt);
    this.record(at, slot);
    tx.commit();
    return true;
  }

  /**
   * Reclaims what can be forgotten in the next `slots` slots, in turn, or, where room is needed,
   * what is over. Returns how many entries went. `add` does it by itself.
   */
  sweep(now: number, slots: number, urgent = false): number {
    let reclaimed = 0;
    for (let i = 0; i < slots; i++) {
      this.sweepCursor = (this.sweepCursor + 1) & (this.slots.slots - 1);
      if (this.slots.isWaste(this.sweepCursor, now, urgent) && this.reclaim(this.sweepCursor, now, urgent)) reclaimed++;
    }
    return reclaimed;
  }

  private tryAdd(
    hash: number,
    key: Int32Array,
    keyAt: number,
    value: Int32Array,
    valueAt: number,
    rank: number,
    now: number,
    expires: number,
    told: boolean,
  ): number {
    const { slots, tx, halfOpen } = this;
    const at = this.begin(told);
    if (at === NONE) return this.refuse(FlowRefusal.LOG_FULL);
    const slot = slots.acquire(tx, hash, key, keyAt, now);
    if (slot < 0) {
      tx.abort();
      return slot === CONTENDED ? CONTENDED : this.refuse(FlowRefusal.TABLE_FULL);
    }
    const known = slots.holds(slot, key, keyAt);
    if (known && slots.expires(slot) > now) {
      tx.abort();
      return slot;
    }
    if (!told && known && slots.isTold(slot)) {
      tx.abort();
      return KNOWN_TO_OTHERS;
    }
    if (!slots.isUsed(slot) && this.size >= this.capacity) {
      tx.abort();
      return this.makeRoom(hash, now) ? CONTENDED : this.refuse(FlowRefusal.TABLE_FULL);
    }
    if (slots.isHalfOpenRank(rank) && !slots.isHalfOpen(slot) && !halfOpen.hasRoom()) {
      tx.abort();
      return this.evict(hash, now) ? CONTENDED : this.refuse(FlowRefusal.HALF_OPEN);
    }
    const generation = known ? Math.max(slots.generation(slot) + 1, now) : now;
    const standing = told ? rank : WITHHELD;
    this.began(slot, generation);
    this.put(slot, hash, key, keyAt, generation, standing, Math.max(expires, generation), value, valueAt, now);
    if (told) this.record(at, slot);
    tx.commit();
    this.sweep(now, SWEEP_SLOTS);
    return slot;
  }

  /** A key begins a new life in a locked slot, which others do not see yet. */
  protected began(_slot: number, _generation: number): void {}

  /** Starts an operation, with room for its record if others are told. `NONE`: the log has none. */
  private begin(told: boolean): number {
    if (told) return this.tx.beginLogged(FLOW_PUT, this.recordWords);
    this.tx.begin();
    return 0;
  }

  /** The table is full: forgets what is over, or else puts a half-open entry out. */
  private makeRoom(hash: number, now: number): boolean {
    return this.sweep(now, SWEEP_SLOTS_FULL, true) > 0 || this.evict(hash, now);
  }

  private evict(hash: number, now: number): boolean {
    if (!this.halfOpen.evict(this.tx, hash, now)) return false;
    this.count(COUNTS.at.reclaimed);
    return true;
  }

  private change(
    slot: number,
    rank: number,
    now: number,
    timeout: number,
    keeps: boolean,
    value: Int32Array | null,
    valueAt: number,
    told: boolean,
  ): boolean {
    const { slots, tx } = this;
    const at = this.begin(told);
    if (at === NONE) {
      this.count(COUNTS.at.logFull);
      return false;
    }
    // One try: the next packet of the flow will ask again.
    const locked = tx.lock(slots.lockOf(slot));
    const standing = slots.standing(slot);
    if (!locked || !slots.isUsed(slot) || slots.expires(slot) <= now || (!told && standing !== WITHHELD)) {
      tx.abort();
      if (!locked) this.count(COUNTS.at.contended);
      return false;
    }
    const generation = value === null ? slots.generation(slot) : Math.max(slots.generation(slot) + 1, now);
    if (value !== null && generation > now + timeout) {
      tx.abort();
      return false;
    }
    const before = slots.rank(slot);
    const grown = value !== null || rank > before;
    const after = grown ? rank : before;
    const floor = grown && !keeps ? generation : slots.expires(slot);
    const expires = Math.max(idleExpiry(now, timeout), floor);
    if (value !== null) this.began(slot, generation);
    slots.update(tx, slot, generation, told ? after : WITHHELD, expires);
    if (value !== null) this.setValue(slot, value, valueAt);
    if (told) this.record(at, slot);
    this.halfOpen.moved(slot, before, after, generation, now);
    tx.commit();
    return true;
  }

  private put(
    slot: number,
    hash: number,
    key: Int32Array,
    keyAt: number,
    generation: number,
    standing: number,
    expires: number,
    value: Int32Array,
    valueAt: number,
    now: number,
  ): void {
    const { slots, tx } = this;
    this.halfOpen.moved(slot, slots.isUsed(slot) ? slots.rank(slot) : NONE, standing & MAX_RANK, generation, now);
    if (slots.holds(slot, key, keyAt)) {
      // It stays visible: a reader that missed it would take its packet for one of no connection.
      // An expired one, too: a reader's clock may be a second behind. The value is first, lest a
      // reader finds the new life with the old value.
      this.setValue(slot, value, valueAt);
      return slots.update(tx, slot, generation, standing, expires);
    }
    const taken = slots.isUsed(slot);
    slots.vacate(tx, slot);
    if (taken) this.count(COUNTS.at.reclaimed);
    this.count(COUNTS.at.inserted);
    this.setValue(slot, value, valueAt);
    slots.put(tx, slot, hash, key, keyAt, generation, standing, expires);
  }

  private setValue(slot: number, value: Int32Array, valueAt: number): void {
    for (let i = 0; i < this.valueWords; i++) this.tx.set(this.slots.wordOf(slot, i), value[valueAt + i]);
  }

  /** Writes the log record of a locked slot as it is now. */
  private record(at: number, slot: number): void {
    writeFlow(this.slots, slot, this.tx.record, at);
  }

  private reclaim(slot: number, now: number, urgent: boolean): boolean {
    const { slots, tx } = this;
    let reclaimed = false;
    if (slots.isUsed(slot)) {
      tx.begin();
      reclaimed = tx.tryLock(slots.lockOf(slot)) && slots.isUsed(slot) && slots.isForgettable(slot, now, urgent);
      if (reclaimed) {
        this.halfOpen.moved(slot, slots.rank(slot), NONE, 0, now);
        slots.vacate(tx, slot);
        this.count(COUNTS.at.reclaimed);
        tx.commit();
      } else tx.abort();
    }
    slots.tidy(tx, slot, now);
    return reclaimed;
  }

  // ——— Replication ———

  apply(op: number, words: Int32Array, at: number, length: number, _origin: number, now: number): Applied {
    if (op !== FLOW_PUT || length !== this.recordWords || !isLife(words, at + this.keyWords, now)) {
      this.count(COUNTS.at.malformed);
      return Applied.MALFORMED;
    }
    const hash = this.slots.hash(words, at);
    if (!this.hasRoomFor(hash, words, at, now)) {
      this.halfOpen.refused();
      return Applied.FULL;
    }
    for (let tries = 1; ; tries++) {
      const applied = this.tryApply(hash, words, at, now);
      if (applied !== CONTENDED) return applied;
      if (!tryAgain(tries, true)) {
        this.count(COUNTS.at.contended);
        return Applied.BUSY;
      }
    }
  }

  /**
   * Whether there is room for a record's entry within the quota, if it is half-open; room is made.
   */
  private hasRoomFor(hash: number, words: Int32Array, at: number, now: number): boolean {
    const { slots, halfOpen } = this;
    if (!slots.isHalfOpenRank(words[at + this.keyWords + LIFE.at.rank]) || halfOpen.hasRoom()) return true;
    return slots.find(hash, words, at) !== NONE || this.evict(hash, now);
  }

  private tryApply(hash: number, words: Int32Array, at: number, now: number): Applied | typeof CONTENDED {
    const { slots, tx, keyWords, joined } = this;
    const expires = words[at + keyWords + LIFE.at.expires];
    tx.begin();
    const slot = slots.acquire(tx, hash, words, at, now);
    // One that is withheld is not known to those who told the record: it gives way.
    const known = slot >= 0 && slots.holds(slot, words, at) && slots.isTold(slot);
    const forgotten = expires + REMEMBERED_S <= now;
    if (slot === CONTENDED || (!known && (forgotten || slot === NONE))) {
      tx.abort();
      if (slot === CONTENDED) return CONTENDED;
      if (expires + CLOCK_SKEW_GUARD_S <= now) return Applied.UNCHANGED; // forgotten before it was known
      this.count(COUNTS.at.tableFull);
      return Applied.FULL;
    }
    for (let i = 0; i < this.recordWords; i++) joined[i] = words[at + i];
    if (known) {
      const entry = this.entryOf(slot);
      // The record, joined with what there is, if that makes a difference.
      let differs = false;
      try {
        differs = joinFlow(joined, 0, entry, 0, keyWords, this.valueWords, this.winner);
      } catch (error) {
        tx.abort(); // the winner rule is the user's, and may throw
        throw error;
      }
      if (!differs) {
        tx.abort();
        return Applied.UNCHANGED;
      }
    }
    this.put(
      slot,
      hash,
      joined,
      0,
      joined[keyWords + LIFE.at.generation],
      joined[keyWords + LIFE.at.rank],
      joined[keyWords + LIFE.at.expires],
      joined,
      keyWords + LIFE.words,
      now,
    );
    tx.commit();
    return Applied.CHANGED;
  }

  /** A locked slot's entry in the form of a record. */
  private entryOf(slot: number): Int32Array {
    writeFlow(this.slots, slot, this.entry, 0);
    return this.entry;
  }

  coalesceKey(_op: number, words: Int32Array, at: number, _length: number): number {
    return this.slots.hash(words, at);
  }

  coalesce(_op: number, words: Int32Array, earlier: number, later: number, _length: number): boolean {
    for (let i = 0; i < this.keyWords; i++) if (words[earlier + i] !== words[later + i]) return false;
    joinFlow(words, earlier, words, later, this.keyWords, this.valueWords, this.winner);
    return true;
  }

  /**
   * Every entry of the other's region, as if it had told it. One that finds no room, or is none, is
   * counted as such.
   */
  merge(from: Region, now: number, source?: MergeSource): number {
    const shape = { keyWords: this.keyWords, valueWords: this.valueWords, capacity: capacityAt(source, this.capacity) };
    let changed = 0;
    for (const record of flowRecords(from.i32(), COUNTS.words, shape)) {
      const lost = this.slots.isHalfOpenRank(record[this.keyWords + LIFE.at.rank]) ? undefined : source;
      changed += merged(this.apply(FLOW_PUT, record, 0, this.recordWords, 0, now), this.id, lost);
    }
    return changed;
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  // ——— Looking on ———

  /**
   * Calls `see` with every entry that has not expired, each as it was at one moment: generation,
   * expires, rank, key words, value words. The array is used again.
   */
  forEach(now: number, see: (entry: Int32Array) => void): void {
    walkEntries(this.slots, this.entry, now, false, see);
  }

  /**
   * The same, pulled; and `null` after every 1000 slots that had none to show. For `show flows`.
   */
  entries(now: number): Generator<Int32Array | null> {
    return flowEntries(this.slots, new Int32Array(this.recordWords), now);
  }

  /**
   * Over every entry that has not expired by `now` and is not local-only; half-open ones only if
   * `evictable`. Instances that hold the same agree if they ask at the same `now`. If an entry
   * expires between two askings, they may not.
   */
  digest(now = coarseSeconds(Date.now()), evictable = false): string {
    return entriesDigest(this.slots, this.entry, now, evictable);
  }

  describe(_now: number): Record<string, number> {
    const { capacity, size: used, halfOpen } = this;
    return { capacity, used, slots: this.slots.slots, ...describeCounts(this.words), ...halfOpen.describe() };
  }

  /**
   * Locks held at the moment: none when no operation is under way. Looks at everything: for tests
   * and diagnosis.
   */
  locksHeld(): number {
    return this.slots.locksHeld();
  }

  /** Slots at which a search ends: the more, the shorter searches are. For tests and diagnosis. */
  emptySlots(): number {
    return this.slots.emptySlots();
  }

  /**
   * Entries in the table, those not yet reclaimed included: 0 says at the cost of two loads that
   * nothing is to be found.
   */
  get size(): number {
    return (this.words[COUNTS.at.inserted] - this.words[COUNTS.at.reclaimed]) | 0;
  }

  protected get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }

  private refuse(reason: FlowRefusal): typeof NONE {
    this.refusal = reason;
    if (reason === FlowRefusal.TABLE_FULL) this.count(COUNTS.at.tableFull);
    else if (reason === FlowRefusal.HALF_OPEN) this.halfOpen.refused();
    else if (reason === FlowRefusal.LOG_FULL) this.count(COUNTS.at.logFull);
    else if (reason === FlowRefusal.CONTENDED) this.count(COUNTS.at.contended);
    return NONE;
  }

  private count(counter: number): void {
    Atomics.add(this.words, counter, 1);
  }
}
