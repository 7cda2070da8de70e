/**
 * The native binding, typed: the only file that loads `addon.node`.
 *
 * Every function throws a `NativeError` when its system call fails (what failed, on what, and what
 * to do about it is in its message), and a TypeError or RangeError for a wrong argument.
 * Descriptors belong to the thread that opened them, which alone closes them (`closeDescriptor`);
 * what is still open when a thread ends is closed then.
 */

import { createRequire } from 'node:module';

/** A failed system call, in the shape of Node's own. */
export interface NativeError extends Error {
  /** Name of the errno: `EBUSY`. */
  readonly code: string;
  /** Negative, as in Node. */
  readonly errno: number;
  readonly syscall: string;
}

/**
 * A ring mapped from the kernel: byte offsets of its words in `buffer`, and how many descriptors it
 * has.
 */
export interface MappedRing {
  readonly buffer: ArrayBuffer;
  readonly entries: number;
  readonly producer: number;
  readonly consumer: number;
  readonly flags: number;
  /**
   * Descriptors: 8 bytes each (an address) in fill and completion rings, 16 (address, length,
   * options) in rx and tx.
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

/** What the kernel counts of an AF_XDP socket (struct xdp_statistics). */
export interface SocketStatistics {
  /** Frames dropped for other reasons, above all longer than a chunk has room for. */
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
  /** Receive queues there can be: `ethtool -L` changes how many are in use. */
  readonly queuesMax: number;
  /** Whether it is up administratively, and whether it is in operation, too: with a carrier. */
  readonly up: boolean;
  readonly running: boolean;
}

/** Where what is in a record of `interfaceNeighbours`, in words. */
export const NeighbourAt = { version: 0, address: 1, macLow: 5, macHigh: 6 } as const;
export const NEIGHBOUR_WORDS = 7;

/** What an interface does to packets on its own; AF_XDP wants these off, see offload.c. */
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

/** Order is that of the table in memory.c. */
const ADVICE = ['hugepage', 'nohugepage', 'dontfork', 'dofork', 'willneed', 'populate', 'collapse'] as const;
export type MemoryAdvice = (typeof ADVICE)[number];

/** Flags of `xskBind` (linux/if_xdp.h). */
export const BindFlag = { COPY: 1 << 1, ZERO_COPY: 1 << 2, NEED_WAKEUP: 1 << 3, MULTI_BUFFER: 1 << 4 } as const;

/** Verdicts of an XDP program (linux/bpf.h). */
export const XdpAction = { ABORTED: 0, DROP: 1, PASS: 2, TX: 3, REDIRECT: 4 } as const;

/** A child that writes out memory as it was when it was forked. */
export interface SnapshotChild {
  readonly pid: number;
  /**
   * Its pidfd, for `childStatus`, `childKill`, and `closeDescriptor`, which kills it if it still
   * runs.
   */
  readonly child: number;
  /**
   * What it writes, non-blocking. Belongs to the caller, who gives it to a `net.Socket` at once.
   */
  readonly pipe: number;
}

interface Addon {
  /** Closes what this thread opened. Views of a socket's rings become empty. */
  closeDescriptor(fd: number): void;
  /**
   * An AF_XDP socket, not yet bound, with four rings of `entries` (a power of two). `memory` must
   * start on a page; with `share` it is registered by another socket already, whose descriptor is
   * then given to `xskBind`.
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
   * Binds to a queue of an interface. `flags` of `BindFlag`; `sharedFd`: -1, or the socket whose
   * memory is shared.
   */
  xskBind(fd: number, name: string, queue: number, flags: number, sharedFd: number): void;
  /**
   * Whether this kernel gives and takes frames in several chunks (`BindFlag.MULTI_BUFFER`, Linux
   * 6.6).
   */
  xskMultiBuffer(): boolean;
  /** Whether a bound socket moves frames without a copy. */
  xskZeroCopy(fd: number): boolean;
  xskStatistics(fd: number): SocketStatistics;
  /**
   * Has the kernel send what the tx ring holds. Returns 0, EAGAIN while some is left, or the errno
   * of a failure.
   */
  xskKick(fd: number): number;
  /** An XSKMAP of this many queues: queue → socket. */
  bpfMapCreate(entries: number, label: string): number;
  /** Enters a socket of this thread into a map, which may be another thread's. */
  bpfMapUpdate(mapFd: number, queue: number, socketFd: number): void;
  /** A counter that an XDP program adds to. */
  bpfCounterCreate(label: string): number;
  /** What was counted since the last call; the counter may be another thread's. */
  bpfCounterTake(fd: number): number;
  /**
   * Loads an XDP program; the error carries the end of the verifier's log. `multiBuffer`: it can be
   * attached where frames are in several buffers, of which it sees the first.
   */
  bpfProgramLoad(instructions: Uint8Array, label: string, multiBuffer: boolean): number;
  /** Runs a loaded program on one frame, as if received on queue 0: an `XdpAction`. */
  bpfProgramRun(programFd: number, frame: Uint8Array): number;
  /**
   * Attaches a program to an interface, native or generic, until the link is closed or the process
   * dies.
   */
  bpfLinkCreate(programFd: number, name: string, native: boolean): number;
  /**
   * Replaces the program of a link, without a moment in which none is attached. ENOLINK: the
   * interface is gone.
   */
  bpfLinkUpdate(linkFd: number, programFd: number): void;
  /** An eventfd, which `waitReadable` waits for and resets. */
  eventCreate(): number;
  /** Wakes whoever waits on an eventfd; from any thread. */
  eventSignal(fd: number): void;
  /**
   * Blocks the thread until one of `fds` is readable or the time (at most an hour) is up. Returns
   * how many are.
   */
  waitReadable(fds: Int32Array, timeoutMs: number): number;
  /** The calling thread runs on this core alone from now on. */
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
   * Ends the process at once: threads in system calls are not waited for, and nothing is flushed.
   */
  exitNow(code: number): never;
  pageBytes(): number;
  memoryAddress(view: Uint8Array): number;
  memoryAdvise(view: Uint8Array, advice: number): number;
  interfaceFacts(name: string): InterfaceFacts;
  /**
   * The interface takes frames to whatever station, until this descriptor is closed or the process
   * ends.
   */
  interfacePromiscuous(name: string): number;
  /**
   * The neighbours on an interface whose link-layer addresses the kernel knows, of both IP
   * versions, one record of `NEIGHBOUR_WORDS` after the other: 4 or 6, the address as it is in
   * packets (IPv4: one word, IPv6: four), bytes 0–3 of the MAC address, bytes 4–5.
   */
  interfaceNeighbours(name: string): Int32Array;
  /**
   * An rtnetlink socket that hears these multicast groups. Its descriptor is for the next two
   * alone.
   */
  netlinkOpen(groups: number): number;
  netlinkSend(fd: number, message: Uint8Array): void;
  /**
   * The next messages, or `null` where there are none now. Throws ENOBUFS once after some were
   * lost.
   */
  netlinkReceive(fd: number): Uint8Array | null;
  offloads(name: string): Offloads;
  offloadSet(name: string, offload: string, on: boolean): void;
  unixDatagram(path: string, message: string): void;
  /**
   * Forks a child that writes `arena` with the sums added, and ends. Each sum is seven numbers:
   * byte offset in the arena, stride, how many cells; byte offset in `locals`, stride; stride from
   * lane to lane, how many lanes. To each cell in the arena, a double, are added its lanes in
   * `locals`. The sums ascend in the arena and do not overlap.
   */
  forkSnapshot(arena: Uint8Array, locals: Uint8Array, sums: Float64Array): SnapshotChild;
  /**
   * Undefined while the child runs; then, once, its exit code or the negative number of the signal
   * that ended it.
   */
  childStatus(child: number): number | undefined;
  childKill(child: number): void;
  /**
   * Until `thickenFork`, forks copy nothing but these two views and what a child in C needs: so
   * they are faster.
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

/** The address of a view of shared memory: to align something within it. */
export function addressOf(view: Uint8Array): number {
  return addon.memoryAddress(view);
}

/**
 * Advises the kernel of the whole pages within a view of shared memory; returns how many bytes that
 * was.
 */
export function adviseMemory(view: Uint8Array, advice: MemoryAdvice): number {
  return addon.memoryAdvise(view, ADVICE.indexOf(advice));
}

/** Loads an XDP program: see `Addon`. */
export function bpfProgramLoad(instructions: Uint8Array, label: string, multiBuffer = false): number {
  return addon.bpfProgramLoad(instructions, label, multiBuffer);
}

/** Switches offloads; throws at the first that the driver refuses. */
export function setOffloads(name: string, wanted: Partial<Offloads>): void {
  for (const [offload, on] of Object.entries(wanted)) addon.offloadSet(name, offload, on);
}

/**
 * Tells the service manager (man 3 sd_notify): `READY=1`, `WATCHDOG=1`, `STATUS=…`, several
 * separated by newlines. Returns false where nobody asked to be told, that is, without
 * `$NOTIFY_SOCKET`.
 */
export function notifyServiceManager(message: string, path = process.env['NOTIFY_SOCKET']): boolean {
  if (path === undefined || path === '') return false;
  addon.unixDatagram(path, message);
  return true;
}

/** Whether an error is a failed system call, of this name where one is given. */
export function isNativeError(error: unknown, code?: string): error is NativeError {
  return (
    error instanceof Error &&
    'syscall' in error &&
    'code' in error &&
    (code === undefined || (error as NativeError).code === code)
  );
}
