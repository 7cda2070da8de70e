/**
 * Packet I/O of the middlebox benchmark: the same UDP flows repeatedly, or every packet of a new
 * flow.
 *
 * Frames are copied in as a NIC would write them, 60 bytes each. Sent frames are only counted, or,
 * while flows are set up, kept. New flows differ in their source address, and the header's checksum
 * is updated for it; UDP carries none.
 */

import type { PacketDriver } from '../../workers/drivers/driver.js';
import { BATCH_CAPACITY, type Batch } from '../../workers/packet/batch.js';
import { difference, update } from '../../workers/packet/checksum.js';
import { PacketMemory } from '../../workers/packet/memory.js';

const CHUNK_BYTES = 2048;
const HEADROOM = 258;
export const FRAME_BYTES = 60;
const FRAME_WORDS = 16;
/**
 * Positions in a frame, which begins with two bytes of padding: the IP header's checksum in half
 * words, and the source address in words.
 */
const SUM_HALF = 13;
const SOURCE_WORD = 7;

export class FlowDriver implements PacketDriver {
  readonly memory = new PacketMemory(
    new SharedArrayBuffer(BATCH_CAPACITY * CHUNK_BYTES),
    0,
    BATCH_CAPACITY,
    CHUNK_BYTES,
  );
  readonly exhausted = false;
  /** Frames that were sent, by port, while `capturing`. */
  sent: { readonly port: number; readonly frame: Uint8Array }[] = [];
  capturing = false;
  sentPackets = 0;
  private words = new Int32Array(0);
  private ports = new Int32Array(0);
  private fresh = false;
  private nextFrame = 0;
  private nextSource = 0;
  private others = new Int32Array(0);
  private othersPort = 0;
  private nextOther = 0;
  /** Frames of `interleave` that are due next. */
  owed = 0;
  private left = 0;

  /** Serves these frames in turn, forever. `fresh`: each with a new source address. */
  serve(frames: readonly { readonly port: number; readonly frame: Uint8Array }[], fresh = false): void {
    this.words = new Int32Array(frames.length * FRAME_WORDS);
    const bytes = new Uint8Array(this.words.buffer);
    for (const [n, { frame }] of frames.entries()) bytes.set(frame.subarray(0, FRAME_BYTES), n * FRAME_WORDS * 4 + 2);
    this.ports = Int32Array.from(frames, ({ port }) => port);
    this.fresh = fresh;
    this.nextFrame = 0;
    this.left = Number.POSITIVE_INFINITY;
  }

  /** While some are `owed`, serves these frames on `port` before others. */
  interleave(frames: readonly Uint8Array[], port: number): void {
    this.others = new Int32Array(frames.length * FRAME_WORDS);
    const bytes = new Uint8Array(this.others.buffer);
    for (const [n, frame] of frames.entries()) bytes.set(frame.subarray(0, FRAME_BYTES), n * FRAME_WORDS * 4 + 2);
    this.othersPort = port;
  }

  /** Serves each frame once, and keeps what is sent. */
  serveOnce(frames: readonly { readonly port: number; readonly frame: Uint8Array }[]): void {
    this.serve(frames);
    this.left = frames.length;
    this.capturing = true;
  }

  receive(batch: Batch): number {
    const { i32, u16 } = this.memory;
    const count = Math.min(BATCH_CAPACITY, this.left);
    for (let i = 0; i < count; i++) {
      if (this.owed >= 1) {
        this.copyOther(batch, i);
        continue;
      }
      const n = this.nextFrame;
      this.nextFrame = n + 1 === this.ports.length ? 0 : n + 1;
      const from = n * FRAME_WORDS;
      const to = (i * CHUNK_BYTES + HEADROOM - 2) >> 2;
      for (let word = 0; word < FRAME_WORDS; word++) i32[to + word] = this.words[from + word];
      if (this.fresh) {
        const source = this.newSource();
        const change = difference(i32[to + SOURCE_WORD], source);
        i32[to + SOURCE_WORD] = source;
        const half = to * 2 + SUM_HALF;
        u16[half] = update(u16[half], change);
      }
      batch.start[i] = i * CHUNK_BYTES + HEADROOM;
      batch.length[i] = FRAME_BYTES;
      batch.port[i] = this.ports[n];
    }
    this.left -= count;
    batch.count = count;
    return count;
  }

  private copyOther(batch: Batch, i: number): void {
    const { i32 } = this.memory;
    const from = this.nextOther;
    this.nextOther = from + FRAME_WORDS === this.others.length ? 0 : from + FRAME_WORDS;
    const to = (i * CHUNK_BYTES + HEADROOM - 2) >> 2;
    for (let word = 0; word < FRAME_WORDS; word++) i32[to + word] = this.others[from + word];
    batch.start[i] = i * CHUNK_BYTES + HEADROOM;
    batch.length[i] = FRAME_BYTES;
    batch.port[i] = this.othersPort;
    this.owed--;
  }

  /** All addresses of 10.0.0.0/8, in an order in which neighbours are far apart. */
  private newSource(): number {
    this.nextSource = (this.nextSource + 0x9e3779) & 0xffffff;
    return 0x0a | ((this.nextSource | 1) << 8);
  }

  transmit(batch: Batch): void {
    this.transmitBefore(batch, batch.count);
    batch.count = batch.handed = 0;
  }

  transmitBefore(batch: Batch, end: number): void {
    for (let i = batch.handed; i < end; i++) {
      const port = batch.egress[i];
      if (port < 0) continue;
      this.sentPackets++;
      if (!this.capturing) continue;
      const from = batch.start[i];
      this.sent.push({ port, frame: this.memory.u8.slice(from, from + batch.length[i]) });
    }
    batch.handed = end;
  }

  hasRoom(): boolean {
    return true;
  }

  send(): boolean {
    this.sentPackets++;
    return true;
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

  wait(): void {}

  close(): void {}
}
