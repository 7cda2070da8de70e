/**
 * Before a worker takes its first packet, it takes some of its own making: through the same code, over state of its own that
 * is thrown away. So the first real packets do not wait while the code they run through is read and compiled, which took
 * 6 to 27 ms.
 */

import { Arena, createArena, layoutArena } from '../shm/arena.js';
import { Control, createControl } from '../shm/control.js';
import { createLogRing, LogConsumer, LogProducer } from '../shm/log.js';
import { createNextHops, NextHopReader } from '../shm/next-hops.js';
import { createJournals, Journal } from '../shm/objects/journal.js';
import { Batch } from './batch.js';
import { openProcesses, openState } from './chain.js';
import { DataPlane } from './data-plane.js';
import { MemoryDriver } from './drivers/memory.js';
import type { Instance } from './instance.js';
import { checksum } from './packet/checksum.js';
import { ETHERNET_BYTES } from './packet/ethernet.js';
import { IPV4_BYTES_MIN, Protocol } from './packet/ipv4.js';
import { createRouter } from './route.js';

const WARM_UP_MS = 150;
/** Packets per port and round; some of them of flows known from the round before. */
const PACKETS = 32;
const LOG_WORDS = 1 << 14;
const FRAME_BYTES = 64;
const NOWHERE = { low: 0x02, high: 0 };

/** Runs for some tenths of a second, and touches nothing but memory of its own. Returns how many packets went through. */
export function warmUp(instance: Instance, forMs = WARM_UP_MS): number {
  const { plan, declaration, metrics } = instance;
  const { catalogue } = metrics;
  const ports = plan.routes.length;
  const logRing = createLogRing(LOG_WORDS);
  const log = new LogProducer(logRing);
  const drain = new LogConsumer(logRing);
  const arena = new Arena(createArena(layoutArena(declaration.objects)), declaration.objects);
  const writer = { id: 1, journal: new Journal(createJournals(1), 1), log };
  const objects = openState(declaration, arena, writer, { memberIndex: 0, memberCount: 1 });
  const driver = new MemoryDriver({ ports });
  const row = new Float64Array(catalogue.metrics.length);
  const batch = new Batch(driver.memory, row);
  const processes = openProcesses(declaration, objects, { batch, catalogue, ports, draining: () => false });
  const routes = plan.routes.map((route) => ({ ...route, nextHop: NOWHERE, promiscuous: true }));
  const router = createRouter(batch, routes, new NextHopReader(createNextHops(ports), ports), catalogue);
  const dataPlane = new DataPlane({
    driver,
    batch,
    ports,
    processes,
    log,
    control: new Control(createControl(1)),
    thread: 0,
    catalogue,
    row,
    router,
    idle: 'spin',
  });
  const until = performance.now() + forMs;
  for (let round = 0; performance.now() < until; round++) {
    for (let port = 0; port < ports; port++)
      for (let i = 0; i < PACKETS; i++) driver.inject(port, packet((round * PACKETS) / 2 + i));
    while (dataPlane.doWork() > 0) while (drain.next());
    drain.release();
    // What went out by one port comes back by it: replies, as it were.
    for (const { port, frame } of driver.sent.splice(0)) driver.inject(port, reply(frame));
    while (dataPlane.doWork() > 0);
    driver.sent.length = 0;
  }
  return driver.sentPackets.reduce((sum, packets) => sum + packets, 0);
}

/** TCP, UDP and ICMP echo by turns, from one of many hosts of 10.0.0.0/8 to 198.18.0.0/15 (RFC 2544). */
function packet(n: number): Uint8Array {
  const frame = new Uint8Array(FRAME_BYTES);
  const view = new DataView(frame.buffer);
  const l3 = ETHERNET_BYTES;
  const l4 = l3 + IPV4_BYTES_MIN;
  const protocol = [Protocol.TCP, Protocol.UDP, Protocol.ICMP][n % 3];
  view.setUint16(12, 0x0800);
  view.setUint8(l3, 0x45);
  view.setUint16(l3 + 2, FRAME_BYTES - l3);
  view.setUint8(l3 + 8, 64);
  view.setUint8(l3 + 9, protocol);
  view.setUint32(l3 + 12, 0x0a00_0000 + (n & 0xffff));
  view.setUint32(l3 + 16, 0xc612_0001 + (n & 0xff));
  if (protocol === Protocol.ICMP) {
    view.setUint8(l4, 8);
    view.setUint16(l4 + 4, n & 0xffff);
    sum(frame, l4, FRAME_BYTES - l4, l4 + 2);
  } else {
    view.setUint16(l4, 1024 + (n & 0x7fff));
    view.setUint16(l4 + 2, 80);
    if (protocol === Protocol.UDP) view.setUint16(l4 + 4, FRAME_BYTES - l4);
    else view.setUint16(l4 + 12, 0x5000 | (n % 2 === 0 ? 0x02 : 0x10));
  }
  sum(frame, l3, IPV4_BYTES_MIN, l3 + 10);
  return frame;
}

/** The same with addresses and ports exchanged; a query is answered. The IP checksum stays right by it. */
function reply(sent: Uint8Array): Uint8Array {
  const frame = sent.slice();
  const view = new DataView(frame.buffer);
  const l3 = ETHERNET_BYTES;
  const l4 = l3 + IPV4_BYTES_MIN;
  frame.copyWithin(l3 + 12, l3 + 16, l3 + 20);
  view.setUint32(l3 + 16, new DataView(sent.buffer, sent.byteOffset).getUint32(l3 + 12));
  if (view.getUint8(l3 + 9) === Protocol.ICMP) {
    view.setUint8(l4, 0);
    view.setUint16(l4 + 2, 0);
    sum(frame, l4, FRAME_BYTES - l4, l4 + 2);
    return frame;
  }
  const source = view.getUint16(l4);
  view.setUint16(l4, view.getUint16(l4 + 2));
  view.setUint16(l4 + 2, source);
  return frame;
}

/** Writes the checksum over `bytes` from `at` to `into`. */
function sum(frame: Uint8Array, at: number, bytes: number, into: number): void {
  const raw = checksum(frame, at, bytes);
  frame[into] = raw & 0xff;
  frame[into + 1] = raw >>> 8;
}
