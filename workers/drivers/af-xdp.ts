/**
 * The `af_xdp` driver: the ports of one worker over one packet memory, so a frame received on one
 * port leaves by another without a copy. System calls are needed only to send (one per port and
 * batch, if the kernel must be kicked) and to sleep. Everything else happens in shared rings.
 *
 * A port has one socket for each queue of its interface that this worker serves. It receives from
 * all of them in turn, and sends by the first.
 *
 * All resources belong to the thread that opened them. When a worker dies, its sockets close and
 * the kernel removes them from the XSKMAP. A replacement then binds the same queues.
 */

import {
  adviseMemory,
  closeDescriptor,
  eventCreate,
  eventSignal,
  isNativeError,
  waitReadable,
} from '../native/index.js';
import { BATCH_CAPACITY, type Batch } from '../packet/batch.js';
import type { PacketMemory } from '../packet/memory.js';
import type { PacketDriver } from './driver.js';
import { Umem } from './umem.js';
import { attachXdp, type XdpAttachment, type XdpMode } from './xdp-attach.js';
import type { XdpFilter } from './xdp-program.js';
import { ENXIO, type XskPort } from './xsk-port.js';
import { type AfXdpPortStatistics, BIND_PATIENCE_MS, XskSockets } from './xsk-sockets.js';

interface AfXdpPort {
  readonly interface: string;
  /** Receive queues of the interface that this worker serves. Default: queue 0. */
  readonly queues?: readonly number[];
  /**
   * The interface's XSKMAP, from `attachXdp` in the main thread. -1: the port has none yet. Absent:
   * the driver attaches by itself, with the next two options.
   */
  readonly mapFd?: number;
  /** Used without `mapFd`. Default: `auto`. */
  readonly mode?: XdpMode;
  /** Used without `mapFd`. Default: `{ mode: 'all' }`. */
  readonly filter?: XdpFilter;
  /** Absent: zero-copy if every port's driver supports it. */
  readonly zeroCopy?: boolean;
}

interface AfXdpOptions {
  readonly ports: readonly AfXdpPort[];
  /**
   * Entries of each ring of a port with one queue: a power of two, by default 4096. Small rings
   * drop bursts. Several queues share them (`ringEntries`).
   */
  readonly ringSize?: number;
  /** 2048 (default) or 4096. The longest frame is 258 bytes shorter. */
  readonly chunkBytes?: number;
  /**
   * Whether frames may be longer than a chunk, up to `JUMBO_FRAME_BYTES_MAX` (Linux 6.6). Default:
   * false.
   */
  readonly multiBuffer?: boolean;
  /** Chunks of packet memory. Default: as many as all rings can hold, plus two batches. */
  readonly chunks?: number;
  /** Never sleep in `wait`. */
  readonly busy?: boolean;
  /**
   * Called after the kernel has unbound a port's sockets because its interface is gone. They are
   * already closed then.
   */
  readonly onGone?: (port: number) => void;
  /**
   * An eventfd (`eventCreate`) of any thread, by which other threads wake this driver. Absent: the
   * driver makes its own.
   */
  readonly wakeFd?: number;
}

const RING_SIZE = 4096;
const RING_SIZE_MIN = 64;
const SOCKETS_MAX = 512;
const CHUNK_BYTES = 2048;

/**
 * Entries of the rings of each of a port's `queues` sockets. The port's share of packet memory
 * stays the same.
 */
export function ringEntries(ringSize: number, queues: number): number {
  let entries = ringSize;
  for (let share = 1; share < queues && entries > RING_SIZE_MIN; share *= 2) entries /= 2;
  return entries;
}

export class AfXdpDriver implements PacketDriver {
  readonly memory: PacketMemory;
  readonly exhausted = false;
  /** Signalled by `wake`, from any thread. */
  readonly wakeFd: number;
  private readonly umem: Umem;
  private readonly sockets: XskSockets;
  private readonly attachments: XdpAttachment[] = [];
  /** Descriptors that `wait` sleeps on: those of the sockets and the wake-up. */
  private waitFds: Int32Array;
  private readonly busy: boolean;
  private readonly multiBuffer: boolean;
  private readonly ownsWakeFd: boolean;
  /** Number of frames that were to leave by a port without a socket. */
  private unsent = 0;
  private readonly onGone: (port: number) => void;
  private turn = 0;
  private closed = false;

  /** @throws NativeError that says what is missing. Nothing stays open then. */
  constructor(options: AfXdpOptions) {
    const { chunkBytes = CHUNK_BYTES } = options;
    const count = options.ports.length;
    if (count < 1 || count > 32) throw new RangeError(`an af_xdp driver has 1 to 32 ports, not ${count}`);
    const places = options.ports.reduce((sum, port) => sum + queuesOf(port).length, 0);
    const most = options.ports.reduce((max, port) => Math.max(max, queuesOf(port).length), 1);
    if (places > SOCKETS_MAX)
      throw new RangeError(
        `${places} queues for one worker, of at most ${SOCKETS_MAX}: use more workers, or fewer queues (ethtool -L)`,
      );
    const ringSize = ringEntries(options.ringSize ?? RING_SIZE, most);
    // A socket's rings hold at most two ring sizes of chunks. The worker itself has a batch.
    const chunks = options.chunks ?? places * 2 * ringSize + 2 * BATCH_CAPACITY;
    if (chunks < places * ringSize)
      throw new RangeError(
        `${chunks} packet buffers are not enough for ${places} queues with rings of ${ringSize}: give a worker more (frames), the interfaces fewer queues (ethtool -L), or use more workers`,
      );
    this.busy = options.busy ?? false;
    this.onGone = options.onGone ?? (() => {});
    this.ownsWakeFd = options.wakeFd === undefined;
    this.multiBuffer = options.multiBuffer ?? false;
    // Jumbo buffers: one per packet of a batch, and one per socket for an incomplete frame.
    this.umem = new Umem(chunks, chunkBytes, this.multiBuffer ? BATCH_CAPACITY + places : 0);
    this.memory = this.umem.memory;
    this.wakeFd = options.wakeFd ?? eventCreate();
    this.waitFds = Int32Array.of(this.wakeFd);
    const interfaces = options.ports.map((port) => port.interface);
    const [{ zeroCopy = null }] = options.ports;
    this.sockets = new XskSockets({ umem: this.umem, interfaces, ringSize, zeroCopy, multiBuffer: this.multiBuffer });
    try {
      this.openAll(options.ports);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Whether a port has sockets. */
  isOpen(port: number): boolean {
    return this.sockets.senders[port] !== null;
  }

  /**
   * Between batches: opens a port's sockets for these queues, and enters them into the interface's
   * map. Never waits.
   *
   * @throws NativeError. The port stays closed then.
   */
  openPort(port: number, queues: readonly number[], mapFd: number): void {
    this.sockets.open(port, queues, mapFd, 0);
    this.listWaitFds();
  }

  /** Between batches: closes a port's sockets. `isGone`: the interface no longer exists. */
  closePort(port: number, isGone: boolean): void {
    this.sockets.close(port, isGone);
    this.listWaitFds();
  }

  receive(batch: Batch): number {
    const { all: receivers } = this.sockets;
    let count = 0;
    // Each call begins with the next socket, so a queue that fills every batch does not starve
    // others.
    let index = this.turn < receivers.length ? this.turn : 0;
    this.turn = index + 1;
    for (let i = 0; i < receivers.length && count < BATCH_CAPACITY; i++) {
      count += receivers[index].receive(batch, count);
      index = index + 1 === receivers.length ? 0 : index + 1;
    }
    batch.count = count;
    return count;
  }

  transmit(batch: Batch): void {
    const { senders } = this.sockets;
    this.transmitBefore(batch, batch.count);
    batch.count = batch.handed = 0;
    for (let port = 0; port < senders.length; port++) {
      const sender = senders[port];
      if (sender === null) continue;
      sender.flush();
      if (sender.lastError === ENXIO) this.gone(port);
    }
  }

  transmitBefore(batch: Batch, end: number): void {
    const { senders } = this.sockets;
    const { egress, start, length } = batch;
    for (let i = batch.handed; i < end; i++) {
      const port = egress[i];
      if (port >= 0 && port < senders.length) this.sendBy(senders[port], start[i], length[i]);
      else this.umem.give(start[i]);
    }
    batch.handed = end;
  }

  private sendBy(sender: XskPort | null, start: number, length: number): void {
    if (sender !== null) {
      sender.send(start, length);
    } else {
      this.unsent++;
      this.umem.give(start);
    }
  }

  hasRoom(port: number, frames: number): boolean {
    return this.sockets.senders[port]?.hasRoom(frames) ?? true;
  }

  send(port: number, frames: Uint8Array, at: number, length: number): boolean {
    const sender = this.sockets.senders[port];
    if (sender !== null) return sender.sendCopy(frames, at, length);
    this.unsent++; // false would make the caller retry for ever
    return true;
  }

  insert(batch: Batch, port: number, frames: Uint8Array, at: number, length: number): boolean {
    if (length > this.memory.chunkBytes) return this.insertJumbo(batch, port, frames, at, length);
    if (this.umem.available === 0) return false;
    const i = batch.count++;
    batch.start[i] = this.umem.takeCopy(frames, at, length);
    batch.length[i] = length;
    batch.port[i] = port;
    return true;
  }

  private insertJumbo(batch: Batch, port: number, frames: Uint8Array, at: number, length: number): boolean {
    if (this.umem.availableJumbos === 0) return false;
    const { u8 } = this.memory;
    const start = this.umem.takeJumbo();
    for (let byte = 0; byte < length; byte++) u8[start + byte] = frames[at + byte];
    const i = batch.count++;
    batch.start[i] = start;
    batch.length[i] = length;
    batch.port[i] = port;
    return true;
  }

  wait(timeoutMs: number): void {
    const { all, senders } = this.sockets;
    for (let i = 0; i < all.length; i++) all[i].settle();
    if (this.busy || waitReadable(this.waitFds, timeoutMs) !== 0) return;
    for (let port = 0; port < senders.length; port++) if (senders[port]?.gone === true) this.gone(port);
  }

  /** Ends a `wait`. Other threads call `eventSignal(wakeFd)`. */
  wake(): void {
    eventSignal(this.wakeFd);
  }

  /** Statistics of every open socket, then of each port's closed sockets in sum. */
  statistics(): AfXdpPortStatistics[] {
    return this.sockets.statistics();
  }

  /** Number of chunks that no socket has. */
  get freeChunks(): number {
    return this.umem.available;
  }

  /** Number of frames dropped because their port had no socket. */
  get txUnsent(): number {
    return this.unsent;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    // Detach first, so the kernel gets every frame from here on.
    for (const attachment of this.attachments.splice(0)) attachment.close();
    for (const { fd } of [...this.sockets.all].reverse()) closeDescriptor(fd);
    // The allocator may reuse these pages for data that must be visible in a fork.
    adviseMemory(this.memory.u8, 'dofork');
    if (this.ownsWakeFd) closeDescriptor(this.wakeFd);
  }

  private attach(port: AfXdpPort): number {
    const attachment = attachXdp(port.interface, port.mode ?? 'auto', port.filter ?? { mode: 'all' }, this.multiBuffer);
    this.attachments.push(attachment);
    return attachment.mapFd;
  }

  /** Handles a port whose sockets the kernel has unbound. */
  private gone(port: number): void {
    this.closePort(port, true);
    this.onGone(port);
  }

  /**
   * Opens every port that has a map. If zero-copy is not configured and not every port supports it,
   * all sockets copy.
   */
  private openAll(ports: readonly AfXdpPort[]): void {
    const mapFds = ports.map((port) => port.mapFd ?? this.attach(port));
    try {
      this.openEach(ports, mapFds);
    } catch (error) {
      const undecided = ports.every((port) => port.zeroCopy === undefined) && this.sockets.all.length > 0;
      if (!undecided || !isNativeError(error, 'EOPNOTSUPP')) throw error;
      for (const port of ports.keys()) this.sockets.close(port, false);
      this.sockets.copy();
      this.openEach(ports, mapFds);
    }
    this.listWaitFds();
  }

  private openEach(ports: readonly AfXdpPort[], mapFds: readonly number[]): void {
    for (const [port, mapFd] of mapFds.entries())
      if (mapFd !== -1) this.sockets.open(port, queuesOf(ports[port]), mapFd, BIND_PATIENCE_MS);
  }

  private listWaitFds(): void {
    this.waitFds = Int32Array.from([...this.sockets.all.map(({ fd }) => fd), this.wakeFd]);
  }
}

function queuesOf({ interface: name, queues = [0] }: AfXdpPort): readonly number[] {
  if (queues.length === 0) throw new RangeError(`${name} has no queue to serve`);
  return queues;
}
