/** A thread of the middlebox benchmark: one middlebox under one load, timed on request. */

import { parentPort, workerData } from 'node:worker_threads';
import { threadCpuTime } from '../../workers/native/index.js';
import { BATCH_CAPACITY } from '../../workers/packet/batch.js';
import { INSIDE, OUTSIDE, shipped } from '../support/shipped.js';
import { Site } from '../workers/support/site.js';
import { FlowDriver } from './flow-driver.js';
import { answer, udp } from './udp-frames.js';

export interface MiddleboxWork {
  /** Names of shipped middleboxes; none: packets pass through. */
  readonly names: readonly string[];
  readonly load: 'rest' | 'new' | 'flood';
  readonly flows: number;
}

const { names, load, flows } = workerData as MiddleboxWork;

const driver = new FlowDriver();
/**
 * New flows per second: less than half of the NAT's quota of half-open bindings, so that each gets
 * a binding, for which an older one is evicted.
 */
const NEW_PER_SECOND = 25_000;
const chain = names.map((name) => shipped(name, name === 'nat' && load === 'new' ? { reuse: 1 } : {}));
const site = new Site({ chain, plane: { openDriver: () => driver } });
const { plane } = site;
let flowsBefore = 0;
/** Advances the clock. With new flows, their number sets its pace. */
function clock(): void {
  if (load !== 'new') plane.nowMs = Date.now();
  else plane.nowMs += ((driver.sentPackets - flowsBefore) / NEW_PER_SECOND) * 1000;
  flowsBefore = driver.sentPackets;
}

const requests = Array.from({ length: flows }, (_, n) => ({
  port: INSIDE,
  frame: udp(`10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}:${1024 + (n % 60_000)} > 198.51.100.7:53`),
}));

function run(frames: readonly { readonly port: number; readonly frame: Uint8Array }[]): typeof driver.sent {
  driver.serveOnce(frames);
  while (plane.dataPlane.doWork() > 0) site.replicateTo();
  return driver.sent.splice(0);
}

function prepare(): void {
  clock();
  if (load !== 'rest') return driver.serve(requests.slice(0, 64), true);
  const out = run(requests);
  const replies = out.map(({ frame: bytes }) => ({ port: OUTSIDE, frame: answer(bytes, requests[0].frame) }));
  if (replies.length !== flows || run(replies).length !== flows)
    throw new Error(`${names.join(' + ')}: of ${flows} flows ${replies.length} came through`);
  driver.capturing = false;
  // Requests and replies are mixed in an order that is not that of the tables.
  const both = requests.flatMap((request, n) => [request, replies[n]]);
  for (let n = both.length - 1; n > 0; n--) {
    const other = Math.trunc(((Math.imul(n, 0x9e3779b1) >>> 0) / 2 ** 32) * (n + 1));
    [both[n], both[other]] = [both[other], both[n]];
  }
  // A driver takes packets from one port after the other.
  const batches = Array.from({ length: Math.ceil(both.length / BATCH_CAPACITY) }, (_, n) =>
    both.slice(n * BATCH_CAPACITY, (n + 1) * BATCH_CAPACITY).toSorted((a, b) => a.port - b.port),
  );
  driver.serve(batches.flat());
}

/**
 * Nanoseconds of the thread's time per packet: of the data plane's rounds if `working`, else of the
 * driver's copying alone.
 */
function time(ms: number, working: boolean): number {
  let packets = 0;
  const before = threadCpuTime();
  const end = performance.now() + ms;
  while (performance.now() < end) {
    clock();
    for (let i = 0; i < 16; i++) packets += working ? round() : copy();
  }
  return (threadCpuTime() - before) / packets;
}

function round(): number {
  const packets = plane.dataPlane.doWork();
  site.replicateTo();
  return packets;
}

function copy(): number {
  const packets = driver.receive(plane.batch);
  plane.batch.egress.fill(OUTSIDE);
  driver.transmit(plane.batch);
  return packets;
}

prepare();
parentPort?.on('message', (ms: number) => {
  const ns = time(ms * 0.75, true) - time(ms * 0.25, false);
  parentPort?.postMessage({ ns, counts: plane.counts() });
});
parentPort?.postMessage('ready');
