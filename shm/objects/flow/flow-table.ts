/**
 * A flow table: a map from a flow's key to a few value words, shared by all instances, whose
 * entries expire.
 *
 * Per key it has (generation, rank, expires, value). A merge takes the lexicographically larger
 * (generation, rank). Between equals the winner rule decides the value, and the later expiry stays.
 * So connection state is a rank that only grows (new < established < closing < closed), and the
 * expiry grows within a rank. A key that is used again starts a new generation, which is at least
 * the coarse time then. A generation never exceeds its expiry (this is checked in records too). So
 * if an entry was forgotten after its expiry, a later entry of that key supersedes it at every
 * instance that still has it. This makes the merge a lattice: all instances end with the same
 * content, whatever the order and repetition of records.
 *
 * An expired entry is reclaimed locally, `REMEMBERED_S` after its expiry, without a message and
 * without a tombstone. Until then it supersedes records that come late, because a larger rank can
 * have the earlier expiry. So instances converge if every record reaches each of them within
 * `DELIVERY_S_MAX` and no table is full. Otherwise an instance may show an entry that the others
 * have forgotten, until its expiry. A full table forgets an entry `CLOCK_SKEW_GUARD_S` after its
 * expiry.
 *
 * Entries of rank 0 are *half-open* (half-open.ts); a shape may set a larger `halfOpenRank`. An
 * entry that must stay until its expiry begins with a rank that is not half-open.
 *
 * The layout and reads without locks are documented in table-slots.ts. An operation is one log
 * record, applied whole or not at all: transaction.ts.
 *
 *     record   key words, generation, rank, expires, value words
 */

import { CLOCK_SKEW_GUARD_S, coarseSeconds, REMEMBERED_S } from '../../clock.js';
import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD } from '../../struct.js';
import type { Journal } from '../core/journal.js';
import { capacityAt, capacityOf, type MergeSource } from '../core/merge-source.js';
import { Applied, merged, type OpenContext, type StateDefinition, type StateObject } from '../core/object.js';
import { recoverTransaction, Transaction, tryAgain } from '../core/transaction.js';
import { HalfOpen, type HalfOpenOptions, halfOpenLimits } from '../table/half-open.js';
import { coversPacket, idleExpiry } from '../table/idle-expiry.js';
import { CONTENDED, type FlowShape, FlowSlots, flowSlotsWords, LOCAL_ONLY, MAX_RANK } from '../table/table-slots.js';
import { COUNTS, describeCounts } from './flow-counts.js';
import { entriesDigest, flowEntries, flowRecords, walkEntries, writeFlow } from './flow-entries.js';
import { type FlowLookup, finder4 } from './flow-lookup.js';
import { FlowRefusal, type FlowTableOptions } from './flow-options.js';
import { FLOW_PUT, isStatus, joinFlow, largerValue, STATUS, type Winner } from './flow-record.js';

export type { FlowLookup } from './flow-lookup.js';
export {
  FlowRefusal,
  type FlowTableOptions,
  KEY_WORDS_IPV4_ENDPOINT,
  KEY_WORDS_IPV4_FIVE_TUPLE,
  KEY_WORDS_IPV6_FIVE_TUPLE,
} from './flow-options.js';
export { FLOW_PUT, largerValue, type Winner } from './flow-record.js';

/**
 * Slots that are checked for waste with every new entry. The table has twice as many slots as
 * entries, so capacity / 2 additions check all of it.
 */
const SWEEP_SLOTS = 4;
const SWEEP_SLOTS_FULL = 512;
/** Result of `tryAdd`: peers know the slot's entry, so the change must be replicated. */
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
  /** An entry as `FlowSlots.read` writes it, and the joined record of the current operation. */
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
    this.recordWords = shape.keyWords + STATUS.words + shape.valueWords;
    this.words = region.i32();
    this.slots = new FlowSlots(this.words, COUNTS.words, shape, secret, REMEMBERED_S);
    this.halfOpen = new HalfOpen(this.words, COUNTS.at.halfOpen, this.slots, limits, stripes, () => true);
    this.winner = winner;
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
    this.entry = new Int32Array(this.recordWords);
    this.joined = new Int32Array(this.recordWords);
    // Each thread begins its sweep at another slot.
    if (writer !== null) this.sweepCursor = Math.trunc((this.slots.slots / 8) * writer.id) & (this.slots.slots - 1);
  }

  // ——— Packet path: plain reads ———

  /** Hash of the key at `key[keyAt …]`, for `touch`, `find` and `add`. */
  hash(key: Int32Array, keyAt: number): number {
    return this.slots.hash(key, keyAt);
  }

  /**
   * Starts to fetch what `find` will read. Call it for a whole batch first, so that the cache
   * misses overlap.
   */
  touch(hash: number): void {
    this.slots.touch(hash);
  }

  /** The slot of a key's entry, or `NONE` if there is no entry or it has expired. */
  find(hash: number, key: Int32Array, keyAt: number, now: number): number {
    const slot = this.slots.find(hash, key, keyAt);
    return slot !== NONE && this.slots.expires(slot) > now ? slot : NONE;
  }

  /**
   * Columns to look up many keys of four words at once. Make them once per thread. Throws if keys
   * have another width.
   */
  lookup(capacity: number): FlowLookup {
    if (this.keyWords !== 4) throw new Error(`state object ${this.id}: only keys of four words are looked up at once`);
    const column = (words: number): Int32Array => new Int32Array(words * capacity);
    const [keys, hashes, slots, values] = [column(4), column(1), column(1), column(1)];
    return { keys, hashes, slots, values, find: finder4(this.slots.place, keys, hashes, slots, values) };
  }

  /** One word of a slot's value. Use `read` for several words that belong together. */
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
   * Copies a slot's value words, as they were at one moment, into `out[outAt …]`. False if there is
   * no entry any more.
   */
  read(slot: number, out: Int32Array, outAt: number): boolean {
    if (!this.slots.read(slot, this.entry, 0)) return false;
    for (let i = 0; i < this.valueWords; i++) out[outAt + i] = this.entry[STATUS.words + this.keyWords + i];
    return true;
  }

  // ——— Packet path: changes ———

  /**
   * Adds a key in a new generation. Writes one log record, unless the entry stays local-only.
   * Returns the slot. If the key has an unexpired entry, returns that one unchanged. Returns `NONE`
   * if it failed: `refusal` says why, and nothing was changed. `expires`: `idleExpiry` if packets
   * refresh the entry, `expiryAfter` if it lasts a fixed time.
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
    let replicated = rank !== 0 || this.halfOpen.mayReplicate(now, false);
    for (let tries = 1; ; tries++) {
      const slot = this.tryAdd(hash, key, keyAt, value, valueAt, rank, now, expires, replicated);
      if (slot === KNOWN_TO_OTHERS) replicated = true;
      else if (slot !== CONTENDED) return slot;
      else if (!tryAgain(tries, false)) return this.refuse(FlowRefusal.CONTENDED);
    }
  }

  /**
   * A packet of the flow at `now`. Raises the rank to `rank` if that is larger, and keeps the entry
   * for at least `timeout` seconds. `timeout` must belong to the resulting rank, `max(rank,
   * this.rank(slot))`. The entry is changed and replicated only if the rank grows or the expiry
   * does not cover the packet (idle-expiry.ts). A larger rank may expire sooner. Returns false if
   * the change was not possible (log full, contended, entry gone). The next packet tries again.
   */
  refresh(slot: number, rank: number, now: number, timeout: number): boolean {
    return this.use(slot, rank, now, timeout, false);
  }

  /**
   * As `refresh`, but never shortens the remaining time, even if the rank grows. With timeout 0 it
   * only raises the rank.
   */
  prolong(slot: number, rank: number, now: number, timeout: number): boolean {
    return this.use(slot, rank, now, timeout, true);
  }

  private use(slot: number, rank: number, now: number, timeout: number, keeps: boolean): boolean {
    const slots = this.slots;
    const standing = slots.standing(slot);
    const covered = coversPacket(slots.expires(slot), now, timeout);
    if (standing < LOCAL_ONLY)
      return (rank <= standing && covered) || this.change(slot, rank, now, timeout, keeps, null, 0, true);
    const replicated = rank !== 0 || this.halfOpen.mayReplicate(now, true);
    return (!replicated && covered) || this.change(slot, rank, now, timeout, keeps, null, 0, replicated);
  }

  /**
   * Starts a new generation of a slot's key, with the given rank and value. Returns false as
   * `refresh` does. It also returns false if the entry is renewed faster than once a second for
   * longer than `timeout`. A generation must not exceed the expiry, so a fast-growing generation
   * would carry the expiry with it, and a sender could keep an entry for ever.
   */
  renew(slot: number, value: Int32Array, valueAt: number, rank: number, now: number, timeout: number): boolean {
    const replicated = rank !== 0 || this.slots.isReplicated(slot) || this.halfOpen.mayReplicate(now, true);
    return this.change(slot, rank, now, timeout, false, value, valueAt, replicated);
  }

  /**
   * Replicates a half-open entry once more, within the budget. Peers may have had no room for it.
   */
  replicateAgain(slot: number, now: number, timeout: number): boolean {
    return this.halfOpen.mayReplicate(now, true) && this.change(slot, 0, now, timeout, false, null, 0, true);
  }

  /**
   * Replaces a half-open entry's value within its generation, if the new value wins by the winner
   * rule. Writes one record, from the budget of half-open entries. False if nothing was changed:
   * the budget is spent, the entry is no longer half-open, the new value does not win, the log is
   * full, or another thread has the lock.
   */
  replaceValue(slot: number, value: Int32Array, valueAt: number, now: number): boolean {
    const { slots, tx, keyWords, valueWords } = this;
    if (!slots.isHalfOpen(slot) || !this.halfOpen.mayReplicate(now, true)) return false;
    const at = this.begin(true);
    if (at === NONE) {
      this.count(COUNTS.at.logFull);
      return false;
    }
    const isOpen = tx.lock(slots.lockOf(slot)) && slots.isHalfOpen(slot) && slots.expires(slot) > now;
    // The winner rule is the user's. If it throws, the next transaction recovers this one.
    if (!isOpen || !this.winner(value, valueAt, this.entryOf(slot), keyWords + STATUS.words, valueWords)) {
      tx.abort();
      return false;
    }
    slots.update(tx, slot, slots.generation(slot), 0, slots.expires(slot));
    this.setValue(slot, value, valueAt);
    this.record(at, slot);
    tx.commit();
    return true;
  }

  get tableSlots(): number {
    return this.slots.slots;
  }

  /**
   * Reclaims forgettable entries in the next `slots` slots, in turn; if `urgent`, all that are
   * over. Returns how many entries were reclaimed. `add` calls it by itself.
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
    replicated: boolean,
  ): number {
    const { slots, tx, halfOpen } = this;
    const at = this.begin(replicated);
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
    if (!replicated && known && slots.isReplicated(slot)) {
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
    const standing = replicated ? rank : LOCAL_ONLY;
    this.began(slot, generation);
    this.put(slot, hash, key, keyAt, generation, standing, Math.max(expires, generation), value, valueAt, now);
    if (replicated) this.record(at, slot);
    tx.commit();
    this.sweep(now, SWEEP_SLOTS);
    return slot;
  }

  /** Called when a key begins a new generation in a locked slot, before others see it. */
  protected began(_slot: number, _generation: number): void {}

  /** Starts an operation, with room for its record if it is replicated. `NONE`: the log is full. */
  private begin(replicated: boolean): number {
    if (replicated) return this.tx.beginLogged(FLOW_PUT, this.recordWords);
    this.tx.begin();
    return 0;
  }

  /**
   * Makes room in a full table: forgets entries that are over, or else evicts a half-open entry.
   * False if neither is possible now.
   */
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
    replicated: boolean,
  ): boolean {
    const { slots, tx } = this;
    const at = this.begin(replicated);
    if (at === NONE) {
      this.count(COUNTS.at.logFull);
      return false;
    }
    // Try once: the next packet of the flow tries again.
    const locked = tx.lock(slots.lockOf(slot));
    const standing = slots.standing(slot);
    if (!locked || !slots.isUsed(slot) || slots.expires(slot) <= now || (!replicated && standing !== LOCAL_ONLY)) {
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
    slots.update(tx, slot, generation, replicated ? after : LOCAL_ONLY, expires);
    if (value !== null) this.setValue(slot, value, valueAt);
    if (replicated) this.record(at, slot);
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
      // The entry stays visible, because a reader that missed it would treat its packet as one
      // without a connection. This holds for an expired entry too, because a reader's clock may be
      // a second behind. The value is written first, so that no reader finds the new generation
      // with the old value.
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

  /** Writes the log record of a locked slot's current entry. */
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
    if (op !== FLOW_PUT || length !== this.recordWords || !isStatus(words, at + this.keyWords, now)) {
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

  /** Whether the quota has room for a record's entry, if it is half-open. Evicts to make room. */
  private hasRoomFor(hash: number, words: Int32Array, at: number, now: number): boolean {
    const { slots, halfOpen } = this;
    if (!slots.isHalfOpenRank(words[at + this.keyWords + STATUS.at.rank]) || halfOpen.hasRoom()) return true;
    return slots.find(hash, words, at) !== NONE || this.evict(hash, now);
  }

  private tryApply(hash: number, words: Int32Array, at: number, now: number): Applied | typeof CONTENDED {
    const { slots, tx, keyWords, joined } = this;
    const expires = words[at + keyWords + STATUS.at.expires];
    tx.begin();
    const slot = slots.acquire(tx, hash, words, at, now);
    // The record's origin does not know a local-only entry, so the record replaces it.
    const known = slot >= 0 && slots.holds(slot, words, at) && slots.isReplicated(slot);
    const forgotten = expires + REMEMBERED_S <= now;
    if (slot === CONTENDED || (!known && (forgotten || slot === NONE))) {
      tx.abort();
      if (slot === CONTENDED) return CONTENDED;
      if (expires + CLOCK_SKEW_GUARD_S <= now) return Applied.UNCHANGED; // it would be forgotten at once
      this.count(COUNTS.at.tableFull);
      return Applied.FULL;
    }
    for (let i = 0; i < this.recordWords; i++) joined[i] = words[at + i];
    if (known) {
      const entry = this.entryOf(slot);
      // Join the record with the entry, and go on only if the result differs.
      let differs = false;
      try {
        differs = joinFlow(joined, 0, entry, 0, keyWords, this.valueWords, this.winner);
      } catch (error) {
        tx.abort(); // the winner rule is the user's and may throw
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
      joined[keyWords + STATUS.at.generation],
      joined[keyWords + STATUS.at.rank],
      joined[keyWords + STATUS.at.expires],
      joined,
      keyWords + STATUS.words,
      now,
    );
    tx.commit();
    return Applied.CHANGED;
  }

  /** The entry of a locked slot in the form of a record. */
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
   * Applies every replicated entry of another instance's region, as if it had been received as a
   * record. An entry that finds no room or is malformed is counted as such.
   */
  merge(from: Region, now: number, source?: MergeSource): number {
    const shape = { keyWords: this.keyWords, valueWords: this.valueWords, capacity: capacityAt(source, this.capacity) };
    let changed = 0;
    for (const record of flowRecords(from.i32(), COUNTS.words, shape)) {
      const lost = this.slots.isHalfOpenRank(record[this.keyWords + STATUS.at.rank]) ? undefined : source;
      changed += merged(this.apply(FLOW_PUT, record, 0, this.recordWords, 0, now), this.id, lost);
    }
    return changed;
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  // ——— Looking on ———

  /**
   * Calls `see` with every entry that has not expired: generation, expires, rank, key words, value
   * words. Each is read as it was at one moment. The array is reused.
   */
  forEach(now: number, see: (entry: Int32Array) => void): void {
    walkEntries(this.slots, this.entry, now, false, see);
  }

  /**
   * As `forEach`, as a generator. Yields `null` after every 1000 slots without a result. For `show
   * flows`.
   */
  entries(now: number): Generator<Int32Array | null> {
    return flowEntries(this.slots, new Int32Array(this.recordWords), now);
  }

  /**
   * Digest over every entry that has not expired by `now` and is not local-only; half-open ones
   * only if `evictable`. Instances with the same content agree if they ask with the same `now`.
   * They may differ if an entry expires between the two calls.
   */
  digest(now = coarseSeconds(Date.now()), evictable = false): string {
    return entriesDigest(this.slots, this.entry, now, evictable);
  }

  describe(_now: number): Record<string, number> {
    const { capacity, size: used, halfOpen } = this;
    return { capacity, used, slots: this.slots.slots, ...describeCounts(this.words), ...halfOpen.describe() };
  }

  /**
   * Number of locks held now: 0 if no operation is under way. Reads every slot, so it is for tests
   * and diagnosis.
   */
  locksHeld(): number {
    return this.slots.locksHeld();
  }

  /**
   * Number of slots at which a search ends. The more there are, the shorter are searches. For tests
   * and diagnosis.
   */
  emptySlots(): number {
    return this.slots.emptySlots();
  }

  /**
   * Number of entries in the table, including those not yet reclaimed. 0 says, at the cost of two
   * loads, that no search can find anything.
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
