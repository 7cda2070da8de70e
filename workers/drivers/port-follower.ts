/**
 * Keeps a worker's sockets in step with the port board. It closes the sockets of an attachment that
 * has ended, and opens those of the current one. It runs between batches and never waits: a port
 * that cannot be opened now is retried at the next call.
 */

import { type PortBoardReader, PortState } from '../../shm/port-board.js';
import { interfaceFacts, isNativeError } from '../native/index.js';
import type { AfXdpDriver } from './af-xdp.js';
import { queuesOfWorker } from './queues.js';
import { PASSING } from './xsk-sockets.js';

/**
 * A failure is reported if it lasts this long, in milliseconds. While an interface is deleted and
 * recreated, this worker may read facts of one interface and bind to the other: a queue is missing,
 * or the map belongs to another interface. Main will soon publish the change.
 */
const PATIENCE_MS = 1_000;

interface PortFollowerOptions {
  readonly driver: AfXdpDriver;
  readonly facts: PortBoardReader;
  /** Interfaces of the ports. */
  readonly interfaces: readonly string[];
  readonly worker: number;
  readonly workers: number;
  /**
   * Logs a sentence. If an attachment cannot be served for a while, it is called once per reason.
   */
  readonly report: (problem: string) => void;
  readonly patienceMs?: number;
}

export class PortFollower {
  private readonly options: PortFollowerOptions;
  /** By port: the attachment that its sockets belong to. 0: the port has no sockets. */
  private readonly serving: Int32Array;
  private readonly reported = new Set<string>();
  /** By port: the attachment that could not be opened, and since when. */
  private readonly failing: Int32Array;
  private readonly failingSince: Float64Array;

  /** The driver's open sockets must be those of the attachments on the board. */
  constructor(options: PortFollowerOptions) {
    this.options = options;
    const { driver, facts } = options;
    this.serving = new Int32Array(facts.ports);
    this.failing = new Int32Array(facts.ports);
    this.failingSince = new Float64Array(facts.ports);
    for (let port = 0; port < facts.ports; port++) this.serve(port, driver.isOpen(port) ? facts.attachment[port] : 0);
  }

  /** Called after the board changed, and a few times a second. */
  follow(): void {
    const { driver, facts } = this.options;
    for (let port = 0; port < facts.ports; port++) {
      const wanted = facts.mapFd[port] === -1 ? 0 : facts.attachment[port];
      if (this.serving[port] === wanted && driver.isOpen(port) === (wanted !== 0)) continue;
      this.serve(port, 0);
      driver.closePort(port, facts.state[port] === PortState.GONE);
      if (wanted !== 0) this.open(port, wanted);
    }
  }

  /** Called when the driver found that a port's interface is gone, and has closed its sockets. */
  lost(port: number): void {
    this.serve(port, 0);
  }

  private open(port: number, attachment: number): void {
    const { driver, facts, interfaces, worker, workers, report } = this.options;
    const name = interfaces[port];
    try {
      const queues = queuesOfWorker(interfaceFacts(name).queues, worker, workers);
      if (queues.length === 0) return; // main reports this
      driver.openPort(port, queues, facts.mapFd[port]);
    } catch (error) {
      if (!isNativeError(error)) throw error;
      const key = `${attachment} ${error.message}`;
      // These failures are temporary: the queue's last socket is being released, or main will soon
      // publish the change.
      const { code } = error;
      if (PASSING.has(code) || code === 'ENODEV' || code === 'EBADF' || this.reported.has(key)) return;
      if (!this.lasts(port, attachment)) return;
      if (this.reported.size < 1000) this.reported.add(key);
      report(`port ${port} (${name}) is not open yet: ${error.message}`);
      return;
    }
    this.serve(port, attachment);
  }

  /** Notes a failure. Returns whether the attachment has failed for long enough to report it. */
  private lasts(port: number, attachment: number): boolean {
    const { patienceMs = PATIENCE_MS } = this.options;
    const now = performance.now();
    if (this.failing[port] !== attachment) {
      this.failing[port] = attachment;
      this.failingSince[port] = now;
    }
    return now - this.failingSince[port] >= patienceMs;
  }

  private serve(port: number, attachment: number): void {
    this.serving[port] = attachment;
    this.options.facts.serve(port, attachment);
  }
}
