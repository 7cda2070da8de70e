/**
 * A thread of the benchmark of early replies: established flows in a flood of unsolicited packets,
 * timed on request.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { threadCpuTime } from '../../workers/native/index.js';
import { Stream } from '../sim/random.js';
import { INSIDE, OUTSIDE, shipped } from '../support/shipped.js';
import { SeenMembers } from '../workers/support/plane.js';
import { Site } from '../workers/support/site.js';
import { FlowDriver } from './flow-driver.js';
import { answer, udp } from './udp-frames.js';

export interface EarlyRepliesWork {
  /** Names of shipped middleboxes. */
  readonly names: readonly string[];
  readonly flows: number;
}

/** A request to measure. */
export interface EarlyRepliesTurn {
  readonly ms: number;
  /** Whether packets may wait, because another member is heard. */
  readonly waits: boolean;
}

const FLOOD_PER_SECOND = 100_000;
/** Number of different unsolicited packets: more than arrive while one of them waits. */
const FLOOD_FRAMES = 20_000;

const { names, flows } = workerData as EarlyRepliesWork;
const driver = new FlowDriver();
const others = new SeenMembers([false, false]);
const random = new Stream(1, 'early replies');
const site = new Site({
  chain: names.map((name) => shipped(name)),
  members: 2,
  plane: { openDriver: () => driver, early: others },
});
const { plane } = site;

const requests = Array.from({ length: flows }, (_, n) => ({
  port: INSIDE,
  frame: udp(`10.0.${(n >> 8) & 255}.${n & 255}:${1024 + (n % 60_000)} > 198.51.100.7:53`),
}));

/** A packet from anywhere to an external address of the NAT or, without a NAT, to a host inside. */
function unsolicited(): Uint8Array {
  const source = `${random.whole(11, 99)}.${random.below(256)}.${random.below(256)}.${random.whole(1, 254)}`;
  const to = names.includes('nat')
    ? `203.0.113.${random.whole(1, 8)}`
    : `10.77.${random.below(256)}.${random.whole(1, 254)}`;
  return udp(`${source}:${random.whole(1024, 65_535)} > ${to}:${random.whole(1024, 65_535)}`);
}

function run(frames: readonly { readonly port: number; readonly frame: Uint8Array }[]): typeof driver.sent {
  driver.serveOnce(frames);
  while (plane.dataPlane.doWork() > 0) site.replicateTo();
  return driver.sent.splice(0);
}

function prepare(): void {
  const replies = run(requests).map(({ frame: bytes }) => ({ port: OUTSIDE, frame: answer(bytes, requests[0].frame) }));
  if (replies.length !== flows || run(replies).length !== flows)
    throw new Error(`${names.join(' + ')}: flows are missing`);
  driver.capturing = false;
  const established = requests.flatMap((request, n) => [request, replies[n]]);
  driver.serve(Array.from({ length: 4 * flows }, () => established[random.below(established.length)]));
  driver.interleave(Array.from({ length: FLOOD_FRAMES }, unsolicited), OUTSIDE);
}

/**
 * Nanoseconds of the thread's time per packet of an established flow, with its share of the flood.
 * The simulated clock is the thread's own time, so the thread is always fully loaded.
 */
function time(ms: number): number {
  const sentBefore = driver.sentPackets;
  const before = threadCpuTime();
  const startMs = plane.nowMs;
  let spentNs = 0;
  while (spentNs < ms * 1e6) {
    for (let round = 0; round < 16; round++) {
      plane.dataPlane.doWork();
      // Records of other members arrive all the time, so waiting packets are looked up as often as
      // they ever are.
      plane.applied++;
    }
    const now = threadCpuTime() - before;
    driver.owed += ((now - spentNs) * FLOOD_PER_SECOND) / 1e9;
    spentNs = now;
    plane.nowMs = startMs + spentNs / 1e6;
  }
  return spentNs / (driver.sentPackets - sentBefore);
}

prepare();
parentPort?.on('message', ({ ms, waits }: EarlyRepliesTurn) => {
  others.heard[1] = waits;
  // Advance the clock until the data plane looks at the members again.
  plane.nowMs += 600;
  time(5);
  parentPort?.postMessage({ ns: time(ms), counts: plane.counts() });
});
parentPort?.postMessage('ready');
