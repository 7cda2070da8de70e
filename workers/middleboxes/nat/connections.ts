/**
 * Which TCP connection a binding carries, or that it carries several: what ends one must not end
 * the binding of another that is idle (RFC 5382 REQ-5).
 *
 * A connection is known by its remote. A worker notes the one whose SYN or end it saw last, by
 * slot, for the life (generation) that the binding then had. That is of this worker alone: it is
 * told to nobody, and asked only about packets that begin or end connections and about those of a
 * binding that is closing. All packets of a connection from inside come to one worker, as long as
 * routes stay; so what a worker has no note of is another connection than the one whose end it saw.
 */

import { type Batch, destinationPort } from '../../api.js';

/** What a worker knows of the connection of a packet. */
export const Known = { NOTHING: 0, SAME: 1, OTHER: 2, MANY: 3 } as const;

/** In place of a remote: several began at once. */
const MANY = -1;
/** By slot: the generation of the binding it is about, and the remote, mixed. */
const WORDS = 2;

export interface Connections {
  /** Notes that packet `i` is of the connection that the binding in `slot` carries. */
  note(i: number, slot: number): void;
  /** Notes that it carries several. */
  noteMany(slot: number): void;
  /** One of `Known`, of packet `i`. */
  look(i: number, slot: number): number;
  /**
   * Whether the binding in `slot`, when its generation was this one, carried the connection of
   * packet `i`, or several.
   */
  began(i: number, slot: number, generation: number): boolean;
}

interface Generations {
  readonly slots: number;
  generation(slot: number): number;
}

/** Made once per worker. */
export function createConnections(batch: Batch, bindings: Generations): Connections {
  const { destination, ports } = batch;
  // Memory that no binding used is never touched.
  const noted = new Int32Array(bindings.slots * WORDS);

  /** Two remotes that look the same, one pair in 2^31, are taken for one. */
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
