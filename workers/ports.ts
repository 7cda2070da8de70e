/** Ports are known to the data plane by their index in the configuration. */

import { UNDECIDED } from './batch.js';

/** Ports one instance may have: a port index is a column of counters and a digit of a few names. */
export const PORTS_MAX = 16;

/**
 * The opposite of each port: of two, the other; of any other number none is, and middleboxes have
 * to decide.
 */
export type Peers = Int32Array;

export function peersOf(ports: number): Peers {
  if (!Number.isInteger(ports) || ports < 1 || ports > PORTS_MAX)
    throw new RangeError(`${ports} ports: between 1 and ${PORTS_MAX} are possible`);
  return ports === 2 ? Int32Array.of(1, 0) : new Int32Array(ports).fill(UNDECIDED);
}
