/**
 * The backlog of one detached member for one object, and how it is sent.
 *
 *     unit log ── detach ──▶ exact units ─┐
 *     new units ─────────▶ fold ── cut ──▶ the backlog's own unit log ── in windows, to that member alone ──▶
 *
 * Exact units are those that were sent, or could have been, while the member was attached. The
 * member may have any of them, so they stay as they are. Later units are folded. The fold is cut
 * into units only when the member is heard and its window has room. Units cut this way do not
 * change any more either. The backlog's numbers are consecutive, and end where the channel's
 * numbers end.
 *
 * If a member is detached again while its last folded units are in flight, exact units follow
 * folded ones in its log. A unit stays folded or exact for as long as it can be sent: `foldedRuns`
 * says which units are folded.
 *
 * The window doubles with each round trip in which everything was acknowledged. If a unit is
 * overdue, everything in flight counts as lost. The window is halved once, and overdue units are
 * sent again up to the window, more of them with each acknowledgement. So a lost window costs one
 * timeout and a few round trips, instead of one timeout for each part of it.
 */

import type { VectorRecord } from '../../../shm/ack-board.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import { Fold } from '../units/fold.js';
import { createUnitLogs, UnitLog, unitLogRegion } from '../units/unit-log.js';
import { type Datagram, FORMAT_VERSION, UNIT_WORDS } from '../wire/message.js';
import type { ChannelContext, Composer } from './channel.js';
import type { Outlet } from './outlet.js';
import { type Audience, isBefore, Retransmission } from './retransmission.js';
import { RECORD_WORDS_MAX } from './staging.js';

/** The window, in units of the greatest length. */
const WINDOW_UNITS_MIN = 2;
const WINDOW_UNITS_START = 16;
const WINDOW_UNITS_MAX = 256;

/** A unit log's positions are 32-bit word counts. */
const LOG_BYTES_MAX = 1 << 30;

/** How a backlog is made. */
interface BacklogOptions {
  readonly source: StateObject;
  readonly member: number;
  /** What the member has of our units, kept up to date by the owner. */
  readonly acknowledged: VectorRecord;
  /** First number of the backlog. */
  readonly first: number;
  /**
   * The member is joining: units are retained unfolded, in as much memory as a folded backlog may
   * take.
   */
  readonly isRetained: boolean;
  readonly context: ChannelContext;
  readonly composer: Composer;
}

export class Backlog implements Audience {
  readonly log: UnitLog;
  readonly fold: Fold;
  /**
   * The backlog was begun for a joining member, and takes units unfolded while that member joins.
   */
  readonly isRetained: boolean;
  /**
   * First and last number of each run of folded units in the log, ascending. All other units are
   * exact.
   */
  private readonly foldedRuns: number[] = [];
  private readonly member: number;
  private readonly source: StateObject;
  private readonly acknowledged: VectorRecord;
  private readonly context: ChannelContext;
  private readonly composer: Composer;
  private readonly retransmission: Retransmission;
  private readonly windowMin: number;
  private readonly windowMax: number;
  private window: number;
  private charged = 0;
  /**
   * Whether the member reports a part of a unit. It took that number over from a snapshot, which
   * has other unit boundaries, so its numbers do not tell what else of ours it has. Members of this
   * version do not do so; earlier ones did.
   */
  isTorn = false;
  /**
   * For units retained for a joining member: whether they were reported, and since when they are
   * retained (ms).
   */
  isReported = false;
  private retainedSince = Number.POSITIVE_INFINITY;
  private nudgeAt = 0;
  private nudges = 0;
  /**
   * Position after the last unit that was sent again since the last loss; before the head: all of
   * those were acknowledged.
   */
  private againTo: number;
  /**
   * End position of what was in flight at the last loss; before the head: all of it was
   * acknowledged.
   */
  private lostTo: number;
  /** The writer's version for other messages than ours. */
  private version = FORMAT_VERSION;

  constructor(options: BacklogOptions) {
    const { context, member } = options;
    const { settings, peers, unitWords } = context;
    this.member = member;
    this.isRetained = options.isRetained;
    this.source = options.source;
    this.acknowledged = options.acknowledged;
    this.context = context;
    this.composer = options.composer;
    // Twice the channel's size, so that what a member detached again had in its window also fits.
    // Memory that is not touched costs nothing.
    const bytes = Math.max(2 * settings.unitLogBytes, options.isRetained ? settings.backlogBytesEach : 0);
    this.log = new UnitLog(unitLogRegion(createUnitLogs(1, Math.min(bytes, LOG_BYTES_MAX), options.first), 0, 1));
    this.againTo = this.log.head;
    this.lostTo = this.log.head;
    this.fold = new Fold(options.source);
    this.retransmission = new Retransmission(this.log, this, peers, settings, unitWords);
    this.windowMin = WINDOW_UNITS_MIN * unitWords;
    this.windowMax = Math.min(WINDOW_UNITS_MAX * unitWords, this.log.capacityWords >>> 2);
    this.window = Math.min(WINDOW_UNITS_START * unitWords, this.windowMax);
  }

  /** The last number of the backlog. */
  get through(): number {
    return this.log.nextSequence + this.fold.numbers - 1;
  }

  /**
   * Whether all of it is in the window: the member keeps up again, and later units need not be
   * folded.
   */
  get isUnderWay(): boolean {
    return this.fold.numbers === 0 && this.log.unsent === this.log.tail && this.inFlight <= this.window;
  }

  get isComplete(): boolean {
    return this.fold.numbers === 0 && this.acknowledged.contiguous >= this.log.nextSequence - 1;
  }

  /** The size of the backlog, in sequence numbers and in bytes of memory. */
  get numbers(): number {
    return this.through - this.log.floor + 1;
  }

  get bytes(): number {
    return 4 * this.log.usedWords + this.fold.bytes;
  }

  get deadline(): number {
    const { joining, silent } = this.context.peers;
    if (joining[this.member] === 1 && this.isRetained) return this.nudgeAt;
    if (silent[this.member] === 1) return Number.POSITIVE_INFINITY;
    return this.mustNudge ? this.nudgeAt : this.retransmission.nextScan;
  }

  /** Whether more can be sent as soon as something is acknowledged. */
  get isWaiting(): boolean {
    if (this.context.peers.silent[this.member] === 1) return false;
    return this.fold.numbers > 0 || this.log.unsent !== this.log.tail;
  }

  /**
   * Appends a unit as it is. It must follow the last one, and the fold must be empty. Returns false
   * if there is no room.
   */
  addExact(count: number, words: Int32Array, at: number, length: number): boolean {
    if (this.log.room(length + RECORD_WORDS_MAX, RECORD_WORDS_MAX) < length) return false;
    this.log.append(count, words, at, length);
    this.charge();
    return true;
  }

  /** Folds in a unit, which must follow the last one. */
  add(count: number, words: Int32Array, at: number, length: number): void {
    this.fold.addUnit(count, words, at, length);
    this.charge();
  }

  /**
   * Sends a joining member its floor, once a keepalive interval: the number before which its
   * snapshot must be complete. For other members the message says nothing new. `low`, `high`: the
   * mask of members excluded at present. Returns the number of messages sent.
   */
  sendFloor(now: number, outlet: Outlet, low: number, high: number): number {
    this.retainedSince = Math.min(this.retainedSince, now);
    if (now < this.nudgeAt) return 0;
    const datagram = this.begin(now, outlet);
    if (datagram === null) return 0;
    const { settings, writer } = this.context;
    const bit = 1 << (this.member & 31);
    writer.exclude(this.member < 32 ? low & ~bit : low, this.member < 32 ? high : high & ~bit);
    this.composer.finish(datagram, outlet, this.member, this.log.floor);
    writer.version = this.version;
    this.nudgeAt = now + settings.keepaliveMs;
    return 1;
  }

  /** How long the units have been retained for a joining member, in ms. */
  retainedMs(now: number): number {
    return Math.max(0, now - this.retainedSince);
  }

  /** Releases its part of the budget. */
  drop(): void {
    this.context.backlogBudget.used -= this.charged;
    this.charged = 0;
  }

  /**
   * Sends new units as far as the window allows, and lost ones. Returns the amount of work done.
   */
  poll(now: number, outlet: Outlet): number {
    const { context, retransmission } = this;
    if (context.peers.silent[this.member] === 1) return 0;
    let work = this.takeAcknowledged();
    this.cut();
    work += this.sendNew(now, outlet);
    if (now >= retransmission.nextScan) work += this.retransmit(now, outlet);
    if (this.mustNudge) work += this.nudge(now, outlet);
    this.charge();
    return work;
  }

  /** Restarts the pace: the member is heard again. */
  restart(): void {
    this.retransmission.restart();
    this.window = Math.min(this.window, WINDOW_UNITS_START * this.context.unitWords);
  }

  heardThrough(): number {
    return this.context.peers.silent[this.member] === 1 ? Number.MAX_SAFE_INTEGER : this.acknowledged.contiguous;
  }

  slowestLacking(first: number): number {
    const { silent, timeout } = this.context.peers;
    return silent[this.member] === 1 || this.acknowledged.has(first) ? 0 : timeout[this.member];
  }

  /** A silent member needs no probe: keepalives go to every member. */
  isLacking(): boolean {
    return false;
  }

  /** Words that were sent and not all acknowledged. */
  private get inFlight(): number {
    return (this.log.unsent - this.log.head) | 0;
  }

  private get mustNudge(): boolean {
    return this.log.units === 0 && this.acknowledged.contiguous < this.log.floor - 1;
  }

  private takeAcknowledged(): number {
    const { acknowledged, log } = this;
    this.passKnown();
    const before = log.usedWords;
    const pruned = log.prune(acknowledged.contiguous);
    this.isTorn = log.units > 0 && log.floor <= acknowledged.contiguous;
    if (pruned === 0) return 0;
    this.window = Math.min(this.windowMax, this.window + before - log.usedWords);
    while (this.foldedRuns.length > 0 && this.foldedRuns[1] < log.floor) this.foldedRuns.splice(0, 2);
    this.retransmission.notePruned();
    // More of what was lost may be sent again.
    if (isBefore(log.head, this.lostTo)) this.retransmission.nextScan = 0;
    return pruned;
  }

  /**
   * Skips units that the member already has. Returns whether there is a unit to send, which is then
   * loaded.
   */
  private passKnown(): boolean {
    const { acknowledged, log } = this;
    while (log.unsent !== log.tail) {
      log.load(log.unsent);
      if (!acknowledged.has(log.first)) return true;
      log.markSent(log.unsent, 0);
    }
    return false;
  }

  /** Cuts units from the fold while the window has room. */
  private cut(): void {
    const { context, fold, log } = this;
    while (
      fold.records > 0 &&
      log.usedWords < this.window &&
      log.room(context.unitWords, RECORD_WORDS_MAX) >= context.unitWords
    ) {
      fold.take(context.unitWords);
      this.noteFolded(log.nextSequence, log.nextSequence + fold.takenCount - 1);
      log.append(fold.takenCount, fold.words, fold.takenAt, fold.takenWords);
    }
  }

  private noteFolded(first: number, last: number): void {
    const { foldedRuns } = this;
    if (foldedRuns[foldedRuns.length - 1] === first - 1) foldedRuns[foldedRuns.length - 1] = last;
    else foldedRuns.push(first, last);
  }

  /** Whether the log's unit that begins at `first` was cut from the fold, for this member alone. */
  private isFolded(first: number): boolean {
    const { foldedRuns } = this;
    for (let i = 0; i < foldedRuns.length && foldedRuns[i] <= first; i += 2)
      if (first <= foldedRuns[i + 1]) return true;
    return false;
  }

  private sendNew(now: number, outlet: Outlet): number {
    const { log } = this;
    let messages = 0;
    while (this.inFlight < this.window && this.passKnown()) {
      const datagram = this.begin(now, outlet);
      if (datagram === null) break;
      const folded = this.isFolded(log.first);
      do {
        this.put();
        log.markSent(log.unsent, now);
      } while (this.passKnown() && this.context.writer.fits(log.recordWords) && this.isFolded(log.first) === folded);
      this.finish(datagram, outlet, folded);
      messages++;
    }
    if (messages > 0) this.retransmission.noteSent(now);
    return messages;
  }

  private retransmit(now: number, outlet: Outlet): number {
    const { context, log, retransmission } = this;
    const messagesMax = context.pacing.backlogMessages;
    if (messagesMax < 1) return 0;
    const dueAt = this.headDueAt();
    const isLoss = now >= dueAt;
    // What is sent again can be lost as well.
    if (isLoss) this.beginLoss();
    const room = this.window - Math.max(0, (this.againTo - log.head) | 0);
    if (room <= 0) {
      retransmission.nextScan = dueAt;
      return 0;
    }
    const unitWords = context.unitWords + UNIT_WORDS;
    const found = retransmission.scan(now, Math.min(messagesMax, Math.max(1, room / unitWords)));
    return found === 0 ? 0 : this.sendAgain(now, outlet, found);
  }

  /** When the oldest unit that was sent is due again, in ms; infinite: none was sent. */
  private headDueAt(): number {
    const { log } = this;
    if (log.head === log.unsent) return Number.POSITIVE_INFINITY;
    log.load(log.head);
    const { peers } = this.context;
    return log.sentAt + peers.backedOff(peers.timeout[this.member], log.attempts);
  }

  private beginLoss(): void {
    const { log } = this;
    this.window = Math.max(this.windowMin, this.window >>> 1);
    this.againTo = log.head;
    this.lostTo = log.unsent;
    this.retransmission.resendAll();
  }

  private sendAgain(now: number, outlet: Outlet, found: number): number {
    const { context, log, retransmission } = this;
    let messages = 0;
    let next = 0;
    while (next < found) {
      const datagram = this.begin(now, outlet);
      if (datagram === null) break;
      log.load(retransmission.due[next]);
      const folded = this.isFolded(log.first);
      do {
        this.put();
        this.againTo = log.markSent(retransmission.due[next], now);
        if (++next === found) break;
        log.load(retransmission.due[next]);
      } while (context.writer.fits(log.recordWords) && this.isFolded(log.first) === folded);
      this.finish(datagram, outlet, folded);
      messages++;
    }
    // There was no memory for the rest: it is still due.
    if (next < found) retransmission.resendAll();
    context.counts.add('state_tx_retransmissions', next);
    return messages;
  }

  /**
   * Sends the member the floor: what it lacked below that is lost. Returns the number of messages
   * sent.
   */
  private nudge(now: number, outlet: Outlet): number {
    const { board, peers } = this.context;
    if (now < this.nudgeAt) return 0;
    const datagram = this.begin(now, outlet);
    if (datagram === null) return 0;
    const object = this.source.id;
    board.setSequence(object, Math.max(board.sequence(object), this.log.floor - 1));
    this.finish(datagram, outlet, false);
    this.nudgeAt = now + peers.backedOff(peers.timeout[this.member], ++this.nudges);
    return 1;
  }

  /** Adds the loaded unit to the current message. */
  private put(): void {
    const { log } = this;
    const { board, writer } = this.context;
    const object = this.source.id;
    const last = log.first + log.count - 1;
    writer.addUnit(log.first, log.count, log.words, log.recordsAt, log.recordWords);
    if (last > board.sequence(object)) board.setSequence(object, last);
  }

  /** Begins a message for the member alone, in a format that all other receivers skip. */
  private begin(now: number, outlet: Outlet): Datagram | null {
    const { writer } = this.context;
    const { version } = writer;
    writer.version = FORMAT_VERSION;
    const datagram = this.composer.begin(now, outlet);
    if (datagram === null) writer.version = version;
    else this.version = version;
    return datagram;
  }

  private finish(datagram: Datagram, outlet: Outlet, folded: boolean): void {
    const { writer } = this.context;
    const bit = 1 << (this.member & 31);
    writer.exclude(this.member < 32 ? ~bit : -1, this.member < 32 ? -1 : ~bit);
    if (folded) writer.markFolded();
    this.composer.finish(datagram, outlet, this.member, this.log.floor);
    writer.version = this.version;
  }

  private charge(): void {
    const { bytes } = this;
    this.context.backlogBudget.used += bytes - this.charged;
    this.charged = bytes;
  }
}
