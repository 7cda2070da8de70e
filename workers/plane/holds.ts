/**
 * Holds: packets wait until other members have the state they belong to, so that a reply which
 * arrives at another site finds it there.
 *
 *     middlebox ─ withEntry ─▶ rest of the chain, dispatch ─ take ─▶ queue ─ release ─▶ driver
 *                                                                     ▲
 *                       what the members acknowledged (shm/hold-board.ts), or a deadline
 *
 * **Waits.** A packet has up to `WAITS_MAX` *waits*. A wait consists of a worker, a position in
 * that worker's log, the number of members that must acknowledge everything before that position,
 * and a deadline. It is over when enough members have acknowledged, or when the deadline has
 * passed. A packet leaves when all its waits are over. It waits as a copy in its final form, so the
 * driver gets its memory back.
 *
 * **Entries are held, not packets** (`withEntry`). A table notes how each entry is held
 * (shm/objects/table/held-entries.ts), whichever worker made it. Every packet of the entry gets the
 * same wait, in every worker. So packets of one entry that arrive at one worker leave in arrival
 * order: their waits end at the same moment, and the queue is released in order.
 *
 * **One moment per round.** Each round reads the clock and the board once, and all waits are judged
 * by that reading. Otherwise a hold could end between the release of the queue and a later packet,
 * and that packet would overtake those that still wait.
 *
 * **Bounds.** A worker holds `HELD_MAX` packets, and `ENTRY_HELD_MAX` of one entry
 * (shm/objects/table/held-entries.ts). A packet over a bound leaves at once, and so do the earlier
 * packets of its entries: the holds of these entries end for them. Other packets are not affected.
 *
 * **Drops.** Packets are dropped only in these cases, and each is counted: the port is unusable
 * when the wait is over; the driver does not accept the packet when the worker ends; or a packet
 * must wait behind predecessors that the driver does not accept, and there is no room.
 *
 * **Not ordered.** Packets of different entries overtake each other. Packets of one entry in
 * different workers overtake each other by less than a round. Packets that only `untilAcknowledged`
 * holds have no order either.
 */

import { HoldBoard } from '../../shm/hold-board.js';
import type { LogProducer } from '../../shm/log.js';
import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import type { HeldEntries } from '../../shm/objects/table/held-entries.js';
import { HOLD_MS_MAX, type Holds } from '../api/holds.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import { monotonicMs } from '../base/monotonic.js';
import type { PacketDriver } from '../drivers/driver.js';
import { BATCH_CAPACITY, type Batch, DROPPED } from '../packet/batch.js';
import { PORTS_MAX } from '../packet/ports.js';
import type { Fragmentation } from './fragmentation.js';
import { createSentCounter } from './traffic.js';

const COUNTERS = {
  hold_packets: 'packets held until peers had their state',
  hold_expired: 'held packets that were sent because their time was up',
  hold_full: 'packets not held because too many were held already, in all or of one entry; they were sent at once',
  hold_blocked: 'dropped: behind held packets that the driver did not accept, and too many were held already',
  hold_lost: 'dropped: held when the worker ended, and the driver did not accept it',
} as const;

const HELD_PACKETS = 'held_packets';

export const HOLD_METRICS: Metric[] = [
  ...counterMetrics(COUNTERS),
  { name: HELD_PACKETS, help: 'packets that wait until peers have their state', kind: 'gauge' },
];

/** Most packets that a worker holds. */
export const HELD_MAX = 2048;
/** Waits of a packet: for entries of three tables, and one for `untilAcknowledged`. */
const ENTRY_WAITS_MAX = 3;
const WAITS_MAX = ENTRY_WAITS_MAX + 1;

export interface DataPlaneHolds extends Holds {
  /** Number of packets in the batch that must wait. */
  readonly asked: number;
  /** Number of packets that wait. */
  readonly held: number;
  /**
   * Publishes to other workers how far this worker's log reaches. They trust the board's positions
   * of this log only up to there. Call it before records are published.
   */
  noteLogged(): void;
  /**
   * Takes the packets that must wait out of the batch, except dropped ones. Call it before the
   * batch's records are published.
   */
  take(): void;
  /**
   * Gives the packets whose waits are over to the driver, for its next `transmit`. Returns their
   * number. Call it before a batch is received.
   */
  release(): number;
  /** Sends all held packets. */
  releaseAll(): void;
}

interface HoldsParts {
  readonly batch: Batch;
  readonly driver: PacketDriver;
  /** Sends held packets that exceed their port's MTU. `null` in wire mode. */
  readonly fragmentation: Fragmentation | null;
  /** By port: 0 if packets cannot leave by it now. Absent: they always can. */
  readonly usable?: Uint8Array;
  readonly log: LogProducer;
  /** From `createHoldBoard`. */
  readonly board: SharedArrayBuffer;
  /** The worker's index on the board. */
  readonly worker: number;
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
  /** Monotonic milliseconds. Tests pass their own. */
  readonly clock?: () => number;
}

/** Waits of several packets, by packet. */
class Waits {
  readonly count: Uint8Array;
  readonly worker: Uint8Array;
  readonly members: Int32Array;
  readonly position: Int32Array;
  /** Monotonic milliseconds, modulo 2^32. */
  readonly deadline: Int32Array;

  constructor(packets: number) {
    this.count = new Uint8Array(packets);
    this.worker = new Uint8Array(packets * WAITS_MAX);
    this.members = new Int32Array(packets * WAITS_MAX);
    this.position = new Int32Array(packets * WAITS_MAX);
    this.deadline = new Int32Array(packets * WAITS_MAX);
  }

  add(packet: number, worker: number, members: number, position: number, deadline: number): void {
    const at = packet * WAITS_MAX + this.count[packet]++;
    this.worker[at] = worker;
    this.members[at] = members;
    this.position[at] = position;
    this.deadline[at] = deadline;
  }

  /** Whether a packet has a wait for this position of this worker's log. */
  has(packet: number, worker: number, position: number): boolean {
    const first = packet * WAITS_MAX;
    for (let at = first; at < first + this.count[packet]; at++)
      if (this.worker[at] === worker && this.position[at] === position) return true;
    return false;
  }

  /** Removes the wait at index `at` from a packet. */
  remove(packet: number, at: number): void {
    const last = packet * WAITS_MAX + --this.count[packet];
    this.worker[at] = this.worker[last];
    this.members[at] = this.members[last];
    this.position[at] = this.position[last];
    this.deadline[at] = this.deadline[last];
  }

  /** Replaces the waits of packet `to` by those of packet `from` in `others`. */
  copy(to: number, others: Waits, from: number): void {
    this.count[to] = 0;
    for (let at = from * WAITS_MAX; at < from * WAITS_MAX + others.count[from]; at++)
      this.add(to, others.worker[at], others.members[at], others.position[at], others.deadline[at]);
  }
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

  // Requests for the packets of the batch: waits for entries; waits for everything logged by the
  // end of the batch (0 members: not requested); and whether the packet is over its entry's bound.
  const wanted = new Waits(BATCH_CAPACITY);
  const batchMembers = new Int32Array(BATCH_CAPACITY);
  const batchMs = new Int32Array(BATCH_CAPACITY);
  const isOver = new Uint8Array(BATCH_CAPACITY);
  let asked = 0;
  let isBoardAsked = false;

  // Held packets by slot. Memory of slots that were never used is never touched. `order` lists the
  // slots in use, oldest first, and then the free ones.
  const frames = new Uint8Array(HELD_MAX * roomBytes);
  const order = Int32Array.from({ length: HELD_MAX }, (_, slot) => slot);
  const ports = new Int32Array(HELD_MAX);
  const bytes = new Int32Array(HELD_MAX);
  /** Bytes before the IPv4 header. 0 if the packet is not IPv4. */
  const linkBytes = new Int32Array(HELD_MAX);
  const waits = new Waits(HELD_MAX);
  const isExpired = new Uint8Array(HELD_MAX);
  let held = 0;
  /**
   * Number of packets that were to leave in this round and did not, because the driver did not
   * accept them or an earlier packet of the same port. `isPortBlocked` has these ports.
   */
  let blocked = 0;
  /** The board's positions when they were last compared. */
  const seen = new Int32Array(board.workers * (others + 1));
  /** No wait has an earlier deadline. */
  let nextDeadline = 0;
  const isPortBlocked = new Uint8Array(PORTS_MAX);

  // The state of this round: its time, and the position of each worker's log that so many members
  // have acknowledged. Positions are read from the board on first use.
  let time = clock() | 0;
  let round = 0;
  const rounds = new Int32Array(board.workers).fill(-1);
  const reached = new Int32Array(board.workers * (others + 1));
  // Packets that an earlier thread of this slot held when it was killed are lost.
  row[columns.hold_lost] += row[gauge];
  row[gauge] = 0;

  // ——— Which waits are over, as of this round ———

  function look(): void {
    time = clock() | 0;
    round = (round + 1) | 0;
    blocked = 0;
  }

  function reachedBy(logger: number, members: number): number {
    const at = logger * (others + 1);
    if (rounds[logger] !== round) {
      rounds[logger] = round;
      for (let count = 1; count <= others; count++) reached[at + count] = board.position(logger, count);
    }
    return reached[at + members];
  }

  /**
   * Whether the position that this many members have acknowledged lies between the position that
   * the packet waits for and the end of the worker's log.
   */
  function isReached(logger: number, members: number, position: number): boolean {
    if (members > others || logger >= board.workers) return false;
    const logged = logger === worker ? log.position : board.logged(logger);
    const ahead = (logged - position) | 0;
    return ahead >= 0 && (reachedBy(logger, members) - position) >>> 0 <= ahead;
  }

  function isPast(deadline: number): boolean {
    return ((time - deadline) | 0) >= 0;
  }

  // ——— Requests for packets of the batch ———

  function ask(i: number): void {
    if (wanted.count[i] === 0 && batchMembers[i] === 0) asked++;
  }

  function untilAcknowledged(i: number, count: number, milliseconds: number): void {
    if (count <= 0) return;
    ask(i);
    if (count > batchMembers[i]) batchMembers[i] = count;
    const ms = milliseconds < HOLD_MS_MAX ? milliseconds : HOLD_MS_MAX;
    if (ms > batchMs[i]) batchMs[i] = ms;
  }

  function holdNext(entries: HeldEntries, members: number, milliseconds: number): void {
    if (members <= 0) return entries.holdNext(0, 0);
    entries.holdNext(members, ((clock() | 0) + Math.min(milliseconds, HOLD_MS_MAX)) | 0);
    askBoard();
  }

  function askBoard(): void {
    if (isBoardAsked) return;
    isBoardAsked = true;
    board.ask();
  }

  function noteLogged(): void {
    if (isBoardAsked) board.setLogged(worker, log.position);
  }

  function withEntry(i: number, entries: HeldEntries, slot: number, now: number): void {
    if (!entries.wasHeld(slot, now)) return;
    const deadline = entries.deadlineOf(slot);
    if (blocked === 0) {
      if (isPast(deadline)) return;
      // Nothing waits, so a newer reading cannot reorder packets.
      if (held === 0 && asked === 0) look();
      if (isPast(deadline) || isReached(entries.logger(slot), entries.membersOf(slot), entries.position(slot))) return;
    }
    const logger = entries.logger(slot);
    const position = entries.position(slot);
    if (wanted.has(i, logger, position)) return;
    const members = entries.membersOf(slot);
    if (wanted.count[i] === ENTRY_WAITS_MAX) return untilAcknowledged(i, members, (deadline - time) | 0);
    ask(i);
    wanted.add(i, logger, members, position, deadline);
    if (!entries.admit(slot)) isOver[i] = 1;
  }

  function take(): void {
    askBoard();
    const now = clock() | 0;
    for (let i = 0; i < batch.count; i++) {
      if (wanted.count[i] === 0 && batchMembers[i] === 0) continue;
      if (egress[i] !== DROPPED) hold(i, now);
      wanted.count[i] = 0;
      batchMembers[i] = 0;
      batchMs[i] = 0;
      isOver[i] = 0;
    }
    asked = 0;
    row[gauge] = held;
  }

  function hold(i: number, now: number): void {
    if (isOver[i] !== 0 || held === HELD_MAX || length[i] > roomBytes) {
      row[columns.hold_full]++;
      if (wanted.count[i] === 0) return;
      endBefore(i);
      if (blocked === 0) return;
      // The packet waits behind its predecessors and leaves with them.
      if (held === HELD_MAX || length[i] > roomBytes) return batch.drop(i, columns.hold_blocked);
      wanted.count[i] = 0;
    } else {
      row[columns.hold_packets]++;
      if (batchMembers[i] !== 0) wanted.add(i, worker, batchMembers[i], log.position, (now + batchMs[i]) | 0);
    }
    const slot = order[held++];
    const from = start[i];
    const to = slot * roomBytes;
    for (let at = 0; at < length[i]; at++) frames[to + at] = u8[from + at];
    ports[slot] = egress[i];
    bytes[slot] = length[i];
    linkBytes[slot] = version[i] === 4 ? l3[i] - from : 0;
    waits.copy(slot, wanted, i);
    if (held === 1) nextDeadline = (time + HOLD_MS_MAX) | 0;
    noteDeadlines(slot);
    isExpired[slot] = 0;
    egress[i] = DROPPED;
  }

  /**
   * Ends the holds of packet `i` for the packets before it. Those without another wait leave now,
   * in this round.
   */
  function endBefore(i: number): void {
    let kept = 0;
    for (let n = 0; n < held; n++) {
      const slot = order[n];
      const first = slot * WAITS_MAX;
      const before = waits.count[slot];
      for (let at = first + before - 1; at >= first; at--)
        if (wanted.has(i, waits.worker[at], waits.position[at])) waits.remove(slot, at);
      if (waits.count[slot] < before && isDue(slot) && sendInOrder(slot)) continue;
      order[n] = order[kept];
      order[kept++] = slot;
    }
    held = kept;
  }

  // ——— Release ———

  function release(): number {
    const wasBlocked = blocked > 0;
    look();
    if (held === 0 || (!hasChanged() && !wasBlocked && !isPast(nextDeadline))) return 0;
    isPortBlocked.fill(0);
    nextDeadline = (time + HOLD_MS_MAX) | 0;
    let kept = 0;
    for (let n = 0; n < held; n++) {
      const slot = order[n];
      if (isDue(slot) && sendInOrder(slot)) {
        row[columns.hold_expired] += isExpired[slot];
        continue;
      }
      noteDeadlines(slot);
      // The free slot that was at index `kept` moves to index `n`.
      order[n] = order[kept];
      order[kept++] = slot;
    }
    const released = held - kept;
    held = kept;
    row[gauge] = held;
    return released;
  }

  /** Whether the members' positions changed since the last call. */
  function hasChanged(): boolean {
    let isChanged = false;
    for (let logger = 0; logger < board.workers; logger++)
      for (let count = 1; count <= others; count++) {
        const at = logger * (others + 1) + count;
        const position = board.position(logger, count);
        if (position === seen[at]) continue;
        seen[at] = position;
        isChanged = true;
      }
    return isChanged;
  }

  function noteDeadlines(slot: number): void {
    const first = slot * WAITS_MAX;
    for (let at = first + waits.count[slot] - 1; at >= first; at--)
      if (((waits.deadline[at] - nextDeadline) | 0) < 0) nextDeadline = waits.deadline[at];
  }

  /** Whether all waits of a held packet are over. Removes waits that are over. */
  function isDue(slot: number): boolean {
    const first = slot * WAITS_MAX;
    for (let at = first + waits.count[slot] - 1; at >= first; at--) {
      if (!isReached(waits.worker[at], waits.members[at], waits.position[at])) {
        if (!isPast(waits.deadline[at])) return false;
        isExpired[slot] = 1;
      }
      waits.remove(slot, at);
    }
    return true;
  }

  /**
   * Sends a packet unless an earlier one could not leave by the same port. Returns whether it was
   * sent, or dropped because its port is unusable.
   */
  function sendInOrder(slot: number): boolean {
    const port = ports[slot];
    if (isPortBlocked[port] === 0 && send(slot)) return true;
    isPortBlocked[port] = 1;
    blocked++;
    return false;
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
    holdNext,
    withEntry,
    take,
    noteLogged,
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
