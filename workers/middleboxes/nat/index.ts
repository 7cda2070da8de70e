/**
 * NAT: many private addresses behind a few public ones.
 *
 *     inside                                          outside
 *     10.0.0.5:4000 ─▶ 198.51.100.7:80      ─▶        203.0.113.1:4000 ─▶ 198.51.100.7:80
 *     10.0.0.5:4000 ◀─ 198.51.100.7:80      ◀─        203.0.113.1:4000 ◀─ 198.51.100.7:80      (here or at another site)
 *
 * The first packet from an internal address and port binds them to an external address and port, at
 * all sites and for any remote (endpoint-independent mapping: RFC 4787 REQ-1; RFC 5382 REQ-1). ICMP
 * queries are bound by their identifier (RFC 5508 REQ-1). If a host inside sends to an external
 * address, the packet goes to the inside host that is bound there (hairpinning, RFC 4787 REQ-9).
 *
 * **Where to find what.**
 *
 * - Options and counters: nat/declaration.ts.
 * - Timers and TCP states: nat/lifetimes.ts.
 * - Optional filtering by remote: nat/filters.ts.
 * - ICMP errors and the packets they quote: nat/icmp-errors.ts.
 * - Bindings, ports and their leases, limits, static mappings: shm/objects/nat/nat-binding.ts.
 * - Replies that wait for the record of their binding: nat/early.ts.
 * - Which RFC requirement is met where, and by which test: docs/nat.md.
 *
 * **Timers.** Only packets from inside refresh a binding. RFC 4787 REQ-6 requires this. It allows
 * refresh by packets from outside, but with that anyone outside could keep bindings alive. So it
 * does not matter through which site replies come. Packets from outside, including RSTs and ICMP
 * errors, neither refresh nor end a binding, because they are easily forged (RFC 5382 REQ-10, RFC
 * 7857 §3).
 *
 * **A flood of new bindings** does not evict established ones. NEW bindings have a quota
 * (`half_open`), within which newer ones evict older ones. At most `half_open_records` of them a
 * second are replicated before they are established (shm/objects/table/half-open.ts). If a new
 * binding is refused, the sender gets an ICMP error (RFC 5508 REQ-8).
 *
 * **Held bindings** (`hold_members`): packets of a new binding wait until that many other sites
 * have the binding. Otherwise a reply could arrive at a site that takes it as unsolicited. Held
 * packets leave in order. Packets from outside do not wait. A binding over the budget of
 * `half_open_records` is not replicated yet, so its packets wait only for the records before it.
 */

import {
  BATCH_CAPACITY,
  createMssClamp,
  defineMiddlebox,
  destinationPort,
  FILTERINGS,
  Fragment,
  type HalfOpenOptions,
  IcmpType,
  idleExpiry,
  isError,
  MappingError,
  type NatBinding,
  type NatSessions,
  NONE,
  natBinding,
  natSessions,
  OptionError,
  PORTS_MAX,
  Protocol,
  portAndProtocol,
  NatRank as Rank,
  Refusal,
  rewriteDestination,
  type StateDefinition,
  shown,
  sourcePort,
  TcpFlag,
  Unreachable,
} from '../../api/api.js';
import { bindingKind, createBindingLog, LOOK_S } from './binding-log.js';
import { createMatcher } from './bypass.js';
import { createConnections } from './connections.js';
import { COUNTERS, OPTIONS } from './declaration.js';
import { createNatEarlyReplies } from './early.js';
import { createEndpoints } from './endpoints.js';
import { createFilters } from './filters.js';
import { createErrorTranslator } from './icmp-errors.js';
import { checkInside, createInsideReport, createInsideTest } from './inside-networks.js';
import { createLifetimes, walkedSlots } from './lifetimes.js';
import { createLosses } from './losses.js';
import { createOwnTest } from './own-addresses.js';
import { createPortReport } from './port-report.js';
import { shownBinding, shownSession, shownStatic } from './shown.js';
import { createWholeAddressTranslator } from './whole-address.js';

const { ICMP, TCP, UDP } = Protocol;
const { WHOLE, LATER } = Fragment;
const { NEW } = Rank;
/** A constant of this file. The optimiser folds it, but not an import. */
const NOBODY = NONE;

// Sides of the NAT. `sort` adds the side to the inbound count, and `1 - side` to the outbound
// count.
const INSIDE = 0;
const OUTSIDE = 1;
const NEITHER = -1;

/** How often some bindings and sessions are looked at, to replicate what is due. */
const WALK_S = 0.1;
/** How often counts of the shared object are added to this instance's counters. */
const COUNT_S = 1;
/** Lower bound for the default of `per_subscriber`. */
const SHARE_MIN = 64;
const WELL_KNOWN_LAST = 1023;

/** `sessions` is empty unless filtering depends on the remote. */
interface State extends Readonly<Record<string, StateDefinition>> {
  readonly bindings: StateDefinition<NatBinding>;
  readonly sessions: StateDefinition<NatSessions>;
}

export default defineMiddlebox({
  name: 'nat',
  help: 'Translates between private and public IPv4 addresses and ports.',
  modes: ['route'],
  addresses: 'rewrites',
  sides: ({ inside, outside }) => ({ near: [inside], far: [outside] }),
  options: OPTIONS,
  counters: COUNTERS,
  records: { nat_binding: bindingKind },

  state(options, { members }): State {
    const { flows, hold_members } = options;
    if (hold_members >= members)
      throw new OptionError('hold_members', `${hold_members} other members, of ${members - 1} there are`);
    checkInside(options);
    const halfOpen = (held: number): HalfOpenOptions => ({
      halfOpen: Math.ceil((held * options.half_open) / 100),
      halfOpenRecords: options.half_open_records,
    });
    try {
      const bindings = natBinding({
        addresses: options.external,
        flows,
        ...halfOpen(flows),
        bindingsPerSubscriber: options.per_subscriber === 0 ? subscriberShare(options) : options.per_subscriber,
        newPerSecond: options.new_per_subscriber,
        portRange: { first: options.first_port, last: options.last_port },
        allocation: options.allocation,
        pooling: options.pooling,
        reuseAfterS: options.reuse,
        statics: options.static,
        keepsOwn: options.log_bindings,
        holds: hold_members > 0,
      });
      const { sessions } = options;
      const level = FILTERINGS.indexOf(options.filtering);
      return { bindings, sessions: natSessions({ sessions, level, holds: hold_members > 0, ...halfOpen(sessions) }) };
    } catch (error) {
      if (error instanceof MappingError) throw new OptionError('static', error.message, error.index);
      throw error;
    }
  },

  flows: ({ bindings, sessions }, now, options) => ({
    bindings: () => shown(bindings.entries(now), shownBinding),
    static: () => options.static.map(shownStatic),
    sessions: () => shown(sessions.list(now), shownSession),
  }),

  // With `bypass`, packets from outside may also go to addresses inside. Without a list, all of
  // them are taken from the kernel.
  owns: ({ outside, external, static: mappings, bypass }) =>
    bypass.length > 0
      ? []
      : [
          {
            port: outside,
            addresses: [...new Set([...external, ...mappings.map(({ externalAddress }) => externalAddress)])],
          },
        ],

  open({
    options,
    state,
    batch,
    rewrites,
    replies,
    holds,
    early,
    counters,
    records,
    every,
    onOptions,
    draining,
    ipv6,
    mtus,
    onLink,
    log: say,
  }) {
    const { bindings, sessions } = state;
    const { inside, outside } = options;
    let isThrottling = options.hold_members > 0;
    const { port, egress, version, fragment, protocol, flags, source, destination, ports } = batch;
    // Packets are sorted by direction. Those of one direction are looked up together, which is
    // several times as fast as one by one.
    const from = bindings.outboundLookup(BATCH_CAPACITY);
    const to = bindings.inboundLookup(BATCH_CAPACITY);
    const fromInside = new Int32Array(BATCH_CAPACITY);
    const fromOutside = new Int32Array(BATCH_CAPACITY);
    const errors = new Int32Array(BATCH_CAPACITY);
    let outboundCount = 0;
    let inboundCount = 0;
    let errorCount = 0;
    const sides = new Int32Array(PORTS_MAX).fill(NEITHER);
    sides[outside] = OUTSIDE;
    sides[inside] = INSIDE;
    let { statics } = bindings;
    let hasStatics = statics.count > 0;
    let hasBypass = options.bypass.length > 0;
    let bypasses = createMatcher(options.bypass);
    const endpoints = createEndpoints(bindings);
    const log = createBindingLog(bindings, records.nat_binding);
    const connections = createConnections(batch, bindings);
    const lifetimes = createLifetimes(batch, bindings, options, connections);
    const losses = createLosses({ batch, bindings, connections, replies, counters });
    const earlyReplies = createNatEarlyReplies({ batch, early, bindings, filter: () => filter });
    const { waitsForSession: waits } = earlyReplies;
    const { follows } = early;
    const filter = createFilters({
      ...{ batch, sessions, bindings, options, counters, holds, draining, waits },
      refuse: refuseFor,
    });
    let clampMss = createMssClamp({ batch, mtus, setting: options.clamp_mss });
    const translateError = createErrorTranslator({
      batch,
      inside,
      outside,
      endpoints,
      filter,
      early: earlyReplies,
      counters,
    });
    const ownTest = (): ((address: number) => boolean) =>
      createOwnTest(
        [...options.external, ...options.static.map(({ externalAddress }) => externalAddress)],
        endpoints.isExternal,
      );
    let isOwn = ownTest();
    let isInside = createInsideTest(options, onLink);
    every(1, createInsideReport(options, onLink, say), { on: 'one' });
    every(1, createPortReport(options, bindings, say), { on: 'one' });
    const translateWhole = createWholeAddressTranslator({
      batch,
      inside,
      outside,
      bindings,
      endpoints,
      isOwn: (address) => isOwn(address),
      counters,
    });
    onOptions(() => {
      isThrottling = options.hold_members > 0;
      ({ statics } = bindings);
      hasStatics = statics.count > 0;
      hasBypass = options.bypass.length > 0;
      bypasses = createMatcher(options.bypass);
      isOwn = ownTest();
      isInside = createInsideTest(options, onLink);
      clampMss = createMssClamp({ batch, mtus, setting: options.clamp_mss });
      lifetimes.configure();
      filter?.configure();
    });

    /** Sorts the packets of the batch by direction. Drops those that cannot be translated. */
    function sort(): void {
      let outbound = 0;
      let inbound = 0;
      errorCount = 0;
      for (let i = 0; i < batch.count; i++) {
        const side = sides[port[i]];
        if (egress[i] < 0 || side === NEITHER || (hasBypass && bypass(i, side))) continue;
        const carried = protocol[i];
        const isPlain = version[i] === 4 && (carried === TCP || carried === UDP);
        if (!isPlain && !isQuery(i, side)) continue;
        // Write to both lists and advance only one. The direction is unpredictable, and a
        // mispredicted branch costs more than the extra stores.
        fromInside[outbound] = i;
        from.addresses[outbound] = source[i];
        from.keys[outbound] = portAndProtocol(sourcePort(ports[i]), carried);
        fromOutside[inbound] = i;
        to.addresses[inbound] = destination[i];
        to.keys[inbound] = portAndProtocol(destinationPort(ports[i]), carried);
        outbound += 1 - side;
        inbound += side;
      }
      outboundCount = outbound;
      inboundCount = inbound;
    }

    /** Returns true if a packet bypasses the NAT. It is then forwarded untranslated, or dropped. */
    function bypass(i: number, side: number): boolean {
      if (version[i] !== 4) return false;
      const isPassing =
        side === INSIDE
          ? bypasses(destination[i]) && !endpoints.isExternal(destination[i])
          : bypasses(source[i]) && !endpoints.isExternal(destination[i]);
      if (!isPassing) return false;
      if (side === INSIDE && !isInside(source[i])) {
        batch.drop(i, counters.inside_source);
        return true;
      }
      batch.forward(i, side === INSIDE ? outside : inside);
      batch.count1(counters.bypassed);
      return true;
    }

    /**
     * Returns true if packet `i` is an ICMP query or reply to translate by identifier. Also handles
     * everything else that `sort` does not list: queues errors for later, and drops the rest.
     */
    function isQuery(i: number, side: number): boolean {
      if (version[i] !== 4) {
        // What handles IPv6 in this chain decides about it.
        if (!ipv6) batch.drop(i, counters.ipv6);
      } else if (protocol[i] !== ICMP) {
        if (!hasStatics || !translateWhole(i, side === INSIDE)) batch.drop(i, counters.protocol);
      } else if (isError(flags[i])) {
        if (fragment[i] === WHOLE) errors[errorCount++] = i;
        else batch.drop(i, counters.fragmented_error);
      } else if (isQueryTo(flags[i], side === INSIDE) || (hasStatics && isMapped(i, side))) return true;
      else batch.drop(i, counters.icmp_other);
      return false;
    }

    /**
     * Returns true for an ICMP query to an address that is mapped whole, or a reply from it. These
     * pass in the other direction too.
     */
    function isMapped(i: number, side: number): boolean {
      if (!isQueryTo(flags[i], side === OUTSIDE)) return false;
      const key = portAndProtocol(sourcePort(ports[i]), ICMP);
      return side === INSIDE ? statics.findOutbound(source[i], key) : statics.findInbound(destination[i], key);
    }

    function translateOutbound(now: number): void {
      let sent = 0;
      let isMapped = false;
      losses.look(now);
      const hasMoved = losses.isWatching();
      if (filter !== null) filter.lookOutbound(fromInside, from.addresses, from.keys, outboundCount, now);
      for (let n = 0; n < outboundCount; n++) {
        const i = fromInside[n];
        if (from.slots[n] !== NOBODY) {
          if (hasMoved && losses.endsMoved(i, from.slots[n])) continue;
          lifetimes.refresh(i, from.slots[n], now);
        } else if (hasStatics && mapOutbound(n)) isMapped = true;
        else if (!bind(i, n, now)) continue;
        if (filter !== null && !isMapped && !filter.sent(i, n, from.slots[n], now)) continue;
        if ((isThrottling || bindings.held.isUsed) && !isMapped) holds.withEntry(i, bindings.held, from.slots[n], now);
        isMapped = false;
        rewrites.source(i, from.externalAddresses[n], from.externalPorts[n]);
        if (endpoints.isExternal(destination[i])) hairpin(i, n, now);
        else {
          egress[i] = outside;
          sent++;
        }
      }
      batch.countMany(counters.outbound, sent);
    }

    function translateInbound(now: number): void {
      let sent = 0;
      if (filter !== null) filter.lookInbound(fromOutside, to.internalAddresses, to.internalKeys, inboundCount, now);
      for (let n = 0; n < inboundCount; n++) {
        const i = fromOutside[n];
        if (follows(i)) continue;
        if (isOwn(source[i])) {
          batch.drop(i, counters.own_source);
          continue;
        }
        if (to.slots[n] !== NOBODY || boundBefore(i, n, now)) {
          const { internalAddresses, internalKeys } = to;
          if (filter !== null && !filter.received(i, n, to.slots[n], internalAddresses[n], internalKeys[n], now))
            continue;
          if (bindings.rank(to.slots[n]) === NEW && lifetimes.isAnswer(i)) bindings.answered(to.slots[n], now);
        } else if (!(hasStatics && mapInbound(n))) {
          if (to.places[n] === NOBODY) batch.drop(i, counters.not_external);
          else if (!earlyReplies.waits(i, now)) batch.drop(i, counters.unsolicited);
          continue;
        }
        rewrites.destination(i, to.internalAddresses[n], sourcePort(to.internalKeys[n]));
        egress[i] = inside;
        sent++;
      }
      batch.countMany(counters.inbound, sent);
    }

    /**
     * Returns true if the `n`-th packet from inside comes from an endpoint with a static mapping.
     */
    function mapOutbound(n: number): boolean {
      if (!statics.findOutbound(from.addresses[n], from.keys[n])) return false;
      from.externalAddresses[n] = statics.address;
      from.externalPorts[n] = statics.port;
      return true;
    }

    /** Returns true if the `n`-th packet from outside goes to an endpoint with a static mapping. */
    function mapInbound(n: number): boolean {
      if (!statics.findInbound(to.addresses[n], to.keys[n])) return false;
      to.internalAddresses[n] = statics.address;
      to.internalKeys[n] = statics.port;
      return true;
    }

    /**
     * Returns true if the external endpoint was bound since the batch was looked up, by a packet
     * before packet `i`. Packet `i` is the `n`-th from outside.
     */
    function boundBefore(i: number, n: number, now: number): boolean {
      const slot = bindings.findInbound(to.places[n], now);
      if (slot === NONE) return false;
      for (let m = 0; m < outboundCount; m++) {
        if (from.slots[m] !== slot) continue;
        if (fromInside[m] > i) return false;
        break;
      }
      to.slots[n] = slot;
      to.internalAddresses[n] = bindings.internalAddress(slot);
      to.internalKeys[n] = portAndProtocol(bindings.internalPort(slot), protocol[i]);
      return true;
    }

    function hairpin(i: number, n: number, now: number): void {
      if (follows(i)) return;
      // A query to an external address is passed only to the inside host of a static mapping. A
      // reply goes to the host that bound its identifier.
      const isQuery = protocol[i] === ICMP && isQueryTo(flags[i], true);
      const isBound =
        !isQuery ||
        (hasStatics && statics.findInbound(destination[i], portAndProtocol(destinationPort(ports[i]), ICMP)));
      if (!isBound || !endpoints.toInside(destination[i], destinationPort(ports[i]), protocol[i], now)) {
        const { externalAddresses, externalPorts } = from;
        if (!isBound || !earlyReplies.waitsWithin(i, externalAddresses[n], externalPorts[n], now))
          batch.drop(i, counters.unsolicited);
        return;
      }
      if (endpoints.address === from.addresses[n] && endpoints.port === sourcePort(from.keys[n]))
        return batch.drop(i, counters.own_source);
      if (!isAwaited(i, n, now)) return;
      noteHairpinned(i, n, endpoints.slot, now);
      rewriteDestination(batch, i, endpoints.address, endpoints.port);
      // A query has one identifier. A reply carries that of the host that asked.
      if (protocol[i] === ICMP && !isQuery) rewrites.source(i, from.externalAddresses[n], endpoints.port);
      batch.forward(i, inside);
      batch.count1(counters.hairpinned);
    }

    /**
     * If packet `i`, the `n`-th from inside, answers what the inside host just found has sent,
     * marks that host's binding as answered. A host does not answer itself.
     */
    function noteHairpinned(i: number, n: number, slot: number, now: number): void {
      if (slot === NONE || bindings.rank(slot) !== NEW || !lifetimes.isAnswer(i)) return;
      if (bindings.internalAddress(slot) !== from.addresses[n]) bindings.answered(slot, now);
    }

    /**
     * Returns true if a session lets packet `i`, the `n`-th from inside, go to the inside host just
     * found. False: the packet was dropped, or waits.
     */
    function isAwaited(i: number, n: number, now: number): boolean {
      if (filter === null || endpoints.isMapped) return true;
      const { slot, address, port } = endpoints;
      return filter.turned(i, slot, address, port, from.externalAddresses[n], from.externalPorts[n], now);
    }

    /**
     * Binds the `n`-th packet from inside. False: no binding is available, and the packet was
     * dropped.
     */
    function bind(i: number, n: number, now: number): boolean {
      const slot = boundSlot(i, n, now);
      if (slot === NONE) return false;
      from.slots[n] = slot;
      from.externalAddresses[n] = bindings.externalAddress(slot);
      from.externalPorts[n] = bindings.externalPort(slot);
      return true;
    }

    function boundSlot(i: number, n: number, now: number): number {
      const address = from.addresses[n];
      const key = from.keys[n];
      const hash = from.hashes[n];
      // An earlier packet of this batch may have bound it since the lookup.
      const bound = bindings.findOutbound(hash, address, key, now);
      if (bound !== NONE) {
        lifetimes.refresh(i, bound, now);
        return bound;
      }
      if (isOwn(address)) batch.drop(i, counters.own_source);
      else if (!isInside(address)) batch.drop(i, counters.inside_source);
      // The first fragment got no binding.
      else if (fragment[i] === LATER) batch.drop(i, counters.fragment);
      else if (draining()) batch.drop(i, counters.draining);
      else if (protocol[i] === TCP && (flags[i] & TcpFlag.RST) !== 0) batch.drop(i, counters.stray);
      else return newSlot(i, hash, address, key, now);
      return NONE;
    }

    function newSlot(i: number, hash: number, address: number, key: number, now: number): number {
      const lost = bindings.collisions === 0 ? NONE : bindings.findLost(hash, address, key, now);
      const rank = lost === NONE ? NEW : bindings.rank(lost);
      if (lost !== NONE && losses.endsTcp(i)) return NONE;
      if (isThrottling) holds.holdNext(bindings.held, options.hold_members, options.hold_ms);
      const slot = bindings.add(hash, address, key, now, idleExpiry(now, lifetimes.first(i)));
      if (slot === NONE) {
        refuse(i);
        return NONE;
      }
      batch.count1(counters.bound);
      lifetimes.began(i, slot);
      log?.bound(slot, now);
      return lost !== NONE && losses.endsUdp(i, rank) ? NONE : slot;
    }

    /** Packet `i` gets no binding. Its sender gets an ICMP error, within the rate of errors. */
    function refuse(i: number): void {
      refuseFor(i, reasonOf(bindings.refusal));
    }

    function refuseFor(i: number, reason: number): void {
      // These causes are transient, so the client's next try may succeed. An error would stop it.
      const isPassing = reason === counters.log_full || reason === counters.contended || reason === counters.half_open;
      if (!isPassing && replies.unreachable(i, Unreachable.PROHIBITED)) batch.count1(counters.refused);
      else batch.drop(i, reason);
    }

    function reasonOf(refusal: Refusal): number {
      switch (refusal) {
        case Refusal.TABLE_FULL:
          return counters.table_full;
        case Refusal.HALF_OPEN:
          return counters.half_open;
        case Refusal.SUBSCRIBER:
          return counters.subscriber_limit;
        case Refusal.SUBSCRIBER_RATE:
          return counters.subscriber_rate;
        case Refusal.LOG_FULL:
          return counters.log_full;
        case Refusal.CONTENDED:
          return counters.contended;
        default:
          return counters.exhausted;
      }
    }

    /** Clamps IPv4 only. The middlebox that handles IPv6 in this chain clamps the rest. */
    function clampAll(clamp: (i: number) => boolean): void {
      for (let i = 0; i < batch.count; i++)
        if (egress[i] >= 0 && version[i] === 4 && clamp(i)) batch.count1(counters.mss_clamped);
    }

    const walked = walkedSlots(bindings.tableSlots);
    every(
      WALK_S,
      (now) => {
        lifetimes.walk(now, walked);
        bindings.room.keepFree(now);
        filter?.walk(now);
      },
      { on: 'one' },
    );
    if (log !== null) every(LOOK_S, log.look, { on: 'one' });
    let { collisions, splits } = bindings;
    every(
      COUNT_S,
      () => {
        batch.countMany(counters.collided, bindings.collisions - collisions);
        batch.countMany(counters.split, bindings.splits - splits);
        ({ collisions, splits } = bindings);
      },
      { on: 'one' },
    );
    every(COUNT_S, losses.sweep);

    return (now: number): void => {
      sort();
      from.find(outboundCount, now);
      to.find(inboundCount, now);
      translateOutbound(now);
      translateInbound(now);
      rewrites.apply();
      for (let n = 0; n < errorCount; n++) {
        const i = errors[n];
        if (isOwn(source[i])) batch.drop(i, counters.own_source);
        else translateError(i, now);
      }
      if (clampMss !== null) clampAll(clampMss);
    };
  },
});

/**
 * Default of `per_subscriber`: half the ports that a protocol has at one external address, above
 * the well-known ones. So no host takes all of an address. It exceeds the 28,232 ports that Linux
 * connects from, so a busy server is not limited.
 */
function subscriberShare({
  first_port,
  last_port,
  flows,
}: Readonly<Record<'first_port' | 'last_port' | 'flows', number>>): number {
  const first = last_port > WELL_KNOWN_LAST ? Math.max(first_port, WELL_KNOWN_LAST + 1) : first_port;
  return Math.max(SHARE_MIN, Math.trunc(Math.min(last_port - first + 1, flows) / 2));
}

/** From inside, queries are translated. From outside, replies are. */
function isQueryTo(type: number, fromInside: boolean): boolean {
  return fromInside
    ? type === IcmpType.ECHO || type === IcmpType.TIMESTAMP
    : type === IcmpType.ECHO_REPLY || type === IcmpType.TIMESTAMP_REPLY;
}
