/**
 * Ends connections that lost their external port. Before two sites heard of each other, they bound
 * one port to two endpoints, or one endpoint to two ports. The state objects settle which binding
 * stays (shm/objects/nat/nat-tables.ts). The server then receives packets of the connection from a
 * port that it does not know, or none. So the NAT answers the inside host's next packet, which is
 * faster than a timeout:
 *
 * | packet from inside                             | answer                                                     |
 * | ---------------------------------------------- | ---------------------------------------------------------- |
 * | TCP, no SYN or RST: the connection's           | reset, as from the server                                  |
 * | UDP, if the binding was established            | ICMP port unreachable, once; the next one has another port |
 * | TCP with SYN; UDP, if it was not; ICMP queries | none: it starts again, on another port                     |
 *
 * If the binding lost its port to another endpoint, all its connections are lost. If it moved to
 * another port, only the connections that this worker saw begin on the former port are lost.
 * `connections` knows the last of them, or that there were several.
 *
 * Nothing is sent to the outside. A packet to the lost port is unsolicited. Another site may lack
 * the record of a valid binding, and a reset from there would end a working connection.
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
} from '../../api/api.js';
import type { Connections } from './connections.js';

const { TCP, UDP } = Protocol;
const { RST, SYN } = TcpFlag;
/** Limits on remembered moves: number and seconds. A connection in use sends within that time. */
const MOVES_MAX = 1024;
const REMEMBERED_S = 60;

interface Move {
  /** Generation of the binding before the move. */
  readonly generation: number;
  /** Generation of the binding on the other port, when this worker read the move. */
  readonly after: number;
  readonly rank: number;
  readonly until: number;
}

interface LossParts {
  readonly batch: Batch;
  readonly bindings: NatBinding;
  readonly connections: Connections;
  readonly replies: Replies;
  readonly counters: { readonly port_lost: number };
}

interface Losses {
  /** Reads which bindings moved to another port. Call it for each batch. */
  look(now: number): void;
  /** Returns true if any moves are remembered. Then call `endsMoved` for packets from inside. */
  isWatching(): boolean;
  /**
   * Returns true if packet `i` from inside, of the binding in `slot`, belongs to a connection that
   * the binding had on another port. The packet was then answered or dropped.
   */
  endsMoved(i: number, slot: number): boolean;
  /**
   * Packet `i` from inside belongs to a binding that lost its port. Returns true if it belongs to a
   * TCP connection. The packet was then answered or dropped.
   */
  endsTcp(i: number): boolean;
  /** The same for UDP. `rank` is the rank that the binding had. */
  endsUdp(i: number, rank: number): boolean;
  /** Removes remembered moves whose time is over. */
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
      // The host restarts the connection. From here on it uses the port that stayed.
      if ((flags[i] & SYN) !== 0) moved.delete(slot);
      return endsTcp(i);
    }
    moved.delete(slot);
    // The binding may have ended, with another one in its slot.
    return bindings.generation(slot) === move.after && endsUdp(i, move.rank);
  }

  function endsTcp(i: number): boolean {
    if (!isOfConnection(i)) return false;
    if (replies.reset(i)) batch.count1(counters.port_lost);
    else batch.drop(i, counters.port_lost);
    return true;
  }

  /** If no error may be sent, returns false, and the packet is sent from the other port. */
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
