/**
 * State and timers of a binding or a session (filter.ts).
 *
 * | packet                                     | binding or session                         | timer        |
 * | ------------------------------------------ | ------------------------------------------ | ------------ |
 * | first packet from inside                   | becomes NEW                                | opening      |
 * | TCP from outside with ACK, without RST     | NEW is answered                            | as it was    |
 * | TCP from inside: ACK without SYN, FIN, RST | NEW becomes ESTABLISHED, if it is answered | established  |
 * | TCP from inside: FIN or RST                | becomes CLOSING, unless NEW and unanswered | closing      |
 * | TCP from inside: SYN, when CLOSING         | begins a new generation as NEW             | opening      |
 * | TCP from inside: of several connections    | becomes SHARED, if it is answered          | established  |
 * | anything else from inside                  | stays                                      | of its state |
 *
 * **An answer** is a packet of the responder that was translated at any site.
 * shm/objects/table/answers.ts describes how the other sites learn of it. Until it is answered, a
 * binding stays half-open whatever the inside sends: it counts against the quota and has the
 * opening timer. An answer refreshes nothing. A reset is not an answer, because nobody accepted the
 * connection.
 *
 * **Several connections** of one inside endpoint share a binding, at any sites. The end of one must
 * not end another that is idle. So a binding that is seen to carry a second connection becomes
 * SHARED, and stays so. It expires if nothing was sent for `tcp_established`, whatever ends
 * meanwhile. A second connection is detected, by rank of the binding, from:
 *
 * - ESTABLISHED: a SYN to another remote;
 * - NEW: SYNs to two remotes, at the next packet with ACK;
 * - before CLOSING: a FIN of a connection other than the one it began with;
 * - CLOSING: a packet to a remote other than the one that ended (connections.ts).
 *
 * An RST ends its own connection. It has no effect if the binding is known to carry another one.
 * Nor has an RST that refuses a SYN (RFC 9293 §3.10.7.1), because anyone outside can cause it.
 *
 * An expired binding gets its port again if nobody else has it. A UDP or ICMP binding becomes
 * ESTABLISHED with the first packet from inside after its answer. The binding of a one-sided sender
 * stays half-open. The UDP timer does not depend on the state. Packets to certain well-known ports
 * may have a shorter timer, which never shortens a longer running one (RFC 4787 REQ-5).
 */

import {
  type Answers,
  type Batch,
  destinationPort,
  Fragment,
  Protocol,
  portNumber,
  NatRank as Rank,
  TcpFlag,
} from '../../api/api.js';
import { type Connections, Known } from './connections.js';

const { TCP, UDP } = Protocol;
const { ACK, FIN, RST, SYN } = TcpFlag;
const { NEW, ESTABLISHED, CLOSING, SHARED } = Rank;
const { LATER } = Fragment;
const WELL_KNOWN_PORTS = 1024;
const SEQUENCE = 4;
/**
 * A whole table is walked within 5 s. A large table is walked at this many slots a call, but at
 * least within 60 s.
 */
const WALKED_WITHIN_TICKS = 50;
const WALKED_SLOTS = 8192;
const WALKED_WITHIN_TICKS_MAX = 600;

export interface LifetimeOptions {
  readonly tcp_established: number;
  readonly tcp_opening: number;
  readonly tcp_closing: number;
  readonly udp: number;
  readonly udp_short: number;
  readonly udp_short_ports: readonly number[];
  readonly icmp: number;
}

interface Lifetimes {
  /** Applies changed options. A running timer keeps its value until the next packet. */
  configure(): void;
  /** Timeout in seconds of a binding that packet `i` from inside makes. */
  first(i: number): number;
  /** Notes that packet `i` from inside made the binding. */
  began(i: number, slot: number): void;
  /** Refreshes the binding for packet `i` from inside. */
  refresh(i: number, slot: number, now: number): void;
  /** Returns true if packet `i` from outside answers what the inside has sent. */
  isAnswer(i: number): boolean;
  /**
   * Checks the next `count` slots. Establishes answered bindings whose inside is silent, and
   * replicates answers that other sites lack.
   */
  walk(now: number, count: number): void;
}

/** Slots of `slots` that `walk` checks in one call. It is called ten times a second. */
export function walkedSlots(slots: number): number {
  return Math.ceil(Math.max(slots / WALKED_WITHIN_TICKS_MAX, Math.min(slots / WALKED_WITHIN_TICKS, WALKED_SLOTS)));
}

/** The table: bindings, or sessions. */
interface Living {
  rank(slot: number): number;
  refresh(slot: number, rank: number, now: number, timeout: number): boolean;
  prolong(slot: number, rank: number, now: number, timeout: number): boolean;
  replicateAgain(slot: number, now: number, timeout: number): boolean;
  renew(slot: number, now: number, timeout: number): boolean;
  replicateAnswer(slot: number, now: number): void;
  /** IP protocol of the entry in a slot. */
  protocol(slot: number): number;
  readonly answers: Answers;
}

/**
 * `connections` is for bindings. It is `null` for sessions, which carry one connection. Made once
 * per worker.
 */
export function createLifetimes(
  batch: Batch,
  living: Living,
  options: LifetimeOptions,
  connections: Connections | null,
): Lifetimes {
  const { protocol, flags, ports, fragment, l4 } = batch;
  const { i32 } = batch.memory;
  let { tcp_established, tcp_opening, tcp_closing, udp, udp_short, icmp } = options;
  const isShort = new Uint8Array(WELL_KNOWN_PORTS);
  configure();

  function configure(): void {
    ({ tcp_established, tcp_opening, tcp_closing, udp, udp_short, icmp } = options);
    isShort.fill(0);
    if (udp_short > 0) for (const port of options.udp_short_ports) isShort[port] = 1;
  }

  function first(i: number): number {
    if (protocol[i] === TCP) return tcp_opening;
    if (protocol[i] !== UDP) return icmp;
    return udp_short > 0 && isForShort(i) ? udp_short : udp;
  }

  function isForShort(i: number): boolean {
    const port = portNumber(destinationPort(ports[i]));
    return port < WELL_KNOWN_PORTS && isShort[port] === 1;
  }

  function refresh(i: number, slot: number, now: number): void {
    if (protocol[i] !== TCP) {
      // The first fragment has refreshed the entry. A later one must not count as a second packet.
      // For TCP, a later fragment shows no flags, so it needs no test here.
      if (fragment[i] === LATER) return;
      const rank = living.rank(slot) >= ESTABLISHED || goesOn(slot) ? ESTABLISHED : NEW;
      // Another packet may have set a longer timeout, which stays.
      living.prolong(slot, rank, now, first(i));
      return;
    }
    const before = living.rank(slot);
    const shown = flags[i];
    if ((shown & SYN) !== 0 && before >= CLOSING && before !== SHARED) {
      if (living.renew(slot, now, tcp_opening)) began(i, slot);
      return;
    }
    // A retransmitted SYN. Its answer may have come through a site that had no room for the entry.
    if (before === NEW && (shown & (SYN | ACK)) === SYN) living.replicateAgain(slot, now, tcp_opening);
    const isPlain = (shown & (SYN | FIN | RST)) === 0;
    const isSettled = before === SHARED || (before === ESTABLISHED && isPlain);
    let after = isSettled ? before : connections === null ? rankOf(shown, before) : rankOfShared(i, slot, before);
    if (before < ESTABLISHED) after = answeredRank(slot, before, after, shown);
    living.refresh(
      slot,
      after,
      now,
      after === ESTABLISHED || after === SHARED ? tcp_established : after < ESTABLISHED ? tcp_opening : tcp_closing,
    );
  }

  /**
   * Notes that the inside goes on sending before the entry is established. Returns true if it is
   * answered.
   */
  function goesOn(slot: number): boolean {
    living.answers.heard(slot, true);
    return living.answers.isAnswered(slot);
  }

  /**
   * Returns the rank after a packet from inside that asks for rank `after`. Without an answer, the
   * rank does not reach ESTABLISHED.
   */
  function answeredRank(slot: number, before: number, after: number, shown: number): number {
    // A closing packet, or one that shows no flags, does not ask to be established later.
    if (after >= ESTABLISHED && (shown & (SYN | FIN | RST)) === 0) return goesOn(slot) ? after : before;
    living.answers.heard(slot, false);
    return after < ESTABLISHED || living.answers.isAnswered(slot) ? after : before;
  }

  /** Rank of an entry that carries one connection, after a packet with these flags. */
  function rankOf(shown: number, before: number): number {
    const rank = (shown & (FIN | RST)) !== 0 ? CLOSING : (shown & (ACK | SYN)) === ACK ? ESTABLISHED : NEW;
    return rank > before ? rank : before;
  }

  /** Rank of an entry that may carry several connections and is not SHARED, after packet `i`. */
  function rankOfShared(i: number, slot: number, before: number): number {
    const shown = flags[i];
    const those = connections as Connections;
    const known = those.look(i, slot);
    if ((shown & RST) !== 0) {
      const refusesSyn = (shown & ACK) !== 0 && i32[(l4[i] + SEQUENCE) >> 2] === 0;
      if (refusesSyn || known === Known.OTHER || known === Known.MANY) return before;
    } else if ((shown & FIN) !== 0) {
      if (before < CLOSING && (known === Known.OTHER || known === Known.MANY)) return SHARED;
    } else if ((shown & SYN) === 0) {
      if ((shown & ACK) === 0) return before; // no flags visible: a later fragment
      if (before < ESTABLISHED) return known === Known.MANY ? SHARED : ESTABLISHED;
      return known === Known.SAME ? before : SHARED;
    } else {
      if (before === ESTABLISHED) return known === Known.SAME ? before : SHARED;
      if (known === Known.OTHER) those.noteMany(slot);
      if (known !== Known.NOTHING) return before;
    }
    if (known === Known.NOTHING) those.note(i, slot);
    return rankOf(shown, before);
  }

  function began(i: number, slot: number): void {
    living.answers.heard(slot, false);
    if (protocol[i] === TCP) connections?.note(i, slot);
  }

  function isAnswer(i: number): boolean {
    return protocol[i] !== TCP || (flags[i] & (ACK | RST)) === ACK;
  }

  function establish(slot: number, now: number): void {
    if (living.protocol(slot) === TCP) living.refresh(slot, ESTABLISHED, now, tcp_established);
    else living.prolong(slot, ESTABLISHED, now, 0);
  }

  /** A query and its reply are often the whole exchange, which does not justify a second record. */
  function replicate(slot: number, now: number): void {
    if (living.protocol(slot) === TCP) living.replicateAnswer(slot, now);
  }

  const walk = (now: number, count: number): void => living.answers.walk(now, count, establish, replicate);
  return { configure, first, began, refresh, isAnswer, walk };
}
