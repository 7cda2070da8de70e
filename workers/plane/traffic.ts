/**
 * Counts packets and bytes by port, in both directions, and packets that could not leave because
 * their port was unusable.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import type { Batch } from '../packet/batch.js';

const PER_PORT = {
  rx_packets: 'packets received by port',
  rx_bytes: 'bytes received by port',
  tx_packets: 'packets handed to the driver to send by port',
  tx_bytes: 'bytes handed to the driver to send by port',
  tx_unusable: 'dropped: the interface was gone, down or without a carrier when a packet was to leave by port',
} as const;
const KINDS = Object.keys(PER_PORT).length;
const RX_PACKETS = 0;
const RX_BYTES = 1;
const TX_PACKETS = 2;
const TX_BYTES = 3;
const TX_UNUSABLE = 4;

/** `port0_rx_packets`, `port0_rx_bytes`, … in consecutive columns. */
export function trafficMetrics(ports: number): Metric[] {
  const metrics: Metric[] = [];
  for (let port = 0; port < ports; port++)
    for (const [name, help] of Object.entries(PER_PORT))
      metrics.push({ name: `port${port}_${name}`, help: `${help} ${port}`, kind: 'counter' });
  return metrics;
}

export interface Traffic {
  /** Counts the packets received. */
  received(): void;
  /** Counts the packets that have a port to leave by. */
  sending(): void;
}

/** Counts packets that leave by a port outside a batch. */
export interface SentCounter {
  sent(port: number, bytes: number): void;
  /** Counts a packet that was dropped because the port was unusable. */
  unusable(port: number): void;
}

export function createSentCounter(row: Float64Array, catalogue: MetricCatalogue): SentCounter {
  const first = catalogue.column('port0_rx_packets');
  return {
    sent(port, bytes) {
      const column = first + port * KINDS;
      row[column + TX_PACKETS]++;
      row[column + TX_BYTES] += bytes;
    },
    unusable(port) {
      row[first + port * KINDS + TX_UNUSABLE]++;
    },
  };
}

/** Made once per data plane: see the head of batch.ts. */
export function createTraffic(batch: Batch, ports: number, row: Float64Array, catalogue: MetricCatalogue): Traffic {
  const { port, egress, length } = batch;
  const first = catalogue.column('port0_rx_packets');
  for (const [i, { name }] of trafficMetrics(ports).entries())
    if (catalogue.column(name) !== first + i) throw new Error(`metric ${name} is out of its run of columns`);

  function received(): void {
    for (let i = 0; i < batch.count; i++) {
      const column = first + port[i] * KINDS;
      row[column + RX_PACKETS]++;
      row[column + RX_BYTES] += length[i];
    }
  }

  function sending(): void {
    for (let i = 0; i < batch.count; i++) {
      if (egress[i] < 0) continue;
      const column = first + egress[i] * KINDS;
      row[column + TX_PACKETS]++;
      row[column + TX_BYTES] += length[i];
    }
  }

  return { received, sending };
}
