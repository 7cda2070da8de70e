/**
 * Fragments before the middleboxes: a later one gets the ports of its datagram's first, in whatever
 * order they come, so that a middlebox sees of every packet to which flow it belongs (RFC 4787
 * REQ-14).
 *
 *     first      ─▶ its ports are noted; what waited for it comes through the middleboxes next, in the order it came
 *     later      ─▶ gets these ports
 *     too early  ─▶ held, in a copy, until the first comes: `HOLD_MS` at most, then dropped
 *
 *     short      ─▶ a first fragment of IPv4 that ends within its transport header: all fragments of the datagram are
 *                   held until it is complete, and go on as the one packet they make
 *
 * What overlaps, or reaches past the end, is dropped (packet/datagrams.ts). Only datagrams with a
 * short first fragment are put together: what a middlebox has inspected is then what the receiver
 * gets, in one piece (RFC 1858 is about what can go wrong otherwise). Known and held is a bounded
 * number, in which each source has its share; nothing of it costs anything while no fragments come.
 *
 * It is local to the worker: interfaces bring all fragments of a datagram to one, as they spread
 * fragments by addresses alone. Where routing spreads the fragments of a datagram over sites, those
 * without the first are dropped.
 */

import { randomFillSync } from 'node:crypto';
import type { Metric, MetricCatalogue } from '../shm/metrics.js';
import { NONE } from '../shm/none.js';
import { BATCH_CAPACITY, type Batch, DROPPED } from './batch.js';
import { columnsOf, counterMetrics } from './counters.js';
import type { PacketDriver } from './drivers/driver.js';
import { monotonicMs } from './monotonic.js';
import { copyData, dataBytesOf, headerBytesOf, offsetOf, sealWhole } from './packet/assemble.js';
import { createDatagrams, DATAGRAMS, GROUPS } from './packet/datagrams.js';
import { Fragment } from './packet/fragment.js';

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

/** Fragments a worker holds at most; of one group of sources. */
export const EARLY_MAX = 256;
export const EARLY_PER_GROUP = 64;
/**
 * The longest time a fragment waits for its first: more than paths differ by, less than an
 * identification comes again.
 */
export const EARLY_MS = 1000;

export interface Fragments {
  /**
   * Fragments that may go on, their first being there: take them by `refill` before new packets.
   */
  readonly due: number;
  /** Fragments that wait. */
  readonly held: number;
  /**
   * Sees to the fragments of the batch, which was just parsed. Without any (`batch.fragments` 0) it
   * need not be called.
   */
  process(): void;
  /** Fills the empty batch with fragments that are due. Returns how many. */
  refill(): number;
  /** Drops what waited too long. */
  expire(): void;
  /** Drops all: the worker ends. */
  dropAll(): void;
}

export interface FragmentsParts {
  readonly batch: Batch;
  readonly driver: PacketDriver;
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
  /** Monotonic milliseconds; tests give their own. */
  readonly clock?: () => number;
}

/**
 * The longest packet that is put together: what every Ethernet takes. In route mode a shorter MTU
 * of the way on has it cut again.
 */
export const JOINED_BYTES_MAX = 1500;

/** How often is looked for what waited too long. */
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

  // Held fragments by place; memory never held in is never touched. Those that wait are linked in
  // the order of their age, with `ENDS` before the oldest and behind the newest.
  const frames = new Uint8Array(EARLY_MAX * roomBytes);
  const owners = new Int32Array(EARLY_MAX);
  const heldBytes = new Int32Array(EARLY_MAX);
  const heldPorts = new Int32Array(EARLY_MAX);
  /** From the beginning of the frame: the IP header, and a length field before it, or 0. */
  const headers = new Int32Array(EARLY_MAX);
  const lengthFields = new Int32Array(EARLY_MAX);
  const since = new Float64Array(EARLY_MAX);
  /**
   * By datagram: the places of its fragments, in the order they came; `next` leads from one to the
   * other.
   */
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

  // What is due, in order, with what its first fragment showed.
  const queue = new Int32Array(EARLY_MAX);
  let queueAt = 0;
  let due = 0;
  const shownPorts = new Int32Array(EARLY_MAX);
  const shownProtocols = new Int32Array(EARLY_MAX);
  const shownFlags = new Int32Array(EARLY_MAX);
  /** Whether it is a packet that was put together. */
  const isJoined = new Uint8Array(EARLY_MAX);
  /** Packets of the batch that `refill` put there, and the places they came from. */
  let refilled = 0;
  const refilledFrom = new Int32Array(BATCH_CAPACITY);
  // What a thread of this slot held when it was killed.
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

  /** Puts a datagram together whose header is split, once all of it was there. */
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
    // Some may have been crowded out after they were noted.
    const isWhole = head !== NONE && bytes === end && (end + 7) >> 3 === datagrams.unitsOf(datagram);
    if (!isWhole) dropHeld(datagram, columns.fragment_crowded);
    else if (!join(datagram, head, end)) dropHeld(datagram, columns.fragment_split_long);
    datagrams.forget(datagram);
  }

  /**
   * The fragment at place `head` becomes the whole packet, and is due. False if that would be too
   * long.
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

  /** The oldest that waits gives way. False where all are due. */
  function makeRoom(): boolean {
    if (freeCount === 0 && newer[ENDS] !== ENDS) dropOldestOf(owners[newer[ENDS]], columns.fragment_crowded);
    return freeCount > 0;
  }

  /** The fragments of a datagram lie in the order of their age. */
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

  /** What was parsed anew gets what its first fragment showed. */
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
