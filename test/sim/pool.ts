/**
 * Lives many seeds on several threads. A life depends on its seed alone, and what came of the lives
 * is handed on in the order of the seeds, so the number of threads changes nothing but the time it
 * takes.
 */

import { Worker } from 'node:worker_threads';
import type { Outcome } from './world.js';

export interface LivesOptions {
  /** Only lives of this kind; default: all in turn. */
  readonly profile?: string | undefined;
  /** Members of each cluster; default: drawn. */
  readonly members?: number | undefined;
}

export interface Lived {
  readonly seed: number;
  readonly profile: string;
  readonly outcome: Outcome;
}

/** Seeds each thread has in hand, so that it need not wait for the next. */
const IN_HAND = 2;
/** Lives that wait for an earlier one at most. */
const AHEAD = 256;

export interface Sweep extends LivesOptions {
  readonly from: number;
  readonly seeds: number;
  readonly jobs: number;
  /** Called in the order of the seeds. False: that is enough. */
  readonly lived: (lived: Lived) => boolean;
}

/** Resolves when all have lived, or it was enough. Rejects with what a thread failed with. */
export function liveAll({ from, seeds, jobs, lived, profile, members }: Sweep): Promise<void> {
  const end = from + seeds;
  const waiting = new Map<number, Lived>();
  let given = from;
  let next = from;
  return new Promise((resolve, reject) => {
    const threads = Array.from(
      { length: Math.min(jobs, seeds) },
      () => new Worker(new URL('./lives-thread.js', import.meta.url), { workerData: { profile, members } }),
    );
    const inHand = new Map(threads.map((thread) => [thread, 0]));
    const give = (): void => {
      for (const [thread, seeds] of inHand)
        for (let i = seeds; i < IN_HAND && given < end && given < next + AHEAD; i++) {
          inHand.set(thread, i + 1);
          thread.postMessage(given++);
        }
    };
    let isOver = false;
    const finish = (done: () => void): void => {
      isOver = true;
      void Promise.all(threads.map((thread) => thread.terminate())).then(done);
    };
    for (const thread of threads) {
      thread.on('error', (error) => finish(() => reject(error)));
      thread.on('message', (message: Lived) => {
        if (isOver) return;
        waiting.set(message.seed, message);
        inHand.set(thread, (inHand.get(thread) as number) - 1);
        for (let first = waiting.get(next); first !== undefined; first = waiting.get(next)) {
          waiting.delete(next++);
          if (lived(first) && next < end) continue;
          finish(resolve);
          return;
        }
        give();
      });
    }
    give();
  });
}
