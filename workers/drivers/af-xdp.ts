/**
 * The `af_xdp` driver: N ports of one worker over one packet memory, so that a frame that came in by one port leaves by
 * another without a copy. The kernel is called once a batch to send (where it must be kicked) and to sleep; everything
 * else happens in shared rings.
 *
 * A port has a socket for each queue of its interface that this worker serves. It receives from all
 * of them in turn, and sends by the first.
 *
 * Everything belongs to the thread that opened it: when a worker dies its sockets close, the kernel takes them out of the
 * XSKMAP, and a replacement binds the same queues.
 */

import { BATCH_CAPACITY, type Batch } from '../batch.js';
import {
  adviseMemory,
  BindFlag,
  bpfMapUpdate,
  closeDescriptor,
  eventCreate,
  eventSignal,
  isNativeError,
  type MappedSocket,
  type SocketStatistics,
  waitReadable,
  xskBind,
  xskOpen,
  xskStatistics,
  xskZeroCopy,
} from '../native/index.js';
import type { PacketMemory } from '../packet/memory.js';
import type { PacketDriver } from './driver.js';
import { UMEM_HEADROOM_BYTES, Umem } from './umem.js';
import { attachXdp, type XdpAttachment, type XdpMode } from './xdp-attach.js';
import type { XdpFilter } from './xdp-program.js';
import { ENXIO, XskPort } from './xsk-port.js';

export interface AfXdpPort {
  readonly interface: string;
  /** Receive queues of the interface that this worker serves; queue 0 by default. */
  readonly queues?: readonly number[];
  /** The interface's XSKMAP, from `attachXdp` in the main thread. Absent: the driver attaches by itself, as below. */
  readonly mapFd?: number;
  /** Used without `mapFd`: `auto` by default. */
  readonly mode?: XdpMode;
  /** Used without `mapFd`: `{ mode: 'all' }` by default. */
  readonly filter?: XdpFilter;
  /** Absent: zero-copy where every port's driver has it. */
  readonly zeroCopy?: boolean;
}

export interface AfXdpOptions {
  readonly ports: readonly AfXdpPort[];
  /**
   * Entries of each ring of a port with one queue; a power of two, 4096 by default. Small rings
   * drop bursts. Several queues share them (`ringEntries`).
   */
  readonly ringSize?: number;
  /** 2048 (default) or 4096; a frame may be 258 bytes less. */
  readonly chunkBytes?: number;
  /** Chunks of packet memory; by default as many as all rings can hold. */
  readonly chunks?: number;
  /** Never sleep in `wait`. */
  readonly busy?: boolean;
  /** An eventfd (`eventCreate`) of any thread, by which others wake this driver. Absent: the driver makes its own. */
  readonly wakeFd?: number;
}

export interface AfXdpPortStatistics extends SocketStatistics {
  readonly interface: string;
  readonly queue: number;
  readonly zeroCopy: boolean;
  /** Frames dropped because the tx ring was full. */
  readonly txRingFull: number;
  /** Frames dropped because their start and length fit no chunk. */
  readonly txInvalid: number;
  readonly kicks: number;
  readonly kickErrors: number;
}

const RING_SIZE = 4096;
const RING_SIZE_MIN = 64;
const SOCKETS_MAX = 512;
const CHUNK_BYTES = 2048;
/** The kernel releases a dead socket's queue a moment after its last descriptor is closed. */
const BIND_PATIENCE_MS = 3000;
const BIND_RETRY_MS = 20;

/**
 * Entries of the rings of each of a port's `queues` sockets: the port's share of packet memory
 * stays the same.
 */
export function ringEntries(ringSize: number, queues: number): number {
  let entries = ringSize;
  for (let share = 1; share < queues && entries > RING_SIZE_MIN; share *= 2) entries /= 2;
  return entries;
}

/** A socket as it is asked for: port by index in the options. */
interface Place {
  readonly port: number;
  readonly queue: number;
}

export class AfXdpDriver implements PacketDriver {
  readonly memory: PacketMemory;
  readonly exhausted = false;
  /** Signalled by `wake`, from any thread. */
  readonly wakeFd: number;
  readonly zeroCopy: boolean;
  private readonly umem: Umem;
  /** Every socket, port by port. */
  private readonly receivers: readonly XskPort[];
  /** By port: the socket that sends. */
  private readonly senders: readonly XskPort[];
  private readonly attachments: XdpAttachment[] = [];
  private readonly sockets: number[] = [];
  /** Descriptors `wait` sleeps on: the sockets' and the wake-up's. */
  private readonly waitFds: Int32Array;
  private readonly busy: boolean;
  private readonly ownsWakeFd: boolean;
  private turn = 0;
  private closed = false;

  /** @throws NativeError saying what is missing; nothing is left open then */
  constructor(options: AfXdpOptions) {
    const { chunkBytes = CHUNK_BYTES } = options;
    const count = options.ports.length;
    if (count < 1 || count > 32) throw new RangeError(`an af_xdp driver has 1 to 32 ports, not ${count}`);
    const places = placesOf(options.ports);
    const queues = options.ports.reduce((most, port) => Math.max(most, port.queues?.length ?? 1), 1);
    const ringSize = ringEntries(options.ringSize ?? RING_SIZE, queues);
    // All rings of a socket hold at most two ring sizes of chunks; a batch is in the worker's
    // hands.
    const chunks = options.chunks ?? places.length * 2 * ringSize + 2 * BATCH_CAPACITY;
    if (chunks < places.length * ringSize)
      throw new RangeError(
        `${chunks} packet buffers are not enough for ${places.length} queues with rings of ${ringSize}: give a worker more (frames), the interfaces fewer queues (ethtool -L), or use more workers`,
      );
    this.busy = options.busy ?? false;
    this.ownsWakeFd = options.wakeFd === undefined;
    this.umem = new Umem(chunks, chunkBytes);
    this.memory = this.umem.memory;
    this.wakeFd = options.wakeFd ?? eventCreate();
    try {
      const mapFds = options.ports.map((port) => port.mapFd ?? this.attach(port));
      const mapped = this.openSockets(options.ports, places, ringSize);
      this.zeroCopy = xskZeroCopy(mapped[0].fd);
      this.receivers = places.map(
        ({ port, queue }, i) =>
          new XskPort(options.ports[port].interface, port, queue, mapped[i], this.zeroCopy, this.umem),
      );
      this.senders = options.ports.map((_, port) => this.receivers[places.findIndex((place) => place.port === port)]);
      // Last, because from here on frames come.
      for (const [i, { port, queue }] of places.entries()) bpfMapUpdate(mapFds[port], queue, mapped[i].fd);
    } catch (error) {
      this.close();
      throw error;
    }
    this.waitFds = Int32Array.from([...this.sockets, this.wakeFd]);
  }

  receive(batch: Batch): number {
    const { receivers } = this;
    let count = 0;
    // Each call begins with the next socket, so that a queue that fills every batch starves none.
    let index = this.turn;
    this.turn = index + 1 === receivers.length ? 0 : index + 1;
    for (let i = 0; i < receivers.length && count < BATCH_CAPACITY; i++) {
      count += receivers[index].receive(batch, count);
      index = index + 1 === receivers.length ? 0 : index + 1;
    }
    batch.count = count;
    return count;
  }

  transmit(batch: Batch): void {
    const { senders } = this;
    this.transmitBefore(batch, batch.count);
    batch.count = batch.handed = 0;
    for (let i = 0; i < senders.length; i++) {
      senders[i].flush();
      if (senders[i].lastError === ENXIO) this.gone(senders[i]);
    }
  }

  transmitBefore(batch: Batch, end: number): void {
    const { senders } = this;
    const { egress, start, length } = batch;
    for (let i = batch.handed; i < end; i++) {
      const port = egress[i];
      if (port >= 0 && port < senders.length) senders[port].send(start[i], length[i]);
      else this.umem.give(start[i]);
    }
    batch.handed = end;
  }

  hasRoom(port: number, frames: number): boolean {
    return this.senders[port].hasRoom(frames);
  }

  send(port: number, frames: Uint8Array, at: number, length: number): boolean {
    return this.senders[port].sendCopy(frames, at, length);
  }

  insert(batch: Batch, port: number, frames: Uint8Array, at: number, length: number): boolean {
    if (this.umem.available === 0) return false;
    const i = batch.count++;
    batch.start[i] = this.umem.takeCopy(frames, at, length);
    batch.length[i] = length;
    batch.port[i] = port;
    return true;
  }

  /** @throws Error when an interface is gone, which no later packet could tell */
  wait(timeoutMs: number): void {
    const { receivers, senders } = this;
    for (let i = 0; i < receivers.length; i++) receivers[i].settle();
    if (this.busy || waitReadable(this.waitFds, timeoutMs) !== 0) return;
    for (let i = 0; i < senders.length; i++) if (senders[i].gone) this.gone(senders[i]);
  }

  /** Ends a `wait`. Other threads call `eventSignal(wakeFd)`. */
  wake(): void {
    eventSignal(this.wakeFd);
  }

  statistics(): AfXdpPortStatistics[] {
    return this.receivers.map((port) => ({
      ...xskStatistics(port.fd),
      interface: port.interface,
      queue: port.queue,
      zeroCopy: this.zeroCopy,
      txRingFull: port.txRingFull,
      txInvalid: port.txInvalid,
      kicks: port.kicks,
      kickErrors: port.kickErrors,
    }));
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    // Detached first, so that from here on the kernel gets every frame.
    for (const attachment of this.attachments.splice(0)) attachment.close();
    for (const fd of this.sockets.splice(0).reverse()) closeDescriptor(fd);
    // The allocator may give these pages to whoever comes next, who may need them in a fork.
    adviseMemory(this.memory.u8, 'dofork');
    if (this.ownsWakeFd) closeDescriptor(this.wakeFd);
  }

  private attach(port: AfXdpPort): number {
    const attachment = attachXdp(port.interface, port.mode ?? 'auto', port.filter ?? { mode: 'all' });
    this.attachments.push(attachment);
    return attachment.mapFd;
  }

  private gone(port: XskPort): never {
    throw new Error(`af_xdp: interface ${port.interface} is gone; its socket (queue ${port.queue}) was unbound`);
  }

  /**
   * Opens and binds one socket for each place. Where zero-copy is not asked for and not every port
   * has it, all copy.
   */
  private openSockets(ports: readonly AfXdpPort[], places: readonly Place[], ringSize: number): MappedSocket[] {
    try {
      return this.openSocketsOnce(ports, places, ringSize, false);
    } catch (error) {
      const undecided = ports.every((port) => port.zeroCopy === undefined) && places.length > 1;
      if (!undecided || !isNativeError(error, 'EOPNOTSUPP')) throw error;
    }
    for (const fd of this.sockets.splice(0).reverse()) closeDescriptor(fd);
    return this.openSocketsOnce(ports, places, ringSize, true);
  }

  private openSocketsOnce(
    ports: readonly AfXdpPort[],
    places: readonly Place[],
    ringSize: number,
    copy: boolean,
  ): MappedSocket[] {
    const mapped: MappedSocket[] = [];
    const { u8, chunkBytes } = this.memory;
    for (const { port, queue } of places) {
      const name = ports[port].interface;
      const first = mapped[0]?.fd ?? -1;
      const label = `${name} queue ${queue}`;
      const socket = xskOpen(label, u8, chunkBytes, UMEM_HEADROOM_BYTES, ringSize, first !== -1);
      this.sockets.push(socket.fd);
      mapped.push(socket);
      // The first socket's flags hold for all that share its memory.
      const zeroCopy = copy ? false : ports[0].zeroCopy;
      const flags = BindFlag.NEED_WAKEUP | (zeroCopy === undefined ? 0 : zeroCopy ? BindFlag.ZERO_COPY : BindFlag.COPY);
      bindPatiently(socket.fd, name, queue, flags, first);
    }
    return mapped;
  }
}

function placesOf(ports: readonly AfXdpPort[]): Place[] {
  const places = ports.flatMap(({ queues = [0] }, port) => queues.map((queue) => ({ port, queue })));
  for (const [i, { interface: name, queues = [0] }] of ports.entries()) {
    if (queues.length === 0) throw new RangeError(`port ${i} (${name}) has no queue to serve`);
  }
  if (places.length > SOCKETS_MAX)
    throw new RangeError(
      `${places.length} queues for one worker, of at most ${SOCKETS_MAX}: use more workers, or fewer queues (ethtool -L)`,
    );
  return places;
}

/**
 * Why a bind fails that may work soon: a dead worker's queue is not free yet, or the driver resets.
 */
const PASSING = new Set(['EBUSY', 'EAGAIN', 'EINTR']);
const NEVER_CHANGES = new Int32Array(new SharedArrayBuffer(4));

function bindPatiently(fd: number, name: string, queue: number, flags: number, sharedFd: number): void {
  for (let waited = 0; ; waited += BIND_RETRY_MS) {
    try {
      xskBind(fd, name, queue, flags, sharedFd);
      return;
    } catch (error) {
      if (!isNativeError(error) || !PASSING.has(error.code) || waited >= BIND_PATIENCE_MS) throw error;
    }
    Atomics.wait(NEVER_CHANGES, 0, 0, BIND_RETRY_MS);
  }
}
