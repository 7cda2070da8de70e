/**
 * How long a binding lives, or a session (filter.ts), and how far its life has come, by what the inside sends: that is all one site is
 * sure to see.
 *
 * | TCP from inside                       | binding, by rank         | timer        |
 * | ------------------------------------- | ------------------------ | ------------ |
 * | first packet                          | becomes NEW              | opening      |
 * | ACK without SYN, FIN, RST             | NEW becomes ESTABLISHED  | established  |
 * | FIN or RST                            | becomes CLOSING          | closing      |
 * | SYN, when CLOSING                     | begins a new life as NEW | opening      |
 * | of more than one connection, see below| becomes SHARED           | established  |
 * | anything else                         | stays                    | of its rank  |
 *
 * **Several connections** of one inside endpoint share a binding, at whichever sites. Since the end of one must not be that of another
 * that is idle, a binding that is seen to carry a second one is SHARED, for good: it runs out when nothing was sent for
 * `tcp_established`, whatever ends meanwhile. It is seen by a SYN to another remote when it is ESTABLISHED; by SYNs to two when it is NEW, once it is
 * acknowledged; by a FIN of another connection than the one it began with; and by a packet to another remote than the one that
 * ended, when it is CLOSING (connections.ts). An RST ends what it is of, and says nothing of a binding known to be another's; nor does one that refuses a SYN
 * (RFC 9293 §3.10.7.1), which whoever is outside can send.
 *
 * A binding that ran out is given its port again if nobody else has it. A UDP or ICMP binding becomes ESTABLISHED with its second packet from inside; its timer stays the same, but that
 * what goes to certain well-known ports may have a shorter one, which never shortens what others have got (RFC 4787 REQ-5).
 */

import { type Batch, destinationPort, Fragment, Protocol, portNumber, Rank, TcpFlag } from '../../api.js';
import { type Connections, Known } from './connections.js';

const { TCP, UDP } = Protocol;
const { ACK, FIN, RST, SYN } = TcpFlag;
const { NEW, ESTABLISHED, CLOSING, SHARED } = Rank;
const { LATER } = Fragment;
const WELL_KNOWN_PORTS = 1024;
const SEQUENCE = 4;

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
  /** Seconds a binding lives that packet `i` from inside makes. */
  first(i: number): number;
  /** Packet `i` from inside made the binding. */
  began(i: number, slot: number): void;
  /** Packet `i` from inside uses the binding. */
  refresh(i: number, slot: number, now: number): void;
}

/** What lives: bindings, or sessions. */
interface Living {
  rank(slot: number): number;
  expires(slot: number): number;
  refresh(slot: number, rank: number, now: number, timeout: number): boolean;
  tellAgain(slot: number, now: number, timeout: number): boolean;
  renew(slot: number, now: number, timeout: number): boolean;
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
  const { tcp_established, tcp_opening, tcp_closing, udp, udp_short, icmp } = options;
  const isShort = new Uint8Array(WELL_KNOWN_PORTS);
  if (udp_short > 0) for (const port of options.udp_short_ports) isShort[port] = 1;

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
      // Its first fragment has refreshed it, and is not to be taken for two packets. Of TCP a later one shows no flags.
      if (fragment[i] === LATER) return;
      const lifetime = first(i);
      // What is left of a longer one stays: the first refresh, by which the rank grows, would set it anew.
      const left = udp_short > 0 ? living.expires(slot) - now : 0;
      living.refresh(slot, ESTABLISHED, now, lifetime > left ? lifetime : left);
      return;
    }
    const before = living.rank(slot);
    const shown = flags[i];
    if ((shown & SYN) !== 0 && before >= CLOSING && before !== SHARED) {
      if (living.renew(slot, now, tcp_opening)) connections?.note(i, slot);
      return;
    }
    // A SYN sent again: its answer may have come by a site that had no room for the binding.
    if (before === NEW && (shown & (SYN | ACK)) === SYN) living.tellAgain(slot, now, tcp_opening);
    const isPlain = (shown & (SYN | FIN | RST)) === 0;
    const isSettled = before === SHARED || (before === ESTABLISHED && isPlain);
    const after = isSettled ? before : connections === null ? rankOf(shown, before) : rankOfShared(i, slot, before);
    living.refresh(
      slot,
      after,
      now,
      after === ESTABLISHED || after === SHARED ? tcp_established : after === NEW ? tcp_opening : tcp_closing,
    );
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
      if (before === NEW) return known === Known.MANY ? SHARED : ESTABLISHED;
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
    if (protocol[i] === TCP) connections?.note(i, slot);
  }

  return { first, began, refresh };
}
