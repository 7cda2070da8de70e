/**
 * Attaches XDP to an interface: one program, and one map of sockets for all its queues.
 *
 * The main thread attaches and gives the map's descriptor to the workers. Each worker enters its
 * own sockets. If a worker dies, only its sockets are lost: the kernel removes them from the map,
 * and its replacement enters others.
 */

import {
  bpfCounterCreate,
  bpfLinkCreate,
  bpfLinkUpdate,
  bpfMapCreate,
  bpfProgramLoad,
  closeDescriptor,
  interfaceFacts,
  interfacePromiscuous,
  isNativeError,
  type Offloads,
  offloads,
  setOffloads,
  xskMultiBuffer,
} from '../native/index.js';
import { type XdpFilter, xdpProgram } from './xdp-program.js';

/**
 * `native`: in the driver, before the kernel makes a packet of a frame. `generic`: on the kernel's
 * packets, for any driver. `auto`: the first that works.
 */
export type XdpMode = 'native' | 'generic' | 'auto';

export interface XdpAttachment {
  readonly interface: string;
  /** The mode in effect. */
  readonly mode: 'native' | 'generic';
  /** Index of the interface. */
  readonly index: number;
  /** Whether frames may arrive in several buffers. */
  readonly multiBuffer: boolean;
  /** The XSKMAP's descriptor, valid in every thread of the process until `close`. */
  readonly mapFd: number;
  /** Counts frames for the data plane whose queue has no socket (`bpfCounterTake`). */
  readonly counterFd: number;
  /** Replaces the filter, for the interface's current MAC address `mac`. */
  update(filter: XdpFilter, mac: Uint8Array): void;
  /**
   * Releases what was attached to an interface that no longer exists, without touching another one
   * of the same name.
   */
  abandon(): void;
  /** Detaches and restores the interface's offloads. Only the thread that attached may call it. */
  close(): void;
}

/** Frames of a larger MTU do not fit into a page beside the driver's own data. */
const ONE_BUFFER_MTU = 3000;
/**
 * Errors after which mode `auto` does not try generic mode: it would fail in the same way, or hide
 * another program.
 */
const FINAL = new Set(['EPERM', 'EACCES', 'EBUSY', 'EEXIST', 'ENODEV']);

/**
 * Attaches a filter. The map has room for every queue that the interface can have, including those
 * added at run time.
 *
 * @param multiBuffer whether frames are longer than a chunk of packet memory
 * @throws NativeError: no such interface, no capability, another program attached, no XDP in this
 *   driver
 */
export function attachXdp(name: string, mode: XdpMode, filter: XdpFilter, multiBuffer = false): XdpAttachment {
  const facts = interfaceFacts(name);
  if (!facts.ethernet) throw new Error(`${name} is not an Ethernet interface: its frames have no Ethernet header`);
  const opened: number[] = [];
  const closeAll = (): void => {
    for (const fd of opened.splice(0).reverse()) closeDescriptor(fd);
  };
  try {
    const mapFd = bpfMapCreate(facts.queuesMax, name);
    opened.push(mapFd);
    const counterFd = bpfCounterCreate(name);
    opened.push(counterFd);
    const instructions = xdpProgram(filter, facts.mac, mapFd, counterFd);
    const attempts = attemptsOf(mode, multiBuffer, facts.mtu);
    const { attempt, fds } = attachLink(attempts, instructions, name);
    let [program] = fds;
    const [, link] = fds;
    opened.push(program, link);
    const attached = attempt.mode;
    if (filter.mode === 'all') opened.push(interfacePromiscuous(name));
    const restoreOffloads = quietOffloads(name, attached);
    return {
      interface: name,
      ...attempt,
      index: facts.index,
      mapFd,
      counterFd,
      update(next: XdpFilter, mac: Uint8Array): void {
        const replacement = bpfProgramLoad(xdpProgram(next, mac, mapFd, counterFd), name, attempt.multiBuffer);
        try {
          bpfLinkUpdate(link, replacement);
        } catch (error) {
          closeDescriptor(replacement);
          throw error;
        }
        closeDescriptor(program);
        opened[opened.indexOf(program)] = replacement;
        program = replacement;
      },
      abandon: closeAll,
      close(): void {
        if (opened.length === 0) return;
        closeAll();
        if (indexOf(name) === facts.index) restoreOffloads();
      },
    };
  } catch (error) {
    closeAll();
    throw error;
  }
}

interface Attempt {
  readonly mode: 'native' | 'generic';
  readonly multiBuffer: boolean;
}

/**
 * Ways to attach, in order of preference. A driver may refuse an MTU of more than about 3500 bytes
 * to a program that expects single buffers. To a program that supports several buffers, it also
 * gives frames that fit one chunk.
 */
function attemptsOf(mode: XdpMode, multiBuffer: boolean, mtu: number): Attempt[] {
  const native: Attempt[] = [{ mode: 'native', multiBuffer }];
  if (!multiBuffer && mtu > ONE_BUFFER_MTU && xskMultiBuffer()) native.push({ mode: 'native', multiBuffer: true });
  const generic: Attempt = { mode: 'generic', multiBuffer };
  return mode === 'native' ? native : mode === 'generic' ? [generic] : [...native, generic];
}

/**
 * Loads and attaches the program with the first attempt that works. Throws the error of the last
 * attempt.
 */
function attachLink(
  [attempt, ...others]: readonly Attempt[],
  instructions: Uint8Array,
  name: string,
): { attempt: Attempt; fds: readonly [program: number, link: number] } {
  const program = bpfProgramLoad(instructions, name, attempt.multiBuffer);
  try {
    return { attempt, fds: [program, bpfLinkCreate(program, name, attempt.mode === 'native')] };
  } catch (error) {
    closeDescriptor(program);
    if (others.length === 0 || !isNativeError(error) || FINAL.has(error.code)) throw error;
  }
  return attachLink(others, instructions, name);
}

/**
 * Switches off offloads that hide packets from the program. If the hardware removes a tag, a tagged
 * frame looks untagged. In generic mode, several packets may have been merged into one that is too
 * long for a chunk. Returns a function that undoes it.
 */
function quietOffloads(name: string, mode: 'native' | 'generic'): () => void {
  const before: Offloads = offloads(name);
  const unwanted: (keyof Offloads)[] = mode === 'generic' ? ['gro', 'lro', 'rxVlan'] : ['rxVlan'];
  const switched = unwanted.filter((offload) => before[offload] && trySwitch(name, offload, false));
  return () => {
    for (const offload of switched) trySwitch(name, offload, true);
  };
}

/** Index of the interface that has this name now. 0 if there is none. */
function indexOf(name: string): number {
  try {
    return interfaceFacts(name).index;
  } catch (error) {
    if (isNativeError(error, 'ENODEV')) return 0;
    throw error;
  }
}

/**
 * Switches an offload and returns whether it worked. A driver may have the offload fixed, and the
 * interface may be gone when its offloads are restored. Neither is an error.
 */
function trySwitch(name: string, offload: keyof Offloads, on: boolean): boolean {
  try {
    setOffloads(name, { [offload]: on });
    return true;
  } catch (error) {
    if (isNativeError(error)) return false;
    throw error;
  }
}
