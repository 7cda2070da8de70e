/** The data plane knows ports by their index in the configuration. */

import { UNDECIDED } from './batch.js';

/** Most ports of one instance. A port index is a column of counters and a digit of a few names. */
export const PORTS_MAX = 16;

/**
 * The opposite of each port. Of two ports it is the other one. With any other number of ports there
 * is no opposite, and middleboxes must decide.
 */
export type Peers = Int32Array;

export function peersOf(ports: number): Peers {
  if (!Number.isInteger(ports) || ports < 1 || ports > PORTS_MAX)
    throw new RangeError(`${ports} ports: between 1 and ${PORTS_MAX} are possible`);
  return ports === 2 ? Int32Array.of(1, 0) : new Int32Array(ports).fill(UNDECIDED);
}
