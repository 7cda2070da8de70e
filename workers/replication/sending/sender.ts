/**
 * The send thread's half of the protocol core: takes our records and what the board says, and
 * produces messages.
 *
 * No sockets, clocks or threads: the caller passes the time, in ms, and messages go to an `Outlet`.
 */

import { AckBoard } from '../../../shm/ack-board.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import type { Counts } from '../metrics.js';
import { memberTableOf, messageBytes, type ReplicationSettings, selfIndex } from '../settings.js';
import { openForeignLogs } from '../units/foreign-log.js';
import { UnitLog, unitLogRegion } from '../units/unit-log.js';
import { ENTRY_WORDS, HEADER_WORDS, MessageWriter, UNIT_WORDS } from '../wire/message.js';
import type { BacklogBudget, ChannelContext } from './channel.js';
import { HoldMarks } from './hold-marks.js';
import { LagBound } from './lag-bound.js';
import type { Outlet } from './outlet.js';
import { Pacing } from './pacing.js';
import { PeerView } from './peer-view.js';
import { Repair } from './repair.js';
import { SendChannel } from './send-channel.js';
import { RECORD_WORDS_MAX } from './staging.js';
import { Reason, Window } from './window.js';

/**
 * A full unit leaves room for this many entries, so that acknowledgements can share a busy
 * channel's messages.
 */
const RESERVED_ENTRIES = 2;

/** Counted when sending begins to be throttled. */
const RETAINS = {
  [Reason.DELAY]: 'state_tx_throttled_delay',
  [Reason.LOSS]: 'state_tx_throttled_loss',
  [Reason.BANDWIDTH]: 'state_tx_throttled_bandwidth',
  [Reason.LAG]: 'state_tx_throttled_lag',
} as const;

interface SenderOptions {
  readonly settings: ReplicationSettings;
  readonly meaningHash: readonly [number, number];
  /**
   * In the order of their ids, from 0. Only `coalesceKey`, `coalesce`, `fillIn`, `nextUnreplicated`
   * and `settle` are called.
   */
  readonly objects: readonly StateObject[];
  readonly board: SharedArrayBuffer;
  /** From `createUnitLogs`. */
  readonly unitLogs: SharedArrayBuffer;
  /** From `createForeignLogs`. */
  readonly foreignLogs: SharedArrayBuffer;
  readonly counts: Counts;
  /** From `createHoldBoard`; absent: no worker holds packets. */
  readonly holds?: SharedArrayBuffer;
  /** The member table; absent: the members in the settings, which never change. */
  readonly members?: SharedArrayBuffer;
  /**
   * Called once per episode with what an operator should know: members are detached, or need a
   * snapshot.
   */
  readonly onAlarm?: (problem: string, object: number) => void;
}

export class Sender {
  readonly channels: readonly SendChannel[];
  private readonly counts: Counts;
  private readonly peers: PeerView;
  private readonly writer: MessageWriter;
  private readonly board: AckBoard;
  private readonly repair: Repair;
  private readonly backlogBudget: BacklogBudget;
  private readonly window: Window;
  private readonly pacing: Pacing;
  /** Scratch: 1 for each member that gets units of some object's log. */
  private readonly attached: Uint8Array;
  /** The channel that sends first. It rotates, so that a rate limit favours no channel. */
  private turn = 0;
  private throttledSince = Number.POSITIVE_INFINITY;
  /** How long sending has been throttled, or was the last time, in ms. */
  throttledMs = 0;
  /**
   * The longest time, in ms, for which the records that are taken next have waited for the sake of
   * a member.
   */
  private waitedMs = 0;
  private throttledFor: Reason = Reason.NONE;
  /** null: no bound on the lag. */
  private readonly lag: LagBound | null;
  private readonly marks: HoldMarks | null;
  /** Last sequence number of each object. */
  private readonly numbers: Float64Array;

  constructor(options: SenderOptions) {
    const { settings, objects, counts, meaningHash } = options;
    const board = new AckBoard(options.board);
    if (board.objects !== objects.length || board.members !== settings.slots)
      throw new RangeError('the acknowledgement board was made for other objects or members');
    const bytes = messageBytes(settings);
    const roomWords = (bytes >>> 2) - HEADER_WORDS - UNIT_WORDS;
    if (roomWords < RECORD_WORDS_MAX) throw new RangeError(`messages of ${bytes} bytes do not hold the longest record`);
    // In the shortest messages, the longest record leaves no room for entries: they go in messages
    // of their own.
    const unitWords = Math.max(RECORD_WORDS_MAX, roomWords - RESERVED_ENTRIES * ENTRY_WORDS);
    this.peers = new PeerView(settings, board, options.members ?? memberTableOf(settings));
    this.counts = counts;
    this.board = board;
    this.backlogBudget = { used: 0, limit: settings.backlogBytes, perFold: settings.backlogBytesEach };
    this.writer = new MessageWriter(
      {
        clusterId: settings.clusterId,
        meaningHash,
        view: settings.view,
        sender: settings.self,
        incarnation: board.incarnation,
      },
      bytes,
    );
    this.window = new Window(settings, this.peers, bytes);
    this.pacing = new Pacing(settings, this.peers, bytes);
    this.attached = new Uint8Array(settings.slots);
    this.numbers = new Float64Array(objects.length);
    this.marks =
      options.holds === undefined
        ? null
        : new HoldMarks(options.holds, objects.length, settings.slots, {
            isLive: (member) => this.peers.present[member] === 1 && this.peers.silent[member] === 0,
            through: (object, member) => this.channels[object].acknowledgedThrough(member),
          });
    const context: ChannelContext = {
      settings,
      board,
      writer: this.writer,
      peers: this.peers,
      counts,
      onAlarm: options.onAlarm ?? (() => {}),
      unitWords,
      backlogBudget: this.backlogBudget,
      window: this.window,
      pacing: this.pacing,
      marks: this.marks,
    };
    this.channels = objects.map(
      (object, id) =>
        new SendChannel(object, new UnitLog(unitLogRegion(options.unitLogs, id, objects.length)), context),
    );
    const { channels, peers, window } = this;
    const { onAlarm } = context;
    this.lag = settings.maxLagMs === 0 ? null : new LagBound({ settings, peers, window, channels, counts, onAlarm });
    const foreign = openForeignLogs(options.foreignLogs, objects.length, settings.slots);
    this.repair = new Repair(context, selfIndex(settings), objects, foreign);
  }

  /**
   * Whether every object can take a record of any size. Call it before the first `append` of a
   * round.
   */
  makeRoom(): boolean {
    let room = true;
    for (const channel of this.channels) room = channel.makeRoom() && room;
    return room;
  }

  /**
   * The number of unit logs that are full: some member lags so far that no more records are taken.
   */
  get fullLogs(): number {
    let full = 0;
    for (const channel of this.channels) if (channel.isFull) full++;
    return full;
  }

  /** Copies one of our records. Returns whether another may be given before the next `cut`. */
  append(object: number, op: number, words: Int32Array, at: number, length: number): boolean {
    const channel = this.channels[object];
    if (channel === undefined) {
      this.counts.add('state_tx_records_invalid', 1);
      return true;
    }
    return channel.add(op, words, at, length);
  }

  /**
   * Numbers all appended records and puts them into the unit logs: from here on they will be
   * delivered.
   */
  cut(): void {
    for (const channel of this.channels) channel.cut();
  }

  /** Whether the workers want `noteLogs` to be called. Read it after their records were taken. */
  get isAskedForMarks(): boolean {
    return this.marks?.isAsked ?? false;
  }

  /** Notes, after a `cut`, how far each worker's log is numbered now, as a position in its ring. */
  noteLogs(positions: Int32Array): void {
    const { channels, numbers } = this;
    for (let object = 0; object < numbers.length; object++) {
      numbers[object] = channels[object].log.nextSequence - 1;
      channels[object].noteMark();
    }
    this.marks?.note(positions, numbers);
  }

  /**
   * Sends what is due. Returns the amount of work done; 0: nothing to do until `deadline`, a new
   * record or the doorbell. `wallMs`: the wall clock (Unix ms), sent to the peers; 0: not sent.
   */
  poll(now: number, outlet: Outlet, wallMs = 0): number {
    const { writer } = this;
    this.peers.refresh(now);
    writer.version = this.peers.format;
    const flags = this.board.status;
    if (flags !== writer.flags) for (const channel of this.channels) channel.announce();
    writer.flags = flags;
    writer.wallMs = wallMs;
    this.pacing.begin(outlet, now);
    this.updateWindow(now);
    const { channels, pacing } = this;
    const { granted } = pacing;
    let work = 0;
    for (let i = 0; i < channels.length; i++) work += channels[(this.turn + i) % channels.length].recover(now);
    work += this.repair.poll(now, pacing.again);
    for (let i = 0; i < channels.length; i++) work += channels[(this.turn + i) % channels.length].poll(now);
    // The turn stays if the rate limit kept this poll from sending anything.
    if (pacing.readyAt === Number.POSITIVE_INFINITY || pacing.granted !== granted)
      this.turn = (this.turn + 1) % Math.max(1, channels.length);
    this.lag?.poll(now, this.waitedMs);
    this.marks?.publish();
    return work;
  }

  /**
   * Whether records must wait in the log rings, and why. They wait while less can be sent than is
   * there: the longer they wait, the more they coalesce.
   */
  throttle(now: number): Reason {
    const { counts, pacing, window } = this;
    const waits = window.isClosed(now) || (window.reason !== Reason.NONE && this.hasUnsent);
    const lagMs = this.lag?.windowMs ?? 0;
    const throttledMs = Math.max(0, now - this.throttledSince);
    this.waitedMs = this.throttledFor === Reason.BANDWIDTH ? 0 : throttledMs;
    const otherwise = lagMs > 0 && throttledMs < lagMs ? Reason.LAG : Reason.NONE;
    const reason = pacing.isThrottling ? Reason.BANDWIDTH : waits ? window.reason : otherwise;
    if (reason === Reason.NONE) {
      this.throttledSince = Number.POSITIVE_INFINITY;
      return reason;
    }
    if (this.throttledSince === Number.POSITIVE_INFINITY) {
      this.throttledSince = now;
      counts.add(RETAINS[reason], 1);
    }
    this.throttledFor = reason;
    this.throttledMs = now - this.throttledSince;
    return reason;
  }

  /** The most bytes that may be in flight; infinite while there is no congestion. */
  get windowBytes(): number {
    return this.window.bytes;
  }

  get windowReason(): Reason {
    if (this.pacing.isThrottling) return Reason.BANDWIDTH;
    return this.window.reason === Reason.NONE && (this.lag?.windowMs ?? 0) > 0 ? Reason.LAG : this.window.reason;
  }

  /** The largest lag of a heard member, in ms; 0 without `maxLagMs`. */
  get lagMs(): number {
    return this.lag?.worstMs ?? 0;
  }

  private updateWindow(now: number): void {
    const { attached, window } = this;
    attached.fill(0);
    window.inFlight = 0;
    for (const channel of this.channels) channel.report(attached);
    window.update(attached, this.pacing.unitBytes, now);
  }

  /** When `poll` should be called at the latest, in ms of its clock. */
  get deadline(): number {
    const { pacing, window } = this;
    let deadline = Math.min(this.repair.deadline, pacing.readyAt, window.deadline);
    if (this.lag !== null) {
      deadline = Math.min(deadline, this.lag.nextLook);
      if (this.lag.windowMs > 0) deadline = Math.min(deadline, this.throttledSince + this.lag.windowMs);
    }
    for (const channel of this.channels) deadline = Math.min(deadline, channel.deadline);
    return deadline;
  }

  /** Units that some member may lack. */
  get keptUnits(): number {
    let units = 0;
    for (const channel of this.channels) units += channel.keptUnits;
    return units;
  }

  get keptBytes(): number {
    let words = 0;
    for (const channel of this.channels) words += channel.log.usedWords;
    return words * 4;
  }

  /** Bytes of memory that the backlogs of detached members take. */
  get backlogBytes(): number {
    return this.backlogBudget.used;
  }

  /** The number of backlogs, summed over all objects. */
  get backlogMembers(): number {
    let members = 0;
    for (const channel of this.channels) members += channel.backlogMembers;
    return members;
  }

  /** Whether some units were never sent. */
  get hasUnsent(): boolean {
    for (const channel of this.channels) if (channel.log.unsent !== channel.log.tail) return true;
    return false;
  }
}
