/**
 * The packet path under packets that are wrong in every field: a whole data plane with its
 * middleboxes, stepped by hand.
 *
 * What must hold: no packet stops it; packets in = packets out + dropped by reason + held (M10 of
 * ARCHITECTURE.md); what comes out fits its chunk and its port's MTU, and, of IPv4, has a right
 * header checksum; memory stays what it was.
 */

import type { PacketDriver } from '../../workers/drivers/driver.js';
import { BATCH_CAPACITY, type Batch } from '../../workers/packet/batch.js';
import { checksum } from '../../workers/packet/checksum.js';
import { parseIpv4 } from '../../workers/packet/ipv4.js';
import { parseIpv6 } from '../../workers/packet/ipv6.js';
import { PacketMemory } from '../../workers/packet/memory.js';
import type { Mode } from '../../workers/packet/parse.js';
import type { Link } from '../../workers/plane/chain.js';
import { Stream } from '../sim/random.js';
import { SHIPPED } from '../support/shipped.js';
import { routePort, SeenMembers } from '../workers/support/plane.js';
import { Site } from '../workers/support/site.js';
import { capturedFrames, FRAME_BYTES_MAX, mutated, seedFrames } from './packet-mutations.js';

const CHUNK_BYTES = 2048;
const HEADROOM = 258;
const CAPTURED_MAX = 1000;
/** What came out last, to be answered. */
const RECENT = 256;
const VLAN_TYPES = [0x8100, 0x88a8, 0x9100, 0x9200];
/** Of which each port gets one. */
const MTUS = [68, 296, 576, 1280];
/** A look at the counts, every so many batches. */
const LOOK = 32;

/** A chain to be fed, and how it stands. */
export interface FuzzedChain {
  readonly name: string;
  readonly mode: Mode;
  readonly links: readonly Link[];
}

/** Every shipped middlebox alone in its modes, and all that stand so together, in both orders. */
export function fuzzedChains(): FuzzedChain[] {
  const chains: FuzzedChain[] = [];
  for (const mode of ['route', 'wire'] as const) {
    chains.push({ name: `nothing (${mode})`, mode, links: [] });
    const links = SHIPPED.filter(({ modes }) => modes.includes(mode)).map(({ link }) => link);
    for (const link of links) chains.push({ name: `${link.middlebox.name} (${mode})`, mode, links: [link] });
    for (const order of [links, links.toReversed()])
      chains.push({
        name: `${order.map(({ middlebox }) => middlebox.name).join(' + ')} (${mode})`,
        mode,
        links: order,
      });
  }
  return chains;
}

export interface PacketFuzzReport {
  readonly packets: number;
  readonly out: number;
  readonly byReason: Readonly<Record<string, number>>;
  readonly heapMiB: { readonly start: number; readonly end: number };
  readonly problems: readonly string[];
}

/** Feeds what is put into it, and looks at what is sent. */
class FuzzDriver implements PacketDriver {
  readonly memory = new PacketMemory(
    new SharedArrayBuffer(BATCH_CAPACITY * CHUNK_BYTES),
    0,
    BATCH_CAPACITY,
    CHUNK_BYTES,
  );
  readonly exhausted = false;
  readonly next: { readonly port: number; readonly frame: Uint8Array }[] = [];
  readonly recent: Uint8Array[] = [];
  readonly problems: string[] = [];
  /** Frames that `send` takes now. */
  room = BATCH_CAPACITY;
  /** Of each port; none: no packet is too long. */
  readonly mtus: number[] = [];
  in = 0;
  out = 0;

  receive(batch: Batch): number {
    batch.count = 0;
    while (this.next.length > 0 && batch.count < BATCH_CAPACITY) {
      const { port, frame } = this.next.shift() as { port: number; frame: Uint8Array };
      this.insert(batch, port, frame, 0, frame.length);
      this.in++;
    }
    return batch.count;
  }

  insert(batch: Batch, port: number, frames: Uint8Array, at: number, length: number): boolean {
    const i = batch.count++;
    const start = i * CHUNK_BYTES + HEADROOM;
    for (let byte = 0; byte < length; byte++) this.memory.u8[start + byte] = frames[at + byte];
    batch.start[i] = start;
    batch.length[i] = length;
    batch.port[i] = port;
    return true;
  }

  transmit(batch: Batch): void {
    this.transmitBefore(batch, batch.count);
    batch.count = batch.handed = 0;
  }

  transmitBefore(batch: Batch, end: number): void {
    for (let i = batch.handed; i < end; i++)
      if (batch.egress[i] >= 0) this.send(batch.egress[i], this.memory.u8, batch.start[i], batch.length[i]);
    batch.handed = end;
  }

  hasRoom(_port: number, frames: number): boolean {
    return frames <= this.room;
  }

  send(port: number, frames: Uint8Array, at: number, length: number): boolean {
    const frame = frames.slice(at, at + length);
    const isWhole = length >= 14 && frame.length === length && (at & (CHUNK_BYTES - 1)) + length <= CHUNK_BYTES;
    if (port > 1 || !isWhole) this.problems.push(`${length} bytes at ${at} sent by port ${port}`);
    else if (length - linkBytes(frame) > (this.mtus[port] ?? FRAME_BYTES_MAX))
      this.problems.push(`${length} bytes sent by port ${port}, whose MTU is ${this.mtus[port]}`);
    else if (!hasRightHeaderSum(frame))
      this.problems.push(`a wrong header checksum sent: ${Buffer.from(frame).toString('hex')}`);
    this.recent[this.out++ % RECENT] = frame;
    return true;
  }

  wait(): void {}

  close(): void {}
}

/** Of the Ethernet header, with its tags. */
function linkBytes(frame: Uint8Array): number {
  let bytes = 14;
  while (VLAN_TYPES.includes((frame[bytes - 2] << 8) | frame[bytes - 1])) bytes += 4;
  return bytes;
}

function hasRightHeaderSum(frame: Uint8Array): boolean {
  if (frame[12] !== 8 || frame[13] !== 0) return true;
  const bytes = (frame[14] & 15) * 4;
  return frame.length >= 14 + bytes && bytes >= 20 && checksum(frame, 14, bytes) === 0;
}

const heapMiB = (): number => {
  globalThis.gc?.();
  const { heapUsed, external, arrayBuffers } = process.memoryUsage();
  return Math.round((heapUsed + external + arrayBuffers) / 2 ** 20);
};

export function fuzzPackets(chain: FuzzedChain, packets: number, seed: number): PacketFuzzReport {
  const random = new Stream(seed, chain.name);
  const frames = seedFrames();
  const captured = capturedFrames(CAPTURED_MAX);
  const driver = new FuzzDriver();
  const port = { address: parseIpv4('10.0.0.1'), address6: parseIpv6('fd00::1') };
  const mtus = [random.pick(MTUS), random.pick(MTUS)];
  driver.mtus.push(...mtus);
  const route = chain.mode === 'wire' ? null : mtus.map((mtuBytes) => routePort({ ...port, mtuBytes }));
  // Another member is heard, so packets without state wait for it.
  const early = new SeenMembers([false, true]);
  const site = new Site({
    chain: chain.links,
    members: 2,
    plane: { route, wireMtus: mtus, openDriver: () => driver, early },
  });
  const { plane } = site;
  const start = heapMiB();
  const problems: string[] = [];
  let fed = 0;

  function step(): boolean {
    try {
      while (plane.dataPlane.doWork() > 0);
      return true;
    } catch (error) {
      problems.push(`stopped by a batch after ${fed} packets: ${(error as Error).stack}`);
      return false;
    }
  }

  function balance(when: string): void {
    const total = (name: string): number => plane.metrics.total(name);
    const held = total('held_packets') + total('held_fragments') + total('waiting_replies');
    const told = total('route_icmp_errors') + total('route_fragments') + total('wire_icmp_errors');
    const missing = driver.in + told - driver.out - plane.dropped() - held - total('fragments_joined');
    if (missing !== 0) problems.push(`${when}: of ${driver.in} packets ${missing} are neither out, dropped nor held`);
    problems.push(...driver.problems.splice(0));
  }

  for (let batches = 0; fed < packets && problems.length === 0; batches++) {
    const count = Math.min(random.whole(1, BATCH_CAPACITY), packets - fed);
    for (let i = 0; i < count; i++) {
      const from = captured.length > 0 && random.chance(0.3) ? captured : frames;
      const frame = mutated(random, from, driver.recent);
      driver.next.push({ port: random.below(2), frame: frame.subarray(0, FRAME_BYTES_MAX) });
    }
    fed += count;
    driver.room = random.chance(0.05) ? random.below(3) : BATCH_CAPACITY;
    if (!step()) break;
    if (random.chance(0.5)) plane.applied++;
    plane.nowMs += random.chance(0.01) ? random.below(5000) : 1;
    if (batches % LOOK !== 0) continue;
    site.replicateTo();
    plane.recorded.read(1000, () => {});
    balance(`after ${fed} packets`);
  }
  if (problems.length === 0) {
    plane.idle(20_000, 500);
    balance('at the end');
    const held = ['held_packets', 'held_fragments', 'waiting_replies'].reduce(
      (sum, gauge) => sum + plane.metrics.total(gauge),
      0,
    );
    if (held !== 0) problems.push(`${held} packets are held for ever`);
  }
  return { packets: fed, out: driver.out, byReason: plane.counts(), heapMiB: { start, end: heapMiB() }, problems };
}
