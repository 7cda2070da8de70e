/**
 * A send or receive thread of a test instance: what `workers/engine/thread.ts` does, with a test's
 * state objects.
 */

import { isMainThread, workerData } from 'node:worker_threads';
import { Control, ThreadState } from '../../../shm/control.js';
import { MetricCatalogue, Metrics } from '../../../shm/metrics.js';
import type { Delivery, StateObject } from '../../../shm/objects/core/object.js';
import { ReceiveAgent } from '../../../workers/engine/receive.js';
import { SendAgent } from '../../../workers/engine/send.js';
import { REPLICATION_METRICS } from '../../../workers/replication/metrics.js';
import type { ReplicationSettings } from '../../../workers/replication/settings.js';
import { type Faults, FaultyReceiver } from '../../../workers/transport/fault.js';
import { receiveTransport } from '../../../workers/transport/open.js';
import { Tally } from '../../support/tally.js';

export interface TestBuffers {
  readonly control: SharedArrayBuffer;
  readonly metrics: SharedArrayBuffer;
  readonly ackBoard: SharedArrayBuffer;
  readonly sealBoard: SharedArrayBuffer | null;
  readonly rejects: SharedArrayBuffer;
  readonly unitLogs: SharedArrayBuffer;
  readonly foreignLogs: SharedArrayBuffer;
  readonly logs: readonly SharedArrayBuffer[];
  readonly tallies: readonly SharedArrayBuffer[];
}

export interface AgentTask {
  readonly role: 'send' | 'receive';
  readonly settings: ReplicationSettings;
  readonly buffers: TestBuffers;
  readonly deliveries: readonly Delivery[];
  readonly faults: Faults | null;
}

export const SEND = 0;
export const RECEIVE = 1;
export const THREADS = 2;

/** The threads of a `TestInstance` have tallies; a benchmark brings objects of its own. */
export async function runAgent(task: AgentTask, objects: readonly StateObject[] = tallies(task)): Promise<void> {
  const { role, settings, buffers, faults } = task;
  const control = new Control(buffers.control);
  const metrics = new Metrics(new MetricCatalogue(REPLICATION_METRICS), buffers.metrics, THREADS);
  const thread = role === 'send' ? SEND : RECEIVE;
  const { ackBoard, sealBoard, rejects, unitLogs, foreignLogs, logs } = buffers;
  const common = { settings, meaningHash: [1, 2] as const, objects, ackBoard, foreignLogs, sealBoard };
  const shared = { ...common, control, metrics, thread };
  const inner = role === 'receive' && faults !== null ? receiveTransport(settings, objects.length) : null;
  const agent =
    role === 'send'
      ? new SendAgent({ ...shared, logs, unitLogs })
      : new ReceiveAgent({
          ...shared,
          rejects,
          ...(inner && faults && { transport: new FaultyReceiver(inner, faults) }),
        });
  await agent.onStart();
  control.setState(thread, ThreadState.READY);
  await agent.run();
  await agent.onClose();
  control.setState(thread, ThreadState.STOPPED);
}

function tallies({ deliveries, buffers }: AgentTask): StateObject[] {
  return deliveries.map((delivery, id) => new Tally(id, delivery, buffers.tallies[id]));
}

if (!isMainThread && workerData?.role !== undefined) await runAgent(workerData as AgentTask);
