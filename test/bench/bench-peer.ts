/**
 * A member of the replication benchmark: its memory and its two threads. The calling thread is its
 * worker.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { AckBoard, createAckBoard } from '../../shm/ack-board.js';
import { coarseSeconds } from '../../shm/clock.js';
import { Control, createControl, Phase, ThreadState } from '../../shm/control.js';
import { createLogRing, LogConsumer, LogProducer } from '../../shm/log.js';
import { MetricCatalogue, Metrics } from '../../shm/metrics.js';
import { NONE } from '../../shm/none.js';
import { KEY_WORDS_IPV4_FIVE_TUPLE } from '../../shm/objects/flow/flow-table.js';
import { createRejectTable } from '../../shm/reject-table.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import { readPeers } from '../../workers/replication/membership/peers.js';
import { REPLICATION_METRICS } from '../../workers/replication/metrics.js';
import { newIncarnation, replicationSettings } from '../../workers/replication/settings.js';
import { createForeignLogs } from '../../workers/replication/units/foreign-log.js';
import { createUnitLogs } from '../../workers/replication/units/unit-log.js';
import { RECEIVE, SEND, THREADS } from '../workers/replication/agent-thread.js';
import { pause, threadCpuNs } from './af-xdp-bed.js';
import { createPeerMemory, FLOWS_MAX, openFlows, Stamps } from './peer-objects.js';
import type { PeerThread } from './peer-thread.js';

const OBJECTS = 2;
const PORT = 7000;
const LOG_WORDS = 1 << 18;
const UNIT_LOG_BYTES = 32 << 20;
/** Half as many flows as the table holds, so that none is refused. */
const KEYS = FLOWS_MAX / 2;
const BATCH = 64;
/** Interval of looks at the clock, ms. */
const TURN_MS = 1;
const TIMEOUT_S = 3600;

export interface PeerFigures {
  /** Records of flows added here. */
  readonly added: number;
  /**
   * Records that the other member has not acknowledged, plus words that were not yet drained from
   * the log.
   */
  readonly owed: number;
  readonly sentBytes: number;
  readonly sentMessages: number;
  readonly sendNs: number;
  readonly receiveNs: number;
}

/** Time that records took, in microseconds: median, 99th percentile and maximum. */
export interface Lag {
  readonly median: number;
  readonly p99: number;
  readonly most: number;
}

export class BenchPeer {
  private readonly memory = createPeerMemory();
  private readonly control: Control;
  private readonly metrics: Metrics;
  private readonly log: LogProducer;
  private readonly flows;
  private readonly stamps: Stamps;
  private readonly task: Omit<PeerThread['task'], 'role'>;
  private readonly workers: Worker[] = [];
  private added = 0;

  constructor(self: number, addresses: readonly string[]) {
    const members = addresses.map((address, i) => ({ id: i + 1, name: `peer-${i}`, address, port: PORT }));
    const settings = replicationSettings({
      clusterId: 1,
      self: self + 1,
      members,
      unitLogBytes: UNIT_LOG_BYTES,
    });
    const catalogue = new MetricCatalogue(REPLICATION_METRICS);
    const ring = createLogRing(LOG_WORDS);
    const control = createControl(THREADS);
    this.control = new Control(control);
    const buffers = {
      control,
      metrics: new SharedArrayBuffer(catalogue.bytes(THREADS)),
      ackBoard: createAckBoard(OBJECTS, members.length, newIncarnation()),
      sealBoard: null,
      rejects: createRejectTable(),
      unitLogs: createUnitLogs(OBJECTS, UNIT_LOG_BYTES),
      foreignLogs: createForeignLogs(OBJECTS, members.length, settings.foreignLogBytes),
      logs: [ring],
      tallies: [],
    };
    this.task = { settings, buffers, deliveries: [], faults: null };
    this.metrics = new Metrics(catalogue, buffers.metrics, THREADS);
    this.log = new LogProducer(ring);
    this.flows = openFlows(this.memory, this.log);
    this.stamps = new Stamps(this.memory);
  }

  async start(): Promise<void> {
    for (const [thread, role] of [
      [RECEIVE, 'receive'],
      [SEND, 'send'],
    ] as const) {
      const workerData: PeerThread = { task: { ...this.task, role }, memory: this.memory };
      const worker = new Worker(new URL('peer-thread.js', import.meta.url), { workerData });
      worker.on('error', (error) => {
        throw error;
      });
      this.workers.push(worker);
      while (this.control.state(thread) !== ThreadState.READY) await pause(5);
    }
  }

  /** Adds `rate` flows per second (0: as fast as the log takes them), and a stamp per turn. */
  async load(rate: number, seconds: number): Promise<void> {
    const key = new Int32Array(KEY_WORDS_IPV4_FIVE_TUPLE);
    const value = Int32Array.of(1, 2);
    const start = performance.now();
    const end = start + seconds * 1000;
    const first = this.added;
    for (let now = start; now < end; now = performance.now()) {
      const coarse = coarseSeconds(Date.now());
      const due = rate === 0 ? Number.POSITIVE_INFINITY : first + ((now - start) * rate) / 1000;
      const turnEnd = now + TURN_MS;
      while (this.added < due && this.addBatch(key, value, coarse) && performance.now() < turnEnd);
      Stamps.log(this.log);
      if (this.log.publish()) this.control.ring();
      await pause(rate === 0 ? 0 : TURN_MS);
    }
  }

  /** Returns false if the log is full. */
  private addBatch(key: Int32Array, value: Int32Array, now: number): boolean {
    const { flows, log } = this;
    for (let i = 0; i < BATCH; i++) {
      const number = this.added % KEYS;
      // Each pass raises the rank of every flow by one, which is one record, like an add.
      const rank = 1 + Math.floor(this.added / KEYS);
      key[0] = 0x0a000000 + (number >>> 10);
      key[1] = number;
      const hash = flows.hash(key, 0);
      const slot = flows.find(hash, key, 0, now);
      const done =
        slot === NONE
          ? flows.add(hash, key, 0, value, 0, rank, now, now + TIMEOUT_S) !== NONE
          : flows.refresh(slot, rank, now, TIMEOUT_S);
      if (!done) return false;
      this.added++;
    }
    if (log.publish()) this.control.ring();
    return true;
  }

  figures(): PeerFigures {
    const { metrics, task } = this;
    const [{ unacknowledged }] = readPeers(new AckBoard(task.buffers.ackBoard), task.settings, monotonicMs());
    return {
      added: this.added,
      owed: unacknowledged + new LogConsumer(task.buffers.logs[0]).backlog,
      sentBytes: metrics.total('state_tx_bytes'),
      sentMessages: metrics.total('state_tx_messages'),
      sendNs: threadCpuNs(process.pid, 'ct-send'),
      receiveNs: threadCpuNs(process.pid, 'ct-receive'),
    };
  }

  /** Lag of the other member's stamps since the last call; null if there were none. */
  lag(): Lag | null {
    const samples = this.stamps.take();
    const at = (part: number): number => samples[Math.min(samples.length - 1, Math.floor(samples.length * part))];
    return samples.length === 0 ? null : { median: at(0.5), p99: at(0.99), most: at(1) };
  }

  async stop(): Promise<void> {
    this.control.setPhase(Phase.STOP);
    await Promise.all(this.workers.map((worker) => (worker.threadId === -1 ? null : once(worker, 'exit'))));
  }
}
