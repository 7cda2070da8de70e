/**
 * Tracks which TCP connection a binding carries, or that it carries several. A packet that ends one
 * connection must not end the binding of another that is idle (RFC 5382 REQ-5).
 *
 * A connection is identified by its remote. For each slot, a worker notes the connection whose SYN
 * or end it saw last, with the generation of the binding at that time. The note stays in this
 * worker and is not replicated. It is read only for packets that begin or end connections, and for
 * packets of a binding that is closing. As long as routes stay, all packets of a connection from
 * inside come to one worker. So a connection without a note here is not the one whose end this
 * worker saw.
 */

import { type Batch, destinationPort } from '../../api/api.js';

/** What a worker knows about the connection of a packet. */
export const Known = { NOTHING: 0, SAME: 1, OTHER: 2, MANY: 3 } as const;

/** Noted instead of a remote if several connections began. */
const MANY = -1;
/** Words per slot: the generation of the binding, and the hash of the remote. */
const WORDS = 2;

export interface Connections {
  /** Notes the connection of packet `i` as the one that the binding in `slot` carries. */
  note(i: number, slot: number): void;
  /** Notes that the binding in `slot` carries several. */
  noteMany(slot: number): void;
  /** Returns one of `Known` for packet `i`. */
  look(i: number, slot: number): number;
  /**
   * Returns true if the binding in `slot`, at this generation, carried the connection of packet
   * `i`, or several.
   */
  began(i: number, slot: number, generation: number): boolean;
}

interface Generations {
  readonly tableSlots: number;
  generation(slot: number): number;
}

/** Made once per worker. */
export function createConnections(batch: Batch, bindings: Generations): Connections {
  const { destination, ports } = batch;
  // Pages of slots that no binding used are never touched.
  const noted = new Int32Array(bindings.tableSlots * WORDS);

  /** Remotes with equal hashes, one pair in 2^31, count as one. */
  function markOf(i: number): number {
    const mixed = Math.imul(destination[i], 0x9e3779b1) ^ Math.imul(destinationPort(ports[i]), 0x85ebca6b);
    return (mixed ^ (mixed >>> 15)) & 0x7fff_ffff;
  }

  function put(slot: number, mark: number): void {
    noted[slot * WORDS] = bindings.generation(slot);
    noted[slot * WORDS + 1] = mark;
  }

  function look(i: number, slot: number): number {
    if (noted[slot * WORDS] !== bindings.generation(slot)) return Known.NOTHING;
    const mark = noted[slot * WORDS + 1];
    if (mark === MANY) return Known.MANY;
    return mark === markOf(i) ? Known.SAME : Known.OTHER;
  }

  function began(i: number, slot: number, generation: number): boolean {
    const mark = noted[slot * WORDS + 1];
    return noted[slot * WORDS] === generation && (mark === MANY || mark === markOf(i));
  }

  return { began, note: (i, slot) => put(slot, markOf(i)), noteMany: (slot) => put(slot, MANY), look };
}
