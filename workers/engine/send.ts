/**
 * The send thread: takes the workers' operations from their log rings and sends them to the other
 * members.
 *
 *     log rings ─▶ stage, coalesce ─▶ unit logs ─▶ messages ─▶ transport
 *
 * It is a thin shell around `replication/sending/sender.ts`, and supplies the clock, the rings, the
 * seal and the sockets.
 *
 * **If the thread dies.** A ring's words are released only after their records are in the unit
 * logs, which are shared memory too. So no operation is lost. If the thread dies just before the
 * release, its successor stages, numbers and sends these records again. This is harmless for
 * idempotent records. It is nearly always harmless for increments of counters: an increment is
 * computed when its mark is staged, and the second time it is zero. The exception is a thread that
 * dies between the unit log and `settle` of the same cut. The increments of that round then count
 * twice at other members. Totals never count twice.
 */

import { AckBoard } from '../../shm/ack-board.js';
import type { Control } from '../../shm/control.js';
import { Phase } from '../../shm/control.js';
import { LogConsumer } from '../../shm/log.js';
import type { Metrics } from '../../shm/metrics.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import type { Agent } from '../base/agent.js';
import { monotonicMs } from '../base/monotonic.js';
import { Counts } from '../replication/metrics.js';
import { Sender } from '../replication/sending/sender.js';
import { Reason } from '../replication/sending/window.js';
import type { ReplicationSettings } from '../replication/settings.js';
import { Sealer } from '../replication/wire/seal.js';
import { sendTransport } from '../transport/open.js';
import { SealingSender } from '../transport/sealing.js';
import type { SendTransport } from '../transport/transport.js';

interface SendAgentOptions {
  readonly settings: ReplicationSettings;
  readonly meaningHash: readonly [number, number];
  /** In the order of their ids, opened read only. */
  readonly objects: readonly StateObject[];
  /** One log ring per worker. */
  readonly logs: readonly SharedArrayBuffer[];
  readonly ackBoard: SharedArrayBuffer;
  /** From `createHoldBoard`. Absent: no worker holds packets. */
  readonly holds?: SharedArrayBuffer;
  readonly unitLogs: SharedArrayBuffer;
  /** From `createForeignLogs`. */
  readonly foreignLogs: SharedArrayBuffer;
  /** The member table. Absent: the members of the settings, unchanged. */
  readonly members?: SharedArrayBuffer;
  /** From `createSealBoard`. null: messages are sent unsealed. */
  readonly sealBoard: SharedArrayBuffer | null;
  readonly control: Control;
  readonly metrics: Metrics;
  /** The thread's slot: metrics row and heartbeat. */
  readonly thread: number;
  /** Called in each round, for example to apply changed options. It must be cheap. */
  readonly look?: () => void;
  /** Called with problems that an operator should know of. See `SenderOptions`. */
  readonly onAlarm?: (problem: string, object: number) => void;
  /** Replaces the settings' transport, in tests. */
  readonly transport?: SendTransport;
}

/**
 * Most records taken from one ring before the next has its turn, and from all rings in one round.
 */
const TURN_RECORDS = 512;
const ROUND_RECORDS = 4096;
/** Most records in a round after records were left in the rings to be coalesced together. */
const THROTTLED_ROUND_RECORDS = 65_536;
/** Records stay in a log ring to coalesce until this part of it is full. */
const THROTTLED_SHARE_MAX = 0.5;
/** Longest sleep, in milliseconds: the thread checks phase and heartbeat at least this often. */
const WAIT_MS_MAX = 100;
/** Shortest sleep, in milliseconds, because no timer fires sooner. */
const WAIT_MS_MIN = 1;
/** Most rounds after the stop, in case the network accepts nothing any more. */
const LAST_TURNS_MAX = 10_000;

export class SendAgent implements Agent {
  readonly sender: Sender;
  private readonly control: Control;
  private readonly look: () => void;
  private readonly thread: number;
  private readonly transport: SendTransport;
  private readonly rings: readonly LogConsumer[];
  private readonly counts: Counts;
  /**
   * `positions`: how far each ring is numbered, for held packets. `noted`: whether that was noted
   * before.
   */
  private readonly positions: Int32Array;
  private noted = false;
  private turn = 0;
  private transportErrors = 0;
  private wasFull = false;
  private wasThrottling = false;

  constructor(options: SendAgentOptions) {
    const { settings, meaningHash, objects, ackBoard, unitLogs, metrics, thread } = options;
    this.control = options.control;
    this.look = options.look ?? (() => {});
    this.thread = thread;
    this.counts = new Counts(metrics.catalogue, metrics.row(thread));
    this.rings = options.logs.map((log) => new LogConsumer(log));
    this.positions = new Int32Array(this.rings.length);
    this.sender = new Sender({
      settings,
      meaningHash,
      objects,
      board: ackBoard,
      unitLogs,
      foreignLogs: options.foreignLogs,
      counts: this.counts,
      ...(options.holds && { holds: options.holds }),
      ...(options.members && { members: options.members }),
      ...(options.onAlarm && { onAlarm: options.onAlarm }),
    });
    const network = options.transport ?? sendTransport(settings, objects.length, options.members);
    this.transport =
      options.sealBoard === null
        ? network
        : new SealingSender(
            network,
            new Sealer({
              clusterId: settings.clusterId,
              sender: settings.self,
              incarnation: new AckBoard(ackBoard).incarnation,
              board: options.sealBoard,
            }),
          );
  }

  /** Opens the sockets. If an address cannot be used, throws an error that names it. */
  onStart(): Promise<void> {
    return this.transport.open();
  }

  /** One round: takes records, sends messages. Returns how many of both. */
  doWork(): number {
    const now = monotonicMs();
    const records = this.isThrottling(now) ? 0 : this.drain();
    return records + this.sender.poll(now, this.transport, Date.now());
  }

  /** Runs rounds until main stops the thread. Then sends once more everything that was logged. */
  async run(): Promise<void> {
    const { barrier } = this.control;
    while (this.control.phase !== Phase.STOP) {
      const seen = this.control.bell;
      this.look();
      if (barrier.wanted) barrier.attend(() => this.settle());
      const done = this.doWork();
      this.control.beat(this.thread);
      this.noteGauges();
      if (done > 0) await nextTurn();
      else await this.control.waitBell(seen, this.waitMs());
    }
    for (let turns = 0; turns < LAST_TURNS_MAX; turns++) {
      if (this.doWork() === 0 && !this.sender.hasUnsent) break;
      await nextTurn();
    }
    this.noteGauges();
  }

  onClose(): Promise<void> {
    return this.transport.close();
  }

  private waitMs(): number {
    const untilDue = this.sender.deadline - monotonicMs();
    return Math.min(Math.max(untilDue, WAIT_MS_MIN), WAIT_MS_MAX);
  }

  /**
   * Whether records stay in the rings, so that they coalesce with later ones. Not if the rings are
   * filling up, or at the end.
   */
  private isThrottling(now: number): boolean {
    if (this.control.phase === Phase.STOP || this.sender.throttle(now) === Reason.NONE) return false;
    this.wasThrottling = true;
    return this.rings.every((ring) => ring.backlog < ring.words.length * THROTTLED_SHARE_MAX);
  }

  /**
   * At the barrier: numbers everything that the workers have logged. Returns false if there was no
   * room for all of it.
   */
  private settle(): boolean {
    while (this.drain() > 0);
    this.sender.cut();
    return this.rings.every((ring) => ring.backlog === 0);
  }

  /** Takes records, ring after ring, while all objects have room. Puts them into the unit logs. */
  private drain(): number {
    const { rings, sender } = this;
    let room = sender.makeRoom();
    this.noteFull(!room);
    const roundMax = this.wasThrottling ? THROTTLED_ROUND_RECORDS : ROUND_RECORDS;
    this.wasThrottling = false;
    let taken = 0;
    let empty = 0;
    while (room && empty < rings.length && taken < roundMax) {
      const ring = rings[this.turn];
      this.turn = (this.turn + 1) % rings.length;
      let records = 0;
      while (room && records < TURN_RECORDS && ring.next()) {
        room = sender.append(ring.objectId, ring.op, ring.words, ring.at, ring.length);
        records++;
      }
      empty = records === 0 ? empty + 1 : 0;
      taken += records;
    }
    if (taken > 0) {
      sender.cut();
      for (const ring of rings) ring.release();
    }
    if ((taken > 0 || !this.noted) && sender.isAskedForMarks) this.noteLogs();
    return taken;
  }

  /**
   * Notes how far the rings are numbered, for packets that wait until this much is acknowledged.
   */
  private noteLogs(): void {
    this.noted = true;
    for (let i = 0; i < this.positions.length; i++) this.positions[i] = this.rings[i].position;
    this.sender.noteLogs(this.positions);
  }

  /**
   * Counts how often a unit log became full. While it is full, records stay in the rings, and the
   * workers' logs report it.
   */
  private noteFull(full: boolean): void {
    if (full && !this.wasFull) this.counts.add('state_tx_log_full', 1);
    this.wasFull = full;
  }

  private noteGauges(): void {
    const { counts, sender } = this;
    let backlog = 0;
    for (const ring of this.rings) backlog += ring.backlog;
    counts.set('state_log_backlog_words', backlog);
    counts.set('state_unit_log_units', sender.keptUnits);
    counts.set('state_unit_log_bytes', sender.keptBytes);
    counts.set('state_unit_log_full', sender.fullLogs);
    counts.set('state_tx_window_bytes', sender.windowBytes === Number.POSITIVE_INFINITY ? 0 : sender.windowBytes);
    counts.set('state_tx_window_ms', sender.throttledMs);
    counts.set('state_tx_window_reason', sender.windowReason);
    counts.set('state_tx_lag_ms', sender.lagMs);
    counts.set('state_backlog_members', sender.backlogMembers);
    counts.set('state_backlog_bytes', sender.backlogBytes);
    counts.add('state_tx_errors', this.transport.errors - this.transportErrors);
    this.transportErrors = this.transport.errors;
  }
}

/** Yields to the event loop, so the sockets' events are handled. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
