/**
 * Fragments before the middleboxes. A later fragment gets the ports of its datagram's first
 * fragment, in whatever order they arrive. So a middlebox can tell the flow of every packet (RFC
 * 4787 REQ-14).
 *
 *     first      ─▶ its ports are noted; fragments that waited for it pass the middleboxes next,
 *                   in arrival order
 *     later      ─▶ gets these ports
 *     too early  ─▶ held, as a copy, until the first comes: `EARLY_MS` at most, then dropped
 *
 *     short      ─▶ a first IPv4 fragment that ends within its transport header: all fragments of
 *                   the datagram are held until it is complete, and go on as one packet
 *
 * A fragment that overlaps another or reaches past the datagram's end is dropped
 * (packet/datagrams.ts). Only datagrams with a short first fragment are reassembled. The receiver
 * then gets, in one piece, exactly what a middlebox has inspected (RFC 1858 describes the attacks
 * otherwise). The numbers of known datagrams and held fragments are bounded, and each group of
 * sources has a share. Without fragments, this costs nothing.
 *
 * The state is local to the worker. Interfaces deliver all fragments of a datagram to one worker,
 * because they spread fragments by addresses alone. If routing spreads the fragments of a datagram
 * over sites, the fragments without the first are dropped.
 */

import { randomFillSync } from 'node:crypto';
import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { NONE } from '../../shm/none.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import { monotonicMs } from '../base/monotonic.js';
import type { PacketDriver } from '../drivers/driver.js';
import { copyData, dataBytesOf, headerBytesOf, offsetOf, sealWhole } from '../packet/assemble.js';
import { BATCH_CAPACITY, type Batch, DROPPED } from '../packet/batch.js';
import { createDatagrams, DATAGRAMS, GROUPS } from '../packet/datagrams.js';
import { Fragment } from '../packet/fragment.js';

const COUNTERS = {
  fragments_early: 'fragments held because the first of their datagram, or the rest of its header, had not come',
  fragments_joined: 'fragments that went on within the packet that they were put together to',
  fragment_no_first: 'dropped: a fragment whose first one did not come in time',
  fragment_split_rest:
    'dropped: a fragment of a datagram whose transport header is split, and whose rest did not come in time',
  fragment_split_long:
    'dropped: a fragment of a datagram whose transport header is split, and that is longer than 1500 bytes in all',
  fragment_overlap: 'dropped: a fragment that overlaps another of its datagram, or reaches past its end',
  fragment_crowded:
    'dropped: a fragment that waited for its first, to make room for newer ones, or for whose kind there was none',
} as const;

const HELD_FRAGMENTS = 'held_fragments';

export const FRAGMENT_METRICS: Metric[] = [
  ...counterMetrics(COUNTERS),
  {
    name: HELD_FRAGMENTS,
    help: 'fragments that wait for the first of their datagram, or for the rest of its header',
    kind: 'gauge',
  },
];

/** Most fragments that a worker holds, in total and for one group of sources. */
export const EARLY_MAX = 256;
export const EARLY_PER_GROUP = 64;
/**
 * Longest time that a fragment waits for its first, in milliseconds. Delay differences between
 * paths are shorter, and an identification is not reused so soon.
 */
export const EARLY_MS = 1000;

export interface Fragments {
  /**
   * Number of fragments that may go on because their first has arrived. Take them by `refill`
   * before new packets.
   */
  readonly due: number;
  /** Number of held fragments, including those that are due. */
  readonly held: number;
  /**
   * Handles the fragments of the batch, which was just parsed. Without fragments (`batch.fragments`
   * 0) the call is not needed.
   */
  process(): void;
  /** Fills the empty batch with fragments that are due. Returns their number. */
  refill(): number;
  /** Drops fragments that waited too long. */
  expire(): void;
  /** Drops all held fragments, because the worker ends. */
  dropAll(): void;
}

interface FragmentsParts {
  readonly batch: Batch;
  readonly driver: PacketDriver;
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
  /** Monotonic milliseconds. Tests pass their own. */
  readonly clock?: () => number;
}

/**
 * Longest packet that is reassembled, in bytes. Every Ethernet link carries it. In route mode, a
 * smaller egress MTU fragments it again.
 */
export const JOINED_BYTES_MAX = 1500;

/** Interval between two searches for expired fragments, in milliseconds. */
const EXPIRE_MS = 50;

const ENDS = EARLY_MAX;

/** Made once per data plane: see the head of batch.ts. */
export function createFragments({ batch, driver, row, catalogue, ...parts }: FragmentsParts): Fragments {
  const { clock = monotonicMs } = parts;
  const { egress, fragment, start, length, port, l3, lengthAt, ports, protocol, flags } = batch;
  const { roomBytes, u8 } = driver.memory;
  const columns = columnsOf(catalogue, COUNTERS);
  const gauge = catalogue.column(HELD_FRAGMENTS);
  const datagrams = createDatagrams(batch, randomFillSync(new Int32Array(2)));

  // Held fragments by cell. Memory of cells that were never used is never touched. Waiting
  // fragments are linked by age, with `ENDS` before the oldest and after the newest.
  const frames = new Uint8Array(EARLY_MAX * roomBytes);
  const owners = new Int32Array(EARLY_MAX);
  const heldBytes = new Int32Array(EARLY_MAX);
  const heldPorts = new Int32Array(EARLY_MAX);
  /**
   * Offsets from the start of the frame: the IP header, and the length field before it (0: none).
   */
  const headers = new Int32Array(EARLY_MAX);
  const lengthFields = new Int32Array(EARLY_MAX);
  const since = new Float64Array(EARLY_MAX);
  /** By datagram: the cells of its fragments in arrival order, linked by `next`. */
  const first = new Int32Array(DATAGRAMS).fill(NONE);
  const last = new Int32Array(DATAGRAMS).fill(NONE);
  const next = new Int32Array(EARLY_MAX);
  const heldOf = new Int32Array(GROUPS);
  const older = new Int32Array(EARLY_MAX + 1).fill(ENDS);
  const newer = new Int32Array(EARLY_MAX + 1).fill(ENDS);
  const free = Int32Array.from({ length: EARLY_MAX }, (_, n) => EARLY_MAX - 1 - n);
  let freeCount = EARLY_MAX;
  let held = 0;
  let looked = 0;

  // Due fragments in order, with the values of their first fragment.
  const queue = new Int32Array(EARLY_MAX);
  let queueAt = 0;
  let due = 0;
  const shownPorts = new Int32Array(EARLY_MAX);
  const shownProtocols = new Int32Array(EARLY_MAX);
  const shownFlags = new Int32Array(EARLY_MAX);
  /** Whether it is a reassembled packet. */
  const isJoined = new Uint8Array(EARLY_MAX);
  /** Packets that `refill` put into the batch, and the cells they came from. */
  let refilled = 0;
  const refilledFrom = new Int32Array(BATCH_CAPACITY);
  // Fragments that an earlier thread of this slot held when it was killed are lost.
  row[columns.fragment_no_first] += row[gauge];
  row[gauge] = 0;

  function process(): void {
    if (refilled > 0) return showAgain();
    const now = clock();
    for (let i = 0; i < batch.count; i++) {
      if (egress[i] < 0 || fragment[i] === Fragment.WHOLE) continue;
      const datagram = datagrams.note(i, now);
      if (datagrams.displaced !== NONE) dropHeld(datagrams.displaced, columns.fragment_crowded);
      if (datagram === NONE) batch.drop(i, columns.fragment_overlap);
      else if (fragment[i] === Fragment.FIRST) headed(datagram, i);
      else if (fragment[i] === Fragment.SHORT) {
        datagrams.setSplit(datagram);
        hold(datagram, i, now);
        joinIfComplete(datagram);
      } else if (datagrams.isHeaded(datagram)) {
        datagrams.showHead(datagram, i);
        datagrams.forgetIfComplete(datagram);
      } else {
        hold(datagram, i, now);
        if (datagrams.isSplit(datagram)) joinIfComplete(datagram);
      }
    }
    row[gauge] = held;
  }

  function headed(datagram: number, i: number): void {
    datagrams.setHead(datagram, i);
    for (let at = first[datagram]; at !== NONE; at = next[at]) {
      unlink(at);
      heldOf[datagrams.groupOf(datagram)]--;
      shownPorts[at] = datagrams.ports[datagram];
      shownProtocols[at] = datagrams.protocols[datagram];
      shownFlags[at] = datagrams.flags[datagram];
      isJoined[at] = 0;
      queue[(queueAt + due++) & (EARLY_MAX - 1)] = at;
    }
    first[datagram] = last[datagram] = NONE;
    datagrams.forgetIfComplete(datagram);
  }

  /** Reassembles a datagram with a split header, if all of it has arrived. */
  function joinIfComplete(datagram: number): void {
    if (!datagrams.isComplete(datagram)) return;
    let head = NONE;
    let bytes = 0;
    let end = 0;
    for (let at = first[datagram]; at !== NONE; at = next[at]) {
      const header = at * roomBytes + headers[at];
      const offset = offsetOf(frames, header);
      const data = dataBytesOf(frames, header);
      if (offset === 0) head = at;
      bytes += data;
      end = Math.max(end, offset + data);
    }
    // Some fragments may have been evicted after they were noted.
    const isWhole = head !== NONE && bytes === end && (end + 7) >> 3 === datagrams.unitsOf(datagram);
    if (!isWhole) dropHeld(datagram, columns.fragment_crowded);
    else if (!join(datagram, head, end)) dropHeld(datagram, columns.fragment_split_long);
    datagrams.forget(datagram);
  }

  /**
   * Makes the fragment in cell `head` the whole packet, which is then due. Returns false if it
   * would be too long.
   */
  function join(datagram: number, head: number, bytes: number): boolean {
    const to = head * roomBytes;
    const whole = to + headers[head];
    const total = headerBytesOf(frames, whole) + bytes;
    const framing = lengthFields[head] === 0 ? 0 : headers[head] - lengthFields[head] - 2;
    if (total + framing > JOINED_BYTES_MAX || headers[head] + total > roomBytes) return false;
    const group = datagrams.groupOf(datagram);
    for (let at = first[datagram]; at !== NONE; at = next[at]) {
      unlink(at);
      heldOf[group]--;
      if (at === head) continue;
      copyData(frames, whole, at * roomBytes + headers[at]);
      free[freeCount++] = at;
      held--;
      row[columns.fragments_joined]++;
    }
    first[datagram] = last[datagram] = NONE;
    sealWhole(frames, whole, total, lengthFields[head] === 0 ? 0 : to + lengthFields[head]);
    heldBytes[head] = headers[head] + total;
    isJoined[head] = 1;
    queue[(queueAt + due++) & (EARLY_MAX - 1)] = head;
    return true;
  }

  function hold(datagram: number, i: number, now: number): void {
    const group = datagrams.groupOf(datagram);
    if (heldOf[group] >= EARLY_PER_GROUP || length[i] > roomBytes || !makeRoom())
      return batch.drop(i, columns.fragment_crowded);
    const at = free[--freeCount];
    const from = start[i];
    const to = at * roomBytes;
    for (let byte = 0; byte < length[i]; byte++) frames[to + byte] = u8[from + byte];
    owners[at] = datagram;
    heldBytes[at] = length[i];
    heldPorts[at] = port[i];
    headers[at] = l3[i] - from;
    lengthFields[at] = lengthAt[i] === 0 ? 0 : lengthAt[i] - from;
    since[at] = now;
    next[at] = NONE;
    if (first[datagram] === NONE) first[datagram] = at;
    else next[last[datagram]] = at;
    last[datagram] = at;
    const newest = older[ENDS];
    older[at] = newest;
    newer[at] = ENDS;
    newer[newest] = older[ENDS] = at;
    heldOf[group]++;
    held++;
    egress[i] = DROPPED;
    row[columns.fragments_early]++;
  }

  function unlink(at: number): void {
    newer[older[at]] = newer[at];
    older[newer[at]] = older[at];
  }

  /**
   * Drops the oldest waiting fragment if no cell is free. Returns false if all fragments are due.
   */
  function makeRoom(): boolean {
    if (freeCount === 0 && newer[ENDS] !== ENDS) dropOldestOf(owners[newer[ENDS]], columns.fragment_crowded);
    return freeCount > 0;
  }

  /** The fragments of a datagram are linked in order of age. */
  function dropOldestOf(datagram: number, reason: number): void {
    const at = first[datagram];
    first[datagram] = next[at];
    if (first[datagram] === NONE) last[datagram] = NONE;
    unlink(at);
    free[freeCount++] = at;
    heldOf[datagrams.groupOf(datagram)]--;
    held--;
    row[reason]++;
  }

  function dropHeld(datagram: number, reason: number): void {
    while (first[datagram] !== NONE) dropOldestOf(datagram, reason);
  }

  function refill(): number {
    let n = 0;
    batch.count = 0;
    while (due > 0 && n < BATCH_CAPACITY) {
      const at = queue[queueAt];
      if (!driver.insert(batch, heldPorts[at], frames, at * roomBytes, heldBytes[at])) break;
      refilledFrom[n++] = at;
      queueAt = (queueAt + 1) & (EARLY_MAX - 1);
      due--;
      free[freeCount++] = at;
    }
    held -= n;
    refilled = n;
    row[gauge] = held;
    return n;
  }

  /** Gives refilled fragments, which were parsed again, the values of their first fragment. */
  function showAgain(): void {
    for (let i = 0; i < refilled; i++) {
      const at = refilledFrom[i];
      if (isJoined[at] === 1) continue;
      ports[i] = shownPorts[at];
      protocol[i] = shownProtocols[at];
      flags[i] = shownFlags[at];
    }
    refilled = 0;
  }

  function expire(): void {
    if (held === due) return;
    const now = clock();
    if (now - looked < EXPIRE_MS) return;
    looked = now;
    while (newer[ENDS] !== ENDS && now - since[newer[ENDS]] >= EARLY_MS) {
      const datagram = owners[newer[ENDS]];
      dropHeld(datagram, datagrams.isSplit(datagram) ? columns.fragment_split_rest : columns.fragment_no_first);
      datagrams.forget(datagram);
    }
    row[gauge] = held;
  }

  function dropAll(): void {
    row[columns.fragment_no_first] += held;
    held = due = 0;
    row[gauge] = 0;
  }

  return {
    get due() {
      return due;
    },
    get held() {
      return held;
    },
    process,
    refill,
    expire,
    dropAll,
  };
}
