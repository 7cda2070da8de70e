/**
 * The thread of the NAT benchmark: one worker with one data plane, as in the daemon. A second data
 * plane in the thread would reuse the functions compiled for the first, and V8 would no longer
 * treat their arrays as constants (see FlowSlots.finder2).
 */

import { parentPort, workerData } from 'node:worker_threads';
import { NatBench } from './nat-bench.js';

export interface NatWork {
  readonly flows: number;
}

const bench = new NatBench((workerData as NatWork).flows);
parentPort?.postMessage('ready');
parentPort?.on('message', (ms: number) => {
  const ns = bench.work(ms);
  bench.check();
  parentPort?.postMessage(ns);
});
