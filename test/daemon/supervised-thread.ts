/** A thread for the supervisor's tests: counts in shared memory, and misbehaves as told. */

import { threadId } from 'node:worker_threads';
import { Control, Phase, ThreadState } from '../../shm/control.js';

export interface SupervisedTask {
  readonly thread: number;
  readonly control: SharedArrayBuffer;
  /** [0] what to do: 0 run, 1 throw, 2 hang; [1] rounds done; [2] lives. */
  readonly words: SharedArrayBuffer;
  readonly failAtStart?: boolean;
}

export default async function run(task: SupervisedTask): Promise<void> {
  const control = new Control(task.control);
  const words = new Int32Array(task.words);
  if (task.failAtStart) throw new Error('no such interface');
  control.setPlace(task.thread, { core: -1, tid: 0, worker: threadId });
  Atomics.add(words, 2, 1);
  control.setState(task.thread, ThreadState.READY);
  while (control.phase !== Phase.STOP) {
    control.beat(task.thread);
    words[1]++;
    const order = Atomics.exchange(words, 0, 0);
    if (order === 1) throw new Error('told to fail');
    if (order === 2) for (;;) words[1]++;
    Atomics.wait(words, 0, 0, 5);
  }
  control.setState(task.thread, ThreadState.STOPPED);
}
