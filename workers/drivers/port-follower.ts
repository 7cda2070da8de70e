/**
 * Keeps a worker's sockets in step with the port board: closes those of an attachment that is over,
 * opens those of the present one. Between batches, and without waiting: what cannot be opened now
 * is tried again at the next call.
 */

import { type PortBoardReader, PortState } from '../../shm/port-board.js';
import { interfaceFacts, isNativeError } from '../native/index.js';
import type { AfXdpDriver } from './af-xdp.js';
import { queuesOfWorker } from './queues.js';
import { PASSING } from './xsk-sockets.js';

/**
 * A failure is reported if it lasts so long. While an interface is deleted and created again, what
 * this worker reads of it and what it binds to may be two interfaces: a queue is missing, or a map
 * is another's. Main is about to say that all has changed.
 */
const PATIENCE_MS = 1_000;

export interface PortFollowerOptions {
  readonly driver: AfXdpDriver;
  readonly facts: PortBoardReader;
  /** Interfaces of the ports. */
  readonly interfaces: readonly string[];
  readonly worker: number;
  readonly workers: number;
  /**
   * Takes a sentence for the log; of an attachment that cannot be served for a while, once for each
   * reason.
   */
  readonly report: (problem: string) => void;
  readonly patienceMs?: number;
}

export class PortFollower {
  private readonly options: PortFollowerOptions;
  /** By port: the attachment that its sockets are of; 0: it has none. */
  private readonly serving: Int32Array;
  private readonly reported = new Set<string>();
  /** By port: the attachment that could not be opened, and since when. */
  private readonly failing: Int32Array;
  private readonly failingSince: Float64Array;

  /** The driver's sockets are those of the attachments on the board. */
  constructor(options: PortFollowerOptions) {
    this.options = options;
    const { driver, facts } = options;
    this.serving = new Int32Array(facts.ports);
    this.failing = new Int32Array(facts.ports);
    this.failingSince = new Float64Array(facts.ports);
    for (let port = 0; port < facts.ports; port++) this.serve(port, driver.isOpen(port) ? facts.attachment[port] : 0);
  }

  /** After the board changed, and a few times a second. */
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

  /** The driver found that a port's interface is gone, and closed its sockets. */
  lost(port: number): void {
    this.serve(port, 0);
  }

  private open(port: number, attachment: number): void {
    const { driver, facts, interfaces, worker, workers, report } = this.options;
    const name = interfaces[port];
    try {
      const queues = queuesOfWorker(interfaceFacts(name).queues, worker, workers);
      if (queues.length === 0) return; // main says so
      driver.openPort(port, queues, facts.mapFd[port]);
    } catch (error) {
      if (!isNativeError(error)) throw error;
      const key = `${attachment} ${error.message}`;
      // Both pass by themselves: the queue's last socket is being released, and main is about to
      // say that all has changed.
      const { code } = error;
      if (PASSING.has(code) || code === 'ENODEV' || code === 'EBADF' || this.reported.has(key)) return;
      if (!this.lasts(port, attachment)) return;
      if (this.reported.size < 1000) this.reported.add(key);
      report(`port ${port} (${name}) is not open yet: ${error.message}`);
      return;
    }
    this.serve(port, attachment);
  }

  /** Notes a failure; true if the attachment could not be opened for so long. */
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
