/**
 * An instance of replication alone: its shared memory, its two threads, and the test as its one
 * data plane worker.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { AckBoard, createAckBoard } from '../../../shm/ack-board.js';
import { Control, createControl, Phase, ThreadState } from '../../../shm/control.js';
import { createLogRing, LogConsumer, LogProducer } from '../../../shm/log.js';
import { MetricCatalogue, Metrics } from '../../../shm/metrics.js';
import { NONE } from '../../../shm/none.js';
import type { Delivery } from '../../../shm/objects/core/object.js';
import { createRejectTable } from '../../../shm/reject-table.js';
import { createSealBoard, type SealKey } from '../../../shm/seal-board.js';
import { monotonicMs } from '../../../workers/base/monotonic.js';
import { readPeers } from '../../../workers/replication/membership/peers.js';
import { REPLICATION_METRICS } from '../../../workers/replication/metrics.js';
import { newIncarnation, type ReplicationSettings } from '../../../workers/replication/settings.js';
import { createForeignLogs } from '../../../workers/replication/units/foreign-log.js';
import { createUnitLogs } from '../../../workers/replication/units/unit-log.js';
import type { Faults } from '../../../workers/transport/fault.js';
import { COUNT, Tally } from '../../support/tally.js';
import { type AgentTask, RECEIVE, SEND, type TestBuffers, THREADS } from './agent-thread.js';

const WAIT_MS_MAX = 50_000;

export class TestInstance {
  readonly settings: ReplicationSettings;
  readonly metrics: Metrics;
  readonly control: Control;
  readonly tallies: readonly Tally[];
  readonly buffers: TestBuffers;
  private readonly log: LogProducer;
  private readonly deliveries: readonly Delivery[];
  private readonly faults: Faults | null;
  private readonly threads: (Worker | null)[] = [null, null];

  constructor(
    settings: ReplicationSettings,
    deliveries: readonly Delivery[],
    numbers: number,
    faults: Faults | null,
    keys: readonly SealKey[] | null = null,
  ) {
    const catalogue = new MetricCatalogue(REPLICATION_METRICS);
    this.settings = settings;
    this.deliveries = deliveries;
    this.faults = faults;
    this.buffers = {
      control: createControl(THREADS),
      metrics: new SharedArrayBuffer(catalogue.bytes(THREADS)),
      ackBoard: createAckBoard(deliveries.length, settings.slots, newIncarnation()),
      sealBoard: keys === null ? null : createSealBoard(settings.slots, keys),
      rejects: createRejectTable(),
      unitLogs: createUnitLogs(deliveries.length, settings.unitLogBytes),
      foreignLogs: createForeignLogs(deliveries.length, settings.slots, settings.foreignLogBytes),
      logs: [createLogRing(1 << 14)],
      tallies: deliveries.map(() => Tally.memory(numbers)),
    };
    this.metrics = new Metrics(catalogue, this.buffers.metrics, THREADS);
    this.control = new Control(this.buffers.control);
    this.tallies = deliveries.map((delivery, id) => new Tally(id, delivery, this.buffers.tallies[id]));
    this.log = new LogProducer(this.buffers.logs[0]);
  }

  async start(): Promise<void> {
    await this.startThread(RECEIVE);
    await this.startThread(SEND);
  }

  async startThread(thread: number): Promise<void> {
    const { settings, buffers, deliveries, faults } = this;
    const task: AgentTask = { role: thread === SEND ? 'send' : 'receive', settings, buffers, deliveries, faults };
    const worker = new Worker(new URL('agent-thread.js', import.meta.url), { workerData: task });
    this.threads[thread] = worker;
    let failure: unknown = null;
    worker.on('error', (error) => {
      failure = error;
    });
    while (this.control.state(thread) !== ThreadState.READY) {
      if (failure !== null) throw failure;
      await sleep(5);
    }
  }

  /** Ends a thread as abruptly as Node can. */
  async kill(thread: number): Promise<void> {
    await this.threads[thread]?.terminate();
    this.threads[thread] = null;
    this.control.setState(thread, ThreadState.ABSENT);
  }

  /** One operation, as a worker would log it; false when the log is full. */
  count(object: number, number: number): boolean {
    const at = this.log.claim(object, COUNT, 1);
    if (at === NONE) return false;
    this.log.words[at] = number;
    this.log.commit();
    return true;
  }

  publish(): void {
    if (this.log.publish()) this.control.ring();
  }

  /**
   * Logs the numbers `from … to` on every object, waiting where the log is full, and a moment after
   * every `pauseAfter`.
   */
  async logNumbers(from: number, to: number, pauseAfter: number): Promise<void> {
    for (let number = from; number < to; number++) {
      for (let object = 0; object < this.deliveries.length; object++)
        while (!this.count(object, number)) {
          this.publish();
          await sleep(1);
        }
      if (number % 32 === 0) this.publish();
      if (number % pauseAfter === 0) await sleep(1);
    }
    this.publish();
  }

  get settled(): boolean {
    if (this.buffers.logs.some((log) => new LogConsumer(log).backlog !== 0)) return false;
    return readPeers(new AckBoard(this.buffers.ackBoard), this.settings, monotonicMs()).every(
      (peer) => peer.unacknowledged === 0,
    );
  }

  async stop(): Promise<void> {
    this.control.setPhase(Phase.STOP);
    await Promise.all(
      this.threads.map(async (worker) => {
        if (worker !== null && worker.threadId !== -1) await once(worker, 'exit');
      }),
    );
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = Date.now() + WAIT_MS_MAX;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${what} did not come about`);
    await sleep(10);
  }
}
