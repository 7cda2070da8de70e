/**
 * Filtering by remote (RFC 4787 REQ-8, RFC 5382 REQ-3). A packet from outside passes only if the
 * inside endpoint has sent to its address, or to its address and port. Sessions record that
 * (shm/objects/nat/nat-sessions.ts). Like bindings, they are made and refreshed only by packets
 * from inside, at any site.
 *
 * **TCP** is followed per session (lifetimes.ts). With `address-and-port-dependent`, a session is a
 * connection. Only one kind of packet from outside changes a session: a FIN or RST within the
 * window that the inside has open. The window is known only as far as the inside's segments pass
 * this site. Such a packet makes the session CLOSING, which then lasts for the closing time (RFC
 * 7857 §2). It refreshes nothing. An RST outside the window is dropped, because forged resets have
 * cost connections. If the inside's segments do not pass here, or none did for a minute, such
 * resets are translated and change nothing.
 *
 * **A level** that is not in force drops nothing. This is the case while sites still differ
 * (shm/objects/nat/filter-level.ts). Its sessions are made for later. When it comes into force,
 * older bindings may lack sessions. Packets to these pass without one (`unfiltered`) until the
 * binding ends, or until the longest idle time of a binding of that protocol has passed.
 *
 * **An unsolicited SYN** is never answered (RFC 5382 REQ-4). If the inside then sends a SYN to its
 * source, the next one from there passes, and the open is simultaneous.
 */

import {
  BATCH_CAPACITY,
  type Batch,
  createTcpWindow,
  destinationPort,
  FILTERINGS,
  FlowRefusal,
  Fragment,
  type Holds,
  idleExpiry,
  type NatBinding,
  type NatSessions,
  NONE,
  Plausible,
  Protocol,
  portAndProtocol,
  NatRank as Rank,
  sourcePort,
  TcpFlag,
} from '../../api/api.js';
import type { COUNTERS } from './declaration.js';
import { createLifetimes, type LifetimeOptions, walkedSlots } from './lifetimes.js';

const { ICMP, TCP } = Protocol;
const { LATER } = Fragment;
const { FIN, RST } = TcpFlag;
const KEY_WORDS = 4;
/** The end of a session whose window is tracked. */
const INTERNAL = 0;

export interface FilterParts {
  readonly batch: Batch;
  readonly sessions: NatSessions;
  readonly bindings: NatBinding;
  /** The level that sessions are made for, an index of `FILTERINGS`. */
  readonly level: number;
  readonly options: LifetimeOptions & { readonly hold_members: number; readonly hold_ms: number };
  readonly counters: { readonly [Name in keyof typeof COUNTERS]: number };
  readonly holds: Holds;
  draining(): boolean;
  /** Packet `i` from this remote has no session. Returns true if it waits for one. */
  waits(i: number, remote: number, remotePort: number): boolean;
  /** Refuses packet `i` because no session is available. */
  refuse(i: number, reason: number): void;
}

export interface Filter {
  /**
   * Looks up the sessions of packets from inside. Packet `indices[n]` is from the internal endpoint
   * (`addresses[n]`, `keys[n]`).
   */
  lookOutbound(indices: Int32Array, addresses: Int32Array, keys: Int32Array, count: number, now: number): void;
  /**
   * Packet `i`, the `n`-th looked up, of a binding is to be sent. Makes or refreshes its session.
   * False: no session is available, and the packet was dropped.
   */
  sent(i: number, n: number, binding: number, now: number): boolean;
  /** The same as `lookOutbound` for packets from outside to internal endpoints. */
  lookInbound(indices: Int32Array, addresses: Int32Array, keys: Int32Array, count: number, now: number): void;
  /**
   * Returns true if packet `i`, the `n`-th looked up, may pass to the internal endpoint of a
   * binding. False: it was dropped, or waits.
   */
  received(i: number, n: number, binding: number, address: number, key: number, now: number): boolean;
  /**
   * The same for packet `i` from inside that is hairpinned to the internal endpoint of a binding.
   * Its source will be translated to this remote.
   */
  turned(
    i: number,
    binding: number,
    address: number,
    port: number,
    remote: number,
    remotePort: number,
    now: number,
  ): boolean;
  /** Returns true if packets from a remote may pass to the internal endpoint of a binding. */
  permits(
    binding: number,
    address: number,
    port: number,
    protocol: number,
    remote: number,
    remotePort: number,
    now: number,
  ): boolean;
  /** Applies changed options. */
  configure(): void;
  /** Looks at the sessions in some slots, and replicates what is due (lifetimes.ts). */
  walk(now: number): void;
}

/** Filter of one level. Made once per worker. */
export function createFilter({ batch, sessions, bindings, level, options, counters, ...parts }: FilterParts): Filter {
  const { holds, draining, refuse, waits } = parts;
  const byPort = FILTERINGS[level] === 'address-and-port-dependent';
  let isThrottling = options.hold_members > 0;
  const { protocol, fragment, flags, source, destination, ports } = batch;
  const window = createTcpWindow(batch);
  const out = sessions.lookup(BATCH_CAPACITY);
  const back = sessions.lookup(BATCH_CAPACITY);
  const single = new Int32Array(KEY_WORDS);
  const nothing = new Int32Array(1);
  const lifetimes = createLifetimes(
    batch,
    {
      rank: (slot) => sessions.rank(slot),
      refresh: (slot, rank, now, timeout) => sessions.refresh(slot, rank, now, timeout),
      prolong: (slot, rank, now, timeout) => sessions.prolong(slot, rank, now, timeout),
      replicateAgain: (slot, now, timeout) => sessions.replicateAgain(slot, now, timeout),
      renew: (slot, now, timeout) => sessions.renew(slot, nothing, 0, Rank.NEW, now, timeout),
      replicateAnswer: (slot, now) => sessions.replicateAnswer(slot, now),
      protocol: (slot) => sessions.protocol(slot),
      answers: sessions.answers,
    },
    options,
    null,
  );

  /** An ICMP query has no remote port. */
  function remotePort(port: number, carried: number): number {
    return byPort && carried !== ICMP ? port : 0;
  }

  function lookOutbound(
    indices: Int32Array,
    addresses: Int32Array,
    keys: Int32Array,
    count: number,
    now: number,
  ): void {
    for (let n = 0; n < count; n++) {
      const i = indices[n];
      const at = n << 2;
      out.keys[at] = addresses[n];
      out.keys[at + 1] = keys[n];
      out.keys[at + 2] = destination[i];
      out.keys[at + 3] = remotePort(destinationPort(ports[i]), protocol[i]);
    }
    out.find(count, now);
  }

  function lookInbound(indices: Int32Array, addresses: Int32Array, keys: Int32Array, count: number, now: number): void {
    for (let n = 0; n < count; n++) {
      const i = indices[n];
      const at = n << 2;
      back.keys[at] = addresses[n];
      back.keys[at + 1] = keys[n];
      back.keys[at + 2] = source[i];
      back.keys[at + 3] = remotePort(sourcePort(ports[i]), protocol[i]);
    }
    back.find(count, now);
  }

  /** Returns true if packets to and from a binding pass without a session. */
  function isOpen(binding: number, carried: number, now: number): boolean {
    return !isInForce() || isOlder(binding, carried, now);
  }

  function isInForce(): boolean {
    return sessions.level.inForce === level;
  }

  /**
   * Returns true if a binding was made before the level came into force, and a flow that had no
   * session then may still be in use.
   */
  function isOlder(binding: number, carried: number, now: number): boolean {
    const { since } = sessions.level;
    if (since === 0 || bindings.generation(binding) > since) return false;
    const idle = carried === TCP ? options.tcp_established : carried === ICMP ? options.icmp : options.udp;
    return now < idleExpiry(since, idle);
  }

  function sent(i: number, n: number, binding: number, now: number): boolean {
    let slot = out.slots[n];
    // An earlier packet of this batch may have made it since the lookup.
    if (slot === NONE) slot = sessions.find(out.hashes[n], out.keys, n << 2, now);
    if (slot !== NONE) lifetimes.refresh(i, slot, now);
    else {
      // A reset makes no session.
      if (protocol[i] === TCP && (flags[i] & RST) !== 0) return true;
      const mayLack = isOpen(binding, protocol[i], now);
      slot = open(i, n, mayLack, now);
      if (slot === NONE) return mayLack;
    }
    if (isThrottling || sessions.held.isUsed) holds.withEntry(i, sessions.held, slot, now);
    if (protocol[i] === TCP && fragment[i] !== LATER) window.note(i, sessions, slot, INTERNAL, true, now);
    return true;
  }

  /**
   * Makes a session for packet `i`. `NONE`: no session is available. The packet was then dropped,
   * unless it `mayLack` one.
   */
  function open(i: number, n: number, mayLack: boolean, now: number): number {
    if (fragment[i] === LATER) {
      if (!mayLack) batch.drop(i, counters.fragment);
      return NONE;
    }
    if (draining()) {
      if (!mayLack) batch.drop(i, counters.draining);
      return NONE;
    }
    const expires = idleExpiry(now, lifetimes.first(i));
    if (isThrottling) holds.holdNext(sessions.held, options.hold_members, options.hold_ms);
    const slot = sessions.add(out.hashes[n], out.keys, n << 2, nothing, 0, Rank.NEW, now, expires);
    // Clear the hold. `add` did not use it if another worker made the session, or if it was
    // renewed.
    if (isThrottling) holds.holdNext(sessions.held, 0, 0);
    if (slot !== NONE) {
      batch.count1(counters.sessions);
      lifetimes.began(i, slot);
    } else if (!mayLack) refuse(i, reasonOf(sessions.refusal));
    return slot;
  }

  function reasonOf(refusal: FlowRefusal): number {
    if (refusal === FlowRefusal.HALF_OPEN) return counters.half_open;
    if (refusal === FlowRefusal.LOG_FULL) return counters.log_full;
    return refusal === FlowRefusal.CONTENDED ? counters.contended : counters.table_full;
  }

  function received(i: number, n: number, binding: number, address: number, key: number, now: number): boolean {
    let slot = back.slots[n];
    // The internal endpoint may have been bound since the lookup.
    if (slot === NONE) slot = find(address, key, source[i], remotePort(sourcePort(ports[i]), protocol[i]), now);
    if (slot !== NONE) return arrives(i, slot, now);
    return lacks(i, binding, source[i], sourcePort(ports[i]), now);
  }

  function turned(
    i: number,
    binding: number,
    address: number,
    port: number,
    remote: number,
    port2: number,
    now: number,
  ): boolean {
    const carried = protocol[i];
    const slot = find(address, portAndProtocol(port, carried), remote, remotePort(port2, carried), now);
    return slot !== NONE ? arrives(i, slot, now) : lacks(i, binding, remote, port2, now);
  }

  /**
   * Packet `i` from this remote to a binding has no session. Returns true if it passes anyway.
   * False: it was dropped, or waits.
   */
  function lacks(i: number, binding: number, remote: number, port: number, now: number): boolean {
    if (!isInForce()) return true;
    if (isOlder(binding, protocol[i], now)) {
      batch.count1(counters.unfiltered);
      return true;
    }
    if (!waits(i, remote, port)) batch.drop(i, counters.filtered);
    return false;
  }

  /** Packet `i` goes to the internal endpoint of the session in `slot`. False: it was dropped. */
  function arrives(i: number, slot: number, now: number): boolean {
    if (sessions.rank(slot) === Rank.NEW && lifetimes.isAnswer(i)) sessions.answered(slot, now);
    return protocol[i] !== TCP || (flags[i] & (FIN | RST)) === 0 || !isInForce() || isEnd(i, slot, now);
  }

  /** Handles a FIN or RST from outside. False: it was dropped. */
  function isEnd(i: number, slot: number, now: number): boolean {
    const plausible = window.expects(i, sessions, slot, INTERNAL, now);
    if (plausible === Plausible.NO && (flags[i] & RST) !== 0) {
      batch.drop(i, counters.reset_window);
      return false;
    }
    if (plausible === Plausible.YES && sessions.rank(slot) < Rank.CLOSING)
      sessions.refresh(slot, Rank.CLOSING, now, options.tcp_closing);
    return true;
  }

  function find(address: number, key: number, remote: number, port: number, now: number): number {
    single[0] = address;
    single[1] = key;
    single[2] = remote;
    single[3] = port;
    return sessions.find(sessions.hash(single, 0), single, 0, now);
  }

  const walked = walkedSlots(sessions.tableSlots);
  return {
    lookOutbound,
    sent,
    lookInbound,
    received,
    turned,
    permits: (binding, address, port, carried, remote, port2, now) =>
      find(address, portAndProtocol(port, carried), remote, remotePort(port2, carried), now) !== NONE ||
      isOpen(binding, carried, now),
    configure: () => {
      isThrottling = options.hold_members > 0;
      lifetimes.configure();
    },
    walk: (now) => lifetimes.walk(now, walked),
  };
}
