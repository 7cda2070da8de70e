/**
 * A worker's share of a port: an AF_XDP socket bound to one queue of one interface.
 *
 * Invariants:
 *
 * - The chunks in the fill ring, in the kernel and in the rx ring are together `entries - missing`,
 *   and `missing >= 0`. So the fill ring always has room for the `missing` chunks, and its consumer
 *   is never read.
 * - The chunks in the tx ring, in the kernel and in the completion ring are `outstanding <=
 *   entries`. So neither ring overflows, and the tx ring's consumer is never read.
 */

import { NONE } from '../../shm/none.js';
import { type MappedSocket, waitReadable, xskKick, xskZeroCopy } from '../native/index.js';
import { BATCH_CAPACITY, type Batch } from '../packet/batch.js';
import { JUMBO_BYTES } from '../packet/memory.js';
import { Assembly } from './assembly.js';
import type { Umem } from './umem.js';
import { CompletionRing, FillRing, RxRing, TxRing } from './xsk-ring.js';

/**
 * Completions are collected when there is a batch of them. This is rare enough to cost little, and
 * early enough for the chunks to be in the cache.
 */
const REAP_AT = BATCH_CAPACITY;
const ETHERNET_HEADER_BYTES = 14;

/** Result of `xskKick` if there is more to send. */
const EAGAIN = 11;
/** Result of `xskKick` if the socket is no longer bound, because the interface was removed. */
export const ENXIO = 6;

/** The queue and interface that a socket serves. `port` is the port's index. */
interface XskPlace {
  readonly interface: string;
  readonly port: number;
  readonly queue: number;
}

export class XskPort implements XskPlace {
  readonly interface: string;
  /** The port's index. */
  readonly port: number;
  readonly queue: number;
  readonly fd: number;
  /**
   * Number of this socket among those that share its packet memory. It is not reused while the
   * socket holds chunks.
   */
  readonly id: number;
  /**
   * Whether the socket is zero-copy. Only zero-copy drivers may need a wake-up after the fill ring
   * was empty.
   */
  readonly zeroCopy: boolean;

  /** Frames dropped because `entries` frames are being sent already. */
  txRingFull = 0;
  /** Frames dropped because their parts exceed a jumbo buffer, or because none was free. */
  rxJumboDropped = 0;
  /** Frames dropped because a middlebox left a start and length that no Ethernet frame fits. */
  txInvalid = 0;
  /** System calls that asked the kernel to send. */
  kicks = 0;
  /** Kicks that failed, usually because the interface is down. The frames stay in the ring. */
  kickErrors = 0;
  /** The last kick's errno, or 0. */
  lastError = 0;
  /** Keeps the loads of `touch`: V8 drops loads whose value is unused. */
  touched = 0;

  private readonly umem: Umem;
  private readonly rx: RxRing;
  private readonly tx: TxRing;
  private readonly fill: FillRing;
  private readonly completion: CompletionRing;
  private readonly chunkMask: number;
  private readonly chunkBytes: number;
  private readonly fds: Int32Array;
  private readonly jumboAt: number;
  /** Whether frames may arrive in several parts. */
  private readonly inParts: boolean;
  /** Chunks of the longest frame. */
  private readonly partsMax: number;
  private readonly assembly: Assembly;
  private missing: number;
  private outstanding = 0;
  /** Whether the kernel has not yet taken the whole tx ring. It is kicked again first. */
  private unsent = false;

  constructor(place: XskPlace, socket: MappedSocket, id: number, umem: Umem) {
    this.interface = place.interface;
    this.port = place.port;
    this.queue = place.queue;
    this.fd = socket.fd;
    this.fds = Int32Array.of(socket.fd);
    this.id = id;
    this.umem = umem;
    this.zeroCopy = xskZeroCopy(socket.fd);
    this.chunkBytes = umem.memory.chunkBytes;
    this.chunkMask = this.chunkBytes - 1;
    this.jumboAt = umem.memory.jumboAt;
    this.partsMax = umem.memory.roomBytes / this.chunkBytes;
    this.inParts = this.partsMax > 1;
    this.assembly = new Assembly(umem);
    this.rx = new RxRing(socket.rx);
    this.tx = new TxRing(socket.tx);
    this.fill = new FillRing(socket.fill);
    this.completion = new CompletionRing(socket.completion);
    this.missing = this.fill.entries;
    this.replenish();
  }

  /** Moves waiting frames into the batch, from index `at` on. Returns their number. */
  receive(batch: Batch, at: number): number {
    if (this.inParts) return this.receiveParts(batch, at);
    const count = this.rx.peek(BATCH_CAPACITY - at);
    if (count !== 0) {
      this.rx.read(batch.start, batch.length, at, count);
      this.rx.release(count);
      this.touch(batch, at, count);
      for (let i = at; i < at + count; i++) batch.port[i] = this.port;
      this.missing += count;
    }
    if (this.missing !== 0) this.replenish();
    if (this.unsent) this.kick();
    return count;
  }

  /**
   * `receive` for frames that may arrive in several parts. The parts are copied together, and their
   * chunks are freed at once.
   */
  private receiveParts(batch: Batch, at: number): number {
    const { rx, assembly, umem } = this;
    const waiting = rx.peek(rx.entries);
    let next = at;
    let taken = 0;
    while (taken < waiting && next < BATCH_CAPACITY) {
      const address = rx.address(taken);
      const length = rx.length(taken);
      const isContinued = rx.isContinued(taken);
      taken++;
      if (!isContinued && !assembly.isOpen) {
        batch.start[next] = address;
        batch.length[next] = length;
        batch.port[next++] = this.port;
        continue;
      }
      assembly.add(address, length);
      umem.give(address);
      if (isContinued) continue;
      if (assembly.start === NONE) this.rxJumboDropped++;
      else {
        batch.start[next] = assembly.start;
        batch.length[next] = assembly.length;
        batch.port[next++] = this.port;
      }
      assembly.end();
    }
    if (taken !== 0) {
      rx.release(taken);
      this.missing += taken;
    }
    if (this.missing !== 0) this.replenish();
    if (this.unsent) this.kick();
    return next - at;
  }

  /**
   * Loads the cache line with the headers of every frame. The kernel wrote them on another core.
   * Here the cache misses overlap, while the parser would wait for one after the other. It saved a
   * quarter of a NAT's time per packet.
   */
  private touch(batch: Batch, at: number, count: number): void {
    const { i32 } = batch.memory;
    const { start } = batch;
    let sum = 0;
    for (let i = at; i < at + count; i++) sum ^= i32[start[i] >> 2];
    this.touched = sum;
  }

  /**
   * Puts a frame into the tx ring. If that is not possible, takes it back and counts the reason.
   */
  send(start: number, length: number): void {
    if (start >= this.jumboAt) return this.sendJumbo(start, length);
    if (length < ETHERNET_HEADER_BYTES || (start & this.chunkMask) + length > this.chunkBytes) {
      this.txInvalid++;
      this.umem.give(start);
      return;
    }
    if (this.outstanding === this.tx.entries) {
      this.reap();
      if (this.outstanding === this.tx.entries) {
        this.txRingFull++;
        this.umem.give(start);
        return;
      }
    }
    this.outstanding++;
    this.umem.lend(start, this.id);
    this.tx.put(start, length);
  }

  /**
   * Puts a frame of a jumbo buffer into the tx ring, in chunks, or drops it and counts the reason.
   * The buffer is freed in both cases.
   */
  private sendJumbo(start: number, length: number): void {
    const { umem } = this;
    if (length < ETHERNET_HEADER_BYTES || (start & (JUMBO_BYTES - 1)) + length > JUMBO_BYTES) this.txInvalid++;
    else if (!this.sendParts(umem.memory.u8, start, length)) this.txRingFull++;
    umem.give(start);
  }

  /**
   * Puts copies of a frame's parts into the tx ring, all or none. Returns false if there is no room
   * now.
   */
  private sendParts(frames: Uint8Array, at: number, length: number): boolean {
    const { umem, tx, chunkBytes } = this;
    const { u8 } = umem.memory;
    const parts = Math.ceil(length / chunkBytes);
    if (!this.areFree(parts)) this.reap();
    if (!this.areFree(parts)) return false;
    for (let from = 0; from < length; from += chunkBytes) {
      const chunk = umem.take();
      const bytes = Math.min(chunkBytes, length - from);
      for (let i = 0; i < bytes; i++) u8[chunk + i] = frames[at + from + i];
      umem.lend(chunk, this.id);
      tx.putPart(chunk, bytes, from + bytes < length);
    }
    this.outstanding += parts;
    return true;
  }

  /**
   * Puts a copy of a frame into the tx ring. Returns false if the ring has no room or no chunk is
   * free now.
   */
  sendCopy(frames: Uint8Array, at: number, length: number): boolean {
    if (length > this.chunkBytes) return this.sendParts(frames, at, length);
    if (!this.hasRoom(1)) return false;
    this.send(this.umem.takeCopy(frames, at, length), length);
    return true;
  }

  /** Whether `copies` frames of any length fit: free chunks, and entries in the tx ring. */
  hasRoom(copies: number): boolean {
    const chunks = copies * this.partsMax;
    if (!this.areFree(chunks)) this.reap();
    return this.areFree(chunks);
  }

  private areFree(chunks: number): boolean {
    return this.umem.available >= chunks && this.outstanding + chunks <= this.tx.entries;
  }

  /** After a batch: submits the frames to the kernel, and kicks it if needed. */
  flush(): void {
    if (this.tx.submit() && this.tx.needsWakeup) this.kick();
    if (this.outstanding >= REAP_AT) this.reap();
  }

  /** Before sleeping: finishes all work that would otherwise wait for the next packet. */
  settle(): void {
    if (this.outstanding !== 0) this.reap();
    if (this.missing !== 0) this.replenish();
    if (this.unsent) this.kick();
  }

  /** Whether the interface is gone. An idle socket learns this only by a kick. */
  get gone(): boolean {
    return xskKick(this.fd) === ENXIO;
  }

  /**
   * Before the socket is closed: takes back sent chunks. Returns the number of chunks that it still
   * holds, and of those not sent.
   */
  settleAccounts(): { readonly held: number; readonly unsent: number } {
    this.reap();
    return { held: this.fill.entries - this.missing + this.outstanding, unsent: this.outstanding };
  }

  private kick(): void {
    this.kicks++;
    this.lastError = xskKick(this.fd);
    this.unsent = this.lastError !== 0;
    if (this.lastError !== 0 && this.lastError !== EAGAIN) this.kickErrors++;
  }

  /** Takes back chunks that were sent. */
  private reap(): void {
    this.outstanding -= this.umem.collect(this.completion);
  }

  /** Gives the kernel chunks to receive into: as many as it lacks and as are free. */
  private replenish(): void {
    const { umem } = this;
    if (umem.available < this.missing) this.reap();
    const count = Math.min(this.missing, umem.available);
    if (count === 0) return;
    umem.supply(this.fill, count, this.id);
    this.missing -= count;
    if (this.zeroCopy && this.fill.needsWakeup) waitReadable(this.fds, 0);
  }
}
