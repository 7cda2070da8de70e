/**
 * The NAT's bindings: which external address and port an internal address and port has. A
 * derivative object: one operation changes a flow table and the claims on ports together, is one
 * log record, and applies whole or not at all. What it holds, why that converges, and who may
 * change what: nat-tables.ts.
 *
 * The mapping is endpoint-independent (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1): its key is
 * internal address, internal port and protocol, whatever the remote; for ICMP queries the
 * identifier is the port.
 *
 * Two instances that bind two endpoints to one port leave it to the larger endpoint, everywhere,
 * without a message; the other's binding is dead, and with its next packet gets another port. Two
 * instances that bind one endpoint to two ports keep one of them, likewise. Which ports an instance
 * proposes makes one or the other rare: port-allocator.ts.
 */

import type { Parameters } from '../arena.js';
import { coarseSeconds } from '../clock.js';
import { NONE } from '../none.js';
import type { Region } from '../region.js';
import { BYTES_PER_WORD } from '../struct.js';
import type { Answers } from './answers.js';
import { ExternalPlaces, ICMP, inOrder, protocolIndex, swapPort } from './external-places.js';
import { CONTENDED, type FlowSlots, WITHHELD } from './flow-slots.js';
import { halfOpenLimits } from './half-open.js';
import { HeldEntries, heldEntriesBytes, workerOf } from './held-entries.js';
import { coversPacket, idleExpiry } from './idle-expiry.js';
import type { Journal } from './journal.js';
import type { MergeSource } from './merge-source.js';
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
import { Applied, type OpenContext, type StateDefinition, type StateObject } from './object.js';
import type { PortAllocator } from './port-allocator.js';
import { nextClaimGeneration, type PortClaims } from './port-claims.js';
import type { PortLeases } from './port-leases.js';
import { PortRoom } from './port-room.js';
import { StaticMappings } from './static-mappings.js';
import { subscribersWords } from './subscribers.js';
import { recoverTransaction, tryAgain } from './transaction.js';

export type { NatEntry } from './nat-entries.js';
export { ALLOCATIONS, type Allocation, type NatBindingOptions, Refusal } from './nat-options.js';
export { type BindingEnd, LOOKED_AT_WITHIN_S, type OwnBindings } from './nat-own.js';
export { RANK_NAMES, Rank } from './nat-tables.js';
export { MappingError, type StaticMapping } from './static-mappings.js';

/** The one operation in the log. 1 was the record that named a place. */
export const NAT_BIND = 2;

/**
 * Slots looked at for waste with every new binding; with twice as many slots as flows, the table in
 * capacity / 2 adds.
 */
const SWEEP_SLOTS = 4;
/** Half-open bindings evicted by an allocation that found no port, or none at random. */
const EVICTED_FOR_PORTS = 8;
const EVICTED_IF_SHORT = 2;
/**
 * An outcome of a try: others know of the key's binding, so they are to be told what becomes of it.
 */
const KNOWN_TO_OTHERS = -3;

/** The key's second word: raw internal port (or ICMP identifier) and IP protocol. */
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
    // Only what shapes places: claims settle whatever port a member proposes, so members may differ
    // in the rest.
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
  /** Mapped by hand: no bindings. */
  statics: StaticMappings;
  private readonly capacity: number;
  private readonly tables: NatTables;
  /** Those of `tables`, at hand for the packet path. */
  private readonly flows: FlowSlots;
  private readonly claims: PortClaims;
  private readonly places: ExternalPlaces;
  private readonly allocator: PortAllocator;
  readonly leases: PortLeases;
  readonly room: PortRoom;
  /** Which bindings are held. */
  readonly held: HeldEntries;
  /** Those made at this instance, where they are kept in mind. */
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

  /** From now on. A binding that has the place of a mapping keeps it until it ends. */
  setLimits(options: Resolved): void {
    this.statics = new StaticMappings(options.statics);
    this.tables.setLimits({ ...options, reserved: reservedPlaces(options.statics, this.places) });
  }

  /** Which half-open bindings were answered. */
  get answers(): Answers {
    return this.tables.answers;
  }

  /** Which bindings went on with another port. */
  get moves(): Moves {
    return this.tables.moves;
  }

  // ——— Packet path: plain reads ———

  /**
   * Hash of an internal endpoint: computed once a packet, then given to `findOutbound` and `add`.
   */
  hash(address: number, portAndProtocol: number): number {
    return this.flows.hash2(address, portAndProtocol);
  }

  /**
   * The place of a raw external address and port, `NONE` when it is none of ours: for
   * `findInbound`.
   */
  place(externalAddress: number, externalPort: number, protocol: number): number {
    return this.places.find(externalAddress, externalPort, protocol);
  }

  /** Whether a raw address is an external one. */
  isExternal(address: number): boolean {
    return this.places.has(address);
  }

  /** Columns for looking up many internal endpoints at once; made once per thread. */
  outboundLookup(capacity: number): OutboundLookup {
    return createOutboundLookup(this.flows, this.places, capacity);
  }

  /** Columns for looking up many external endpoints at once; made once per thread. */
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
   * The slot of an internal endpoint's binding that lost its port to another endpoint and has not
   * expired; or `NONE`.
   */
  findLost(hash: number, address: number, portAndProtocol: number, now: number): number {
    const { flows } = this;
    const slot = flows.find2(hash, address, portAndProtocol);
    return slot !== NONE && flows.value(slot, DEAD) !== 0 && flows.expires(slot) > now ? slot : NONE;
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
   * Ports that two instances took for two bindings, as far as seen here: the larger endpoint has
   * them.
   */
  get collisions(): number {
    return this.tables.counted('collisions');
  }

  /** Whether ports are proposed by a secret that all members share. */
  get proposesByKey(): boolean {
    return this.allocator.proposesByKey;
  }

  /** Endpoints that two instances bound to two ports, as far as seen here: one of the two stays. */
  get splits(): number {
    return this.tables.counted('splits');
  }

  /** Bindings of an internal address, where they are limited. */
  bindingsOf(address: number): number {
    return this.tables.subscribers?.count(address) ?? 0;
  }

  rank(slot: number): Rank {
    return this.flows.rank(slot) as Rank;
  }

  expires(slot: number): number {
    return this.flows.expires(slot);
  }

  /** Of the binding's life: a larger one is a later life. */
  generation(slot: number): number {
    return this.flows.generation(slot);
  }

  get slots(): number {
    return this.flows.slots;
  }

  // ——— Packet path: changes ———

  /**
   * Binds an internal endpoint to an external port: one log record. Returns its slot; the one there
   * is, if another thread was quicker. `NONE`: `refusal` says why, and nothing was changed.
   */
  add(hash: number, address: number, portAndProtocol: number, now: number, expires: number): number {
    this.refusal = Refusal.NONE;
    if (protocolIndex(portAndProtocol >>> 16) === NONE) return this.refuse(Refusal.UNSUPPORTED);
    let told = this.tables.halfOpen.mayTell(now, false);
    for (let tries = 1; ; tries++) {
      this.tables.key[0] = address;
      this.tables.key[1] = portAndProtocol;
      const slot = this.tryAdd(hash, now, expires, told);
      if (slot === KNOWN_TO_OTHERS) told = true;
      else if (slot !== CONTENDED) return slot;
      else if (!tryAgain(tries, false)) return this.refuse(Refusal.CONTENDED);
    }
  }

  /**
   * A packet of the binding at `now`: raises its rank to `rank` if that is larger, and keeps it for
   * `timeout` at least, which is that of the rank it then has: `max(rank, this.rank(slot))`.
   * Changes the binding, and replicates it, only if the rank grows or the expiry does not cover the
   * packet (idle-expiry.ts). A larger rank may expire sooner. Returns false if that was not
   * possible now (log full, contended, binding gone): the packet can still be sent, and the next
   * one tries again.
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
    const flows = this.flows;
    const standing = flows.standing(slot);
    const covered = coversPacket(flows.expires(slot), now, timeout);
    if (standing < WITHHELD)
      return (rank <= standing && covered) || this.change(slot, rank, now, timeout, keeps, false, true);
    const told = rank !== Rank.NEW || this.tables.halfOpen.mayTell(now, true);
    return (!told && covered) || this.change(slot, rank, now, timeout, keeps, false, told);
  }

  /**
   * The outside answered a half-open binding, as seen here. Replicates that, within the budget of
   * half-open records, if the inside's packets do not pass here. The expiry stays: nothing from
   * outside refreshes a binding.
   */
  answered(slot: number, now: number): void {
    if (this.tables.answers.answered(slot)) this.replicateAnswer(slot, now);
  }

  /** Replicates that a half-open binding was answered, within the budget. */
  replicateAnswer(slot: number, now: number): void {
    if (this.tables.halfOpen.mayTell(now, true)) this.prolong(slot, Rank.ANSWERED, now, 0);
  }

  /**
   * Others are told of a half-open binding once more, within the budget: they may have had no room
   * for it.
   */
  tellAgain(slot: number, now: number, timeout: number): boolean {
    return this.tables.halfOpen.mayTell(now, true) && this.change(slot, Rank.NEW, now, timeout, false, false, true);
  }

  /**
   * A new life for a binding that is closing or closed: rank NEW in a new generation, same place.
   * As for `refresh`; and false for a binding renewed faster than once a second for longer than
   * `timeout`: generations, which may not run ahead of the expiry, are not to carry it with them,
   * or whoever is inside could make a binding live for ever.
   */
  renew(slot: number, now: number, timeout: number): boolean {
    const told = this.flows.isTold(slot) || this.tables.halfOpen.mayTell(now, true);
    return this.change(slot, Rank.NEW, now, timeout, false, true, told);
  }

  /**
   * Reclaims what is over in the next `slots` slots, in turn. Returns how many entries went. `add`
   * does it by itself.
   */
  sweep(now: number, slots: number): number {
    return this.tables.sweep(now, slots, false);
  }

  /** Starts an operation, with room for its record if others are told. `NONE`: the log has none. */
  private begin(told: boolean): number {
    const { tx } = this.tables;
    if (told) return tx.beginLogged(NAT_BIND, NAT_RECORD_WORDS);
    tx.begin();
    return 0;
  }

  private tryAdd(hash: number, now: number, expires: number, told: boolean): number {
    const { flows, claims, tables } = this;
    const { key, record, tx } = tables;
    const at = this.begin(told);
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
    if (!told && known && flows.isTold(slot)) {
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
    // Expired, and its port is still its own: it keeps it, unless another member leases the port
    // (port-allocator.ts says why).
    const keepsPlace = known && tables.hasPlace(slot) && this.leases.isOurs(flows.value(slot, PLACE));
    record.place = keepsPlace ? flows.value(slot, PLACE) : this.allocate(now);
    const isCrowded = !keepsPlace && this.allocator.isCrowded;
    if (record.place === NONE) {
      tx.abort();
      return this.room.make(EVICTED_FOR_PORTS, now) > 0 ? CONTENDED : this.refuse(Refusal.EXHAUSTED);
    }
    this.held.begin(slot, record.generation, tx.logEnd);
    if (told) {
      this.claim(slot, now);
      tables.write(slot, hash, known, now, record.rank, true);
      tables.storeRecord(tx.record, at);
    } else {
      claims.setOwner(tx, record.place, slot);
      tables.write(slot, hash, known, now, WITHHELD, true);
    }
    tx.commit();
    tables.sweep(now, SWEEP_SLOTS, false);
    if (isCrowded && this.room.isShort(now)) this.room.make(EVICTED_IF_SHORT, now);
    return slot;
  }

  /** Why the key's subscriber may not have another binding; locks what is said of it. */
  private limited(now: number): Refusal {
    const { key, subscribers, tx } = this.tables;
    if (subscribers === null) return Refusal.NONE;
    if (!subscribers.lock(tx, key[0])) return Refusal.CONTENDED;
    if (!subscribers.hasRoom(key[0])) return Refusal.SUBSCRIBER;
    return subscribers.mayHurry(key[0], now) ? Refusal.NONE : Refusal.SUBSCRIBER_RATE;
  }

  /**
   * Claims the record's place, which is locked, for its key, unless the claim is its own already.
   */
  private claim(slot: number, now: number): void {
    const { claims, tables } = this;
    const { record } = tables;
    const { place, address, portAndProtocol } = record;
    const generation = claims.generation(place);
    const own = claims.isOwnedBy(place, address, portAndProtocol);
    record.claimGeneration = own ? generation : nextClaimGeneration(generation, now);
    tables.joinClaim(slot, now);
  }

  /** A free place for the key, locked. `NONE` when none was found. */
  private allocate(now: number): number {
    const { allocator, claims, tables } = this;
    const { key, tx } = tables;
    const protocol = key[1] >>> 16;
    const port = swapPort(key[1] & 0xffff);
    // Identifiers of ICMP queries know no well-known range.
    allocator.start(protocolIndex(protocol), key[0], key[1], protocol === ICMP ? port | 1024 : port, now);
    for (;;) {
      const place = allocator.next();
      if (place === NONE) return this.room.take(now);
      // It may be locked by this operation already: then it stays so.
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
    told: boolean,
  ): boolean {
    const { flows, tables } = this;
    const { record, tx } = tables;
    const at = this.begin(told);
    if (at === NONE) {
      tables.count('logFull');
      return false;
    }
    // One try: the next packet of the flow will ask again.
    const locked = tx.lock(flows.lockOf(slot)) && tables.lockBound(slot);
    const isAlive = flows.isUsed(slot) && flows.value(slot, DEAD) === 0 && flows.expires(slot) > now;
    if (!locked || !isAlive || (!told && flows.isTold(slot))) {
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
    flows.update(tx, slot, record.generation, told ? record.rank : WITHHELD, record.expires);
    if (told) {
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
        if (!tables.isHonest(now)) break;
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

  /** Every flow and every claim of the other's region, as if it had told them. */
  merge(from: Region, now: number, source?: MergeSource): number {
    return new NatMerge(this.id, this.tables, from, now, source).run();
  }

  /** New bindings have addresses that all have. Bindings on others stay. */
  heedShapes(shapes: readonly Parameters[]): string | null {
    return barAddresses(this.places, this.tables.use, shapes);
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.tables.words, this.id, writerId, journal, logPosition);
  }

  // ——— Looking on ———

  /**
   * All bindings that have not expired, in no order, each as it was at one moment; and `null` after
   * every 1000 slots that had none to show, so that whoever walks along can let others go on. For
   * `show flows`.
   */
  entries(now: number, filter?: (entry: NatEntry) => boolean): Generator<NatEntry | null> {
    return natEntries(this.tables, now, filter);
  }

  /** Over every valid binding that has not expired by `now`; half-open ones only if `evictable`. */
  digest(now = coarseSeconds(Date.now()), evictable = false): string {
    return natDigest(this.tables, now, evictable);
  }

  describe(_now: number): Record<string, number> {
    return natFigures(this.tables);
  }

  /**
   * Locks held at the moment: none when no operation is under way. Looks at everything: for tests
   * and diagnosis.
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
