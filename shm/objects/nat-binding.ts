/**
 * The NAT's bindings: which external address and port an internal address and port has. A derivative object: one
 * operation changes a flow table and the claims on ports together, is one log record, and applies whole or not at all.
 *
 * The mapping is endpoint-independent (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1): its key *k* is internal address,
 * internal port and protocol, whatever the remote; for ICMP queries the identifier is the port.
 *
 *     counts   of what is rare: see COUNTS
 *     flows    k → generation, expires, rank, place, dead        one 32-byte slot each, see flow-slots.ts
 *     claims   place → (generation, k), slot of k's flow         16 bytes each, see port-claims.ts
 *
 * **What converges.** The state is, per k, (generation, rank) and under equals the larger place and the later expiry; and
 * per place the larger (claim generation, k). Both are lattices and a record is joined into both, so any order, repetition
 * and coalescing of records ends the same. A flow's generation never exceeds its expiry (checked in records too): so when
 * an entry has been forgotten after its expiry and k is bound anew, the new generation, at least the time then, is larger
 * than the forgotten one, and supersedes it wherever it is still held.
 *
 * **A binding is valid while its place's claim is k's.** Two instances that take one place for two flows write claims of
 * the same generation; the larger k has it everywhere, and the other's binding is dead everywhere, without a message:
 * `dead` is not replicated but derived, whenever a flow or a claim is written, under the locks of both. Next time the
 * loser sends a packet, it gets a new generation and another place. (One record late by more than a whole lifetime of the
 * flow's next generation may show at one instance what another has forgotten, until its expiry: the price of having no
 * tombstones. Records do not get that late: a member that far behind is detached and takes a snapshot.)
 *
 * **Who may change what.** A flow's words change under its slot's lock *and*, while the flow is not dead, its place's lock;
 * `dead` changes under the lock of the place it is dead for. So whoever holds a place's lock may read the owner's flow
 * and mark it dead, without the flow's own lock. A place is taken only under its lock, when its owner's flow is
 * over (`CLOCK_SKEW_GUARD_S` past its expiry) or no longer bound to it. From this follows, at any moment between
 * operations: of all flows with one place at most one is not dead, and that place's claim is that flow's and leads to it.
 *
 * The packet path reads plain words without locks; flow-slots.ts says why that is safe. `place` and `dead` are never both
 * changed in sight: the slot is hidden meanwhile.
 */

import { CLOCK_SKEW_GUARD_S, coarseSeconds } from '../clock.js';
import { NONE } from '../none.js';
import { BYTES_PER_WORD, LINE, struct } from '../struct.js';
import { ContentDigest } from './content-digest.js';
import { ExternalPlaces, ICMP, protocolIndex, swapPort } from './external-places.js';
import { CONTENDED, FlowSlots, flowSlotsWords } from './flow-slots.js';
import type { Journal } from './journal.js';
import { coalesceNatRecords, NAT_RECORD_WORDS, NatRecord } from './nat-record.js';
import { Applied, type OpenContext, type StateDefinition, type StateObject } from './object.js';
import { PortAllocator, type PortRange } from './port-allocator.js';
import { MAX_CLAIM_GENERATION, PortClaims, portClaimsWords } from './port-claims.js';
import { recoverTransaction, Transaction, tryAgain } from './transaction.js';

/** How far a binding's life has come; only grows within a generation. */
export const Rank = { NEW: 0, ESTABLISHED: 1, CLOSING: 2, CLOSED: 3 } as const;
export type Rank = (typeof Rank)[keyof typeof Rank];
export const RANK_NAMES = ['new', 'established', 'closing', 'closed'] as const;

/** Why `add` returned `NONE`. */
export const Refusal = {
  NONE: 0,
  /** No external port is free in any region. */
  EXHAUSTED: 1,
  /** The table holds as many flows as it may. */
  TABLE_FULL: 2,
  /** The log ring has no room: the send thread is behind. */
  LOG_FULL: 3,
  /** Another thread held the slot's lock too long. */
  CONTENDED: 4,
  /** The protocol has no ports or identifiers. */
  UNSUPPORTED: 5,
} as const;
export type Refusal = (typeof Refusal)[keyof typeof Refusal];
export const REFUSAL_NAMES = ['none', 'exhausted', 'table full', 'log full', 'contended', 'unsupported'] as const;

/** The one operation in the log. */
export const NAT_BIND = 1;

/** Counts of rare events, added atomically by all threads; one a thread that is killed may be missing. */
const COUNTS = struct({
  inserted: LINE,
  reclaimed: 1,
  collisions: 1,
  exhausted: 1,
  tableFull: 1,
  logFull: 1,
  contended: 1,
  malformed: 1,
});

/** Value words of a flow. */
const PLACE = 0;
const DEAD = 1;
const KEY_WORDS = 2;
const VALUE_WORDS = 2;

/** An expiry or generation further ahead than this (a year) is no honest record's. */
const FUTURE_S_MAX = 366 * 86_400;
/** Slots looked at for waste with every new binding; with twice as many slots as flows, the table in capacity / 2 adds. */
const SWEEP_SLOTS = 4;
const SWEEP_SLOTS_FULL = 512;

/** The key's second word: raw internal port (or ICMP identifier) and IP protocol. */
export function portAndProtocol(port: number, protocol: number): number {
  return (port & 0xffff) | (protocol << 16);
}

export interface NatBindingOptions {
  /** External addresses, raw words. */
  readonly addresses: readonly number[];
  /** Bindings held at most. */
  readonly flows: number;
  /** External ports to use, host order, inclusive; default all but 0. */
  readonly portRange?: PortRange;
  /** `leased`: own blocks of ports first; `shared`: any port at once, as in the paper. */
  readonly allocation: 'leased' | 'shared';
}

/** A binding as `entries` shows it. Addresses are raw words, ports in host order. */
export interface NatEntry {
  readonly protocol: number;
  readonly internalAddress: number;
  readonly internalPort: number;
  readonly externalAddress: number;
  readonly externalPort: number;
  readonly rank: Rank;
  readonly generation: number;
  /** Coarse seconds. */
  readonly expires: number;
  /** Whether its port is another flow's. */
  readonly dead: boolean;
}

/**
 * Packets from inside, to be looked up at once: several times as fast as one by one. Write the columns `addresses` and `keys`
 * (see `portAndProtocol`), call `find`, read `slots`: that of a valid binding, or `NONE`. `hashes` are for `add`. A binding
 * made after `find` is found by `findOutbound`.
 */
export interface OutboundLookup {
  readonly addresses: Int32Array;
  readonly keys: Int32Array;
  readonly hashes: Int32Array;
  readonly slots: Int32Array;
  find(count: number, now: number): void;
}

/** The same for packets to external addresses. `places` are `NONE` for addresses that are none of ours. */
export interface InboundLookup {
  readonly addresses: Int32Array;
  readonly keys: Int32Array;
  readonly places: Int32Array;
  readonly slots: Int32Array;
  find(count: number, now: number): void;
}

function columns(capacity: number): [Int32Array, Int32Array, Int32Array, Int32Array] {
  const column = (): Int32Array => new Int32Array(capacity);
  return [column(), column(), column(), column()];
}

export function natBinding(options: NatBindingOptions): StateDefinition<NatBinding> {
  const { addresses, flows, portRange = { first: 1, last: 65_535 }, allocation } = options;
  const { first, last } = portRange;
  if (!Number.isInteger(first) || !Number.isInteger(last) || first < 1 || last > 65_535 || first > last)
    throw new RangeError(`port range ${first}–${last}: ports are 1 to 65535, the first not after the last`);
  const places = new ExternalPlaces(addresses);
  const shape = { capacity: flows, keyWords: KEY_WORDS, valueWords: VALUE_WORDS };
  const flowWords = flowSlotsWords(shape);
  const words = COUNTS.words + flowWords + portClaimsWords(places.count);
  if (words >= 2 ** 30)
    throw new RangeError(
      `bindings for ${flows} flows and ${addresses.length} addresses need ${words * BYTES_PER_WORD} bytes, more than 4 GiB`,
    );
  const resolved = { addresses: [...addresses], flows, portRange: { first, last }, allocation };
  return {
    kind: 'nat-binding',
    parameters: resolved,
    bytes: words * BYTES_PER_WORD,
    open: (context) => new NatBinding(context, resolved, places, COUNTS.words, COUNTS.words + flowWords),
  };
}

export class NatBinding implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  /** Why the last `add` returned `NONE`. */
  refusal: Refusal = Refusal.NONE;

  private readonly capacity: number;
  private readonly words: Int32Array;
  private readonly flows: FlowSlots;
  private readonly claims: PortClaims;
  private readonly places: ExternalPlaces;
  private readonly transaction: Transaction | null;
  private readonly allocator: PortAllocator;
  /** The key and the record of the operation under way. */
  private readonly key = new Int32Array(KEY_WORDS);
  private readonly record = new NatRecord();
  private sweepCursor = 0;

  constructor(
    context: OpenContext,
    options: Required<NatBindingOptions>,
    places: ExternalPlaces,
    flowsAt: number,
    claimsAt: number,
  ) {
    const { id, region, secret, writer, memberIndex, memberCount } = context;
    const leased = options.allocation === 'leased';
    this.id = id;
    this.capacity = options.flows;
    this.words = region.i32();
    this.places = places;
    const shape = { capacity: options.flows, keyWords: KEY_WORDS, valueWords: VALUE_WORDS };
    this.flows = new FlowSlots(this.words, flowsAt, shape, secret);
    this.claims = new PortClaims(this.words, claimsAt, places.count);
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
    this.allocator = new PortAllocator({
      addresses: options.addresses.length,
      range: options.portRange,
      memberIndex: leased ? memberIndex : 0,
      memberCount: leased ? memberCount : 1,
    });
    // Threads sweep from different places.
    if (writer !== null) this.sweepCursor = Math.trunc((this.flows.slots / 8) * writer.id) & (this.flows.slots - 1);
  }

  // ——— Packet path: plain reads ———

  /** Hash of an internal endpoint: computed once a packet, then given to `touchOutbound`, `findOutbound` and `add`. */
  hash(address: number, portAndProtocol: number): number {
    return this.flows.hash2(address, portAndProtocol);
  }

  /** The place of a raw external address and port, `NONE` when it is none of ours: for `touchInbound`, `findInbound`. */
  place(externalAddress: number, externalPort: number, protocol: number): number {
    return this.places.find(externalAddress, externalPort, protocol);
  }

  /** Starts fetching what `findOutbound` will read. Call it for a whole batch first, and the misses overlap. */
  touchOutbound(hash: number): void {
    this.flows.touch(hash);
  }

  /** Starts fetching a place's claim; `touchOwner`, once all of a batch are touched, what it leads to. */
  touchInbound(place: number): void {
    if (place !== NONE) this.claims.touch(place);
  }

  touchOwner(place: number): void {
    if (place !== NONE) this.flows.touchSlot(this.claims.owner(place));
  }

  /** Columns for looking up many internal endpoints at once; made once per thread. */
  outboundLookup(capacity: number): OutboundLookup {
    const [addresses, keys, hashes, slots] = columns(capacity);
    const find = this.flows.finder2(addresses, keys, hashes, slots, DEAD);
    return { addresses, keys, hashes, slots, find };
  }

  /** Columns for looking up many external endpoints at once; made once per thread. */
  inboundLookup(capacity: number): InboundLookup {
    const [addresses, keys, places, slots] = columns(capacity);
    const findPlaces = this.places.finder(addresses, keys, places);
    const findOwners = this.claims.ownerFinder(places, slots);
    const check = this.flows.checker(slots, places, DEAD);
    const find = (count: number, now: number): void => {
      findPlaces(count);
      findOwners(count);
      check(count, now);
    };
    return { addresses, keys, places, slots, find };
  }

  /** The slot of an internal endpoint's valid binding, or `NONE`. */
  findOutbound(hash: number, address: number, portAndProtocol: number, now: number): number {
    const flows = this.flows;
    const slot = flows.find2(hash, address, portAndProtocol);
    return slot !== NONE && flows.value(slot, DEAD) === 0 && flows.expires(slot) > now ? slot : NONE;
  }

  /** The slot of the valid binding that has this place, or `NONE`. `place` may be `NONE`. */
  findInbound(place: number, now: number): number {
    if (place === NONE) return NONE;
    const slot = this.claims.owner(place);
    return this.isBound(slot, place) && this.flows.expires(slot) > now ? slot : NONE;
  }

  /** Raw external address of a slot found. */
  externalAddress(slot: number): number {
    return this.places.address(this.flows.value(slot, PLACE));
  }

  /** Raw external port, or ICMP identifier. */
  externalPort(slot: number): number {
    return this.places.port(this.flows.value(slot, PLACE));
  }

  internalAddress(slot: number): number {
    return this.flows.key(slot, 0);
  }

  /** Raw internal port, or ICMP identifier. */
  internalPort(slot: number): number {
    return this.flows.key(slot, 1) & 0xffff;
  }

  rank(slot: number): Rank {
    return this.flows.rank(slot) as Rank;
  }

  expires(slot: number): number {
    return this.flows.expires(slot);
  }

  /** Whether the slot's flow is bound to this place, and not dead. `slot` is a hint and may be anything. */
  private isBound(slot: number, place: number): boolean {
    const flows = this.flows;
    return flows.isUsed(slot) && flows.value(slot, PLACE) === place && flows.value(slot, DEAD) === 0;
  }

  // ——— Packet path: changes ———

  /**
   * Binds an internal endpoint to an external port: one log record. Returns its slot; the one there is, if another thread
   * was quicker. `NONE`: `refusal` says why, and nothing was changed.
   */
  add(hash: number, address: number, portAndProtocol: number, now: number, expires: number): number {
    this.refusal = Refusal.NONE;
    if (protocolIndex(portAndProtocol >>> 16) === NONE) return this.refuse(Refusal.UNSUPPORTED);
    for (let tries = 1; ; tries++) {
      this.key[0] = address;
      this.key[1] = portAndProtocol;
      const slot = this.tryAdd(hash, now, expires);
      if (slot !== CONTENDED) return slot;
      if (!tryAgain(tries, false)) return this.refuse(Refusal.CONTENDED);
    }
  }

  /**
   * The binding goes on being used: raises its rank to `rank` if that is larger, and its expiry to `now + timeout`, where
   * `timeout` is that of the rank it then has: `max(rank, this.rank(slot))`. Changes and tells others only when the rank
   * grows or the expiry moves by more than an eighth of the timeout. Returns false when that was not possible now (log
   * full, contended, binding gone): the packet can still be sent.
   */
  refresh(slot: number, rank: number, now: number, timeout: number): boolean {
    const flows = this.flows;
    if (rank <= flows.rank(slot) && now + timeout - flows.expires(slot) <= timeout >>> 3) return true;
    return this.renewOrRefresh(slot, rank, now, timeout, false);
  }

  /** A new life for a binding that is closing or closed: rank NEW in a new generation, same place. As for `refresh`. */
  renew(slot: number, now: number, timeout: number): boolean {
    return this.renewOrRefresh(slot, Rank.NEW, now, timeout, true);
  }

  /** Reclaims what is over in the next `slots` slots, in turn. Returns how many entries went. `add` does it by itself. */
  sweep(now: number, slots: number): number {
    const flows = this.flows;
    let reclaimed = 0;
    for (let i = 0; i < slots; i++) {
      this.sweepCursor = (this.sweepCursor + 1) & (flows.slots - 1);
      if (flows.isWaste(this.sweepCursor, now) && this.reclaim(this.sweepCursor, now)) reclaimed++;
    }
    return reclaimed;
  }

  private tryAdd(hash: number, now: number, expires: number): number {
    const { flows, claims, key, record, tx } = this;
    const at = tx.beginLogged(NAT_BIND, NAT_RECORD_WORDS);
    if (at === NONE) return this.refuse(Refusal.LOG_FULL);
    const slot = flows.acquire(tx, hash, key, 0, now);
    if (slot < 0) {
      tx.abort();
      return slot === CONTENDED ? CONTENDED : this.refuse(Refusal.TABLE_FULL);
    }
    const known = flows.holds(slot, key, 0);
    if (known && flows.value(slot, DEAD) === 0 && flows.expires(slot) > now) {
      tx.abort();
      return slot;
    }
    const fresh = !flows.isUsed(slot);
    if (fresh && this.used >= this.capacity) {
      tx.abort();
      return this.sweep(now, SWEEP_SLOTS_FULL) > 0 ? CONTENDED : this.refuse(Refusal.TABLE_FULL);
    }
    if (!this.lockBound(slot)) {
      tx.abort();
      return CONTENDED;
    }
    record.address = key[0];
    record.portAndProtocol = key[1];
    record.rank = Rank.NEW;
    record.generation = known ? Math.max(flows.generation(slot) + 1, now) : now;
    record.expires = Math.max(expires, record.generation);
    if (known && flows.value(slot, DEAD) === 0) {
      // Expired, and its port is still its own: it keeps it.
      record.place = flows.value(slot, PLACE);
      record.claimGeneration = claims.generation(record.place);
    } else {
      record.place = this.allocate(now);
      if (record.place === NONE) {
        tx.abort();
        return this.refuse(Refusal.EXHAUSTED);
      }
      record.claimGeneration = claims.generation(record.place) + 1;
    }
    this.joinClaim(slot, now);
    this.write(slot, hash, known, now);
    record.store(tx.record, at);
    if (fresh) this.count(COUNTS.at.inserted);
    tx.commit();
    this.sweep(now, SWEEP_SLOTS);
    return slot;
  }

  /** A free place for the key, locked. `NONE` when none was found. */
  private allocate(now: number): number {
    const { allocator, claims, tx } = this;
    const protocol = this.key[1] >>> 16;
    const port = swapPort(this.key[1] & 0xffff);
    // Identifiers of ICMP queries know no well-known range.
    allocator.start(protocolIndex(protocol), this.key[0], protocol === ICMP ? port | 1024 : port, now);
    for (;;) {
      const place = allocator.next();
      if (place === NONE) return NONE;
      if (claims.isLocked(place) || !this.isFree(place, now) || !tx.tryLock(claims.lockOf(place))) continue;
      if (this.isFree(place, now)) {
        allocator.taken();
        return place;
      }
      tx.unlockLast();
    }
  }

  private isFree(place: number, now: number): boolean {
    const generation = this.claims.generation(place);
    if (generation === 0) return true;
    if (generation === MAX_CLAIM_GENERATION) return false;
    const owner = this.claims.owner(place);
    return !this.isBound(owner, place) || this.flows.isOver(owner, now);
  }

  private renewOrRefresh(slot: number, rank: number, now: number, timeout: number, renew: boolean): boolean {
    const { flows, claims, record, tx } = this;
    const at = tx.beginLogged(NAT_BIND, NAT_RECORD_WORDS);
    if (at === NONE) {
      this.count(COUNTS.at.logFull);
      return false;
    }
    // One try: the next packet of the flow will ask again.
    const locked = tx.lock(flows.lockOf(slot)) && this.lockBound(slot);
    if (!locked || !flows.isUsed(slot) || flows.value(slot, DEAD) !== 0 || flows.expires(slot) <= now) {
      tx.abort();
      if (!locked) this.count(COUNTS.at.contended);
      return false;
    }
    const grown = renew || rank > flows.rank(slot);
    record.address = flows.key(slot, 0);
    record.portAndProtocol = flows.key(slot, 1);
    record.place = flows.value(slot, PLACE);
    record.claimGeneration = claims.generation(record.place);
    record.rank = grown ? rank : flows.rank(slot);
    record.generation = renew ? Math.max(flows.generation(slot) + 1, now) : flows.generation(slot);
    record.expires = Math.max(now + timeout, grown ? record.generation : flows.expires(slot));
    flows.update(tx, slot, record.generation, record.rank, record.expires);
    record.store(tx.record, at);
    tx.commit();
    return true;
  }

  /** Locks the place of a locked slot's flow, if it has one that is its own. */
  private lockBound(slot: number): boolean {
    const { flows, claims } = this;
    if (!flows.isUsed(slot) || flows.value(slot, DEAD) !== 0) return true;
    return this.tx.lock(claims.lockOf(flows.value(slot, PLACE)));
  }

  private reclaim(slot: number, now: number): boolean {
    const { flows, tx } = this;
    let reclaimed = false;
    if (flows.isUsed(slot)) {
      tx.begin();
      reclaimed =
        tx.tryLock(flows.lockOf(slot)) && flows.isUsed(slot) && flows.isOver(slot, now) && this.lockBound(slot);
      if (reclaimed) {
        // Again: while its place was not locked, the flow could be refreshed.
        reclaimed = flows.isOver(slot, now);
      }
      if (reclaimed) {
        flows.remove(tx, slot);
        this.count(COUNTS.at.reclaimed);
        tx.commit();
      } else tx.abort();
    }
    flows.tidy(tx, slot);
    return reclaimed;
  }

  // ——— Joining a record into the state; all locks held ———

  /** Joins the record's claim. `slot`: where the key's flow is or will be, or `NONE`. Returns whether the claim changed. */
  private joinClaim(slot: number, now: number): boolean {
    const { flows, claims, record, tx } = this;
    const { place, claimGeneration, address, portAndProtocol } = record;
    const owner = claims.owner(place);
    const mine = claims.isOwnedBy(place, address, portAndProtocol);
    if (mine && claims.generation(place) >= claimGeneration) {
      if (slot !== NONE) claims.setOwner(tx, place, slot);
      return false;
    }
    const rival = owner !== slot && !mine && this.isBound(owner, place);
    if (!claims.wouldSupersede(place, claimGeneration, address, portAndProtocol)) return false;
    if (rival) {
      tx.set(flows.wordOf(owner, DEAD), 1);
      if (flows.expires(owner) > now) this.count(COUNTS.at.collisions);
    }
    claims.put(tx, place, claimGeneration, address, portAndProtocol, slot === NONE ? 0 : slot);
    return true;
  }

  /** Writes the record's flow into its locked slot, after its claim. `known`: the slot has this key already. */
  private write(slot: number, hash: number, known: boolean, now: number): void {
    const { flows, claims, key, record, tx } = this;
    const dead = claims.isOwnedBy(record.place, key[0], key[1]) ? 0 : 1;
    if (known && flows.value(slot, PLACE) === record.place && flows.value(slot, DEAD) === dead) {
      flows.update(tx, slot, record.generation, record.rank, record.expires);
      return;
    }
    if (dead !== 0 && record.expires > now) this.count(COUNTS.at.collisions);
    flows.hide(tx, slot);
    tx.set(flows.wordOf(slot, PLACE), record.place);
    tx.set(flows.wordOf(slot, DEAD), dead);
    flows.put(tx, slot, hash, key, 0, record.generation, record.rank, record.expires);
  }

  // ——— Replication ———

  apply(op: number, words: Int32Array, at: number, length: number, _origin: number, now: number): Applied {
    const { key, record } = this;
    if (op === NAT_BIND && length === NAT_RECORD_WORDS) {
      for (let tries = 1; ; tries++) {
        record.load(words, at);
        if (!this.isHonest(now)) break;
        key[0] = record.address;
        key[1] = record.portAndProtocol;
        const applied = this.tryApply(this.hash(key[0], key[1]), now);
        if (applied !== CONTENDED) return applied;
        if (!tryAgain(tries, true)) {
          this.count(COUNTS.at.contended);
          return Applied.FULL;
        }
      }
    }
    this.count(COUNTS.at.malformed);
    return Applied.MALFORMED;
  }

  /** Whether the record's words are all in range. */
  private isHonest(now: number): boolean {
    const { place, portAndProtocol, generation, claimGeneration, rank, expires } = this.record;
    return (
      protocolIndex(portAndProtocol >>> 16) !== NONE &&
      this.places.isValid(place, portAndProtocol >>> 16) &&
      claimGeneration > 0 &&
      rank <= Rank.CLOSED &&
      generation > 0 &&
      generation <= expires &&
      expires - now <= FUTURE_S_MAX
    );
  }

  private tryApply(hash: number, now: number): Applied | typeof CONTENDED {
    const { flows, claims, key, record, tx } = this;
    const { place } = record;
    tx.begin();
    const slot = flows.acquire(tx, hash, key, 0, now);
    const over = record.expires + CLOCK_SKEW_GUARD_S <= now;
    const known = slot >= 0 && flows.holds(slot, key, 0);
    // What is over already needs no slot of its own; its claim still counts.
    const flowless = !known && over;
    if (slot === CONTENDED || (slot === NONE && !flowless)) {
      tx.abort();
      if (slot === CONTENDED) return CONTENDED;
      this.count(COUNTS.at.tableFull);
      return Applied.FULL;
    }
    const bound = flowless || this.lockBound(slot);
    if (!bound || !tx.lock(claims.lockOf(place))) {
      tx.abort();
      return CONTENDED;
    }
    const claimed = this.joinClaim(flowless ? NONE : slot, now);
    let changed = claimed;
    if (!known && !flowless) {
      if (!flows.isUsed(slot)) this.count(COUNTS.at.inserted);
      this.write(slot, hash, false, now);
      changed = true;
    } else if (known) {
      const newer = this.joinFlow(slot);
      // A claim won back revives a flow that was dead for it.
      if (newer || (claimed && record.place === place)) this.write(slot, hash, true, now);
      changed ||= newer;
    }
    tx.commit();
    return changed ? Applied.CHANGED : Applied.UNCHANGED;
  }

  /** Makes the record the join of itself and the slot's flow. Returns whether that differs from the flow. */
  private joinFlow(slot: number): boolean {
    const { flows, record } = this;
    const generation = flows.generation(slot);
    const rank = flows.rank(slot);
    const place = flows.value(slot, PLACE);
    const expires = flows.expires(slot);
    const order = record.generation - generation || record.rank - rank;
    if (order > 0) return true;
    if (order === 0) {
      const changed = record.place > place || record.expires > expires;
      record.place = Math.max(record.place, place);
      record.expires = Math.max(record.expires, expires);
      return changed;
    }
    record.generation = generation;
    record.rank = rank;
    record.place = place;
    record.expires = expires;
    return false;
  }

  coalesceKey(_op: number, words: Int32Array, at: number, _length: number): number {
    return this.hash(words[at], words[at + 1]);
  }

  coalesce(_op: number, words: Int32Array, earlier: number, later: number, _length: number): boolean {
    return coalesceNatRecords(words, earlier, later);
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  // ——— Looking on ———

  /** All bindings that have not expired, in no order, each as it was at one moment. For `show flows`. */
  *entries(now: number, filter: (entry: NatEntry) => boolean = () => true): Generator<NatEntry> {
    const read = new Int32Array(3 + KEY_WORDS + VALUE_WORDS);
    for (let slot = 0; slot < this.flows.slots; slot++) {
      if (!this.flows.isUsed(slot) || !this.flows.read(slot, read, 0) || read[1] <= now) continue;
      const place = read[5];
      const entry: NatEntry = {
        protocol: read[4] >>> 16,
        internalAddress: read[3],
        internalPort: swapPort(read[4] & 0xffff),
        externalAddress: this.places.address(place),
        externalPort: swapPort(this.places.port(place)),
        rank: read[2] as Rank,
        generation: read[0],
        expires: read[1],
        dead: read[6] !== 0,
      };
      if (filter(entry)) yield entry;
    }
  }

  /**
   * Over every valid binding that has not expired by `now`: key, generation, rank, place, expiry, claim. Instances that
   * hold the same agree, if they ask at the same `now`; when a binding's expiry lies between two askings, they may not.
   */
  digest(now = coarseSeconds(Date.now())): string {
    const digest = new ContentDigest();
    const read = new Int32Array(3 + KEY_WORDS + VALUE_WORDS);
    for (let slot = 0; slot < this.flows.slots; slot++) {
      if (!this.flows.isUsed(slot) || !this.flows.read(slot, read, 0) || read[1] <= now || read[6] !== 0) continue;
      read[6] = this.claims.generation(read[5]);
      digest.add(read);
    }
    return digest.toString();
  }

  describe(_now: number): Record<string, number> {
    return {
      capacity: this.capacity,
      used: this.used,
      slots: this.flows.slots,
      places: this.places.count,
      collisions: this.words[COUNTS.at.collisions],
      exhausted: this.words[COUNTS.at.exhausted],
      table_full: this.words[COUNTS.at.tableFull],
      log_full: this.words[COUNTS.at.logFull],
      contended: this.words[COUNTS.at.contended],
      malformed: this.words[COUNTS.at.malformed],
      reclaimed: this.words[COUNTS.at.reclaimed],
    };
  }

  /** Locks held at the moment: none when no operation is under way. Looks at everything: for tests and diagnosis. */
  locksHeld(): number {
    return this.flows.locksHeld() + this.claims.locksHeld();
  }

  /** Entries in the table, those not yet reclaimed included. */
  private get used(): number {
    return (this.words[COUNTS.at.inserted] - this.words[COUNTS.at.reclaimed]) | 0;
  }

  private get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }

  private refuse(reason: Refusal): typeof NONE {
    this.refusal = reason;
    if (reason === Refusal.EXHAUSTED) this.count(COUNTS.at.exhausted);
    else if (reason === Refusal.TABLE_FULL) this.count(COUNTS.at.tableFull);
    else if (reason === Refusal.LOG_FULL) this.count(COUNTS.at.logFull);
    else if (reason === Refusal.CONTENDED) this.count(COUNTS.at.contended);
    return NONE;
  }

  private count(counter: number): void {
    Atomics.add(this.words, counter, 1);
  }
}
