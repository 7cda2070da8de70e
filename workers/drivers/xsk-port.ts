/**
 * A worker's share of a port: an AF_XDP socket bound to one queue of one interface.
 *
 * Invariants: - Chunks in the fill ring, in the kernel and in the rx ring are together `entries -
 * owed`, and `owed >= 0`; so the
 *    fill ring always has room for the chunks owed, and its consumer need never be read.
 * - Chunks in the tx ring, in the kernel and in the completion ring are `outstanding <= entries`;
 * so neither ring
 *    overflows, and the tx ring's consumer need never be read.
 */

import { NONE } from '../../shm/none.js';
import { BATCH_CAPACITY, type Batch } from '../batch.js';
import { type MappedSocket, waitReadable, xskKick, xskZeroCopy } from '../native/index.js';
import { JUMBO_BYTES } from '../packet/memory.js';
import { Assembly } from './assembly.js';
import type { Umem } from './umem.js';
import { CompletionRing, FillRing, RxRing, TxRing } from './xsk-ring.js';

/**
 * Completions are taken in once there is a batch of them: seldom enough to cost little, soon enough
 * to stay in the cache.
 */
const REAP_AT = BATCH_CAPACITY;
const ETHERNET_HEADER_BYTES = 14;

/** What `xskKick` returns: there is more to send. */
const EAGAIN = 11;
/** The socket is bound to nothing any more: the interface was removed. */
export const ENXIO = 6;

/** Which queue of which interface a socket serves; `port` is the port's index. */
export interface XskPlace {
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
  /** Of this socket among those that share its packet memory, for as long as they hold chunks. */
  readonly id: number;
  /** Wake the driver when the fill ring was empty: only zero-copy drivers ask for it. */
  readonly zeroCopy: boolean;

  /** Dropped because `entries` frames are on their way already. */
  txRingFull = 0;
  /**
   * Dropped because it came in parts that are longer together than a jumbo buffer, or none was
   * free.
   */
  rxJumboDropped = 0;
  /** Dropped because no Ethernet frame fits what a middlebox made of start and length. */
  txInvalid = 0;
  /** System calls that asked the kernel to send. */
  kicks = 0;
  /**
   * Kicks that failed, above all because the interface is down; what was to be sent stays in the
   * ring.
   */
  kickErrors = 0;
  /** The last kick's errno, or 0. */
  lastError = 0;
  /** Of no use but to make `touch` load: V8 drops loads whose value goes nowhere. */
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
  /** Whether frames may come in several parts. */
  private readonly inParts: boolean;
  /** Chunks that the longest frame takes. */
  private readonly partsMax: number;
  private readonly assembly: Assembly;
  private owed: number;
  private outstanding = 0;
  /**
   * The kernel has not yet taken all of the tx ring: it is asked again before anything else is
   * done.
   */
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
    this.owed = this.fill.entries;
    this.replenish();
  }

  /** Moves frames that wait into the batch, from place `at` on. Returns how many. */
  receive(batch: Batch, at: number): number {
    if (this.inParts) return this.receiveParts(batch, at);
    const count = this.rx.peek(BATCH_CAPACITY - at);
    if (count !== 0) {
      this.rx.read(batch.start, batch.length, at, count);
      this.rx.release(count);
      this.touch(batch, at, count);
      for (let i = at; i < at + count; i++) batch.port[i] = this.port;
      this.owed += count;
    }
    if (this.owed !== 0) this.replenish();
    if (this.unsent) this.kick();
    return count;
  }

  /**
   * The same, where a frame may come in several parts. They are copied together, and their chunks
   * are free at once.
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
      this.owed += taken;
    }
    if (this.owed !== 0) this.replenish();
    if (this.unsent) this.kick();
    return next - at;
  }

  /**
   * Loads the line with the headers of every frame. The kernel wrote them on another core, and here
   * the misses overlap, while whoever parses would wait for one after the other: it saved a quarter
   * of a NAT's time per packet.
   */
  private touch(batch: Batch, at: number, count: number): void {
    const { i32 } = batch.memory;
    const { start } = batch;
    let sum = 0;
    for (let i = at; i < at + count; i++) sum ^= i32[start[i] >> 2];
    this.touched = sum;
  }

  /** Puts a frame into the tx ring, or takes it back and counts why not. */
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
   * Puts a frame of a jumbo buffer into the tx ring, in chunks, or drops it and counts why; the
   * buffer is free again.
   */
  private sendJumbo(start: number, length: number): void {
    const { umem } = this;
    if (length < ETHERNET_HEADER_BYTES || (start & (JUMBO_BYTES - 1)) + length > JUMBO_BYTES) this.txInvalid++;
    else if (!this.sendParts(umem.memory.u8, start, length)) this.txRingFull++;
    umem.give(start);
  }

  /**
   * Puts copies of a frame's parts into the tx ring, all or none: false where there is no room for
   * them just now.
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
   * Puts a copy of a frame into the tx ring. Returns false where there is no room in it, or no
   * chunk free, just now.
   */
  sendCopy(frames: Uint8Array, at: number, length: number): boolean {
    if (length > this.chunkBytes) return this.sendParts(frames, at, length);
    if (!this.hasRoom(1)) return false;
    this.send(this.umem.takeCopy(frames, at, length), length);
    return true;
  }

  /** Whether there are a free chunk and a place in the tx ring for each of so many copies. */
  hasRoom(copies: number): boolean {
    const chunks = copies * this.partsMax;
    if (!this.areFree(chunks)) this.reap();
    return this.areFree(chunks);
  }

  private areFree(chunks: number): boolean {
    return this.umem.available >= chunks && this.outstanding + chunks <= this.tx.entries;
  }

  /** After a batch: shows the kernel what was put, and kicks it where it must be. */
  flush(): void {
    if (this.tx.submit() && this.tx.needsWakeup) this.kick();
    if (this.outstanding >= REAP_AT) this.reap();
  }

  /** Before sleeping: nothing may be left that only the next packet would move on. */
  settle(): void {
    if (this.outstanding !== 0) this.reap();
    if (this.owed !== 0) this.replenish();
    if (this.unsent) this.kick();
  }

  /** Whether the interface is gone, which an idle socket would never be told otherwise. */
  get gone(): boolean {
    return xskKick(this.fd) === ENXIO;
  }

  /**
   * Before the socket is closed: takes back what was sent, and says how many chunks it still holds.
   */
  settleAccounts(): { readonly held: number; readonly unsent: number } {
    this.reap();
    return { held: this.fill.entries - this.owed + this.outstanding, unsent: this.outstanding };
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

  /** Gives the kernel chunks to receive into, as many as it lacks and there are. */
  private replenish(): void {
    const { umem } = this;
    if (umem.available < this.owed) this.reap();
    const count = Math.min(this.owed, umem.available);
    if (count === 0) return;
    umem.supply(this.fill, count, this.id);
    this.owed -= count;
    if (this.zeroCopy && this.fill.needsWakeup) waitReadable(this.fds, 0);
  }
}
