/**
 * The typed native binding. Only this file loads `addon.node`.
 *
 * Every function throws a `NativeError` if its system call fails; the message says what failed, on
 * what, and what to do about it. A wrong argument throws a TypeError or RangeError. Descriptors
 * belong to the thread that opened them, and only that thread closes them (`closeDescriptor`).
 * Descriptors that are still open when a thread ends are closed then.
 */

import { createRequire } from 'node:module';

/** A failed system call, in the same shape as Node's own errors. */
export interface NativeError extends Error {
  /** Name of the errno, such as `EBUSY`. */
  readonly code: string;
  /** Negative, as in Node. */
  readonly errno: number;
  readonly syscall: string;
}

/**
 * A ring mapped from the kernel: byte offsets of its words in `buffer`, and its number of
 * descriptors.
 */
export interface MappedRing {
  readonly buffer: ArrayBuffer;
  readonly entries: number;
  readonly producer: number;
  readonly consumer: number;
  readonly flags: number;
  /**
   * Byte offset of the descriptors. In fill and completion rings each has 8 bytes (an address). In
   * rx and tx rings each has 16 (address, length, options).
   */
  readonly descriptors: number;
}

export interface MappedSocket {
  readonly fd: number;
  readonly fill: MappedRing;
  readonly completion: MappedRing;
  readonly rx: MappedRing;
  readonly tx: MappedRing;
}

/** The kernel's counts for an AF_XDP socket (struct xdp_statistics). */
export interface SocketStatistics {
  /**
   * Frames dropped for other reasons, usually because they are longer than a chunk has room for.
   */
  readonly rxDropped: number;
  readonly rxInvalidDescriptors: number;
  /** Frames dropped because the rx ring was full: the worker was too slow. */
  readonly rxRingFull: number;
  /** Times the kernel wanted a chunk and the fill ring had none. */
  readonly rxFillRingEmpty: number;
  readonly txInvalidDescriptors: number;
  readonly txRingEmpty: number;
}

export interface InterfaceFacts {
  readonly index: number;
  readonly mac: Uint8Array;
  /** Whether its frames have Ethernet headers. */
  readonly ethernet: boolean;
  readonly mtu: number;
  /** Receive queues in use. */
  readonly queues: number;
  /** Most receive queues. `ethtool -L` changes how many are in use. */
  readonly queuesMax: number;
  /** `up`: administratively up. `running`: also operational, with a carrier. */
  readonly up: boolean;
  readonly running: boolean;
}

/** Word offsets in a record of `interfaceNeighbours`. */
export const NeighbourAt = { version: 0, address: 1, macLow: 5, macHigh: 6 } as const;
export const NEIGHBOUR_WORDS = 7;

/** Offloads of an interface. AF_XDP needs some of these off, see offload.c. */
export interface Offloads {
  readonly rxChecksum: boolean;
  readonly txChecksum: boolean;
  readonly tso: boolean;
  readonly gso: boolean;
  readonly gro: boolean;
  readonly lro: boolean;
  readonly rxVlan: boolean;
  readonly txVlan: boolean;
}

/** The order is that of the table in memory.c. */
const ADVICE = ['hugepage', 'nohugepage', 'dontfork', 'dofork', 'willneed', 'populate', 'collapse'] as const;
export type MemoryAdvice = (typeof ADVICE)[number];

/** Flags of `xskBind` (linux/if_xdp.h). */
export const BindFlag = { COPY: 1 << 1, ZERO_COPY: 1 << 2, NEED_WAKEUP: 1 << 3, MULTI_BUFFER: 1 << 4 } as const;

/** Verdicts of an XDP program (linux/bpf.h). */
export const XdpAction = { ABORTED: 0, DROP: 1, PASS: 2, TX: 3, REDIRECT: 4 } as const;

/** A child process that writes out memory as it was at the fork. */
export interface SnapshotChild {
  readonly pid: number;
  /**
   * Its pidfd, for `childStatus` and `childKill`. `closeDescriptor` closes it, and kills the child
   * if it still runs.
   */
  readonly child: number;
  /**
   * Its output, non-blocking. It belongs to the caller, which must give it to a `net.Socket` at
   * once.
   */
  readonly pipe: number;
}

interface Addon {
  /** Closes a descriptor of this thread. Views of a socket's rings become empty. */
  closeDescriptor(fd: number): void;
  /**
   * Opens an AF_XDP socket, not yet bound, with four rings of `entries` (a power of two). `memory`
   * must start on a page. With `share`, another socket has registered it already, and that socket's
   * descriptor must be given to `xskBind`.
   */
  xskOpen(
    label: string,
    memory: Uint8Array,
    chunkBytes: number,
    headroom: number,
    entries: number,
    share: boolean,
  ): MappedSocket;
  /**
   * Binds a socket to a queue of an interface. `flags` are of `BindFlag`. `sharedFd` is the socket
   * whose memory is shared, or -1.
   */
  xskBind(fd: number, name: string, queue: number, flags: number, sharedFd: number): void;
  /** Whether this kernel supports frames in several chunks (`BindFlag.MULTI_BUFFER`, Linux 6.6). */
  xskMultiBuffer(): boolean;
  /** Whether a bound socket moves frames without a copy. */
  xskZeroCopy(fd: number): boolean;
  xskStatistics(fd: number): SocketStatistics;
  /**
   * Makes the kernel send the frames in the tx ring. Returns 0, EAGAIN if some are left, or the
   * errno of a failure.
   */
  xskKick(fd: number): number;
  /** Makes an XSKMAP for this many queues: queue → socket. */
  bpfMapCreate(entries: number, label: string): number;
  /** Enters a socket of this thread into a map, which may be another thread's. */
  bpfMapUpdate(mapFd: number, queue: number, socketFd: number): void;
  /** Makes a counter that an XDP program adds to. */
  bpfCounterCreate(label: string): number;
  /** Count since the last call. The counter may be another thread's. */
  bpfCounterTake(fd: number): number;
  /**
   * Loads an XDP program. The error includes the end of the verifier's log. `multiBuffer`: the
   * program can be attached where frames are in several buffers, and sees the first one.
   */
  bpfProgramLoad(instructions: Uint8Array, label: string, multiBuffer: boolean): number;
  /** Runs a loaded program on one frame, as if received on queue 0: an `XdpAction`. */
  bpfProgramRun(programFd: number, frame: Uint8Array): number;
  /**
   * Attaches a program to an interface, native or generic, until the link is closed or the process
   * dies.
   */
  bpfLinkCreate(programFd: number, name: string, native: boolean): number;
  /** Replaces the program of a link without a gap. ENOLINK: the interface is gone. */
  bpfLinkUpdate(linkFd: number, programFd: number): void;
  /** Makes an eventfd, which `waitReadable` waits for and resets. */
  eventCreate(): number;
  /** Signals an eventfd and so wakes its waiters. May be called from any thread. */
  eventSignal(fd: number): void;
  /**
   * Blocks the thread until one of `fds` is readable or the time (at most an hour) is up. Returns
   * the number of readable ones.
   */
  waitReadable(fds: Int32Array, timeoutMs: number): number;
  /** Pins the calling thread to this core. */
  threadPin(core: number): void;
  /** The cores the calling thread may run on. */
  threadCores(): number[];
  /** Names the calling thread for `ps` and `top`: at most 15 bytes. */
  threadName(name: string): void;
  /** The kernel's id of the calling thread. */
  threadId(): number;
  /** CPU time the calling thread has used, in nanoseconds. */
  threadCpuTime(): number;
  /**
   * Ends the process at once. It does not wait for threads in system calls, and flushes nothing.
   */
  exitNow(code: number): never;
  pageBytes(): number;
  memoryAddress(view: Uint8Array): number;
  memoryAdvise(view: Uint8Array, advice: number): number;
  interfaceFacts(name: string): InterfaceFacts;
  /**
   * Makes the interface accept frames to all stations, until this descriptor is closed or the
   * process ends.
   */
  interfacePromiscuous(name: string): number;
  /**
   * The neighbours on an interface whose link-layer addresses the kernel knows, of both IP
   * versions. They are consecutive records of `NEIGHBOUR_WORDS`: 4 or 6, the address as in packets
   * (IPv4: one word, IPv6: four), bytes 0–3 of the MAC address, bytes 4–5.
   */
  interfaceNeighbours(name: string): Int32Array;
  /**
   * Opens an rtnetlink socket that receives these multicast groups. Its descriptor is only for the
   * next two functions.
   */
  netlinkOpen(groups: number): number;
  netlinkSend(fd: number, message: Uint8Array): void;
  /**
   * The next messages, or `null` if there are none now. Throws ENOBUFS once after some were lost.
   */
  netlinkReceive(fd: number): Uint8Array | null;
  offloads(name: string): Offloads;
  offloadSet(name: string, offload: string, on: boolean): void;
  unixDatagram(path: string, message: string): void;
  /**
   * Forks a child that writes `arena` with the sums added, and ends. Each sum has seven numbers:
   * byte offset in the arena, stride, number of cells; byte offset in `locals`, stride; stride
   * between lanes, number of lanes. The lanes of each cell in `locals` are added to its cell in the
   * arena, a double. The sums must ascend in the arena and must not overlap.
   */
  forkSnapshot(arena: Uint8Array, locals: Uint8Array, sums: Float64Array): SnapshotChild;
  /**
   * Undefined while the child runs. Then, once, its exit code, or the negative number of the signal
   * that ended it.
   */
  childStatus(child: number): number | undefined;
  childKill(child: number): void;
  /**
   * Until `thickenFork`, forks copy only these two views and what a child in C needs. So they are
   * faster.
   */
  thinFork(arena: Uint8Array, locals: Uint8Array): number;
  thickenFork(): void;
}

function load(): Addon {
  try {
    return createRequire(import.meta.url)('./addon.node') as Addon;
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw new Error(`the native binding cannot be loaded: run \`npm run build\` (it needs a C compiler): ${why}`, {
      cause: error,
    });
  }
}

const addon = load();

export const {
  closeDescriptor,
  xskOpen,
  xskBind,
  xskMultiBuffer,
  xskZeroCopy,
  xskStatistics,
  xskKick,
  bpfMapCreate,
  bpfMapUpdate,
  bpfCounterCreate,
  bpfCounterTake,
  bpfProgramRun,
  bpfLinkCreate,
  bpfLinkUpdate,
  eventCreate,
  eventSignal,
  waitReadable,
  threadPin,
  threadCores,
  threadName,
  threadId,
  threadCpuTime,
  exitNow,
  interfaceFacts,
  interfacePromiscuous,
  interfaceNeighbours,
  netlinkOpen,
  netlinkSend,
  netlinkReceive,
  offloads,
  forkSnapshot,
  childStatus,
  childKill,
  thinFork,
  thickenFork,
}: Addon = addon;

export const PAGE_BYTES: number = addon.pageBytes();

/** The address of a view of shared memory, for alignment. */
export function addressOf(view: Uint8Array): number {
  return addon.memoryAddress(view);
}

/**
 * Advises the kernel about the whole pages in a view of shared memory. Returns their size in bytes.
 */
export function adviseMemory(view: Uint8Array, advice: MemoryAdvice): number {
  return addon.memoryAdvise(view, ADVICE.indexOf(advice));
}

/** Loads an XDP program: see `Addon`. */
export function bpfProgramLoad(instructions: Uint8Array, label: string, multiBuffer = false): number {
  return addon.bpfProgramLoad(instructions, label, multiBuffer);
}

/** Switches offloads. Throws at the first that the driver refuses. */
export function setOffloads(name: string, wanted: Partial<Offloads>): void {
  for (const [offload, on] of Object.entries(wanted)) addon.offloadSet(name, offload, on);
}

/**
 * Notifies the service manager (man 3 sd_notify): `READY=1`, `WATCHDOG=1`, `STATUS=…`, several
 * separated by newlines. Returns false if `$NOTIFY_SOCKET` is not set.
 */
export function notifyServiceManager(message: string, path = process.env['NOTIFY_SOCKET']): boolean {
  if (path === undefined || path === '') return false;
  addon.unixDatagram(path, message);
  return true;
}

/** Whether an error is a failed system call, with this errno name if one is given. */
export function isNativeError(error: unknown, code?: string): error is NativeError {
  return (
    error instanceof Error &&
    'syscall' in error &&
    'code' in error &&
    (code === undefined || (error as NativeError).code === code)
  );
}
