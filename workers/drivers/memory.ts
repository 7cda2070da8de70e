/**
 * The memory driver: a packet driver without I/O, for tests and benchmarks.
 *
 * Frames given at the start are received in order, once or in a loop. `inject` adds more. Sent
 * frames are captured, or only counted if a benchmark must not pay for copies.
 *
 * Packet `i` of a batch is always in chunk `i`. A batch is given back whole before the next is
 * taken, so no other chunk is ever in use. Frames are stored packed as words and copied on
 * `receive`, as a NIC would write them. So a middlebox may change them, and gets them unchanged in
 * the next loop.
 */

import { BATCH_CAPACITY, type Batch } from '../packet/batch.js';
import { PacketMemory } from '../packet/memory.js';
import type { PacketDriver } from './driver.js';

/** Offset of frames in a chunk: 2 modulo 4, with headroom as in real drivers. */
const HEADROOM = 258;
const CHUNK_BYTES = 4096;
export const MEMORY_FRAME_BYTES_MAX = CHUNK_BYTES - HEADROOM;

export interface MemoryFrame {
  readonly port: number;
  readonly frame: Uint8Array;
}

interface MemoryDriverOptions {
  /** Number of ports. */
  readonly ports: number;
  /** Received in this order. */
  readonly frames?: readonly MemoryFrame[];
  /** Whether to begin again at the end. Default: false. */
  readonly loop?: boolean;
  /** Whether to keep sent frames in `sent`. Default: true. */
  readonly capture?: boolean;
  /**
   * Most bytes of a frame to copy, such as its headers. Bytes after them are left over from earlier
   * frames. Default: all.
   */
  readonly copyBytes?: number;
  /** Most packets in a batch. Default and limit: `BATCH_CAPACITY`. */
  readonly burst?: number;
}

export class MemoryDriver implements PacketDriver {
  readonly memory: PacketMemory;
  /** Captured frames, in order. Tests may empty it. */
  readonly sent: MemoryFrame[] = [];
  /** Packets and bytes sent, by port. */
  readonly sentPackets: Float64Array;
  readonly sentBytes: Float64Array;
  private readonly loop: boolean;
  private readonly capture: boolean;
  private readonly copyBytes: number;
  private readonly burst: number;
  private readonly sleeper = new Int32Array(new SharedArrayBuffer(4));

  // The frames: words from `firstWord[n]` on, after two bytes of padding, because frames start at 2
  // modulo 4 in a chunk.
  private words = new Int32Array(1024);
  private wordsUsed = 0;
  private firstWord = new Int32Array(64);
  private frameBytes = new Int32Array(64);
  private framePort = new Int32Array(64);
  private frames = 0;
  private next = 0;

  constructor(options: MemoryDriverOptions) {
    this.memory = new PacketMemory(new SharedArrayBuffer(BATCH_CAPACITY * CHUNK_BYTES), 0, BATCH_CAPACITY, CHUNK_BYTES);
    this.sentPackets = new Float64Array(options.ports);
    this.sentBytes = new Float64Array(options.ports);
    this.loop = options.loop ?? false;
    this.capture = options.capture ?? true;
    this.copyBytes = options.copyBytes ?? MEMORY_FRAME_BYTES_MAX;
    this.burst = Math.min(options.burst ?? BATCH_CAPACITY, BATCH_CAPACITY);
    for (const { port, frame } of options.frames ?? []) this.inject(port, frame);
  }

  /**
   * Adds a frame that arrives by `port`, after those already waiting. Throws a RangeError if it is
   * longer than `MEMORY_FRAME_BYTES_MAX` or if there is no such port.
   */
  inject(port: number, frame: Uint8Array): void {
    if (frame.length > MEMORY_FRAME_BYTES_MAX)
      throw new RangeError(`a frame of ${frame.length} bytes, of at most ${MEMORY_FRAME_BYTES_MAX}`);
    if (port < 0 || port >= this.sentPackets.length) throw new RangeError(`no port ${port}`);
    const words = (frame.length + 2 + 3) >>> 2;
    if (this.wordsUsed + words > this.words.length) this.words = grown(this.words, this.wordsUsed + words);
    if (this.frames === this.firstWord.length) {
      this.firstWord = grown(this.firstWord, this.frames + 1);
      this.frameBytes = grown(this.frameBytes, this.frames + 1);
      this.framePort = grown(this.framePort, this.frames + 1);
    }
    new Uint8Array(this.words.buffer, this.wordsUsed * 4 + 2).set(frame);
    this.firstWord[this.frames] = this.wordsUsed;
    this.frameBytes[this.frames] = frame.length;
    this.framePort[this.frames] = port;
    this.wordsUsed += words;
    this.frames++;
  }

  receive(batch: Batch): number {
    let n = 0;
    while (n < this.burst) {
      if (this.next === this.frames) {
        if (!this.loop || this.frames === 0) break;
        this.next = 0;
      }
      this.copyIn(batch, n++, this.next++);
    }
    batch.count = n;
    return n;
  }

  private copyIn(batch: Batch, i: number, frame: number): void {
    const bytes = this.frameBytes[frame];
    const to = (i * CHUNK_BYTES + HEADROOM - 2) >> 2;
    const from = this.firstWord[frame];
    const words = (Math.min(bytes, this.copyBytes) + 2 + 3) >>> 2;
    const source = this.words;
    const target = this.memory.i32;
    for (let word = 0; word < words; word++) target[to + word] = source[from + word];
    batch.start[i] = i * CHUNK_BYTES + HEADROOM;
    batch.length[i] = bytes;
    batch.port[i] = this.framePort[frame];
  }

  transmit(batch: Batch): void {
    this.transmitBefore(batch, batch.count);
    batch.count = batch.handed = 0;
  }

  transmitBefore(batch: Batch, end: number): void {
    for (let i = batch.handed; i < end; i++) {
      const port = batch.egress[i];
      if (port < 0) continue;
      this.sentPackets[port]++;
      this.sentBytes[port] += batch.length[i];
      if (this.capture)
        this.sent.push({
          port,
          frame: this.memory.u8.slice(batch.start[i], batch.start[i] + batch.length[i]),
        });
    }
    batch.handed = end;
  }

  hasRoom(): boolean {
    return true;
  }

  send(port: number, frames: Uint8Array, at: number, length: number): boolean {
    this.sentPackets[port]++;
    this.sentBytes[port] += length;
    if (this.capture) this.sent.push({ port, frame: frames.slice(at, at + length) });
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

  /** Frames arrive only by `inject`, in this thread, so nothing can end the wait early. */
  wait(timeoutMs: number): void {
    if (this.next === this.frames) Atomics.wait(this.sleeper, 0, 0, timeoutMs);
  }

  get exhausted(): boolean {
    return !this.loop && this.next === this.frames;
  }

  close(): void {}
}

function grown(array: Int32Array<ArrayBuffer>, atLeast: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(Math.max(atLeast, array.length * 2));
  larger.set(array);
  return larger;
}
