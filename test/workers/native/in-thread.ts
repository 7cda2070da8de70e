/**
 * Runs a function of a test in a thread of its own, with the native binding; the thread has ended
 * when it returns.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type * as Native from '../../../workers/native/index.js';

const BINDING = new URL('../../../workers/native/index.js', import.meta.url).href;

/** `work` is sent as its source: it sees nothing but its arguments and globals. */
export async function inThread<R, A = undefined>(
  work: (native: typeof Native, argument: A) => R,
  argument?: A,
): Promise<Awaited<R>> {
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(${JSON.stringify(BINDING)}).then(async (native) => {
      parentPort.postMessage(await (${work.toString()})(native, workerData));
    });`;
  const worker = new Worker(source, { eval: true, workerData: argument });
  const ended = once(worker, 'exit');
  const [message] = (await once(worker, 'message')) as [Awaited<R>];
  await ended;
  return message;
}
