/**
 * Detects port floods, as in Constellation's paper. Replicated counters count what all sites
 * together send to a destination port. If more than a threshold goes to a port within a window, the
 * port is blocked.
 *
 * A worker sums the bytes of a port and counts them in portions of 1/1024 of the threshold. So a
 * packet costs two loads and a store. With n workers the count is too low by n portions at most.
 * Windows are consecutive and do not overlap.
 */

import { type Batch, type CounterVector, destinationPort, NONE, Protocol, portNumber } from '../../api/api.js';
import type { Alerts } from './alert.js';
import { Signature } from './alert.js';
import type { Blocks } from './blocks.js';
import { type Ends, SOURCE } from './ends.js';

const PORTS = 1 << 16;
/** Number of counters: ports of TCP, then of UDP. */
export const PORT_COUNTERS = 2 * PORTS;
const BITS_PER_MBIT = 1_000_000;
const PORTIONS = 1024;

interface PortFloodOptions {
  readonly port_flood_mbit: number;
  readonly port_flood_seconds: number;
  readonly port_block_seconds: number;
}

interface PortFloods {
  /** Counts packet `i`, which is TCP or UDP. Its ends must be loaded. */
  take(i: number, now: number): void;
  /** Applies changed options. */
  configure(): void;
}

/** Made once per worker. */
export function createPortFloods(
  volumes: CounterVector,
  blocks: Blocks,
  alerts: Alerts,
  options: PortFloodOptions,
  batch: Batch,
  ends: Ends,
  found: number,
): PortFloods {
  let threshold = 0;
  let portion = 0;
  configure();
  const uncounted = new Float64Array(PORT_COUNTERS);
  /**
   * By counter: the count when its window began, as far as this instance knew it. `windows` has the
   * number of that window.
   */
  const base = new Float64Array(PORT_COUNTERS);
  const windows = new Int32Array(PORT_COUNTERS).fill(NONE);
  const { protocol, ports, length } = batch;

  function configure(): void {
    threshold = (options.port_flood_mbit * BITS_PER_MBIT) / 8;
    portion = Math.ceil(threshold / PORTIONS);
  }

  function count(i: number, index: number, now: number): void {
    const bytes = uncounted[index];
    uncounted[index] = 0;
    const window = Math.trunc(now / options.port_flood_seconds);
    if (windows[index] !== window) {
      windows[index] = window;
      base[index] = volumes.value(index);
    }
    volumes.add(index, bytes);
    const volume = volumes.value(index) - base[index];
    if (volume >= threshold) flood(i, volume, now);
  }

  function flood(i: number, volume: number, now: number): void {
    const port = destinationPort(ports[i]);
    const until = blocks.blockPort(port, protocol[i], Signature.PORT_FLOOD, now, options.port_block_seconds);
    if (until === NONE) return;
    batch.count1(found);
    alerts.figures[0] = Math.round((volume * 8) / BITS_PER_MBIT);
    alerts.figures[1] = options.port_flood_seconds;
    alerts.raise(Signature.PORT_FLOOD, ends.words, SOURCE, ports[i], protocol[i], until, now);
  }

  return {
    configure,
    take(i, now) {
      const index = portNumber(destinationPort(ports[i])) + (protocol[i] === Protocol.UDP ? PORTS : 0);
      uncounted[index] += length[i];
      if (uncounted[index] >= portion) count(i, index, now);
    },
  };
}
