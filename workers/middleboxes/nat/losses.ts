/**
 * Connections that lost their external port. Two sites bound one port to two endpoints, or one
 * endpoint to two ports, before they heard of each other; the state objects settle which binding
 * stays (shm/objects/nat-tables.ts). The server then hears the connection from a port that it does
 * not know, or not at all. So the inside host is told with its next packet, instead of waiting for
 * a timer:
 *
 * | packet from inside                               | answer                                                     |
 * | ------------------------------------------------ | ---------------------------------------------------------- |
 * | TCP, no SYN or RST: the connection's             | reset, as from the server                                  |
 * | UDP, if the binding was established              | ICMP port unreachable, once; the next one has another port |
 * | TCP with SYN; UDP, if it was not; ICMP queries   | none: it begins anew, on another port                      |
 *
 * If the binding lost its port to another endpoint, every connection of it is lost. If it went on
 * with another port, those are that this worker saw begin before, on the former port: `connections`
 * knows the last one, or that there were several.
 *
 * Nothing is sent to the outside: what comes to the lost port is unsolicited. Another site may lack
 * the record of a valid binding, and a reset from there would end a connection that works.
 */

import {
  type Batch,
  Fragment,
  type NatBinding,
  NONE,
  Protocol,
  NatRank as Rank,
  type Replies,
  TcpFlag,
  Unreachable,
} from '../../api.js';
import type { Connections } from './connections.js';

const { TCP, UDP } = Protocol;
const { RST, SYN } = TcpFlag;
/** Moves that are remembered, and for how long: a connection in use sends within that time. */
const MOVES_MAX = 1024;
const REMEMBERED_S = 60;

interface Move {
  /** Of the binding before. */
  readonly generation: number;
  /** Of the binding on the other port, when this worker heard of it. */
  readonly after: number;
  readonly rank: number;
  readonly until: number;
}

export interface LossParts {
  readonly batch: Batch;
  readonly bindings: NatBinding;
  readonly connections: Connections;
  readonly replies: Replies;
  readonly counters: { readonly port_lost: number };
}

export interface Losses {
  /** Reads which bindings went on with another port. Each batch. */
  look(now: number): void;
  /** Whether there are any, and `endsMoved` is to be asked. */
  isWatching(): boolean;
  /**
   * Whether packet `i` from inside, of the binding in `slot`, is of a connection that the binding
   * had on another port: it is answered.
   */
  endsMoved(i: number, slot: number): boolean;
  /**
   * Packet `i` from inside is of a binding that lost its port. Whether it is of a TCP connection:
   * it is answered.
   */
  endsTcp(i: number): boolean;
  /** The same for UDP, of a binding that had this rank. */
  endsUdp(i: number, rank: number): boolean;
  /** Forgets what is past. */
  sweep(now: number): void;
}

/** Made once per worker. */
export function createLosses({ batch, bindings, connections, replies, counters }: LossParts): Losses {
  const { protocol, flags, fragment } = batch;
  const { moves } = bindings;
  const moved = new Map<number, Move>();

  function look(now: number): void {
    while (moves.any) {
      const slot = moves.next();
      if (slot === NONE) return;
      if (moved.size < MOVES_MAX || moved.has(slot))
        moved.set(slot, {
          generation: moves.generation,
          after: bindings.generation(slot),
          rank: moves.rank,
          until: now + REMEMBERED_S,
        });
    }
  }

  function isOfConnection(i: number): boolean {
    return protocol[i] === TCP && fragment[i] !== Fragment.LATER && (flags[i] & (SYN | RST)) === 0;
  }

  function endsMoved(i: number, slot: number): boolean {
    const move = moved.get(slot);
    if (move === undefined) return false;
    if (protocol[i] === TCP) {
      if (!connections.began(i, slot, move.generation)) return false;
      // The host begins anew: from here on it is the port that stayed.
      if ((flags[i] & SYN) !== 0) moved.delete(slot);
      return endsTcp(i);
    }
    moved.delete(slot);
    // The binding may be over, and another one in its slot.
    return bindings.generation(slot) === move.after && endsUdp(i, move.rank);
  }

  function endsTcp(i: number): boolean {
    if (!isOfConnection(i)) return false;
    if (replies.reset(i)) batch.count1(counters.port_lost);
    else batch.drop(i, counters.port_lost);
    return true;
  }

  /** If no error may be sent, the packet is sent: from the other port. */
  function endsUdp(i: number, rank: number): boolean {
    if (protocol[i] !== UDP || rank < Rank.ESTABLISHED || !replies.unreachable(i, Unreachable.PORT)) return false;
    batch.count1(counters.port_lost);
    return true;
  }

  return {
    look,
    isWatching: () => moved.size > 0,
    endsMoved,
    endsTcp,
    endsUdp,
    sweep: (now) => {
      for (const [slot, { until }] of moved) if (until <= now) moved.delete(slot);
    },
  };
}
