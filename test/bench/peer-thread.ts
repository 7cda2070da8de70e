/** The send or receive thread of a member of the replication benchmark. */

import { isMainThread, workerData } from 'node:worker_threads';
import { threadName } from '../../workers/native/index.js';
import { type AgentTask, runAgent } from '../workers/replication/agent-thread.js';
import { openFlows, type PeerMemory, Stamps } from './peer-objects.js';

export interface PeerThread {
  readonly task: AgentTask;
  readonly memory: PeerMemory;
}

if (!isMainThread && workerData?.memory !== undefined) {
  const { task, memory } = workerData as PeerThread;
  threadName(`ct-${task.role}`);
  await runAgent(task, [openFlows(memory, task.role === 'send' ? undefined : null), new Stamps(memory)]);
}
