/**
 * Fragmentation: an IPv4 packet without "don't fragment" that exceeds the MTU of its egress port
 * leaves as fragments (RFC 791 §2.3 and §3.2, RFC 1812 §5.2.6, RFC 4787 REQ-13).
 *
 *     router ─ mark ─▶ rest of the round ─ process ─▶ driver: earlier packets, fragments, others
 *
 * All fragments but the last carry a multiple of 8 bytes. The identification stays, so a fragment
 * can be fragmented again: its offset is added, and the last part keeps its "more fragments" bit.
 * Later fragments carry only the options whose copy bit is set.
 *
 * A datagram leaves whole or not at all: if the driver has no room for all fragments, the packet is
 * dropped and counted. Each fragment is sent as a copy, and the packet's own frame returns to the
 * driver. A packet that a middlebox holds is held whole and is fragmented when it is released.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import type { PacketDriver } from '../drivers/driver.js';
import { BATCH_CAPACITY, type Batch, DROPPED } from '../packet/batch.js';
import { checksum } from '../packet/checksum.js';
import { ETHERNET_BYTES } from '../packet/ethernet.js';
import { IPV4_BYTES_MIN, Ipv4At, Ipv4Fragment } from '../packet/ipv4.js';
import { copiedOptions } from '../packet/ipv4-options.js';
import { VLAN_BYTES, VLAN_TAGS_MAX } from '../packet/vlan.js';
import { createSentCounter } from './traffic.js';

const COUNTERS = {
  route_fragmented: "IPv4 packets that left as fragments because they exceed the egress port's MTU",
  route_fragments: 'fragments of such packets, not counting the first of each packet',
  route_fragment_room: 'dropped: an IPv4 packet to be fragmented; the driver has no room for all of its fragments now',
} as const;

export const FRAGMENTATION_METRICS: Metric[] = counterMetrics(COUNTERS);

const HEADER_BYTES_MAX = 60;
const LINK_BYTES_MAX = ETHERNET_BYTES + VLAN_TAGS_MAX * VLAN_BYTES;
/** Fragment offsets count in units of this. */
const UNIT = 8;

export interface Fragmentation {
  /** Number of marked packets in the batch. */
  readonly marked: number;
  /** Marks packet `i`, which exceeds the MTU of its egress port, to leave as fragments. */
  mark(i: number): void;
  /**
   * Sends the marked packets of the batch, each in its turn. Call it before the driver's
   * `transmit`.
   */
  process(): void;
  /**
   * Sends an IPv4 frame that is not part of a batch: `length` bytes of `frames` from `at` on, whose
   * IP header is `linkBytes` further on. Fragments it if it exceeds the port's MTU, and then
   * overwrites it. Returns false, the frame unchanged, if the driver has no room for it now.
   */
  send(port: number, frames: Uint8Array, at: number, length: number, linkBytes: number): boolean;
}

interface FragmentationParts {
  readonly batch: Batch;
  readonly driver: PacketDriver;
  /** Longest IP packet that each port sends. */
  readonly mtus: Int32Array;
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
}

/** Made once per data plane: see the head of batch.ts. */
export function createFragmentation({ batch, driver, mtus, row, catalogue }: FragmentationParts): Fragmentation {
  const { egress, start, length, l3 } = batch;
  const { u8 } = batch.memory;
  const columns = columnsOf(catalogue, COUNTERS);
  const counter = createSentCounter(row, catalogue);
  const isMarked = new Uint8Array(BATCH_CAPACITY);
  let marked = 0;
  // Headers of the later fragments of the current packet.
  const link = new Uint8Array(LINK_BYTES_MAX);
  const later = new Uint8Array(HEADER_BYTES_MAX);

  function mark(i: number): void {
    if (isMarked[i] === 0) marked++;
    isMarked[i] = 1;
  }

  function process(): void {
    for (let i = 0; i < batch.count && marked > 0; i++) {
      if (isMarked[i] === 0) continue;
      isMarked[i] = 0;
      marked--;
      if (egress[i] < 0) continue; // dropped or held since
      driver.transmitBefore(batch, i);
      if (send(egress[i], u8, start[i], length[i], l3[i] - start[i])) egress[i] = DROPPED;
      else batch.drop(i, columns.route_fragment_room);
    }
    marked = 0;
  }

  function send(port: number, frames: Uint8Array, at: number, bytes: number, linkBytes: number): boolean {
    const header = at + linkBytes;
    const total = (frames[header + Ipv4At.totalLength] << 8) | frames[header + Ipv4At.totalLength + 1];
    if (total <= mtus[port]) return sendOne(port, frames, at, bytes);
    const headerBytes = (frames[header] & 0x0f) << 2;
    const laterBytes = IPV4_BYTES_MIN + copiedOptions(frames, header, later);
    const room = mtus[port] - laterBytes;
    const first = (mtus[port] - headerBytes) & -UNIT;
    if (first < UNIT || room < UNIT) return false;
    const rest = total - headerBytes - first;
    const count = rest <= room ? 2 : 2 + Math.ceil((rest - room) / (room & -UNIT));
    if (!driver.hasRoom(port, count)) return false;
    cut(port, frames, at, linkBytes, headerBytes, first, laterBytes, total);
    row[columns.route_fragmented]++;
    row[columns.route_fragments] += count - 1;
    return true;
  }

  /**
   * Sends the fragments in order. Each later header overwrites data that an earlier fragment has
   * sent.
   */
  function cut(
    port: number,
    frames: Uint8Array,
    at: number,
    linkBytes: number,
    headerBytes: number,
    first: number,
    laterBytes: number,
    total: number,
  ): void {
    const header = at + linkBytes;
    const field = (frames[header + Ipv4At.fragment] << 8) | frames[header + Ipv4At.fragment + 1];
    for (let byte = 0; byte < linkBytes; byte++) link[byte] = frames[at + byte];
    for (let byte = 0; byte < IPV4_BYTES_MIN; byte++) later[byte] = frames[header + byte];
    later[0] = (later[0] & 0xf0) | (laterBytes >> 2);
    const data = total - headerBytes;
    const room = mtus[port] - laterBytes;
    seal(frames, header, headerBytes, first, field | Ipv4Fragment.MORE);
    sendOne(port, frames, at, linkBytes + headerBytes + first);
    for (let sent = first; sent < data; ) {
      const isLast = data - sent <= room;
      const bytes = isLast ? data - sent : room & -UNIT;
      const to = header + headerBytes + sent - laterBytes;
      for (let byte = 0; byte < linkBytes; byte++) frames[to - linkBytes + byte] = link[byte];
      for (let byte = 0; byte < laterBytes; byte++) frames[to + byte] = later[byte];
      const offset = field + sent / UNIT;
      seal(frames, to, laterBytes, bytes, isLast ? offset : offset | Ipv4Fragment.MORE);
      sendOne(port, frames, to - linkBytes, linkBytes + laterBytes + bytes);
      sent += bytes;
    }
  }

  /** Writes total length, fragment field and checksum of the header at `at`. */
  function seal(frames: Uint8Array, at: number, headerBytes: number, bytes: number, field: number): void {
    const total = headerBytes + bytes;
    frames[at + Ipv4At.totalLength] = total >>> 8;
    frames[at + Ipv4At.totalLength + 1] = total;
    frames[at + Ipv4At.fragment] = field >>> 8;
    frames[at + Ipv4At.fragment + 1] = field;
    frames[at + Ipv4At.checksum] = frames[at + Ipv4At.checksum + 1] = 0;
    const sum = checksum(frames, at, headerBytes);
    frames[at + Ipv4At.checksum] = sum;
    frames[at + Ipv4At.checksum + 1] = sum >>> 8;
  }

  function sendOne(port: number, frames: Uint8Array, at: number, bytes: number): boolean {
    if (!driver.send(port, frames, at, bytes)) return false;
    counter.sent(port, bytes);
    return true;
  }

  return {
    get marked() {
      return marked;
    },
    mark,
    process,
    send,
  };
}
