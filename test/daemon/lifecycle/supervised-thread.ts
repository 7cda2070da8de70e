/** A thread for the supervisor's tests: counts in shared memory, and misbehaves as told. */

import { threadId } from 'node:worker_threads';
import { Control, Phase, ThreadState } from '../../../shm/control.js';

export interface SupervisedTask {
  readonly thread: number;
  readonly control: SharedArrayBuffer;
  /**
   * [0] what to do: 0 run, 1 throw, 2 hang, 3 throw and then hang while starting again, once; [1]
   * rounds done; [2] lives.
   */
  readonly words: SharedArrayBuffer;
  readonly failAtStart?: boolean;
  /** How long it takes to start, before it says which worker it is; and after that. */
  readonly startMs?: readonly [number, number];
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export default async function run(task: SupervisedTask): Promise<void> {
  const control = new Control(task.control);
  const words = new Int32Array(task.words);
  if (task.failAtStart) throw new Error('no such interface');
  const [before, after] = task.startMs ?? [0, 0];
  if (before > 0) await sleep(before);
  control.setPlace(task.thread, { core: -1, tid: 0, worker: threadId });
  if (after > 0) await sleep(after);
  if (Atomics.exchange(words, 3, 0) === 1) for (;;) words[1]++;
  Atomics.add(words, 2, 1);
  control.setState(task.thread, ThreadState.READY);
  while (control.phase !== Phase.STOP) {
    control.beat(task.thread);
    words[1]++;
    const order = Atomics.exchange(words, 0, 0);
    if (order === 3) Atomics.store(words, 3, 1);
    if (order === 1 || order === 3) throw new Error('told to fail');
    if (order === 2) for (;;) words[1]++;
    Atomics.wait(words, 0, 0, 5);
  }
  control.setState(task.thread, ThreadState.STOPPED);
}
