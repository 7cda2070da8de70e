/**
 * A thread that changes two words one after the other, between two looks at the barrier, in one of
 * the ways threads do: a worker in rounds, one that sleeps in between, the receive thread with
 * events, and the last one, which settles.
 */

import { workerData } from 'node:worker_threads';
import { Control, ThreadState } from '../../shm/control.js';

export type Behaviour = 'rounds' | 'naps' | 'events' | 'last' | 'deaf' | 'dies';

export interface BarrierTask {
  readonly thread: number;
  readonly behaviour: Behaviour;
  readonly control: SharedArrayBuffer;
  /** Two words a thread, equal while it is between two steps; then a word that ends all. */
  readonly words: SharedArrayBuffer;
  readonly threads: number;
}

const { thread, behaviour, control: buffer, words: memory, threads } = workerData as BarrierTask;
const control = new Control(buffer);
const { barrier } = control;
const words = new Int32Array(memory);
const sleeper = new Int32Array(new SharedArrayBuffer(4));

const goesOn = (): boolean => Atomics.load(words, 2 * threads) === 0;

function step(): void {
  words[2 * thread]++;
  for (let i = 0; i < 500; i++) sleeper[0] = i;
  words[2 * thread + 1]++;
}

barrier.enter(thread);
control.setState(thread, ThreadState.READY);
if (behaviour === 'rounds')
  while (goesOn()) {
    if (barrier.pausing) barrier.enter(thread);
    step();
  }
else if (behaviour === 'naps')
  while (goesOn()) {
    step();
    barrier.leave(thread);
    Atomics.wait(sleeper, 0, -1, 0);
    Atomics.wait(sleeper, 0, sleeper[0], 1);
    barrier.enter(thread);
  }
else if (behaviour === 'deaf') while (goesOn()) step();
else if (behaviour === 'dies') {
  // On a busy machine the thread may miss the meeting.
  while (goesOn() && !barrier.pausing) step();
  process.exit(1);
} else if (behaviour === 'events') {
  barrier.leave(thread);
  while (goesOn()) {
    await new Promise((resolve) => setImmediate(resolve));
    barrier.enter(thread);
    step();
    barrier.leave(thread);
  }
} else {
  const alive = setInterval(() => {}, 1000); // a wait for the bell alone keeps no event loop alive
  while (goesOn()) {
    const seen = control.bell;
    // What it settles shows that everybody else stood before it: the sum of what they had done.
    if (barrier.wanted)
      barrier.attend(() => {
        let sum = 0;
        for (let other = 0; other < 2 * threads; other++) if (other >> 1 !== thread) sum += words[other];
        words[2 * thread] = words[2 * thread + 1] = sum;
        return true;
      });
    await control.waitBell(seen, 20);
  }
  clearInterval(alive);
}
