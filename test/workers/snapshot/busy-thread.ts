/** A thread of a busy site: what `workers/thread.ts` does, but that a data plane worker's packets come from memory. */

import { workerData } from 'node:worker_threads';
import { Phase, ThreadState } from '../../../shm/control.js';
import { LogProducer } from '../../../shm/log.js';
import { Batch } from '../../../workers/batch.js';
import { openProcesses } from '../../../workers/chain.js';
import { DataPlane } from '../../../workers/data-plane.js';
import { Instance, writerId } from '../../../workers/instance.js';
import run, { type ThreadTask } from '../../../workers/thread.js';
import { PacedDriver } from '../../support/paced-driver.js';
import { frame } from '../support/frames.js';

export interface BusyTask extends ThreadTask {
  readonly packetsPerSecond: number;
  /** Per worker: packets taken and lost (f64). */
  readonly tallies: SharedArrayBuffer;
}

async function work({ thread, plan, buffers, packetsPerSecond, tallies }: BusyTask): Promise<void> {
  const instance = await Instance.open(plan, buffers);
  const { control, declaration, metrics } = instance;
  const { catalogue } = metrics;
  const row = metrics.row(thread);
  const tally = new Float64Array(tallies, thread * 16, 2);
  const log = new LogProducer(buffers.logs[thread]);
  const objects = instance.openObjects({ id: writerId(thread), journal: instance.journal(thread), log });
  const frames = [{ port: 0, frame: frame('udp 10.0.0.5:4000 > 198.51.100.7:53') }];
  const driver = new PacedDriver(frames, packetsPerSecond);
  const batch = new Batch(driver.memory, row);
  const draining = (): boolean => control.phase !== Phase.RUN;
  const processes = openProcesses(declaration, objects, { batch, catalogue, ports: 2, draining });
  const shared = { driver, batch, ports: 2, processes, log, control, thread, catalogue, row, router: null };
  const plane = new DataPlane({ ...shared, idle: 'sleep' });
  const { doWork } = plane;
  plane.doWork = () => {
    const done = doWork.call(plane);
    tally[0] = driver.taken;
    tally[1] = driver.lost;
    return done;
  };
  control.barrier.enter(thread);
  control.setState(thread, ThreadState.READY);
  plane.run();
  control.setState(thread, ThreadState.STOPPED);
}

const task = workerData as BusyTask;
await (task.thread < task.plan.workerCores.length ? work(task) : run(task));
