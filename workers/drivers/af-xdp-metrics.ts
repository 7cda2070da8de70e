/**
 * Metrics of a worker's AF_XDP sockets, counted by the kernel and the driver. They show where
 * packets go that never reach the data plane.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { type Columns, columnsOf, counterMetrics } from '../base/counters.js';
import { bpfCounterTake, isNativeError } from '../native/index.js';
import type { AfXdpDriver } from './af-xdp.js';

const COUNTERS = {
  xdp_no_socket:
    'missed: the frame came while no worker served its queue: a worker was starting, or the queue had just been added',
  xdp_rx_dropped:
    'missed: frames the kernel dropped before the rx ring, above all longer than a packet buffer has room for',
  xdp_rx_jumbo:
    'missed: the frame came in several packet buffers, and was longer than 16126 bytes, or no jumbo buffer was free',
  xdp_rx_ring_full: 'missed: frames the kernel dropped because the rx ring was full: the worker was too slow',
  xdp_fill_ring_empty: 'times the kernel wanted a packet buffer and the fill ring had none',
  xdp_tx_ring_full: 'unsent: the tx ring of the egress port was full',
  xdp_tx_closed: 'unsent: the interface of the egress port was gone before the frame was sent',
  xdp_tx_invalid: 'unsent: the frame fits no packet buffer, or the kernel refused its descriptor',
  xdp_kick_errors: 'times the kernel could not be made to send',
} as const;

export const AF_XDP_METRICS: Metric[] = counterMetrics(COUNTERS);

export class AfXdpCounts {
  private readonly driver: AfXdpDriver;
  private readonly counterFds: Int32Array;
  private readonly row: Float64Array;
  private readonly columns: Columns<typeof COUNTERS>;
  /** By column: the count already added to the row, which outlives this driver. */
  private readonly added = new Map<number, number>();

  /**
   * `counterFds` are the current counters of the XDP programs for frames without a socket, by port;
   * -1 for none. Only one worker reads them.
   */
  constructor(driver: AfXdpDriver, counterFds: Int32Array, row: Float64Array, catalogue: MetricCatalogue) {
    this.driver = driver;
    this.counterFds = counterFds;
    this.row = row;
    this.columns = columnsOf(catalogue, COUNTERS);
  }

  /** Reads the kernel's counts. It makes a system call per socket, so do not call it per batch. */
  note(): void {
    const { columns } = this;
    for (const fd of this.counterFds) this.row[columns.xdp_no_socket] += taken(fd);
    const ports = this.driver.statistics();
    const sum = (of: (port: (typeof ports)[number]) => number): number =>
      ports.reduce((total, port) => total + of(port), 0);
    this.raise(
      columns.xdp_rx_dropped,
      sum((port) => port.rxDropped),
    );
    this.raise(
      columns.xdp_rx_jumbo,
      sum((port) => port.rxJumboDropped),
    );
    this.raise(
      columns.xdp_rx_ring_full,
      sum((port) => port.rxRingFull),
    );
    this.raise(
      columns.xdp_fill_ring_empty,
      sum((port) => port.rxFillRingEmpty),
    );
    this.raise(
      columns.xdp_tx_ring_full,
      sum((port) => port.txRingFull),
    );
    this.raise(columns.xdp_tx_closed, sum((port) => port.txClosed) + this.driver.txUnsent);
    this.raise(
      columns.xdp_tx_invalid,
      sum((port) => port.txInvalid + port.txInvalidDescriptors),
    );
    this.raise(
      columns.xdp_kick_errors,
      sum((port) => port.kickErrors),
    );
  }

  private raise(column: number, count: number): void {
    this.row[column] += count - (this.added.get(column) ?? 0);
    this.added.set(column, count);
  }
}

/**
 * Reads and resets a counter. Main may have closed it since the port board named it. Its interface
 * is then gone, and its frames are not counted.
 */
function taken(fd: number): number {
  if (fd === -1) return 0;
  try {
    return bpfCounterTake(fd);
  } catch (error) {
    if (isNativeError(error, 'EBADF')) return 0;
    throw error;
  }
}
