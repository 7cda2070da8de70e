/**
 * The sending side of one channel: sends one object's units to the other members, and our reception
 * vectors to their origins.
 *
 *     records ─ add ─▶ stage ─ cut ─▶ unit log ─ poll ─▶ messages to all that are attached
 *                                        │ ▲ prune, retransmit
 *                                        │ └── what the members acknowledged (board)
 *                                        └──── a copy, folded ─▶ backlogs of detached members (attachments.ts, backlog.ts)
 *
 * **Calls to the object.** Some objects replicate more than their log records (counters). The
 * channel calls `fillIn` for each record when it is staged, `nextUnreplicated` once a poll for
 * changes that found no room in the workers' logs, and `settle` after every cut. Errors thrown
 * there are counted. They end neither the round nor the thread.
 *
 * **If the log is full**, the members that delay its pruning are detached: silent ones at once,
 * heard ones after `detachMs`. In that time the workers' log rings take new records. So no member
 * stops the others, or the workers, for longer.
 */

import { NONE } from '../../../shm/none.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import type { UnitLog } from '../units/unit-log.js';
import { type Datagram, UNIT_WORDS } from '../wire/message.js';
import { Acknowledging } from './acknowledging.js';
import { Attachments } from './attachments.js';
import { type ChannelContext, Composer } from './channel.js';
import { EVERYONE, type Outlet } from './outlet.js';
import { Retransmission } from './retransmission.js';
import { RECORD_WORDS_MAX, STAGING_WORDS, StagingArea } from './staging.js';

/** Messages with new units in one poll. */
const NEW_MESSAGES_MAX = 64;
/** The longest record of `nextUnreplicated`, in words, and the most such records in one poll. */
const UNREPLICATED_WORDS = 8;
const UNREPLICATED_RECORDS_MAX = 4096;
/**
 * If the log is full, members that lack units in this oldest part of it are detached. That frees
 * enough room to go on.
 */
const DETACH_SHARE = 1 / 16;

export class SendChannel {
  readonly object: number;
  readonly log: UnitLog;
  private readonly source: StateObject;
  private readonly unreplicated = new Int32Array(UNREPLICATED_WORDS);
  private readonly staging: StagingArea;
  private readonly context: ChannelContext;
  private readonly attachments: Attachments;
  private revivals = 0;
  private readonly composer: Composer;
  private readonly acknowledging: Acknowledging;
  private readonly retransmission: Retransmission;
  private logFull = false;
  private full = false;
  private stageLimit = 0;
  private readonly isMulticast: boolean;
  /**
   * For multicast: the recipient of each unit that is sent again, and the number of such units per
   * recipient, at index slot + 1 (0: `EVERYONE`).
   */
  private readonly recipients: Int32Array;
  private readonly recipientCount: Int32Array;
  /** When the log became full, in ms; infinite: it has room. */
  private fullSince = Number.POSITIVE_INFINITY;
  /** Whether members have been detached since all members were last attached. */
  private detaching = false;

  constructor(object: StateObject, log: UnitLog, context: ChannelContext) {
    const { settings, board } = context;
    this.object = object.id;
    this.source = object;
    this.log = log;
    this.staging = new StagingArea(object);
    this.context = context;
    this.composer = new Composer(this.object, context);
    this.attachments = new Attachments(object, log, context, this.composer);
    this.acknowledging = new Acknowledging(this.object, context, this.composer, this.attachments);
    this.retransmission = new Retransmission(log, this.attachments, context.peers, settings, context.unitWords);
    this.isMulticast = settings.transport.kind === 'multicast';
    this.recipients = new Int32Array(this.retransmission.due.length);
    this.recipientCount = new Int32Array(settings.slots + 1);
    board.setLogFull(this.object, false);
    board.setNumbered(this.object, log.nextSequence - 1);
    if (board.sequence(this.object) === 0) board.setSequence(this.object, log.floor - 1);
  }

  /**
   * Determines how much may be staged until the next `cut`. Returns whether a record of any size
   * fits. Nothing else takes room in the log meanwhile.
   */
  makeRoom(): boolean {
    const { staging, log, context } = this;
    this.stageLimit = Math.min(STAGING_WORDS, log.room(context.unitWords, RECORD_WORDS_MAX)) - RECORD_WORDS_MAX;
    this.full = staging.used > this.stageLimit;
    if (this.full) this.askForBell(true);
    return !this.full;
  }

  /** Sets whether the next acknowledgement must ring our doorbell. */
  private askForBell(logFull: boolean): void {
    if (logFull === this.logFull) return;
    this.logFull = logFull;
    this.context.board.setLogFull(this.object, logFull);
  }

  /** Whether the unit log is full: some member lags. */
  get isFull(): boolean {
    return this.log.room(this.context.unitWords, RECORD_WORDS_MAX) < RECORD_WORDS_MAX;
  }

  /** Stages a record, for which there must be room. Returns whether there is room for another. */
  add(op: number, words: Int32Array, at: number, length: number): boolean {
    const { counts } = this.context;
    counts.row[counts.at.state_tx_records]++;
    if (this.staging.add(op, words, at, length)) counts.row[counts.at.state_tx_records_coalesced]++;
    return this.staging.used <= this.stageLimit;
  }

  /** Cuts all staged records into units, numbers them and appends them to the log. */
  cut(): void {
    const { staging, context } = this;
    context.counts.add('state_tx_coalesce_failed', staging.failures);
    staging.failures = 0;
    if (staging.records === 0) return;
    let begin = 0;
    let weight = 0;
    for (let i = 0; i < staging.records; i++) {
      const end = i + 1 < staging.records ? staging.start[i + 1] : staging.used;
      if (end - begin > context.unitWords) {
        this.append(weight, begin, staging.start[i]);
        begin = staging.start[i];
        weight = 0;
      }
      weight += staging.weight[i];
    }
    this.append(weight, begin, staging.used);
    context.board.setNumbered(this.object, this.log.nextSequence - 1);
    staging.clear();
    try {
      this.source.settle?.(this.log.nextSequence - 1);
    } catch {
      context.counts.add('state_tx_coalesce_failed', 1);
    }
  }

  /**
   * Stages and cuts changes that found no room in the workers' logs. Returns the number of records.
   */
  private replicateNext(now: number): number {
    const { pacing, window } = this.context;
    if (this.source.nextUnreplicated === undefined || pacing.isThrottling || window.isClosed(now) || !this.makeRoom())
      return 0;
    let told = 0;
    for (let room = true; room && told < UNREPLICATED_RECORDS_MAX; told++) {
      const next = this.nextUnreplicated();
      if (next === NONE) break;
      room = this.add(next & 0xff, this.unreplicated, 0, next >>> 8);
    }
    this.cut();
    return told;
  }

  /**
   * Writes the object's next such record to `unreplicated`. Returns `NONE` if there is none, or if
   * the object's code fails.
   */
  private nextUnreplicated(): number {
    const { source, unreplicated } = this;
    try {
      const next = source.nextUnreplicated?.(unreplicated, 0) ?? NONE;
      if (next === NONE || next >>> 8 <= UNREPLICATED_WORDS) return next;
    } catch {}
    this.context.counts.add('state_tx_coalesce_failed', 1);
    return NONE;
  }

  private append(count: number, begin: number, end: number): void {
    this.log.append(count, this.staging.words, begin, end - begin);
    this.attachments.addToBacklogs(count, this.staging.words, begin, end - begin);
    this.context.counts.add('state_tx_units', 1);
  }

  /** Units that some member may lack, in the log and in backlogs. */
  get keptUnits(): number {
    return this.log.units + this.attachments.backlogUnits;
  }

  get backlogMembers(): number {
    return this.attachments.backlogMembers;
  }

  /**
   * Sends lost units and backlogs. Called before any channel sends new units, see pacing.ts.
   * Returns the amount of work: messages sent and units pruned.
   */
  recover(now: number): number {
    const { again, backlog } = this.context.pacing;
    let work = this.readBoard() + this.detachLaggards(now);
    if (this.context.peers.others === 0) return work;
    if (now >= this.retransmission.nextScan) work += this.retransmit(now, again);
    return work + this.attachments.poll(now, backlog);
  }

  /** Sends new units and acknowledgements. Returns the amount of work done. */
  poll(now: number): number {
    const { data: outlet, urgent } = this.context.pacing;
    let work = this.replicateNext(now);
    if (this.context.peers.others === 0) {
      this.acknowledging.rest();
      return work + this.discard(now);
    }
    work += this.attachments.isAnyAttached ? this.sendNew(now, outlet) : this.discard(now);
    this.askForBell(this.full || this.attachments.isWaiting || this.isWaitedFor || this.context.window.isClosed(now));
    return work + this.acknowledging.poll(now, urgent);
  }

  /** Reports the attached members, and the units in flight and delivered. */
  report(attached: Uint8Array): void {
    const { window } = this.context;
    this.attachments.markAttached(attached);
    window.inFlight += 4 * this.retransmission.inFlightWords();
    window.noteDelivered(4 * this.retransmission.takeDelivered());
  }

  /** Whether held packets may wait for acknowledgements. */
  private get isWaitedFor(): boolean {
    const { marks } = this.context;
    return marks !== null && marks.count > 0;
  }

  /**
   * A mark was noted. Call it before anything that the mark covers is sent; otherwise the
   * acknowledgement could arrive before the doorbell is asked for.
   */
  noteMark(): void {
    this.askForBell(true);
  }

  /** The number through which the member has every unit of ours, as of the last poll. */
  acknowledgedThrough(member: number): number {
    return this.attachments.acknowledgedThrough(member);
  }

  /** Highest sequence number assigned. */
  get numbered(): number {
    return this.log.nextSequence - 1;
  }

  /** Highest sequence number that was sent from the log. */
  get sent(): number {
    const { log } = this;
    if (log.unsent === log.tail) return this.numbered;
    log.load(log.unsent);
    return log.first - 1;
  }

  /**
   * The number through which the member has every unit; infinite: it is not attached, silent, or
   * not present.
   */
  attachedThrough(member: number): number {
    return this.attachments.attachedThrough(member);
  }

  /**
   * Detaches the member: the log's units are no longer for it, and what it lacks is kept as a
   * backlog.
   */
  detach(member: number): void {
    this.attachments.detach(member);
    this.prune();
  }

  /** Makes the next poll announce our status to the other members. */
  announce(): void {
    this.acknowledging.announce();
  }

  /** When `poll` has something to do at the latest, in ms of its clock. */
  get deadline(): number {
    return Math.min(this.retransmission.nextScan, this.attachments.deadline, this.acknowledging.deadline);
  }

  /** Reads what the members acknowledged, and prunes what all have. */
  private readBoard(): number {
    const { peers } = this.context;
    const changed = this.attachments.refresh();
    if (peers.revivals !== this.revivals) {
      this.revivals = peers.revivals;
      this.retransmission.restart();
      this.attachments.restart();
    }
    return changed ? this.prune() : 0;
  }

  private prune(): number {
    const pruned = this.log.prune(this.attachments.stable());
    this.context.counts.add('state_pruned_units', pruned);
    this.retransmission.notePruned();
    return pruned;
  }

  /**
   * Makes room in a full log: detaches the members that delay its pruning. Returns the number of
   * units pruned.
   */
  private detachLaggards(now: number): number {
    const { attachments, context } = this;
    if (!this.full || this.makeRoom()) {
      this.fullSince = Number.POSITIVE_INFINITY;
      if (attachments.backlogMembers === 0) this.detaching = false;
      return 0;
    }
    this.fullSince = Math.min(this.fullSince, now);
    const patience = now - this.fullSince >= context.settings.detachMs;
    const names = attachments.detachLaggards(this.oldest(), patience);
    if (names.length > 0 && !this.detaching)
      context.onAlarm(
        `the unit log is full because of ${names.join(', ')}: from here on what they miss is kept for them coalesced; ` +
          'raise replication.unit_log_bytes to outlast longer silences',
        this.object,
      );
    if (names.length > 0) this.detaching = true;
    const pruned = this.prune();
    this.makeRoom();
    return pruned;
  }

  /** Last number in the oldest part of the log, among units that were sent. */
  private oldest(): number {
    const { log } = this;
    const { head } = log;
    let position = head;
    let last = log.floor;
    while (position !== log.unsent && ((position - head) | 0) < log.capacityWords * DETACH_SHARE) {
      position = log.load(position);
      last = log.first + log.count - 1;
    }
    return last;
  }

  /**
   * Discards the log's units: no member gets any, because there is no other member or all others
   * are detached.
   */
  private discard(now: number): number {
    const { log } = this;
    while (log.unsent !== log.tail) log.markSent(log.unsent, now);
    this.raiseSequence(log.nextSequence - 1);
    return log.prune(Number.MAX_SAFE_INTEGER);
  }

  /** Numbers through `last` are sent. A backlog may have sent later ones to its member already. */
  private raiseSequence(last: number): void {
    const { board } = this.context;
    if (last > board.sequence(this.object)) board.setSequence(this.object, last);
  }

  private sendNew(now: number, outlet: Outlet): number {
    const { attachments, log } = this;
    const { window, writer } = this.context;
    let messages = 0;
    while (log.unsent !== log.tail && messages < NEW_MESSAGES_MAX && !window.isClosed(now)) {
      const datagram = this.composer.begin(now, outlet);
      if (datagram === null) break;
      log.load(log.unsent);
      attachments.maskFor(log.first);
      // Entries are for every member. With them, the message would also go to the members that are
      // excluded from the units.
      if (attachments.isForAll) this.acknowledging.piggyback(now, UNIT_WORDS + log.recordWords);
      do {
        writer.addUnit(log.first, log.count, log.words, log.recordsAt, log.recordWords);
        this.raiseSequence(log.first + log.count - 1);
        window.noteSent(4 * (UNIT_WORDS + log.recordWords), now);
        if (log.markSent(log.unsent, now) === log.tail) break;
        log.load(log.unsent);
      } while (writer.fits(log.recordWords) && attachments.isAlike(log.first));
      this.finish(datagram, outlet, EVERYONE);
      messages++;
    }
    if (messages > 0) this.retransmission.noteSent(now);
    return messages;
  }

  /**
   * Finds the units that are overdue at some member and sends them again. Their timers restart now
   * even if the outlet ran out of memory half-way: a host that cannot get its messages out should
   * not retry sooner.
   */
  private retransmit(now: number, outlet: Outlet): number {
    const { counts, peers } = this.context;
    const room = this.context.pacing.messagesAgain;
    if (room < 1) return 0;
    const found = this.retransmission.scan(now, room);
    if (found === 0) return 0;
    let messages = 0;
    if (this.isMulticast) this.findRecipients(found);
    for (let member = EVERYONE; member < peers.present.length; member++)
      if (this.isRecipient(member)) messages += this.sendAgain(now, outlet, found, member);
    this.context.window.noteLost(this.countLost(found));
    for (let i = 0; i < found; i++) this.log.markSent(this.retransmission.due[i], now);
    counts.add('state_tx_retransmissions', found);
    return messages;
  }

  /**
   * The number of due units that were lost. A timeout alone does not prove loss: the
   * acknowledgement may only be late. A later unit that arrived proves it, and so does a second
   * timeout (RFC 9002 §6.2 and §7.6 treat timeouts alike).
   */
  private countLost(found: number): number {
    const { attachments, log, retransmission } = this;
    let lost = 0;
    for (let i = 0; i < found; i++) {
      log.load(retransmission.due[i]);
      if (log.attempts > 1 || attachments.isOvertaken(log.first)) lost++;
    }
    return lost;
  }

  /**
   * For multicast: determines the recipient of each due unit. A unit that only one member lacks is
   * not sent to the others.
   */
  private findRecipients(found: number): void {
    const { attachments, log, recipients, retransmission } = this;
    this.recipientCount.fill(0);
    for (let i = 0; i < found; i++) {
      log.load(retransmission.due[i]);
      recipients[i] = attachments.recipientOf(log.first);
      if (recipients[i] >= EVERYONE) this.recipientCount[recipients[i] + 1]++;
    }
  }

  private isRecipient(member: number): boolean {
    const { peers } = this.context;
    if (this.isMulticast) return this.recipientCount[member + 1] > 0;
    return member !== EVERYONE && peers.present[member] === 1;
  }

  /**
   * Whether due unit `i`, which is loaded, is sent to the member or, by multicast, to `EVERYONE`.
   */
  private isDueTo(member: number, i: number): boolean {
    if (this.isMulticast) return this.recipients[i] === member;
    return this.attachments.lacks(member, this.log.first);
  }

  /**
   * Sends again those of the first `found` due units that are for `member`, which may be
   * `EVERYONE`.
   */
  private sendAgain(now: number, outlet: Outlet, found: number, member: number): number {
    const { attachments, log } = this;
    const { writer } = this.context;
    let messages = 0;
    let datagram: Datagram | null = null;
    for (let i = 0; i < found; i++) {
      log.load(this.retransmission.due[i]);
      if (!this.isDueTo(member, i)) continue;
      if (datagram !== null && !(writer.fits(log.recordWords) && attachments.isAlike(log.first))) {
        this.finish(datagram, outlet, member);
        datagram = null;
      }
      if (datagram === null) {
        datagram = this.composer.begin(now, outlet);
        if (datagram === null) return messages;
        attachments.maskFor(log.first);
        messages++;
      }
      writer.addUnit(log.first, log.count, log.words, log.recordsAt, log.recordWords);
    }
    if (datagram !== null) this.finish(datagram, outlet, member);
    return messages;
  }

  /**
   * Ends a message with units, for which `maskFor` was called. If all members but one are excluded,
   * it is sent to that one.
   */
  private finish(datagram: Datagram, outlet: Outlet, member: number): void {
    const { attachments } = this;
    const { maskLow, maskHigh } = attachments;
    this.context.writer.exclude(maskLow, maskHigh);
    if (this.context.writer.entries > 0) this.composer.finish(datagram, outlet, member, attachments.floor());
    else {
      const narrows = member === EVERYONE && !attachments.isForAll && this.isMulticast;
      const to = narrows ? attachments.soleAudience : member;
      this.composer.finishFor(datagram, outlet, to, maskLow, maskHigh, attachments.floor());
    }
  }
}
