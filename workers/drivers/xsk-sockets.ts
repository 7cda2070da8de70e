/**
 * The AF_XDP sockets of one worker, over one packet memory. They are opened and closed port by port
 * while the other ports go on, because an interface may be deleted and recreated.
 *
 * The first socket registers the packet memory. The others share it with a socket that is bound. If
 * no socket is bound any more, the next one registers the memory again.
 *
 * Chunks of a closed socket are taken back at once if the kernel has finished with them: it copied
 * frames, or the device is gone. A zero-copy device that still exists may write into them for a
 * moment. They are then taken back when its queues have been bound again, which the kernel does not
 * allow earlier.
 */

import {
  BindFlag,
  bpfMapUpdate,
  closeDescriptor,
  isNativeError,
  type MappedSocket,
  type SocketStatistics,
  xskBind,
  xskOpen,
  xskStatistics,
} from '../native/index.js';
import { UMEM_HEADROOM_BYTES, type Umem } from './umem.js';
import { XskPort } from './xsk-port.js';

export interface AfXdpPortStatistics extends SocketStatistics {
  readonly interface: string;
  readonly queue: number;
  readonly zeroCopy: boolean;
  /** Frames dropped because the tx ring was full. */
  readonly txRingFull: number;
  /**
   * Frames in parts that were dropped because they were too long together, or because no buffer was
   * free.
   */
  readonly rxJumboDropped: number;
  /** Frames dropped because their start and length fit no chunk. */
  readonly txInvalid: number;
  /** Frames dropped because they were in the tx ring when the socket was closed. */
  readonly txClosed: number;
  readonly kicks: number;
  readonly kickErrors: number;
}

/**
 * Longest wait for a queue, in milliseconds. The kernel releases a dead socket's queue a moment
 * after its last descriptor is closed.
 */
export const BIND_PATIENCE_MS = 3000;
const BIND_RETRY_MS = 20;

/** Chunks of a closed socket that the device may still write into. */
interface Orphans {
  readonly id: number;
  readonly held: number;
}

interface Port {
  readonly interface: string;
  sockets: readonly XskPort[];
  readonly orphans: Orphans[];
  /** Statistics of its closed sockets. `null`: none was closed. */
  retired: AfXdpPortStatistics | null;
}

interface XskSocketsOptions {
  readonly umem: Umem;
  /** Interfaces of the ports. */
  readonly interfaces: readonly string[];
  /** Entries of each ring. */
  readonly ringSize: number;
  /** `null`: zero-copy if the first port's driver supports it. */
  readonly zeroCopy: boolean | null;
  /** Whether a frame may take several chunks. */
  readonly multiBuffer: boolean;
}

export class XskSockets {
  /** Every open socket. */
  readonly all: XskPort[] = [];
  /** By port: the socket that sends. `null` if the port is closed. */
  readonly senders: (XskPort | null)[];
  private readonly options: XskSocketsOptions;
  private readonly ports: readonly Port[];
  private readonly ids = new Set<number>();
  private zeroCopy: boolean | null;

  constructor(options: XskSocketsOptions) {
    this.options = options;
    this.zeroCopy = options.zeroCopy;
    this.ports = options.interfaces.map((name) => ({ interface: name, sockets: [], orphans: [], retired: null }));
    this.senders = options.interfaces.map(() => null);
  }

  /** From now on, new sockets copy. */
  copy(): void {
    this.zeroCopy = false;
  }

  /**
   * Opens a socket for each of a port's queues, and enters it into the interface's map. If a queue
   * is in use, retries for `patienceMs`.
   *
   * @throws NativeError. None of the port's sockets is open then.
   */
  open(port: number, queues: readonly number[], mapFd: number, patienceMs: number): void {
    const { interface: name, orphans } = this.ports[port];
    const opened: MappedSocket[] = [];
    try {
      for (const queue of queues) opened.push(this.bind(name, queue, opened[0], patienceMs));
    } catch (error) {
      for (const { fd } of opened.reverse()) closeDescriptor(fd);
      throw error;
    }
    // The queues are bound again, so the device has finished with the chunks of earlier sockets.
    for (const orphan of orphans.splice(0)) this.reclaim(orphan);
    const sockets = opened.map((socket, i) => this.adopt(port, queues[i], socket));
    this.ports[port].sockets = sockets;
    this.senders[port] = sockets[0] ?? null;
    try {
      // This comes last, because frames arrive from here on.
      for (const { queue, fd } of sockets) bpfMapUpdate(mapFd, queue, fd);
    } catch (error) {
      this.close(port, false);
      throw error;
    }
  }

  /** Between batches: closes a port's sockets. `isGone`: the device no longer exists. */
  close(port: number, isGone: boolean): void {
    const closing = this.ports[port];
    const { sockets, orphans } = closing;
    closing.sockets = [];
    this.senders[port] = null;
    for (const socket of sockets) {
      const { held, unsent } = socket.settleAccounts();
      closing.retired = addStatistics(closing.retired, statisticsOf(socket, unsent));
      this.all.splice(this.all.indexOf(socket), 1);
      closeDescriptor(socket.fd);
      if (socket.zeroCopy) orphans.push({ id: socket.id, held });
      else this.reclaim({ id: socket.id, held });
    }
    if (isGone) for (const orphan of orphans.splice(0)) this.reclaim(orphan);
  }

  /** Statistics of every open socket, then of each port's closed sockets in sum. */
  statistics(): AfXdpPortStatistics[] {
    const retired = this.ports.flatMap((port) => (port.retired === null ? [] : [port.retired]));
    return [...this.all.map((socket) => statisticsOf(socket, 0)), ...retired];
  }

  /** Binds a socket. It shares packet memory with a bound socket, or registers it. */
  private bind(name: string, queue: number, sibling: MappedSocket | undefined, patienceMs: number): MappedSocket {
    if (sibling !== undefined) return this.bindSharing(sibling.fd, name, queue, patienceMs);
    for (const sender of this.senders) {
      if (sender === null) continue;
      try {
        return this.bindSharing(sender.fd, name, queue, patienceMs);
      } catch (error) {
        // The other socket's interface is gone too, so it is no longer bound.
        if (!isNativeError(error, 'EBADF')) throw error;
      }
    }
    return this.bindSharing(-1, name, queue, patienceMs);
  }

  private bindSharing(shared: number, name: string, queue: number, patienceMs: number): MappedSocket {
    const { umem, ringSize } = this.options;
    const { registered, memory } = umem;
    const label = `${name} queue ${queue}`;
    const socket = xskOpen(label, registered, memory.chunkBytes, UMEM_HEADROOM_BYTES, ringSize, shared !== -1);
    // The first socket's flags apply to all that share its memory.
    const how =
      (this.zeroCopy === null ? 0 : this.zeroCopy ? BindFlag.ZERO_COPY : BindFlag.COPY) |
      (this.options.multiBuffer ? BindFlag.MULTI_BUFFER : 0);
    try {
      bindPatiently(socket.fd, name, queue, BindFlag.NEED_WAKEUP | how, shared, patienceMs);
    } catch (error) {
      closeDescriptor(socket.fd);
      throw error;
    }
    return socket;
  }

  private adopt(port: number, queue: number, socket: MappedSocket): XskPort {
    let id = 1;
    while (this.ids.has(id)) id++;
    this.ids.add(id);
    const opened = new XskPort({ interface: this.ports[port].interface, port, queue }, socket, id, this.options.umem);
    this.all.push(opened);
    return opened;
  }

  private reclaim({ id, held }: Orphans): void {
    const count = this.options.umem.reclaim(id);
    this.ids.delete(id);
    if (count !== held) throw new Error(`af_xdp: a closed socket held ${held} packet buffers, and ${count} were found`);
  }
}

function statisticsOf(socket: XskPort, txClosed: number): AfXdpPortStatistics {
  const { interface: name, queue, zeroCopy, txRingFull, txInvalid, rxJumboDropped, kicks, kickErrors } = socket;
  const counted = { txRingFull, txInvalid, rxJumboDropped, txClosed, kicks, kickErrors };
  return { ...xskStatistics(socket.fd), interface: name, queue, zeroCopy, ...counted };
}

function addStatistics(sum: AfXdpPortStatistics | null, more: AfXdpPortStatistics): AfXdpPortStatistics {
  if (sum === null) return more;
  const added: Record<string, unknown> = { ...more };
  for (const [name, value] of Object.entries(sum))
    if (typeof value === 'number' && name !== 'queue') added[name] = value + (added[name] as number);
  return added as unknown as AfXdpPortStatistics;
}

/** Temporary errors of a bind: a dead socket's queue is not free yet, or the driver resets. */
export const PASSING: ReadonlySet<string> = new Set(['EBUSY', 'EAGAIN', 'EINTR']);
const NEVER_CHANGES = new Int32Array(new SharedArrayBuffer(4));

function bindPatiently(
  fd: number,
  name: string,
  queue: number,
  flags: number,
  sharedFd: number,
  patienceMs: number,
): void {
  for (let waited = 0; ; waited += BIND_RETRY_MS) {
    try {
      xskBind(fd, name, queue, flags, sharedFd);
      return;
    } catch (error) {
      if (!isNativeError(error) || !PASSING.has(error.code) || waited >= patienceMs) throw error;
    }
    Atomics.wait(NEVER_CHANGES, 0, 0, BIND_RETRY_MS);
  }
}
