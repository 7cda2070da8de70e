/**
 * A thread of a busy site: as any other, but that a data plane worker's packets come from memory.
 */

import { workerData } from 'node:worker_threads';
import { ThreadState } from '../../../shm/control.js';
import { Instance } from '../../../workers/engine/instance.js';
import run, { runWorker, type ThreadTask } from '../../../workers/engine/thread.js';
import { PacedDriver, TALLY_WORDS } from '../../support/paced-driver.js';
import { frame } from '../support/frames.js';

export interface BusyTask extends ThreadTask {
  readonly packetsPerSecond: number;
  /** Per worker: packets taken and lost, and whether none is taken now (f64). */
  readonly tallies: SharedArrayBuffer;
}

async function work({ thread, plan, buffers, packetsPerSecond, tallies }: BusyTask): Promise<void> {
  const instance = await Instance.open(plan, buffers);
  const frames = [{ port: 0, frame: frame('udp 10.0.0.5:4000 > 198.51.100.7:53') }];
  const driver = new PacedDriver(
    frames,
    packetsPerSecond,
    new Float64Array(tallies, thread * TALLY_WORDS * 8, TALLY_WORDS),
  );
  instance.control.barrier.enter(thread);
  await runWorker(instance, thread, () => ({ driver, note: () => {}, follow: () => {} }));
  instance.control.setState(thread, ThreadState.STOPPED);
}

const task = workerData as BusyTask;
await (task.thread < task.plan.workerCores.length ? work(task) : run(task));
