/**
 * The NAT benchmark's own thread: one worker, one data plane, as in the daemon. (A second one in a
 * thread would find the functions made for the first, and V8 would no longer take their arrays for
 * constants: see FlowSlots.finder2.)
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
