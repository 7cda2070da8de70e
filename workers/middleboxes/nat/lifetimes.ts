/**
 * How long a binding lives, or a session (filter.ts), and how far its life has come, by what the inside sends: that is all one site is
 * sure to see.
 *
 * | TCP from inside           | binding, by rank                  | timer        |
 * | ------------------------- | --------------------------------- | ------------ |
 * | first packet              | becomes NEW                       | opening      |
 * | ACK without SYN, FIN, RST | NEW becomes ESTABLISHED           | established  |
 * | FIN or RST                | any becomes CLOSING               | closing      |
 * | SYN, when CLOSING         | begins a new life as NEW          | opening      |
 * | anything else             | stays                             | of its rank  |
 *
 * A FIN or RST ends one connection, not the binding, which several connections may share, and which every packet of another
 * one keeps alive for as long as the closing timer each time; and a binding that ran out is given its port again if nobody
 * else has it. A UDP or ICMP binding becomes ESTABLISHED with its second packet from inside; its timer stays the same, but that
 * what goes to certain well-known ports may have a shorter one, which never shortens what others have got (RFC 4787 REQ-5).
 */

import { type Batch, destinationPort, Fragment, Protocol, portNumber, Rank, TcpFlag } from '../../api.js';

const { TCP, UDP } = Protocol;
const { ACK, FIN, RST, SYN } = TcpFlag;
const { NEW, ESTABLISHED, CLOSING } = Rank;
const { LATER } = Fragment;
const WELL_KNOWN_PORTS = 1024;

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
  /** Packet `i` from inside uses the binding. */
  refresh(i: number, slot: number, now: number): void;
}

/** What lives: bindings, or sessions. */
interface Living {
  rank(slot: number): number;
  expires(slot: number): number;
  refresh(slot: number, rank: number, now: number, timeout: number): boolean;
  renew(slot: number, now: number, timeout: number): boolean;
}

/** Made once per worker. */
export function createLifetimes(batch: Batch, living: Living, options: LifetimeOptions): Lifetimes {
  const { protocol, flags, ports, fragment } = batch;
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
    if ((shown & SYN) !== 0 && before >= CLOSING) {
      living.renew(slot, now, tcp_opening);
      return;
    }
    const rank = (shown & (FIN | RST)) !== 0 ? CLOSING : (shown & (ACK | SYN)) === ACK ? ESTABLISHED : NEW;
    const after = rank > before ? rank : before;
    living.refresh(
      slot,
      after,
      now,
      after === ESTABLISHED ? tcp_established : after === NEW ? tcp_opening : tcp_closing,
    );
  }

  return { first, refresh };
}
