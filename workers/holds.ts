/**
 * Packets that wait until other members have the state they belong to, so that a reply which comes by another site finds it there.
 *
 *     middlebox ─ untilAcknowledged ─▶ rest of the chain, dispatch ─ take ─▶ held ─ release ─▶ driver
 *                                                                            ▲
 *                          what the members acknowledged (shm/hold-board.ts), or the packet's deadline
 *
 * A packet waits as it will go out, in a copy, so that the driver gets its memory back. What it waits for is everything its worker had
 * logged by the end of its batch: the send thread sees no less of it. Packets go out in the order they came in, but that
 * those whose wait is over pass those that still wait; and what is not held passes what is, so the packets of a flow that come
 * while its first one waits can overtake it. Of TCP that is a SYN sent again.
 *
 * A held packet is never dropped: where there is no room to hold it, it goes out at once, and where
 * the driver takes none just now, it waits on. What the driver does not take when the worker ends
 * is lost, and counted, and so is what was to leave by a port that is unusable when the wait is
 * over.
 */

import { HoldBoard } from '../shm/hold-board.js';
import type { LogProducer } from '../shm/log.js';
import type { Metric, MetricCatalogue } from '../shm/metrics.js';
import { BATCH_CAPACITY, type Batch, DROPPED } from './batch.js';
import { columnsOf, counterMetrics } from './counters.js';
import type { PacketDriver } from './drivers/driver.js';
import type { Fragmentation } from './fragmentation.js';
import { monotonicMs } from './monotonic.js';
import { PORTS_MAX } from './ports.js';
import { createSentCounter } from './traffic.js';

const COUNTERS = {
  hold_packets: 'packets held until other members had their state',
  hold_expired: 'of those, the ones sent because their time was up',
  hold_full: 'packets that were to be held and were sent at once, as many as possible being held already',
  hold_lost: 'dropped: held when the worker ended, and the driver took it no more',
} as const;

const HELD_PACKETS = 'held_packets';

export const HOLD_METRICS: Metric[] = [
  ...counterMetrics(COUNTERS),
  { name: HELD_PACKETS, help: 'packets that wait until other members have their state', kind: 'gauge' },
];

/** Packets a worker holds at most. */
export const HELD_MAX = 512;
/** The longest time a packet may be made to wait. */
export const HOLD_MS_MAX = 10_000;

export interface Holds {
  /**
   * Packet `i` is sent only when `members` other members have acknowledged what this worker has logged by the end of the batch, or when
   * `milliseconds` have passed, so also where fewer are heard. If a later middlebox drops it, it is dropped. 0 members: it does not wait.
   */
  untilAcknowledged(i: number, members: number, milliseconds: number): void;
}

export interface DataPlaneHolds extends Holds {
  /** Packets of the batch that were asked to wait. */
  readonly asked: number;
  /** Packets that wait. */
  readonly held: number;
  /** Takes those that were asked to wait and are to leave out of the batch: before its records are published. */
  take(): void;
  /** Sends whose wait is over, with the driver's next `transmit`. Returns how many. */
  release(): number;
  /** Sends all. */
  releaseAll(): void;
}

export interface HoldsParts {
  readonly batch: Batch;
  readonly driver: PacketDriver;
  /** What sends a held packet that exceeds its port's MTU; `null` for wire mode. */
  readonly fragmentation: Fragmentation | null;
  /** By port: 0 if packets cannot leave by it now. Absent: they always can. */
  readonly usable?: Uint8Array;
  readonly log: LogProducer;
  /** From `createHoldBoard`. */
  readonly board: SharedArrayBuffer;
  /** The worker's place on it. */
  readonly worker: number;
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
  /** Monotonic milliseconds; tests give their own. */
  readonly clock?: () => number;
}

/** Made once per data plane: see the head of batch.ts. */
export function createHolds({ batch, driver, log, row, worker, catalogue, ...parts }: HoldsParts): DataPlaneHolds {
  const { clock = monotonicMs, fragmentation } = parts;
  const { egress, start, length, version, l3 } = batch;
  const { roomBytes, u8 } = driver.memory;
  const board = new HoldBoard(parts.board);
  const { others } = board;
  const columns = columnsOf(catalogue, COUNTERS);
  const gauge = catalogue.column(HELD_PACKETS);
  const counter = createSentCounter(row, catalogue);
  const { usable = new Uint8Array(PORTS_MAX).fill(1) } = parts;

  /** What was asked for the packets of the batch; 0 members: nothing. */
  const waitMembers = new Int32Array(BATCH_CAPACITY);
  const waitMs = new Int32Array(BATCH_CAPACITY);
  let asked = 0;
  let isBoardAsked = false;

  // Held packets by slot; memory that is never held in is never touched. `order` has the slots in use, oldest first, and
  // behind them the free ones.
  const frames = new Uint8Array(HELD_MAX * roomBytes);
  const order = Int32Array.from({ length: HELD_MAX }, (_, slot) => slot);
  const ports = new Int32Array(HELD_MAX);
  const bytes = new Int32Array(HELD_MAX);
  /** Bytes before the IPv4 header; 0 if the packet is not IPv4. */
  const linkBytes = new Int32Array(HELD_MAX);
  const members = new Int32Array(HELD_MAX);
  const positions = new Int32Array(HELD_MAX);
  const deadlines = new Float64Array(HELD_MAX);
  let held = 0;
  /** How far that many members have our log, by number of members. */
  const reached = new Int32Array(others + 1);
  // A predecessor in this slot may have held some.
  row[gauge] = 0;

  function untilAcknowledged(i: number, count: number, milliseconds: number): void {
    if (count <= 0) return;
    if (waitMembers[i] === 0) {
      asked++;
      waitMs[i] = 0;
    }
    if (count > waitMembers[i]) waitMembers[i] = count;
    const ms = milliseconds < HOLD_MS_MAX ? milliseconds : HOLD_MS_MAX;
    if (ms > waitMs[i]) waitMs[i] = ms;
  }

  function take(): void {
    const now = clock();
    if (!isBoardAsked) {
      isBoardAsked = true;
      board.ask();
    }
    for (let i = 0; i < batch.count; i++) {
      if (waitMembers[i] === 0) continue;
      if (egress[i] !== DROPPED) hold(i, now);
      waitMembers[i] = 0;
    }
    asked = 0;
    row[gauge] = held;
  }

  function hold(i: number, now: number): void {
    if (held === HELD_MAX || length[i] > roomBytes) {
      row[columns.hold_full]++;
      return;
    }
    const slot = order[held++];
    const from = start[i];
    const to = slot * roomBytes;
    for (let at = 0; at < length[i]; at++) frames[to + at] = u8[from + at];
    ports[slot] = egress[i];
    bytes[slot] = length[i];
    linkBytes[slot] = version[i] === 4 ? l3[i] - from : 0;
    members[slot] = waitMembers[i];
    positions[slot] = log.position;
    deadlines[slot] = now + waitMs[i];
    egress[i] = DROPPED;
    row[columns.hold_packets]++;
  }

  function release(): number {
    const now = clock();
    const logged = log.position;
    for (let count = 1; count <= others; count++) reached[count] = board.position(worker, count);
    let kept = 0;
    for (let n = 0; n < held; n++) {
      const slot = order[n];
      const isKnown = isReached(slot, logged);
      if ((isKnown || now >= deadlines[slot]) && send(slot)) {
        if (!isKnown) row[columns.hold_expired]++;
        continue;
      }
      // The slot whose place this was goes free.
      order[n] = order[kept];
      order[kept++] = slot;
    }
    const released = held - kept;
    held = kept;
    row[gauge] = held;
    return released;
  }

  /** Whether what was published for so many members lies between what the packet waits for and what we have logged. */
  function isReached(slot: number, logged: number): boolean {
    const count = members[slot];
    if (count > others) return false;
    const position = positions[slot];
    return (reached[count] - position) >>> 0 <= (logged - position) >>> 0;
  }

  function send(slot: number): boolean {
    if (usable[ports[slot]] === 0) {
      counter.unusable(ports[slot]);
      return true;
    }
    if (fragmentation !== null && linkBytes[slot] !== 0)
      return fragmentation.send(ports[slot], frames, slot * roomBytes, bytes[slot], linkBytes[slot]);
    if (!driver.send(ports[slot], frames, slot * roomBytes, bytes[slot])) return false;
    counter.sent(ports[slot], bytes[slot]);
    return true;
  }

  function releaseAll(): void {
    for (let n = 0; n < held; n++) {
      if (!send(order[n])) row[columns.hold_lost]++;
    }
    held = 0;
    row[gauge] = 0;
  }

  return {
    untilAcknowledged,
    take,
    release,
    releaseAll,
    get asked() {
      return asked;
    },
    get held() {
      return held;
    },
  };
}
