/**
 * Counts of distinct items for each of many keys: a few small HyperLogLogs (hyperloglog.ts) per
 * key, shared by all instances, in fixed memory. An intrusion detector has one key per source, and
 * sketches of what the source tried to reach.
 *
 * **Time** is divided into epochs of `epochSeconds`, the same at all instances. A key has a bank of
 * registers for the present epoch and one for the last. An estimate covers both. Every instance
 * forgets older epochs without a message.
 *
 * **Merge**: of two banks of one key and parity, the later epoch wins. Within an epoch, each
 * register takes the maximum. So records may arrive in any order, any number of times, and an item
 * seen at several instances counts once.
 *
 * **Attackers choose the keys.** A keyed hash assigns a key to one set of `WAYS` slots. A key is
 * *quiet* until more than `quiet` of its registers were raised. A quiet key is local-only, is not
 * part of digest and merge, and can be evicted for a new key. So a flood of random sources costs no
 * records and evicts no replicated key. If a set is full of replicated keys, a new key is refused.
 * Each worker replicates at most `promotions` new keys a second. If a record for a quiet key
 * arrives, it replaces the key's content.
 *
 *     set      lock; of each slot tag (the key's hash, 0: none), epoch of either bank (0: empty), weight (registers raised), replicated
 *     entry    key, the banks: sketches × registers bytes
 *     record   key, epoch, then any number of items: sketch << 16 | register << 8 | rank
 *
 * **Concurrent writers** change a set under its lock (transaction.ts). Reads take no lock: an
 * estimate may miss a write in progress.
 */

import { coarseSeconds } from '../../clock.js';
import { hashWords } from '../../hash.js';
import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD, powerOfTwo } from '../../struct.js';
import { ContentDigest } from '../core/content-digest.js';
import type { Journal } from '../core/journal.js';
import { capacityAt, capacityOf, type MergeSource } from '../core/merge-source.js';
import { Applied, merged, type OpenContext, type StateDefinition, type StateObject } from '../core/object.js';
import { recoverTransaction, Transaction, tryAgain } from '../core/transaction.js';
import { estimateOf } from './hyperloglog-estimate.js';
import {
  areItems,
  BANKS,
  COUNTS,
  check,
  figuresOf,
  type KeyedHyperLogLogsOptions,
  layoutOf,
  QUIET_MAX,
  rankMaxOf,
  SET,
  type Shape,
  WAYS,
} from './keyed-layout.js';
import { type SketchHash, seeded } from './sketch-hash.js';

export type { KeyedHyperLogLogsOptions } from './keyed-layout.js';

/** The only operation in the log. */
export const KEYED_RAISE = 1;

/**
 * Maximum things noted for one change. A record written here has at most `RECORD_ITEMS` items; a
 * merge may apply more.
 */
const NOTED_MAX = 4;
const RECORD_ITEMS = QUIET_MAX + NOTED_MAX;
const LOCK_BUSY = -2;
const { tags: TAGS, epochs: EPOCHS, weights: WEIGHTS, replicated: REPLICATED } = SET.at;
const SET_WORDS = SET.words;
const EPOCH_MAX = 0x7fff_ffff;

export function keyedHyperLogLogs(options: KeyedHyperLogLogsOptions): StateDefinition<KeyedHyperLogLogs> {
  const { seed = '', precision = 5, quiet = 4, promotions = 4096, ...given } = options;
  const shape: Shape = { ...given, capacity: powerOfTwo(Math.max(given.capacity, WAYS)), precision, quiet, promotions };
  check(shape);
  const { capacity, ...meant } = shape;
  const { parameters, hash } = seeded('keyed-hyperloglogs', meant, seed);
  return {
    kind: 'keyed-hyperloglogs',
    parameters,
    shape: { capacity },
    bytes: layoutOf(shape).words * BYTES_PER_WORD,
    withShape: (theirs) => keyedHyperLogLogs({ ...options, capacity: capacityOf(theirs) }),
    open: (context) => new KeyedHyperLogLogs(context, shape, hash()),
  };
}

export class KeyedHyperLogLogs implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  /** Slot numbers are below this. */
  readonly slots: number;
  private readonly shape: Shape;
  private readonly layout: ReturnType<typeof layoutOf>;
  private readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly hasher: SketchHash;
  private readonly k0: number;
  private readonly k1: number;
  private readonly transaction: Transaction | null;
  private readonly registers: number;
  private readonly rankMax: number;
  private readonly having: Float64Array;
  private readonly union: Uint8Array;
  /** The new content of a bank. */
  private readonly bank: Int32Array;
  private readonly items = new Int32Array(RECORD_ITEMS);
  /** Items of the next change. */
  private readonly noted = new Int32Array(NOTED_MAX);
  private notedCount = 0;
  private promoted = 0;
  private second = 0;

  constructor({ id, region, secret, writer }: OpenContext, shape: Shape, hash: SketchHash) {
    this.id = id;
    this.shape = shape;
    this.layout = layoutOf(shape);
    this.slots = shape.capacity;
    this.words = region.i32();
    this.bytes = region.u8();
    this.hasher = hash;
    [this.k0, this.k1] = secret;
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
    this.registers = 2 ** shape.precision;
    this.rankMax = rankMaxOf(shape);
    this.having = new Float64Array(this.rankMax + 1);
    this.union = new Uint8Array(this.registers);
    this.bank = new Int32Array(this.layout.bankWords);
  }

  // ——— Packet path ———

  /** Hash of the key at `key[at …]`, for `find` and `add`. Never 0. */
  hash(key: Int32Array, at: number): number {
    return hashWords(this.k0, this.k1, key, at, this.shape.keyWords) || 1;
  }

  /** The slot of a key, or `NONE` if the key is unknown. */
  find(hash: number, key: Int32Array, at: number): number {
    const { words } = this;
    const tags = this.tagsOf(hash);
    const first = this.setOf(hash) * WAYS;
    for (let way = 0; way < WAYS; way++)
      if (words[tags + way] === hash && this.holds(first + way, key, at)) return first + way;
    return NONE;
  }

  /**
   * Notes that the key added next was seen with the thing `thing[at … + count)`, for one sketch.
   * Throws for more than four things.
   */
  note(sketch: number, thing: Int32Array, at: number, count: number): void {
    if (this.notedCount === NOTED_MAX) throw new RangeError(`keyed HyperLogLogs: more than ${NOTED_MAX} things noted`);
    this.hasher.hash(thing, at, count);
    const { first, second } = this.hasher;
    const { precision } = this.shape;
    const register = first & (this.registers - 1);
    const rank = first >>> precision !== 0 ? Math.clz32(first) + 1 : 33 - precision + Math.clz32(second);
    this.noted[this.notedCount++] = (sketch << 16) | (register << 8) | rank;
  }

  /**
   * Adds all noted things to a key. Several things cost little more than one. Returns the key's
   * slot, or `NONE` if there is no room for the key or the change is not possible now; both are
   * counted.
   */
  addNoted(hash: number, key: Int32Array, at: number, now: number): number {
    const epoch = this.epochAt(now);
    const slot = this.find(hash, key, at);
    if (slot !== NONE) this.dropKnown(slot, epoch);
    let raised = slot;
    if (this.notedCount > 0)
      for (let tries = 1; ; tries++) {
        raised = this.raise(hash, key, at, epoch, now);
        if (raised !== LOCK_BUSY) break;
        if (tryAgain(tries, false)) continue;
        raised = this.refuse(COUNTS.at.contended);
        break;
      }
    this.notedCount = 0;
    return raised;
  }

  add(
    hash: number,
    key: Int32Array,
    at: number,
    sketch: number,
    thing: Int32Array,
    thingAt: number,
    count: number,
    now: number,
  ): number {
    this.note(sketch, thing, thingAt, count);
    return this.addNoted(hash, key, at, now);
  }

  /** Drops noted things that a slot already contains. */
  private dropKnown(slot: number, epoch: number): void {
    if (this.words[this.epochWord(slot, epoch)] !== epoch) return;
    const { noted } = this;
    let kept = 0;
    for (let n = 0; n < this.notedCount; n++) {
      const item = noted[n];
      if (this.bytes[this.registerByte(slot, epoch, item >>> 16, (item >>> 8) & 0xff)] < (item & 0xff))
        noted[kept++] = item;
    }
    this.notedCount = kept;
  }

  /**
   * The estimated number of distinct things in one sketch of a slot, in this epoch and the last.
   * Takes some hundred ns.
   */
  estimate(slot: number, sketch: number, now: number): number {
    return this.estimateWithin(slot, 1 << sketch, sketch, now);
  }

  /**
   * The estimate for the union of sketches of a slot (`sketches`: a bit each). No register counts
   * for more than its value in the sketch `cap`.
   */
  estimateWithin(slot: number, sketches: number, cap: number, now: number): number {
    const { registers, having, union, rankMax } = this;
    const epoch = this.epochAt(now);
    const others = sketches & ~(1 << cap);
    union.fill((sketches & (1 << cap)) !== 0 ? rankMax : 0);
    for (let sketch = 0; others >>> sketch !== 0; sketch++)
      if (((others >>> sketch) & 1) !== 0)
        for (let i = 0; i < registers; i++) union[i] = Math.max(union[i], this.rank(slot, epoch, sketch, i));
    having.fill(0);
    for (let i = 0; i < registers; i++) having[Math.min(union[i], this.rank(slot, epoch, cap, i), rankMax)]++;
    return having[0] === registers ? 0 : estimateOf(having, registers);
  }

  /** The rank of a register, in this epoch or the last. */
  private rank(slot: number, epoch: number, sketch: number, register: number): number {
    const { words, bytes } = this;
    const isNow = words[this.epochWord(slot, epoch)] === epoch;
    const isLast = words[this.epochWord(slot, epoch - 1)] === epoch - 1;
    const rank = isNow ? bytes[this.registerByte(slot, epoch, sketch, register)] : 0;
    if (!isLast) return rank;
    return Math.max(rank, bytes[this.registerByte(slot, epoch - 1, sketch, register)]);
  }

  /** Whether a slot holds a live key. If so, copies the key to `key[at …]`. */
  read(slot: number, key: Int32Array, at: number, now: number): boolean {
    if (this.words[this.tagWord(slot)] === 0 || !this.isLive(slot, this.epochAt(now))) return false;
    for (let i = 0; i < this.shape.keyWords; i++) key[at + i] = this.words[this.entry(slot) + i];
    return true;
  }

  private raise(hash: number, key: Int32Array, at: number, epoch: number, now: number): number {
    const { words, tx, items, notedCount } = this;
    const { quiet } = this.shape;
    const known = this.find(hash, key, at);
    const isReplicated = known !== NONE && words[this.replicatedWord(known)] !== 0 && this.isLive(known, epoch);
    // A quiet key adds its items to its first record. They are read again under the lock.
    const weight = known === NONE ? 0 : this.weight(known) + notedCount;
    const replicated = isReplicated || (known !== NONE && weight > quiet && this.mayPromote(now));
    // A key that may not be replicated yet takes no more items than its first record can hold.
    if (!replicated && weight > QUIET_MAX) return known;
    const brought = replicated && !isReplicated ? this.itemsOf(known, epoch, items) : 0;
    const record = this.begin(replicated, brought + notedCount);
    if (record === NONE) return this.refuse(COUNTS.at.logFull);
    if (!tx.lock(this.lockWord(hash))) {
      tx.abort();
      return LOCK_BUSY;
    }
    const slot = this.find(hash, key, at);
    const stands =
      slot === known &&
      (slot === NONE || isReplicated === (words[this.replicatedWord(slot)] !== 0 && this.isLive(slot, epoch)));
    if (!stands || (brought > 0 && brought !== this.itemsOf(slot, epoch, items))) {
      tx.abort();
      return LOCK_BUSY; // another thread has changed it meanwhile
    }
    const place = slot === NONE ? this.placeFor(hash, epoch) : slot;
    if (place === NONE) {
      tx.abort();
      return this.refuse(COUNTS.at.refused);
    }
    for (let n = 0; n < notedCount; n++) items[brought + n] = this.noted[n];
    if (slot === NONE) this.occupy(place, hash, key, at);
    else if (!isReplicated && words[this.epochWord(slot, epoch)] !== epoch) this.empty(slot);
    this.join(place, epoch, items, 0, brought + notedCount);
    if (replicated) {
      tx.set(this.replicatedWord(place), 1);
      this.write(record, key, at, epoch, items, brought + notedCount);
    }
    tx.commit();
    return place;
  }

  private begin(replicated: boolean, items: number): number {
    if (replicated) return this.tx.beginLogged(KEYED_RAISE, this.shape.keyWords + 1 + items);
    this.tx.begin();
    return 0;
  }

  private mayPromote(now: number): boolean {
    if (now !== this.second) {
      this.second = now;
      this.promoted = 0;
    }
    if (this.promoted++ < this.shape.promotions) return true;
    Atomics.add(this.words, COUNTS.at.postponed, 1);
    return false;
  }

  /** Copies the raised registers of an epoch to `items`, at most `most`. Returns their number. */
  private itemsOf(slot: number, epoch: number, items: Int32Array, most = QUIET_MAX): number {
    if (this.words[this.epochWord(slot, epoch)] !== epoch) return 0;
    const { registers, bytes } = this;
    let count = 0;
    for (let sketch = 0; sketch < this.shape.sketches; sketch++)
      for (let register = 0; register < registers && count < most; register++) {
        const rank = bytes[this.registerByte(slot, epoch, sketch, register)];
        if (rank !== 0) items[count++] = (sketch << 16) | (register << 8) | rank;
      }
    return count;
  }

  private write(record: number, key: Int32Array, at: number, epoch: number, items: Int32Array, count: number): void {
    const { keyWords } = this.shape;
    const words = this.tx.record;
    for (let i = 0; i < keyWords; i++) words[record + i] = key[at + i];
    words[record + keyWords] = epoch;
    for (let i = 0; i < count; i++) words[record + keyWords + 1 + i] = items[i];
  }

  // ——— Under the set's lock ———

  /**
   * A slot for a new key: a free or expired one, else that of the quiet key with the smallest
   * weight. `NONE` if all are replicated.
   */
  private placeFor(hash: number, epoch: number): number {
    const { words } = this;
    const first = this.setOf(hash) * WAYS;
    let best = NONE;
    let least = Number.POSITIVE_INFINITY;
    for (let slot = first; slot < first + WAYS; slot++) {
      if (words[this.tagWord(slot)] === 0 || !this.isLive(slot, epoch)) return slot;
      const weight = this.weight(slot);
      if (words[this.replicatedWord(slot)] !== 0 || weight >= least) continue;
      best = slot;
      least = weight;
    }
    if (best !== NONE) Atomics.add(words, COUNTS.at.displaced, 1);
    return best;
  }

  private occupy(slot: number, hash: number, key: Int32Array, at: number): void {
    const { tx } = this;
    this.empty(slot);
    for (let i = 0; i < this.shape.keyWords; i++) tx.set(this.entry(slot) + i, key[at + i]);
    tx.set(this.tagWord(slot), hash);
  }

  /** Clears what is known of the slot's key. Its banks are cleared when they are written next. */
  private empty(slot: number): void {
    const { tx } = this;
    for (let bank = 0; bank < BANKS; bank++) tx.set(this.epochWord(slot, bank), 0);
    tx.set(this.weightWord(slot), 0);
    tx.set(this.replicatedWord(slot), 0);
  }

  /** Joins items into the bank of their epoch. Returns whether a register was raised. */
  private join(slot: number, epoch: number, items: Int32Array, from: number, count: number): boolean {
    const { words, tx, bank, registers } = this;
    const epochWord = this.epochWord(slot, epoch);
    const isNew = words[epochWord] !== epoch;
    const at = this.bankWord(slot, epoch);
    for (let i = 0; i < bank.length; i++) bank[i] = isNew ? 0 : words[at + i];
    let raised = 0;
    for (let i = from; i < from + count; i++) {
      const register = (items[i] >>> 16) * registers + ((items[i] >>> 8) & 0xff);
      const rank = items[i] & 0xff;
      const shift = (register & 3) << 3;
      if (((bank[register >> 2] >>> shift) & 0xff) >= rank) continue;
      bank[register >> 2] = (bank[register >> 2] & ~(0xff << shift)) | (rank << shift);
      raised++;
    }
    if (isNew) tx.set(epochWord, epoch);
    for (let i = 0; i < bank.length; i++) if (words[at + i] !== bank[i]) tx.set(at + i, bank[i]);
    const weight = this.weightWord(slot);
    if (raised > 0) tx.set(weight, words[weight] + raised);
    return raised > 0;
  }

  // ——— Replication ———

  apply(op: number, words: Int32Array, at: number, length: number, _origin: number, now: number): Applied {
    const { keyWords } = this.shape;
    const epoch = words[at + keyWords];
    const items = at + keyWords + 1;
    const count = length - keyWords - 1;
    if (op !== KEYED_RAISE || count < 1 || !this.areItems(words, items, count, epoch, now)) {
      Atomics.add(this.words, COUNTS.at.malformed, 1);
      return Applied.MALFORMED;
    }
    return this.applyItems(words, at, epoch, words, items, count, now);
  }

  private areItems(words: Int32Array, at: number, count: number, epoch: number, now: number): boolean {
    // The clocks of two instances can be on two sides of an epoch change.
    if (!(epoch > 0 && epoch <= EPOCH_MAX) || epoch > this.epochAt(now) + 1) return false;
    return areItems(this.shape, words, at, count);
  }

  private applyItems(
    key: Int32Array,
    at: number,
    epoch: number,
    items: Int32Array,
    from: number,
    count: number,
    now: number,
  ): Applied {
    const hash = this.hash(key, at);
    for (let tries = 1; ; tries++) {
      const applied = this.tryApply(hash, key, at, epoch, items, from, count, now);
      if (applied !== LOCK_BUSY) return applied as Applied;
      if (tryAgain(tries, true)) continue;
      Atomics.add(this.words, COUNTS.at.contended, 1);
      return Applied.BUSY;
    }
  }

  private tryApply(
    hash: number,
    key: Int32Array,
    at: number,
    epoch: number,
    items: Int32Array,
    from: number,
    count: number,
    now: number,
  ): number {
    const { words, tx } = this;
    if (epoch < this.epochAt(now) - 1) return Applied.UNCHANGED; // forgotten before it arrived
    tx.begin();
    if (!tx.lock(this.lockWord(hash))) {
      tx.abort();
      return LOCK_BUSY;
    }
    const known = this.find(hash, key, at);
    const slot = known === NONE ? this.placeFor(hash, this.epochAt(now)) : known;
    if (slot === NONE) {
      tx.abort();
      this.refuse(COUNTS.at.refused);
      return Applied.FULL;
    }
    if (known === NONE) this.occupy(slot, hash, key, at);
    else if (words[this.replicatedWord(slot)] === 0) this.empty(slot);
    // A later epoch already uses the bank.
    if (words[this.epochWord(slot, epoch)] > epoch) {
      tx.abort();
      return Applied.UNCHANGED;
    }
    const changed = this.join(slot, epoch, items, from, count);
    if (!changed) {
      tx.abort();
      return Applied.UNCHANGED;
    }
    tx.set(this.replicatedWord(slot), 1);
    tx.commit();
    return Applied.CHANGED;
  }

  coalesceKey(_op: number, words: Int32Array, at: number, length: number): number {
    const { keyWords } = this.shape;
    const key = hashWords(0, 0, words, at, keyWords + 1);
    return length === keyWords + 2 ? key ^ (words[at + keyWords + 1] >>> 8) : key + 1;
  }

  /** Keeps the larger rank of one register. */
  coalesce(_op: number, words: Int32Array, earlier: number, later: number, length: number): boolean {
    const { keyWords } = this.shape;
    if (length !== keyWords + 2) return false;
    for (let i = 0; i <= keyWords; i++) if (words[earlier + i] !== words[later + i]) return false;
    const item = keyWords + 1;
    if (words[earlier + item] >>> 8 !== words[later + item] >>> 8) return false;
    words[earlier + item] = Math.max(words[earlier + item], words[later + item]);
    return true;
  }

  merge(from: Region, now: number, source?: MergeSource): number {
    const theirs = new KeyedHyperLogLogs(
      { id: this.id, region: from, secret: Int32Array.of(0, 0), writer: null, memberIndex: 0, memberCount: 1 },
      { ...this.shape, capacity: capacityAt(source, this.shape.capacity) },
      this.hasher,
    );
    const [key, items] = [this.shape.keyWords, this.shape.sketches * this.registers].map((n) => new Int32Array(n));
    const epoch = this.epochAt(now);
    let changed = 0;
    for (let slot = 0; slot < theirs.slots; slot++) {
      if (!theirs.read(slot, key, 0, now) || theirs.words[theirs.replicatedWord(slot)] === 0) continue;
      for (const each of [epoch - 1, epoch, epoch + 1]) {
        const count = theirs.itemsOf(slot, each, items, items.length);
        if (count === 0 || !this.areItems(items, 0, count, each, now)) continue;
        changed += merged(this.applyItems(key, 0, each, items, 0, count, now), this.id, source);
      }
    }
    return changed;
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  // ——— Inspection ———

  /** Covers the banks, of this epoch and the last, of every replicated key. */
  digest(now = coarseSeconds(Date.now())): string {
    const { keyWords } = this.shape;
    const digest = new ContentDigest();
    const content = new Int32Array(keyWords + 1 + this.layout.bankWords);
    const epoch = this.epochAt(now);
    for (let slot = 0; slot < this.slots; slot++) {
      if (!this.read(slot, content, 0, now) || this.words[this.replicatedWord(slot)] === 0) continue;
      for (const each of [epoch - 1, epoch]) {
        if (this.words[this.epochWord(slot, each)] !== each) continue;
        content[keyWords] = each;
        const at = this.bankWord(slot, each);
        content.set(this.words.subarray(at, at + this.layout.bankWords), keyWords + 1);
        digest.add(content);
      }
    }
    return digest.toString();
  }

  describe(now: number): Record<string, number> {
    const { words } = this;
    const epoch = this.epochAt(now);
    let keys = 0;
    let replicated = 0;
    for (let slot = 0; slot < this.slots; slot++) {
      if (words[this.tagWord(slot)] === 0 || !this.isLive(slot, epoch)) continue;
      keys++;
      if (words[this.replicatedWord(slot)] !== 0) replicated++;
    }
    return { capacity: this.slots, keys, replicated, ...figuresOf(words) };
  }

  // ——— The layout ———

  private epochAt(now: number): number {
    // Epochs start at 2: 0 is an empty bank, and a last epoch always exists.
    return Math.trunc(now / this.shape.epochSeconds) + 2;
  }

  private setOf(hash: number): number {
    return hash & (this.layout.sets - 1);
  }

  private lockWord(hash: number): number {
    return COUNTS.words + this.setOf(hash) * SET_WORDS;
  }

  private tagsOf(hash: number): number {
    return this.lockWord(hash) + TAGS;
  }

  private tagWord(slot: number): number {
    return COUNTS.words + Math.trunc(slot / WAYS) * SET_WORDS + TAGS + (slot & (WAYS - 1));
  }

  private entry(slot: number): number {
    return this.layout.entriesAt + slot * this.layout.entryWords;
  }

  private replicatedWord(slot: number): number {
    return this.tagWord(slot) + REPLICATED - TAGS;
  }

  /**
   * The number of raised registers of a slot. An estimate changes only when this or the epoch
   * changes.
   */
  weight(slot: number): number {
    return this.words[this.weightWord(slot)];
  }

  private weightWord(slot: number): number {
    return this.tagWord(slot) + WEIGHTS - TAGS;
  }

  private epochWord(slot: number, epoch: number): number {
    return this.tagWord(slot) + EPOCHS - TAGS + (epoch & 1) * WAYS;
  }

  private bankWord(slot: number, epoch: number): number {
    return this.entry(slot) + this.shape.keyWords + (epoch & 1) * this.layout.bankWords;
  }

  private registerByte(slot: number, epoch: number, sketch: number, register: number): number {
    return (this.bankWord(slot, epoch) + sketch * this.layout.sketchWords) * BYTES_PER_WORD + register;
  }

  private isLive(slot: number, epoch: number): boolean {
    const first = this.epochWord(slot, 0);
    return this.words[first] >= epoch - 1 || this.words[first + WAYS] >= epoch - 1;
  }

  private holds(slot: number, key: Int32Array, at: number): boolean {
    const entry = this.entry(slot);
    for (let i = 0; i < this.shape.keyWords; i++) if (this.words[entry + i] !== key[at + i]) return false;
    return true;
  }

  private get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }

  private refuse(why: number): typeof NONE {
    Atomics.add(this.words, why, 1);
    return NONE;
  }
}
