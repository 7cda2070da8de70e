/**
 * The NAT's bindings: which external address and port an internal address and port has. The object
 * derives from a flow table and from claims on ports. One operation changes both, is one log
 * record, and applies whole or not at all. The layout, the argument for convergence, and the
 * locking rules are in nat-tables.ts.
 *
 * The mapping is endpoint-independent (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1). Its key is
 * the internal address, internal port and protocol, whatever the remote. For ICMP queries the
 * identifier is the port.
 *
 * If two instances bind two endpoints to one port, the larger endpoint keeps it at every instance.
 * No message is needed. The other binding is dead, and its next packet gets another port. If two
 * instances bind one endpoint to two ports, one of the two bindings stays, in the same way. Which
 * of the two cases is rare depends on the ports that an instance proposes: port-allocator.ts.
 */

import type { Parameters } from '../../arena.js';
import { coarseSeconds } from '../../clock.js';
import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD } from '../../struct.js';
import type { Journal } from '../core/journal.js';
import type { MergeSource } from '../core/merge-source.js';
import { Applied, type OpenContext, type StateDefinition, type StateObject } from '../core/object.js';
import { recoverTransaction, tryAgain } from '../core/transaction.js';
import { ExternalPlaces, ICMP, inOrder, protocolIndex, swapPort } from '../ports/external-places.js';
import type { PortAllocator } from '../ports/port-allocator.js';
import { nextClaimGeneration, type PortClaims } from '../ports/port-claims.js';
import type { PortLeases } from '../ports/port-leases.js';
import type { Answers } from '../table/answers.js';
import { halfOpenLimits } from '../table/half-open.js';
import { HeldEntries, heldEntriesBytes, workerOf } from '../table/held-entries.js';
import { coversPacket, idleExpiry } from '../table/idle-expiry.js';
import { CONTENDED, type FlowSlots, LOCAL_ONLY } from '../table/table-slots.js';
import { barAddresses, createAllocator, createLeases } from './nat-allocation.js';
import { type NatEntry, natDigest, natEntries, natFigures } from './nat-entries.js';
import { createInboundLookup, createOutboundLookup, type InboundLookup, type OutboundLookup } from './nat-lookup.js';
import { NatMerge } from './nat-merge.js';
import type { Moves } from './nat-moves.js';
import {
  checkStatics,
  type NatBindingOptions,
  optionsOf,
  portRangeOf,
  Refusal,
  reservedPlaces,
} from './nat-options.js';
import { OwnBindings, ownBindingsBytes } from './nat-own.js';
import { coalesceNatRecords, NAT_RECORD_WORDS } from './nat-record.js';
import { DEAD, NatTables, natLocalBytes, natSlots, natTablesWords, PLACE, Rank } from './nat-tables.js';
import { PortRoom } from './port-room.js';
import { StaticMappings } from './static-mappings.js';
import { subscribersWords } from './subscribers.js';

export type { NatEntry } from './nat-entries.js';
export { ALLOCATIONS, type Allocation, type NatBindingOptions, Refusal } from './nat-options.js';
export { type BindingEnd, LOOKED_AT_WITHIN_S, type OwnBindings } from './nat-own.js';
export { RANK_NAMES, Rank } from './nat-tables.js';
export { MappingError, type StaticMapping } from './static-mappings.js';

/** The only operation in the log. 1 was an earlier record, which named an external place. */
export const NAT_BIND = 2;

/**
 * Slots that are checked for waste with every new binding. The table has twice as many slots as
 * flows, so capacity / 2 additions check all of it.
 */
const SWEEP_SLOTS = 4;
/**
 * Half-open bindings that an allocation evicts if it found no port, or if it found none at random
 * and ports are short.
 */
const EVICTED_FOR_PORTS = 8;
const EVICTED_IF_SHORT = 2;
/** Result of `tryAdd`: peers know the key's binding, so the change must be replicated. */
const KNOWN_TO_OTHERS = -3;

/** The key's second word: raw internal port (or ICMP identifier) and IP protocol (from bit 16). */
export function portAndProtocol(port: number, protocol: number): number {
  return (port & 0xffff) | (protocol << 16);
}

export function natBinding(options: NatBindingOptions): StateDefinition<NatBinding> {
  const { addresses, flows, allocation, pooling = 'any' } = options;
  const { reuseAfterS = 0, statics = [], bindingsPerSubscriber = 0, newPerSecond = 0 } = options;
  const { keepsOwn = false, holds = false } = options;
  const portRange = portRangeOf(options);
  const places = new ExternalPlaces(addresses);
  checkStatics(statics, places);
  const subscribers = { bindingsPerSubscriber, newPerSecond };
  const words = natTablesWords(flows, places.count, subscribers);
  if (words >= 2 ** 30)
    throw new RangeError(
      `bindings for ${flows} flows and ${addresses.length} addresses need ${words * BYTES_PER_WORD} bytes, more than 4 GiB`,
    );
  const limits = halfOpenLimits(flows, options);
  const layout = { addresses: inOrder(addresses), flows, portRange };
  const rules = { pooling, reuseAfterS, ...subscribers, statics: statics.map((mapping) => ({ ...mapping })) };
  const resolved = { ...layout, ...rules, ...limits, allocation, keepsOwn, holds };
  return {
    kind: 'nat-binding',
    // Only the port range is part of the meaning. Claims settle whatever port a member proposes, so
    // members may differ in the other options.
    parameters: { portRange },
    shape: { flows, addresses: inOrder(addresses), subscribers: subscribersWords(flows, subscribers) > 0 },
    bytes: words * BYTES_PER_WORD,
    withShape: (theirs) => natBinding({ ...options, ...optionsOf(theirs) }),
    localBytes: () => {
      const slots = natSlots(flows);
      const own = keepsOwn ? ownBindingsBytes(slots) : 0;
      return natLocalBytes(flows) + own + (holds ? heldEntriesBytes(slots) : 0);
    },
    open: (context) => new NatBinding(context, resolved, places),
    reconfigure: (object) => (object as NatBinding).setLimits(resolved),
  };
}

type Resolved = Required<NatBindingOptions>;

export class NatBinding implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  /** Why the last `add` returned `NONE`. */
  refusal: Refusal = Refusal.NONE;
  /** Static mappings. They are not bindings. */
  statics: StaticMappings;
  private readonly capacity: number;
  private readonly tables: NatTables;
  /** The flows of `tables`, for the packet path. */
  private readonly flows: FlowSlots;
  private readonly claims: PortClaims;
  private readonly places: ExternalPlaces;
  private readonly allocator: PortAllocator;
  readonly leases: PortLeases;
  readonly room: PortRoom;
  /** The bindings whose packets are held. */
  readonly held: HeldEntries;
  /** The bindings made at this instance; `null` unless `keepsOwn` is set. */
  readonly own: OwnBindings | null;

  constructor(context: OpenContext, options: Resolved, places: ExternalPlaces) {
    this.id = context.id;
    this.capacity = options.flows;
    this.statics = new StaticMappings(options.statics);
    const reserved = reservedPlaces(options.statics, places);
    this.tables = new NatTables(context, options.flows, places, { ...options, reserved });
    this.flows = this.tables.flows;
    this.claims = this.tables.claims;
    const { local } = context;
    const ownAt = natLocalBytes(options.flows);
    const heldAt = ownAt + (options.keepsOwn ? ownBindingsBytes(this.flows.slots) : 0);
    this.held = new HeldEntries(this.flows, local, heldAt, workerOf(context));
    this.own = options.keepsOwn && local !== undefined ? new OwnBindings(local, ownAt, this.flows, places) : null;
    this.places = places;
    this.allocator = createAllocator(options, places, this.tables.use, context);
    const isFree = (place: number, now: number): boolean => this.tables.isFree(place, now);
    this.leases = createLeases(options, places, context, this.allocator.proposesByKey, isFree);
    this.room = new PortRoom(this.tables, this.allocator);
  }

  /**
   * Applies new limits from now on. A binding that has the place of a new static mapping keeps it
   * until it ends.
   */
  setLimits(options: Resolved): void {
    this.statics = new StaticMappings(options.statics);
    this.tables.setLimits({ ...options, reserved: reservedPlaces(options.statics, this.places) });
  }

  /** The half-open bindings that were answered. */
  get answers(): Answers {
    return this.tables.answers;
  }

  /** The bindings that continued with another port. */
  get moves(): Moves {
    return this.tables.moves;
  }

  // ——— Packet path: plain reads ———

  /** Hash of an internal endpoint. Compute it once per packet, for `findOutbound` and `add`. */
  hash(address: number, portAndProtocol: number): number {
    return this.flows.hash2(address, portAndProtocol);
  }

  /**
   * The place of a raw external address and port, for `findInbound`. `NONE` if the address is not
   * an external one, or the protocol has no bindings.
   */
  place(externalAddress: number, externalPort: number, protocol: number): number {
    return this.places.find(externalAddress, externalPort, protocol);
  }

  /** Whether a raw address is an external one. */
  isExternal(address: number): boolean {
    return this.places.has(address);
  }

  /** Columns to look up many internal endpoints at once. Make them once per thread. */
  outboundLookup(capacity: number): OutboundLookup {
    return createOutboundLookup(this.flows, this.places, capacity);
  }

  /** Columns to look up many external endpoints at once. Make them once per thread. */
  inboundLookup(capacity: number): InboundLookup {
    return createInboundLookup(this.flows, this.claims, this.places, capacity);
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
    return this.tables.isBound(slot, place) && this.flows.expires(slot) > now ? slot : NONE;
  }

  /**
   * The slot of an internal endpoint's unexpired binding that lost its port to another endpoint, or
   * `NONE`.
   */
  findLost(hash: number, address: number, portAndProtocol: number, now: number): number {
    const { flows } = this;
    const slot = flows.find2(hash, address, portAndProtocol);
    return slot !== NONE && flows.value(slot, DEAD) !== 0 && flows.expires(slot) > now ? slot : NONE;
  }

  /** Raw external address of a found slot. */
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

  /** Internal port and protocol, as `portAndProtocol` makes them. */
  internalKey(slot: number): number {
    return this.flows.key(slot, 1);
  }

  protocol(slot: number): number {
    return this.flows.key(slot, 1) >>> 16;
  }

  /** Raw internal port, or ICMP identifier. */
  internalPort(slot: number): number {
    return this.flows.key(slot, 1) & 0xffff;
  }

  /**
   * Ports that two instances took for two bindings, as far as seen here. The larger endpoint keeps
   * them.
   */
  get collisions(): number {
    return this.tables.counted('collisions');
  }

  /**
   * Whether ports are proposed by a key derived from the cluster's secret, the same at every
   * member.
   */
  get proposesByKey(): boolean {
    return this.allocator.proposesByKey;
  }

  /**
   * Endpoints that two instances bound to two ports, as far as seen here. One of the two bindings
   * stays.
   */
  get splits(): number {
    return this.tables.counted('splits');
  }

  /** Number of bindings of an internal address. 0 if bindings are not limited. */
  bindingsOf(address: number): number {
    return this.tables.subscribers?.count(address) ?? 0;
  }

  rank(slot: number): Rank {
    return this.flows.rank(slot) as Rank;
  }

  expires(slot: number): number {
    return this.flows.expires(slot);
  }

  /** Generation of the binding. A larger one is later. */
  generation(slot: number): number {
    return this.flows.generation(slot);
  }

  get tableSlots(): number {
    return this.flows.slots;
  }

  // ——— Packet path: changes ———

  /**
   * Binds an internal endpoint to an external port. Writes one log record, unless the binding stays
   * local-only. Returns the slot. If the endpoint has a valid binding already, because another
   * thread was quicker, returns that one. Returns `NONE` if it failed: `refusal` says why, and
   * nothing was changed.
   */
  add(hash: number, address: number, portAndProtocol: number, now: number, expires: number): number {
    this.refusal = Refusal.NONE;
    if (protocolIndex(portAndProtocol >>> 16) === NONE) return this.refuse(Refusal.UNSUPPORTED);
    let replicated = this.tables.halfOpen.mayReplicate(now, false);
    for (let tries = 1; ; tries++) {
      this.tables.key[0] = address;
      this.tables.key[1] = portAndProtocol;
      const slot = this.tryAdd(hash, now, expires, replicated);
      if (slot === KNOWN_TO_OTHERS) replicated = true;
      else if (slot !== CONTENDED) return slot;
      else if (!tryAgain(tries, false)) return this.refuse(Refusal.CONTENDED);
    }
  }

  /**
   * A packet of the binding at `now`. Raises the rank to `rank` if that is larger, and keeps the
   * binding for at least `timeout` seconds. `timeout` must belong to the resulting rank, `max(rank,
   * this.rank(slot))`. The binding is changed and replicated only if the rank grows or the expiry
   * does not cover the packet (idle-expiry.ts). A larger rank may expire sooner. Returns false if
   * the change was not possible (log full, contended, binding gone). The packet can still be sent,
   * and the next one tries again.
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
    const flows = this.flows;
    const standing = flows.standing(slot);
    const covered = coversPacket(flows.expires(slot), now, timeout);
    if (standing < LOCAL_ONLY)
      return (rank <= standing && covered) || this.change(slot, rank, now, timeout, keeps, false, true);
    const replicated = rank !== Rank.NEW || this.tables.halfOpen.mayReplicate(now, true);
    return (!replicated && covered) || this.change(slot, rank, now, timeout, keeps, false, replicated);
  }

  /**
   * The remote side answered a half-open binding, as seen here. Replicates the answer, within the
   * budget of half-open records, if the inside's packets do not pass here. The expiry stays,
   * because nothing from outside refreshes a binding.
   */
  answered(slot: number, now: number): void {
    if (this.tables.answers.answered(slot)) this.replicateAnswer(slot, now);
  }

  /** Replicates that a half-open binding was answered, within the budget. */
  replicateAnswer(slot: number, now: number): void {
    if (this.tables.halfOpen.mayReplicate(now, true)) this.prolong(slot, Rank.ANSWERED, now, 0);
  }

  /**
   * Replicates a half-open binding once more, within the budget. Peers may have had no room for it.
   */
  replicateAgain(slot: number, now: number, timeout: number): boolean {
    return (
      this.tables.halfOpen.mayReplicate(now, true) && this.change(slot, Rank.NEW, now, timeout, false, false, true)
    );
  }

  /**
   * Starts a new generation of a binding that is closing or closed: rank NEW, same place. Returns
   * false as `refresh` does. It also returns false if the binding is renewed faster than once a
   * second for longer than `timeout`. A generation must not exceed the expiry, so a fast-growing
   * generation would carry the expiry with it, and a host inside could keep a binding for ever.
   */
  renew(slot: number, now: number, timeout: number): boolean {
    const replicated = this.flows.isReplicated(slot) || this.tables.halfOpen.mayReplicate(now, true);
    return this.change(slot, Rank.NEW, now, timeout, false, true, replicated);
  }

  /**
   * Reclaims forgettable entries in the next `slots` slots, in turn. Returns how many entries were
   * reclaimed. `add` calls it by itself.
   */
  sweep(now: number, slots: number): number {
    return this.tables.sweep(now, slots, false);
  }

  /** Starts an operation, with room for its record if it is replicated. `NONE`: the log is full. */
  private begin(replicated: boolean): number {
    const { tx } = this.tables;
    if (replicated) return tx.beginLogged(NAT_BIND, NAT_RECORD_WORDS);
    tx.begin();
    return 0;
  }

  private tryAdd(hash: number, now: number, expires: number, replicated: boolean): number {
    const { flows, claims, tables } = this;
    const { key, record, tx } = tables;
    const at = this.begin(replicated);
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
    if (!replicated && known && flows.isReplicated(slot)) {
      tx.abort();
      return KNOWN_TO_OTHERS;
    }
    const limited = known ? Refusal.NONE : this.limited(now);
    if (limited !== Refusal.NONE) {
      tx.abort();
      return limited === Refusal.CONTENDED ? CONTENDED : this.refuse(limited);
    }
    if (!flows.isUsed(slot) && tables.used >= this.capacity) {
      tx.abort();
      return tables.makeRoom(hash, now) ? CONTENDED : this.refuse(Refusal.TABLE_FULL);
    }
    if (!flows.isHalfOpen(slot) && !tables.halfOpen.hasRoom()) {
      tx.abort();
      return tables.evict(hash, now) ? CONTENDED : this.refuse(Refusal.HALF_OPEN);
    }
    if (!tables.lockFor(slot)) {
      tx.abort();
      return CONTENDED;
    }
    record.address = key[0];
    record.portAndProtocol = key[1];
    record.rank = Rank.NEW;
    record.generation = known ? Math.max(flows.generation(slot) + 1, now) : now;
    record.expires = Math.max(expires, record.generation);
    // An expired binding that still has its port keeps it, unless another member leases the port
    // (port-allocator.ts says why).
    const keepsPlace = known && tables.hasPlace(slot) && this.leases.isOurs(flows.value(slot, PLACE));
    record.place = keepsPlace ? flows.value(slot, PLACE) : this.allocate(now);
    const isCrowded = !keepsPlace && this.allocator.isCrowded;
    if (record.place === NONE) {
      tx.abort();
      return this.room.make(EVICTED_FOR_PORTS, now) > 0 ? CONTENDED : this.refuse(Refusal.EXHAUSTED);
    }
    this.held.begin(slot, record.generation, tx.logEnd);
    if (replicated) {
      this.claim(slot, now);
      tables.write(slot, hash, known, now, record.rank, true);
      tables.storeRecord(tx.record, at);
    } else {
      claims.setOwner(tx, record.place, slot);
      tables.write(slot, hash, known, now, LOCAL_ONLY, true);
    }
    tx.commit();
    tables.sweep(now, SWEEP_SLOTS, false);
    if (isCrowded && this.room.isShort(now)) this.room.make(EVICTED_IF_SHORT, now);
    return slot;
  }

  /**
   * Why the key's subscriber may not have another binding, or `Refusal.NONE`. Locks the
   * subscriber's bucket.
   */
  private limited(now: number): Refusal {
    const { key, subscribers, tx } = this.tables;
    if (subscribers === null) return Refusal.NONE;
    if (!subscribers.lock(tx, key[0])) return Refusal.CONTENDED;
    if (!subscribers.hasRoom(key[0])) return Refusal.SUBSCRIBER;
    return subscribers.mayHurry(key[0], now) ? Refusal.NONE : Refusal.SUBSCRIBER_RATE;
  }

  /** Claims the record's locked place for its key, unless the key has the claim already. */
  private claim(slot: number, now: number): void {
    const { claims, tables } = this;
    const { record } = tables;
    const { place, address, portAndProtocol } = record;
    const generation = claims.generation(place);
    const own = claims.isOwnedBy(place, address, portAndProtocol);
    record.claimGeneration = own ? generation : nextClaimGeneration(generation, now);
    tables.joinClaim(slot, now);
  }

  /** Finds and locks a free place for the key. `NONE` if it finds none. */
  private allocate(now: number): number {
    const { allocator, claims, tables } = this;
    const { key, tx } = tables;
    const protocol = key[1] >>> 16;
    const port = swapPort(key[1] & 0xffff);
    // Identifiers of ICMP queries have no well-known range.
    allocator.start(protocolIndex(protocol), key[0], key[1], protocol === ICMP ? port | 1024 : port, now);
    for (;;) {
      const place = allocator.next();
      if (place === NONE) return this.room.take(now);
      // This operation may have locked it already. Then it stays locked.
      if (!tables.isFreeForKey(place, now) || !tx.tryLock(claims.lockOf(place))) continue;
      if (tables.isFreeForKey(place, now)) {
        allocator.taken();
        return place;
      }
      tx.unlockLast();
    }
  }

  private change(
    slot: number,
    rank: number,
    now: number,
    timeout: number,
    keeps: boolean,
    renew: boolean,
    replicated: boolean,
  ): boolean {
    const { flows, tables } = this;
    const { record, tx } = tables;
    const at = this.begin(replicated);
    if (at === NONE) {
      tables.count('logFull');
      return false;
    }
    // Try once: the next packet of the flow tries again.
    const locked = tx.lock(flows.lockOf(slot)) && tables.lockBound(slot);
    const isAlive = flows.isUsed(slot) && flows.value(slot, DEAD) === 0 && flows.expires(slot) > now;
    if (!locked || !isAlive || (!replicated && flows.isReplicated(slot))) {
      tx.abort();
      if (!locked) tables.count('contended');
      return false;
    }
    const generation = renew ? Math.max(flows.generation(slot) + 1, now) : flows.generation(slot);
    if (renew && generation > now + timeout) {
      tx.abort();
      return false;
    }
    const before = flows.rank(slot);
    const grown = renew || rank > before;
    record.address = flows.key(slot, 0);
    record.portAndProtocol = flows.key(slot, 1);
    record.place = flows.value(slot, PLACE);
    record.rank = grown ? rank : before;
    record.generation = generation;
    const floor = grown && !keeps ? generation : flows.expires(slot);
    record.expires = Math.max(idleExpiry(now, timeout), floor);
    flows.update(tx, slot, record.generation, replicated ? record.rank : LOCAL_ONLY, record.expires);
    if (replicated) {
      this.claim(slot, now);
      tables.storeRecord(tx.record, at);
    }
    tables.halfOpen.moved(slot, before, record.rank, record.generation, now);
    tx.commit();
    return true;
  }

  // ——— Replication ———

  apply(op: number, words: Int32Array, at: number, length: number, _origin: number, now: number): Applied {
    const { tables } = this;
    const { key, record } = tables;
    if (op === NAT_BIND && length === NAT_RECORD_WORDS) {
      for (let tries = 1; ; tries++) {
        record.load(words, at);
        if (!tables.findPlace()) return Applied.FULL;
        if (!tables.isPlausible(now)) break;
        key[0] = record.address;
        key[1] = record.portAndProtocol;
        const applied = tables.tryApply(this.hash(key[0], key[1]), now);
        if (applied !== CONTENDED) return applied;
        if (!tryAgain(tries, true)) {
          tables.count('contended');
          return Applied.BUSY;
        }
      }
    }
    tables.count('malformed');
    return Applied.MALFORMED;
  }

  coalesceKey(_op: number, words: Int32Array, at: number, _length: number): number {
    return this.hash(words[at], words[at + 1]);
  }

  coalesce(_op: number, words: Int32Array, earlier: number, later: number, _length: number): boolean {
    return coalesceNatRecords(words, earlier, later);
  }

  /**
   * Applies every replicated flow and every claim of another instance's region, as if they had been
   * received as records.
   */
  merge(from: Region, now: number, source?: MergeSource): number {
    return new NatMerge(this.id, this.tables, from, now, source).run();
  }

  /** New bindings use only addresses that every member has. Bindings on other addresses stay. */
  heedShapes(shapes: readonly Parameters[]): string | null {
    return barAddresses(this.places, this.tables.use, shapes);
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.tables.words, this.id, writerId, journal, logPosition);
  }

  // ——— Looking on ———

  /**
   * All bindings that have not expired, in no order. Each is consistent: it is read as it was at
   * one moment. Yields `null` after every 1000 slots without a result, so that the caller can let
   * other work run. For `show flows`.
   */
  entries(now: number, filter?: (entry: NatEntry) => boolean): Generator<NatEntry | null> {
    return natEntries(this.tables, now, filter);
  }

  /**
   * Digest over every valid binding that has not expired by `now`; half-open ones only if
   * `evictable`.
   */
  digest(now = coarseSeconds(Date.now()), evictable = false): string {
    return natDigest(this.tables, now, evictable);
  }

  describe(_now: number): Record<string, number> {
    return natFigures(this.tables);
  }

  /**
   * Number of locks held now: 0 if no operation is under way. Reads every slot and claim, so it is
   * for tests and diagnosis.
   */
  locksHeld(): number {
    return this.flows.locksHeld() + this.claims.locksHeld();
  }

  private refuse(reason: Refusal): typeof NONE {
    this.refusal = reason;
    if (reason === Refusal.EXHAUSTED) this.tables.count('exhausted');
    else if (reason === Refusal.HALF_OPEN) this.tables.halfOpen.refused();
    else if (reason === Refusal.TABLE_FULL) this.tables.count('tableFull');
    else if (reason === Refusal.SUBSCRIBER || reason === Refusal.SUBSCRIBER_RATE) this.tables.count('limited');
    else if (reason === Refusal.LOG_FULL) this.tables.count('logFull');
    else if (reason === Refusal.CONTENDED) this.tables.count('contended');
    return NONE;
  }
}
