/**
 * The tables of the NAT binding, and how a record is joined into them. A change covers flows and
 * claims on ports together.
 *
 *     counts   of rare events: see COUNTS
 *     flows    k → generation, expires, rank, place, dead        one 32-byte slot each, see table-slots.ts
 *     claims   place → (generation, k), slot of k's flow         16 bytes each, see port-claims.ts
 *     subscribers  internal address → number of its flows        see subscribers.ts
 *
 * *k* is an internal address, port and protocol. A place is an external one.
 *
 * **Convergence.** The state has two parts. Per k it is (generation, rank); between equals the
 * larger external address and port stays, and so does the later expiry. Per place it is the larger
 * (claim generation, k). Both are lattices, and a record is joined into both, so any order,
 * repetition and coalescing of records has the same result. A flow's generation never exceeds its
 * expiry (this is checked in records too). So if an entry was forgotten after its expiry and k is
 * bound again, the new generation, which is at least the current time, is larger than the forgotten
 * one. It supersedes the old entry at every instance that still has it.
 *
 * **A binding is valid while the claim on its place is k's.** If two instances take one place for
 * two flows, they write claims of the same generation. The larger k has the place at every
 * instance, and the other binding is dead at every instance. No message is needed: `dead` is not
 * replicated but derived, whenever a flow or a claim is written, under the locks of both. When the
 * loser sends its next packet, it gets a new generation and another place.
 *
 * If two instances bind one k to two places, they write two claims, which both stand, and two
 * entries of one k, of which one stays at every instance. The other place then has no owner, and
 * rests.
 *
 * **Reuse of a port.** A port is not reused before `reuseAfterS` have passed since its flow
 * expired, at any instance that had the flow (RFC 6888 REQ-8). When the flow's slot is reclaimed,
 * the time of its end is noted in the claim of its place. There are three exceptions:
 * - An endpoint that gets its own port again does not wait.
 * - The ports of half-open flows that were evicted unanswered do not rest.
 * - If ports are short, the ports of half-open flows that expired unanswered do not rest. Otherwise
 *   a flood of such flows would block all ports for that time (port-room.ts).
 *
 * **How late a record may be.** A larger rank or generation can have the earlier expiry. So a flow
 * is remembered for `REMEMBERED_S` past its expiry, because it supersedes records that come late.
 * Its place is free once the guard is over. So instances converge if every record, and each
 * repetition of it, reaches each of them within `DELIVERY_S_MAX`, and if no table is full. (A full
 * table forgets entries as soon as they are over.) A later record may show at one instance an entry
 * that another has forgotten, until its expiry. This is the price of having no tombstones. It has
 * no other consequence: whichever flow takes the place supersedes its claim.
 *
 * **A claim's generation** is at least the time, in units of 64 s. So an instance that has
 * restarted without its state, and knows no claims, supersedes those it made before. One gap
 * remains: a port is taken, lost by a restart, and taken again within 64 s. (The same holds after
 * as many reuses within 64 s, because these put the generation ahead of time.) Members that still
 * have the old claim then give the port to the larger key.
 *
 * **Half-open bindings** (ranks NEW and ANSWERED) have a quota, and new ones may be local-only:
 * half-open.ts. A local-only binding has its place without a claim: only the place's owner word
 * leads to it. So no replicated claim conflicts with a claim that peers do not know. The binding
 * claims its place when it is replicated, which is when its rank rises or it is used again. It dies
 * if another claim comes first. Until it is replicated, other instances drop its return packets. So
 * if packets return through another site, a connection may have to try again during a flood of new
 * ones.
 *
 * **Locking.** A flow's words change under its slot's lock *and* its place's lock; `dead` changes
 * under the place's lock alone. So the holder of a place's lock may read the owner's flow and mark
 * it dead, without the flow's own lock. A place is taken only under its lock, when its owner's flow
 * is over (`CLOCK_SKEW_GUARD_S` past its expiry) or no longer bound to it. It follows that between
 * operations, of all flows with one place that are not over, at most one is not dead. The place
 * leads to that flow, and the claim is its own unless it is local-only.
 *
 * The packet path reads plain words without locks; table-slots.ts says why that is safe. If a
 * change covers both `place` and `dead`, the slot is hidden meanwhile, so no reader sees it half
 * done. A slot is hidden only if its binding is dead before or after the change, so no reader
 * misses a valid one.
 */

import { CLOCK_SKEW_GUARD_S, FUTURE_S_MAX, REMEMBERED_S } from '../../clock.js';
import { NONE } from '../../none.js';
import { LINE, roundUp, struct, WORDS_PER_LINE } from '../../struct.js';
import { Applied, type OpenContext } from '../core/object.js';
import { Transaction } from '../core/transaction.js';
import { ADDRESS_USE_BYTES, AddressUse } from '../ports/address-use.js';
import { type ExternalPlaces, protocolIndex, swapPort } from '../ports/external-places.js';
import { MAX_CLAIM_GENERATION, PortClaims, portClaimsWords, rest } from '../ports/port-claims.js';
import { ANSWERED, Answers, answersBytes, HALF_OPEN } from '../table/answers.js';
import { HALF_OPEN_COUNTS, HalfOpen, type HalfOpenOptions, isYoung } from '../table/half-open.js';
import {
  CONTENDED,
  type FlowShape,
  FlowSlots,
  flowSlotCount,
  flowSlotsWords,
  LOCAL_ONLY,
  MAX_RANK,
} from '../table/table-slots.js';
import { MOVES_BYTES, Moves } from './nat-moves.js';
import { NatRecord } from './nat-record.js';
import { type SubscriberLimits, Subscribers, subscribersWords } from './subscribers.js';

/**
 * The state of a binding or a session. It only grows within a generation. ANSWERED: another site
 * saw the responder (answers.ts). SHARED: the binding carries several connections, so the end of
 * one says nothing about the others.
 */
export const Rank = { NEW: HALF_OPEN, ANSWERED, ESTABLISHED: 2, CLOSING: 3, CLOSED: 4, SHARED: 5 } as const;
export type Rank = (typeof Rank)[keyof typeof Rank];
export const RANK_NAMES = ['new', 'answered', 'established', 'closing', 'closed', 'shared'] as const;

/** Counts of rare events. All threads add atomically. A thread that is killed may miss one. */
const COUNTS = struct({
  inserted: LINE,
  reclaimed: 1,
  collisions: 1,
  exhausted: 1,
  tableFull: 1,
  logFull: 1,
  contended: 1,
  malformed: 1,
  limited: 1,
  splits: 1,
  foreign: 1,
  halfOpen: HALF_OPEN_COUNTS.words,
});

type NatCount = Exclude<keyof typeof COUNTS.at, 'halfOpen'>;

/** Value words of a flow. */
export const PLACE = 0;
export const DEAD = 1;
const KEY_WORDS = 2;
const VALUE_WORDS = 2;

/** Slots that are checked for entries that are over, if the table is full. */
const SWEEP_SLOTS_FULL = 512;

function shapeOf(flows: number): FlowShape {
  return { capacity: flows, keyWords: KEY_WORDS, valueWords: VALUE_WORDS, halfOpenRank: ANSWERED };
}

interface NatLimits extends Required<HalfOpenOptions>, SubscriberLimits {
  /** Seconds past the end of a flow in which no other endpoint gets its port. */
  readonly reuseAfterS: number;
  /** Places of static mappings: no binding takes them. */
  readonly reserved: ReadonlySet<number>;
}

/** Number of slots of a table for this number of flows. */
export function natSlots(flows: number): number {
  return flowSlotCount(shapeOf(flows));
}

/** Bytes of `OpenContext.local` that the tables use. */
export function natLocalBytes(flows: number): number {
  return answersBytes(natSlots(flows)) + MOVES_BYTES + ADDRESS_USE_BYTES;
}

/** Words of shared memory for the bindings of `flows` flows to `places` places. */
export function natTablesWords(flows: number, places: number, limits: SubscriberLimits): number {
  return subscribersAt(flows, places) + subscribersWords(flows, limits);
}

function subscribersAt(flows: number, places: number): number {
  return roundUp(COUNTS.words + flowSlotsWords(shapeOf(flows)) + portClaimsWords(places), WORDS_PER_LINE);
}

/**
 * Words that `FlowSlots.read` fills: generation, expires, rank, address, port and protocol, place,
 * dead.
 */
export const ENTRY_WORDS = 3 + KEY_WORDS + VALUE_WORDS;

export class NatTables {
  readonly words: Int32Array;
  readonly flows: FlowSlots;
  readonly claims: PortClaims;
  readonly places: ExternalPlaces;
  readonly halfOpen: HalfOpen;
  readonly capacity: number;
  /** The half-open bindings that were answered. */
  readonly answers: Answers;
  /** The bindings that continued with another port. */
  readonly moves: Moves;
  /** The external addresses that new bindings may have. */
  readonly use: AddressUse;
  /** `null` if there is no limit. Then nothing is counted. */
  readonly subscribers: Subscribers | null;
  /** The key and the record of the current operation. */
  readonly key = new Int32Array(KEY_WORDS);
  readonly record = new NatRecord();
  private readonly id: number;
  private reuseAfterS: number;
  private reserved: ReadonlySet<number>;
  private readonly transaction: Transaction | null;
  private sweepCursor = 0;

  /** Applies new limits from now on. Bindings beyond them stay until they end. */
  setLimits(limits: NatLimits): void {
    this.reuseAfterS = limits.reuseAfterS;
    this.reserved = limits.reserved;
    this.halfOpen.setLimits(limits);
    if (this.subscribers !== null) this.subscribers.limits = limits;
  }

  constructor(
    { id, region, secret, writer, local, stripes = 1 }: OpenContext,
    flows: number,
    places: ExternalPlaces,
    limits: NatLimits,
  ) {
    this.id = id;
    this.words = region.i32();
    this.places = places;
    this.capacity = flows;
    this.flows = new FlowSlots(this.words, COUNTS.words, shapeOf(flows), secret, REMEMBERED_S);
    this.claims = new PortClaims(this.words, COUNTS.words + flowSlotsWords(shapeOf(flows)), places.count);
    this.reuseAfterS = limits.reuseAfterS;
    this.reserved = limits.reserved;
    this.subscribers =
      subscribersWords(flows, limits) === 0
        ? null
        : new Subscribers(this.words, subscribersAt(flows, places.count), flows, secret, limits);
    this.answers = new Answers(this.flows, local);
    this.moves = new Moves(local, answersBytes(this.flows.slots));
    this.use = new AddressUse(local, answersBytes(this.flows.slots) + MOVES_BYTES);
    const leave = (slot: number, now: number): boolean => {
      if (!this.lockBound(slot) || !this.leaveSubscriber(slot)) return false;
      // The place of an unanswered binding is guarded by its slot alone. The place of an answered
      // one rests after the guard too, except if ports are short. Otherwise a flood that a server
      // answers would take all ports, one eviction after the other.
      if (this.answers.isAnswered(slot)) this.leavePlace(slot, now + CLOCK_SKEW_GUARD_S, false);
      return true;
    };
    this.halfOpen = new HalfOpen(this.words, COUNTS.at.halfOpen, this.flows, limits, stripes, leave);
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
    // Each thread begins its sweep at another slot.
    if (writer !== null) this.sweepCursor = Math.trunc((this.flows.slots / 8) * writer.id) & (this.flows.slots - 1);
  }

  get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }

  // ——— What holds ———

  /**
   * Whether the slot's flow is bound to this place and not dead. `slot` is a hint and may be any
   * slot.
   */
  isBound(slot: number, place: number): boolean {
    const flows = this.flows;
    return flows.isUsed(slot) && flows.value(slot, PLACE) === place && flows.value(slot, DEAD) === 0;
  }

  /**
   * Whether a place may be taken: it has no owner, or its owner's flow is over or bound elsewhere.
   */
  isFree(place: number, now: number): boolean {
    if (this.claims.generation(place) === MAX_CLAIM_GENERATION || this.reserved.has(place)) return false;
    const { flows } = this;
    const freedAt = this.claims.freedAt(place);
    if (freedAt > 0) return freedAt + this.reuseAfterS <= now;
    const owner = this.claims.owner(place);
    // An evicted flow may still be in use: its place is kept as long as its slot.
    const had = flows.isOccupied(owner) && flows.value(owner, PLACE) === place && flows.value(owner, DEAD) === 0;
    if (!had) return true;
    return flows.isOver(owner, now) && (!flows.isUsed(owner) || flows.expires(owner) + this.reuseAfterS <= now);
  }

  /** As `isFree`, for the current key: a resting port is free for the endpoint that had it last. */
  isFreeForKey(place: number, now: number): boolean {
    if (this.isFree(place, now)) return true;
    const { claims, flows, key } = this;
    if (claims.generation(place) === MAX_CLAIM_GENERATION || this.reserved.has(place)) return false;
    if (claims.freedAt(place) > 0) return claims.isOwnedBy(place, key[0], key[1]);
    // The key's own binding was evicted, so a reader that still uses that slot translates alike.
    const owner = claims.owner(place);
    return !flows.isUsed(owner) && flows.key(owner, 0) === key[0] && flows.key(owner, 1) === key[1];
  }

  /**
   * Whether a slot's flow, expired or not, still has its place. A local-only flow may have taken
   * it.
   */
  hasPlace(slot: number): boolean {
    const { flows, claims } = this;
    const place = flows.value(slot, PLACE);
    const owner = claims.owner(place);
    return flows.value(slot, DEAD) === 0 && (owner === slot || !this.isBound(owner, place));
  }

  /** Number of entries in the table, including those not yet reclaimed. */
  get used(): number {
    return (this.words[COUNTS.at.inserted] - this.words[COUNTS.at.reclaimed]) | 0;
  }

  // ——— Upkeep ———

  /**
   * Locks the place of a locked slot's flow, if there is a flow. A dead flow's place too, because
   * its death may be undone.
   */
  lockBound(slot: number): boolean {
    const { flows, claims } = this;
    if (!flows.isUsed(slot)) return true;
    return this.tx.lock(claims.lockOf(flows.value(slot, PLACE)));
  }

  /**
   * Locks what `write` changes besides a locked slot: the place of its flow, and the buckets of the
   * subscribers of the key and of the flow.
   */
  lockFor(slot: number): boolean {
    const { flows, key, subscribers, tx } = this;
    if (!this.lockBound(slot)) return false;
    if (subscribers === null) return true;
    return subscribers.lock(tx, key[0]) && (!flows.isUsed(slot) || subscribers.lock(tx, flows.key(slot, 0)));
  }

  /**
   * Subtracts the flow of a locked slot from its subscriber's count. False if the subscriber's
   * bucket is locked by another thread.
   */
  leaveSubscriber(slot: number): boolean {
    const { flows, subscribers, tx } = this;
    if (subscribers === null || !flows.isUsed(slot)) return true;
    const address = flows.key(slot, 0);
    if (!subscribers.lock(tx, address)) return false;
    subscribers.remove(tx, address);
    return true;
  }

  /**
   * Notes in the locked place of a locked slot's flow since when it has no owner, if the flow had
   * the place. `used`: the flow was answered.
   */
  private leavePlace(slot: number, now: number, used: boolean): void {
    const { flows, claims, tx } = this;
    const place = flows.value(slot, PLACE);
    if (!flows.isUsed(slot) || flows.value(slot, DEAD) !== 0 || claims.owner(place) !== slot) return;
    claims.release(tx, place, Math.min(flows.expires(slot), now), used);
  }

  private reclaim(slot: number, now: number, urgent: boolean): boolean {
    const { flows, tx } = this;
    let reclaimed = false;
    if (flows.isUsed(slot)) {
      tx.begin();
      reclaimed =
        tx.tryLock(flows.lockOf(slot)) &&
        flows.isUsed(slot) &&
        flows.isForgettable(slot, now, urgent) &&
        this.lockBound(slot) &&
        this.leaveSubscriber(slot);
      if (reclaimed) {
        this.leavePlace(slot, now, this.answers.isAnswered(slot));
        this.halfOpen.moved(slot, flows.rank(slot), NONE, 0, now);
        flows.vacate(tx, slot);
        this.count('reclaimed');
        tx.commit();
      } else tx.abort();
    }
    flows.tidy(tx, slot, now);
    return reclaimed;
  }

  /**
   * Makes room in a full table: forgets entries that are over, or else evicts a half-open binding.
   * False if neither is possible now.
   */
  makeRoom(hash: number, now: number): boolean {
    return this.sweep(now, SWEEP_SLOTS_FULL, true) > 0 || this.evict(hash, now);
  }

  /** Evicts a half-open binding. False if that is not possible now. */
  evict(hash: number, now: number): boolean {
    const evicted = this.halfOpen.evict(this.tx, hash, now);
    if (evicted) this.count('reclaimed');
    return evicted;
  }

  /** Evicts the half-open binding in `slot`. False if that is not possible now. */
  evictSlot(slot: number, now: number): boolean {
    const evicted = this.halfOpen.evictSlot(this.tx, slot, now);
    if (evicted) this.count('reclaimed');
    return evicted;
  }

  /**
   * Reclaims forgettable entries in the next `slots` slots, in turn; if `urgent`, all that are
   * over. Returns how many entries were reclaimed.
   */
  sweep(now: number, slots: number, urgent: boolean): number {
    const flows = this.flows;
    let reclaimed = 0;
    for (let i = 0; i < slots; i++) {
      this.sweepCursor = (this.sweepCursor + 1) & (flows.slots - 1);
      if (flows.isWaste(this.sweepCursor, now, urgent) && this.reclaim(this.sweepCursor, now, urgent)) reclaimed++;
    }
    return reclaimed;
  }

  // ——— Joining a record into the state; all locks held ———

  /**
   * Joins the record's claim. Generation 0 means that the record has no claim. `slot` is the
   * current or future slot of the key's flow, or `NONE`. Returns whether the claim changed.
   */
  joinClaim(slot: number, now: number): boolean {
    const { claims, flows, record, tx } = this;
    const { place, claimGeneration, address, portAndProtocol } = record;
    const owner = claims.owner(place);
    const mine = claims.isOwnedBy(place, address, portAndProtocol);
    const rival = owner !== slot && this.isBound(owner, place);
    if (mine && claims.generation(place) >= claimGeneration) {
      if (slot === NONE) return false;
      // A local-only binding has taken the key's place.
      if (rival) this.kill(owner, now);
      claims.setOwner(tx, place, slot);
      return false;
    }
    if (claimGeneration === 0 || !claims.wouldSupersede(place, claimGeneration, address, portAndProtocol)) return false;
    // The other site evicted the binding that had the port, so this is not a collision.
    const isEvicted =
      rival &&
      flows.isHalfOpen(owner) &&
      !isYoung(flows.generation(owner), now) &&
      claimGeneration > claims.generation(place);
    if (rival) this.kill(owner, isEvicted ? flows.expires(owner) : now);
    // If the flow is over and gets no slot, the time of its end is noted in the place.
    claims.put(
      tx,
      place,
      claimGeneration,
      address,
      portAndProtocol,
      slot === NONE ? rest(record.expires, record.rank !== Rank.NEW) : slot,
    );
    return true;
  }

  private kill(slot: number, now: number): void {
    this.tx.set(this.flows.wordOf(slot, DEAD), 1);
    if (this.flows.expires(slot) > now) this.count('collisions');
  }

  /**
   * Writes the record's flow into its locked slot, after its claim. `known`: the slot already has
   * this key. `standing`: the record's rank, or `LOCAL_ONLY` for a local-only binding, which has no
   * claim. `isNew`: the binding is made at this instance, now.
   */
  write(
    slot: number,
    hash: number,
    known: boolean,
    now: number,
    standing: number = this.record.rank,
    isNew = false,
  ): void {
    const { flows, claims, key, record, tx } = this;
    const dead = standing === LOCAL_ONLY || claims.isOwnedBy(record.place, key[0], key[1]) ? 0 : 1;
    this.halfOpen.moved(
      slot,
      flows.isUsed(slot) ? flows.rank(slot) : NONE,
      standing & MAX_RANK,
      record.generation,
      now,
    );
    if (known && flows.value(slot, PLACE) === record.place && flows.value(slot, DEAD) === dead) {
      flows.update(tx, slot, record.generation, standing, record.expires);
      return;
    }
    if (dead !== 0 && record.expires > now) this.count('collisions');
    if (flows.value(slot, PLACE) !== record.place) this.leavePlace(slot, now, this.answers.isAnswered(slot));
    if (known && dead === 0 && flows.value(slot, DEAD) === 0) {
      // It is valid before and after, so it stays visible: a single word says which place it has.
      tx.set(flows.wordOf(slot, PLACE), record.place);
      flows.update(tx, slot, record.generation, standing, record.expires);
      return;
    }
    if (known) flows.hide(tx, slot);
    else {
      const taken = flows.isUsed(slot);
      this.leaveSubscriber(slot);
      flows.vacate(tx, slot);
      if (taken) this.count('reclaimed');
      this.count('inserted');
      this.subscribers?.add(tx, key[0], now, isNew);
    }
    tx.set(flows.wordOf(slot, PLACE), record.place);
    tx.set(flows.wordOf(slot, DEAD), dead);
    flows.put(tx, slot, hash, key, 0, record.generation, standing, record.expires);
  }

  // ——— Applying a record of another instance ———

  /**
   * Finds the place of the record's external address and port. False if the address is not one of
   * this instance's, which is counted.
   */
  findPlace(): boolean {
    const { record, places } = this;
    const { externalAddress, externalPort, portAndProtocol } = record;
    const isPort = externalPort >>> 16 === 0;
    record.place = isPort ? places.find(externalAddress, swapPort(externalPort), portAndProtocol >>> 16) : 0;
    if (record.place !== NONE || protocolIndex(portAndProtocol >>> 16) === NONE) return true;
    this.count('foreign');
    return false;
  }

  /** Writes the record at `words[at …]`, with the external address and port of its place. */
  storeRecord(words: Int32Array, at: number): void {
    const { record, places } = this;
    record.externalAddress = places.address(record.place);
    record.externalPort = record.place & 0xffff;
    record.store(words, at);
  }

  /** Whether the record's words are all in range. */
  isPlausible(now: number): boolean {
    const { place, portAndProtocol, generation, claimGeneration, rank, expires } = this.record;
    return (
      protocolIndex(portAndProtocol >>> 16) !== NONE &&
      this.places.isValid(place, portAndProtocol >>> 16) &&
      claimGeneration > 0 &&
      rank <= Rank.SHARED &&
      generation > 0 &&
      generation <= expires &&
      expires - now <= FUTURE_S_MAX
    );
  }

  /** Whether the quota has room for the record's flow, if it is half-open. Evicts to make room. */
  private hasRoomFor(hash: number, now: number): boolean {
    const { flows, halfOpen, key, record } = this;
    if (!flows.isHalfOpenRank(record.rank) || record.expires <= now || halfOpen.hasRoom()) return true;
    return flows.find2(hash, key[0], key[1]) !== NONE || this.evict(hash, now);
  }

  /** Joins the record, whose key is `key`, whole or not at all. */
  tryApply(hash: number, now: number): Applied | typeof CONTENDED {
    const { flows, claims, key, record, tx } = this;
    const { place } = record;
    if (!this.hasRoomFor(hash, now)) {
      this.halfOpen.refused();
      return Applied.FULL;
    }
    tx.begin();
    const slot = flows.acquire(tx, hash, key, 0, now);
    const held = slot >= 0 && flows.holds(slot, key, 0);
    // The record's origin does not know a local-only binding, so the record replaces it.
    const known = held && flows.isReplicated(slot);
    // A flow that would be forgotten at once needs no slot. Neither does one that is over, if no
    // slot is available. Its claim still counts.
    const flowless = !known && record.expires + (slot === NONE ? CLOCK_SKEW_GUARD_S : REMEMBERED_S) <= now;
    if (slot === CONTENDED || (slot === NONE && !flowless)) {
      tx.abort();
      if (slot === CONTENDED) return CONTENDED;
      this.count('tableFull');
      return Applied.FULL;
    }
    const bound = flowless || this.lockFor(slot);
    if (!bound || !tx.lock(claims.lockOf(place))) {
      tx.abort();
      return CONTENDED;
    }
    const claimed = this.joinClaim(flowless ? NONE : slot, now);
    const isElsewhere = held && flows.value(slot, PLACE) !== place && this.isLive(slot, now);
    // Count only the first record of a binding: its claim is new here.
    if (isElsewhere && claimed && record.expires > now) this.count('splits');
    let changed = claimed;
    if (!known && !flowless) {
      if (isElsewhere) this.noteMove(slot);
      this.write(slot, hash, held, now);
      changed = true;
    } else if (known) {
      const answered = record.rank !== Rank.NEW;
      const newer = this.joinFlow(slot);
      if (isElsewhere && newer && record.place === place) this.noteMove(slot);
      // A claim that is won back revives a flow that was dead because of it.
      if (newer || (claimed && record.place === place)) this.write(slot, hash, true, now);
      // The port of the binding that lost may be in use, like the port of one that ended.
      if (record.place !== place && claims.owner(place) === slot) claims.release(tx, place, now, answered);
      changed ||= newer;
    }
    tx.commit();
    return changed ? Applied.CHANGED : Applied.UNCHANGED;
  }

  private isLive(slot: number, now: number): boolean {
    return this.flows.value(slot, DEAD) === 0 && this.flows.expires(slot) > now;
  }

  /** Notes that the binding in a locked slot is about to continue with another port. */
  private noteMove(slot: number): void {
    const { flows } = this;
    this.moves.note(slot, flows.generation(slot), flows.rank(slot));
  }

  /** Joins the slot's flow into the record. Returns whether the result differs from the flow. */
  private joinFlow(slot: number): boolean {
    const { flows, record } = this;
    const generation = flows.generation(slot);
    const rank = flows.rank(slot);
    const place = flows.value(slot, PLACE);
    const expires = flows.expires(slot);
    const order = record.generation - generation || record.rank - rank;
    if (order > 0) return true;
    if (order === 0) {
      const isLarger = record.place !== place && this.places.isLarger(record.place, place);
      const changed = isLarger || record.expires > expires;
      if (!isLarger) record.place = place;
      record.expires = Math.max(record.expires, expires);
      return changed;
    }
    record.generation = generation;
    record.rank = rank;
    record.place = place;
    record.expires = expires;
    return false;
  }

  // ——— Counts ———

  count(counter: NatCount): void {
    Atomics.add(this.words, COUNTS.at[counter], 1);
  }

  counted(counter: NatCount): number {
    return this.words[COUNTS.at[counter]];
  }
}
