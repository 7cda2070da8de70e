/**
 * The `af_xdp` driver: N ports of one worker over one packet memory, so that a frame that came in by one port leaves by
 * another without a copy. The kernel is called once a batch to send (where it must be kicked) and to sleep; everything
 * else happens in shared rings.
 *
 * Everything belongs to the thread that opened it: when a worker dies its sockets close, the kernel takes them out of the
 * XSKMAP, and a replacement binds the same queues.
 */

import { BATCH_CAPACITY, type Batch } from '../batch.js';
import {
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
  /** Receive queue; 0 by default. */
  readonly queue?: number;
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
  /** Entries of each ring; a power of two, 4096 by default. Small rings drop bursts. */
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
const CHUNK_BYTES = 2048;
/** The kernel releases a dead socket's queue a moment after its last descriptor is closed. */
const BIND_PATIENCE_MS = 3000;
const BIND_RETRY_MS = 20;

export class AfXdpDriver implements PacketDriver {
  readonly memory: PacketMemory;
  readonly exhausted = false;
  /** Signalled by `wake`, from any thread. */
  readonly wakeFd: number;
  readonly zeroCopy: boolean;
  private readonly umem: Umem;
  private readonly ports: readonly XskPort[];
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
    const { ringSize = RING_SIZE, chunkBytes = CHUNK_BYTES } = options;
    const count = options.ports.length;
    if (count < 1 || count > 32) throw new RangeError(`an af_xdp driver has 1 to 32 ports, not ${count}`);
    // All rings of a port hold at most two ring sizes of chunks; a batch is in the worker's hands.
    const chunks = options.chunks ?? count * 2 * ringSize + 2 * BATCH_CAPACITY;
    if (chunks < count * ringSize)
      throw new RangeError(`${chunks} chunks are not enough for ${count} ports with rings of ${ringSize}`);
    this.busy = options.busy ?? false;
    this.ownsWakeFd = options.wakeFd === undefined;
    this.umem = new Umem(chunks, chunkBytes);
    this.memory = this.umem.memory;
    this.wakeFd = options.wakeFd ?? eventCreate();
    try {
      const mapFds = options.ports.map((port) => port.mapFd ?? this.attach(port));
      const mapped = this.openSockets(options.ports, ringSize);
      this.zeroCopy = xskZeroCopy(mapped[0].fd);
      this.ports = options.ports.map(
        (port, i) => new XskPort(port.interface, port.queue ?? 0, mapped[i], this.zeroCopy, this.umem),
      );
      // Last, because from here on frames come.
      for (const [i, port] of options.ports.entries()) bpfMapUpdate(mapFds[i], port.queue ?? 0, mapped[i].fd);
    } catch (error) {
      this.close();
      throw error;
    }
    this.waitFds = Int32Array.from([...this.sockets, this.wakeFd]);
  }

  receive(batch: Batch): number {
    const { ports } = this;
    let count = 0;
    // Each call begins with the next port, so that a port that fills every batch starves none.
    let index = this.turn;
    this.turn = index + 1 === ports.length ? 0 : index + 1;
    for (let i = 0; i < ports.length && count < BATCH_CAPACITY; i++) {
      count += ports[index].receive(batch, count, index);
      index = index + 1 === ports.length ? 0 : index + 1;
    }
    batch.count = count;
    return count;
  }

  transmit(batch: Batch): void {
    const { ports } = this;
    const { count, egress, start, length } = batch;
    for (let i = 0; i < count; i++) {
      const port = egress[i];
      if (port >= 0 && port < ports.length) ports[port].send(start[i], length[i]);
      else this.umem.give(start[i]);
    }
    batch.count = 0;
    for (let i = 0; i < ports.length; i++) {
      ports[i].flush();
      if (ports[i].lastError === ENXIO) this.gone(ports[i]);
    }
  }

  send(port: number, frames: Uint8Array, at: number, length: number): boolean {
    return this.ports[port].sendCopy(frames, at, length);
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
    const { ports } = this;
    for (let i = 0; i < ports.length; i++) ports[i].settle();
    if (this.busy || waitReadable(this.waitFds, timeoutMs) !== 0) return;
    for (let i = 0; i < ports.length; i++) if (ports[i].gone) this.gone(ports[i]);
  }

  /** Ends a `wait`. Other threads call `eventSignal(wakeFd)`. */
  wake(): void {
    eventSignal(this.wakeFd);
  }

  statistics(): AfXdpPortStatistics[] {
    return this.ports.map((port) => ({
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

  /** Opens and binds one socket a port. Where zero-copy is not asked for and not every port has it, all copy. */
  private openSockets(ports: readonly AfXdpPort[], ringSize: number): MappedSocket[] {
    try {
      return this.openSocketsOnce(ports, ringSize, false);
    } catch (error) {
      const undecided = ports.every((port) => port.zeroCopy === undefined) && ports.length > 1;
      if (!undecided || !isNativeError(error, 'EOPNOTSUPP')) throw error;
    }
    for (const fd of this.sockets.splice(0).reverse()) closeDescriptor(fd);
    return this.openSocketsOnce(ports, ringSize, true);
  }

  private openSocketsOnce(ports: readonly AfXdpPort[], ringSize: number, copy: boolean): MappedSocket[] {
    const mapped: MappedSocket[] = [];
    const { u8, chunkBytes } = this.memory;
    for (const port of ports) {
      const queue = port.queue ?? 0;
      const first = mapped[0]?.fd ?? -1;
      const label = `${port.interface} queue ${queue}`;
      const socket = xskOpen(label, u8, chunkBytes, UMEM_HEADROOM_BYTES, ringSize, first !== -1);
      this.sockets.push(socket.fd);
      mapped.push(socket);
      // The first socket's flags hold for all that share its memory.
      const zeroCopy = copy ? false : ports[0].zeroCopy;
      const flags = BindFlag.NEED_WAKEUP | (zeroCopy === undefined ? 0 : zeroCopy ? BindFlag.ZERO_COPY : BindFlag.COPY);
      bindPatiently(socket.fd, port.interface, queue, flags, first);
    }
    return mapped;
  }
}

const NEVER_CHANGES = new Int32Array(new SharedArrayBuffer(4));

function bindPatiently(fd: number, name: string, queue: number, flags: number, sharedFd: number): void {
  for (let waited = 0; ; waited += BIND_RETRY_MS) {
    try {
      xskBind(fd, name, queue, flags, sharedFd);
      return;
    } catch (error) {
      if (!isNativeError(error, 'EBUSY') || waited >= BIND_PATIENCE_MS) throw error;
    }
    Atomics.wait(NEVER_CHANGES, 0, 0, BIND_RETRY_MS);
  }
}
