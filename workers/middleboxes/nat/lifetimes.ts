/**
 * How long a binding or a session (filter.ts) lives, and its state.
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
 * **An answer** is a packet of the responder that was translated, at any site:
 * shm/objects/answers.ts says how the others hear of it. Whatever the inside sends, a binding
 * without an answer stays half-open: within its quota, and with the opening timer. An answer
 * refreshes nothing. A reset is no answer: nobody accepted the connection.
 *
 * **Several connections** of one inside endpoint share a binding, at whichever sites. Since the end
 * of one must not be that of another that is idle, a binding that is seen to carry a second one is
 * SHARED, for good: it runs out when nothing was sent for `tcp_established`, whatever ends
 * meanwhile. It is seen by a SYN to another remote when it is ESTABLISHED; by SYNs to two when it
 * is NEW, once it is acknowledged; by a FIN of another connection than the one it began with; and
 * by a packet to another remote than the one that ended, when it is CLOSING (connections.ts). An
 * RST ends what it is of, and says nothing of a binding known to be another's; nor does one that
 * refuses a SYN (RFC 9293 §3.10.7.1), which whoever is outside can send.
 *
 * A binding that ran out is given its port again if nobody else has it. A UDP or ICMP binding
 * becomes ESTABLISHED with the first packet from inside after it was answered; a one-sided sender's
 * binding stays half-open. Its timer stays the same, except that packets to certain well-known
 * ports may have a shorter one, which never shortens a longer one that is running (RFC 4787 REQ-5).
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
} from '../../api.js';
import { type Connections, Known } from './connections.js';

const { TCP, UDP } = Protocol;
const { ACK, FIN, RST, SYN } = TcpFlag;
const { NEW, ESTABLISHED, CLOSING, SHARED } = Rank;
const { LATER } = Fragment;
const WELL_KNOWN_PORTS = 1024;
const SEQUENCE = 4;
/**
 * A table is walked over within 5 s, or, if it is large, as fast as this many slots a call allow,
 * but at least within 60 s.
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

export interface Lifetimes {
  /** Takes the options over that changed. Timers that run stay until the next packet. */
  configure(): void;
  /** Seconds a binding lives that packet `i` from inside makes. */
  first(i: number): number;
  /** Packet `i` from inside made the binding. */
  began(i: number, slot: number): void;
  /** Packet `i` from inside uses the binding. */
  refresh(i: number, slot: number, now: number): void;
  /** Whether packet `i` from outside answers what the inside has sent. */
  isAnswer(i: number): boolean;
  /**
   * Establishes answered bindings in the next `count` slots whose inside is silent, and replicates
   * answers that other sites lack.
   */
  walk(now: number, count: number): void;
}

/** Slots that `walk` looks at in one call, of `slots`: calls come ten times a second. */
export function walkedSlots(slots: number): number {
  return Math.ceil(Math.max(slots / WALKED_WITHIN_TICKS_MAX, Math.min(slots / WALKED_WITHIN_TICKS, WALKED_SLOTS)));
}

/** What lives: bindings, or sessions. */
interface Living {
  rank(slot: number): number;
  refresh(slot: number, rank: number, now: number, timeout: number): boolean;
  prolong(slot: number, rank: number, now: number, timeout: number): boolean;
  tellAgain(slot: number, now: number, timeout: number): boolean;
  renew(slot: number, now: number, timeout: number): boolean;
  replicateAnswer(slot: number, now: number): void;
  /** IP protocol of the entry in a slot. */
  protocol(slot: number): number;
  readonly answers: Answers;
}

/** `connections`: of bindings; a session is of one connection. Made once per worker. */
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
      // Its first fragment has refreshed it, and is not to be taken for two packets. Of TCP a later
      // one shows no flags.
      if (fragment[i] === LATER) return;
      const rank = living.rank(slot) >= ESTABLISHED || goesOn(slot) ? ESTABLISHED : NEW;
      // Another packet may have got it a longer time, which stays.
      living.prolong(slot, rank, now, first(i));
      return;
    }
    const before = living.rank(slot);
    const shown = flags[i];
    if ((shown & SYN) !== 0 && before >= CLOSING && before !== SHARED) {
      if (living.renew(slot, now, tcp_opening)) began(i, slot);
      return;
    }
    // A SYN sent again: its answer may have come by a site that had no room for the binding.
    if (before === NEW && (shown & (SYN | ACK)) === SYN) living.tellAgain(slot, now, tcp_opening);
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

  /** The inside goes on with what is not established yet. Returns whether it is answered. */
  function goesOn(slot: number): boolean {
    living.answers.heard(slot, true);
    return living.answers.isAnswered(slot);
  }

  /**
   * The rank after a packet from inside that would make it `after`, which without an answer it does
   * not become.
   */
  function answeredRank(slot: number, before: number, after: number, shown: number): number {
    // Its end, or a packet that shows no flags, does not ask to be established later.
    if (after >= ESTABLISHED && (shown & (SYN | FIN | RST)) === 0) return goesOn(slot) ? after : before;
    living.answers.heard(slot, false);
    return after < ESTABLISHED || living.answers.isAnswered(slot) ? after : before;
  }

  /** Rank of what carries one connection, after a packet with these flags. */
  function rankOf(shown: number, before: number): number {
    const rank = (shown & (FIN | RST)) !== 0 ? CLOSING : (shown & (ACK | SYN)) === ACK ? ESTABLISHED : NEW;
    return rank > before ? rank : before;
  }

  /** Rank of what may carry several, and is not SHARED, after packet `i`. */
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
      if ((shown & ACK) === 0) return before; // no flags are to be seen: a later fragment
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

  /** A query and its reply are often all there is, which is worth no second record. */
  function replicate(slot: number, now: number): void {
    if (living.protocol(slot) === TCP) living.replicateAnswer(slot, now);
  }

  const walk = (now: number, count: number): void => living.answers.walk(now, count, establish, replicate);
  return { configure, first, began, refresh, isAnswer, walk };
}
