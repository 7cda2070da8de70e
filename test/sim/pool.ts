/**
 * Runs many seeds on several threads. A run depends only on its seed, and outcomes are reported in
 * the order of the seeds. So the number of threads changes nothing but the time it takes.
 */

import { Worker } from 'node:worker_threads';
import type { Outcome } from './world.js';

export interface LivesOptions {
  /** The profile of all runs; default: all in turn. */
  readonly profile?: string | undefined;
  /** Members of each cluster; default: drawn. */
  readonly members?: number | undefined;
}

export interface Lived {
  readonly seed: number;
  readonly profile: string;
  readonly outcome: Outcome;
}

/** Seeds queued per thread, so that it never waits for the next one. */
const IN_HAND = 2;
/** Most runs that may be finished while an earlier one is not. */
const AHEAD = 256;

export interface Sweep extends LivesOptions {
  readonly from: number;
  readonly seeds: number;
  readonly jobs: number;
  /** Called in the order of the seeds. Return false to stop. */
  readonly lived: (lived: Lived) => boolean;
}

/**
 * Resolves when all seeds have run, or when `lived` returns false. Rejects with the error of a
 * thread.
 */
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
