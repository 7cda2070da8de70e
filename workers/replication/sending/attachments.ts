/**
 * Which units of one channel each member is sent: the log's units, a backlog, or none.
 *
 *                   log full, and it is silent or behind
 *     ATTACHED ─────────────────────────────────────────▶ BACKLOG ── it outgrows its bound, or the thread died ────▶ ABSENT
 *        ▲                                                │ ▲                                                           │
 *        └────── all of the backlog acknowledged ─────────┘ └── heard again: with a backlog that begins after its loss ─┘
 *
 * An *attached* member gets the units of the log. None of them is pruned before it has it.
 *
 * A member with a *backlog* is detached: it is excluded from all units, floor and highest. What it
 * lacks is its `Backlog`. Once all of the backlog is under way, the log's units are for the member
 * again. Units after `from` come from the log. Units up to `from` come from the backlog, with the
 * backlog's own boundaries. So all units of one message must be of the same kind: `maskFor`,
 * `isAlike`.
 *
 * An *absent* member has lost units. When it is heard again, a floor tells it so, and it takes a
 * snapshot for the rest. A member that speaks version 1 cannot be excluded: it is absent at
 * once, and goes on at the log's floor.
 *
 * The state is on the board. The backlogs are in this thread's memory: after its death, members
 * with a backlog are absent.
 */

import { VectorRecord } from '../../../shm/ack-board.js';
import { Attachment, AttachmentRecord } from '../../../shm/board-records.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import { selfIndex } from '../settings.js';
import type { UnitLog } from '../units/unit-log.js';
import { Backlog } from './backlog.js';
import type { ChannelContext, Composer } from './channel.js';
import { EVERYONE, type Outlet } from './outlet.js';
import type { Audience } from './retransmission.js';

/** How often figures of the backlogs are put on the board, in ms. */
const PUBLISH_MS = 100;
/**
 * Units retained for a joining member are reported after this time (ms), or at this part of their
 * bound.
 */
const RETAINED_MS = 10_000;
const RETAINED_SHARE = 1 / 4;
/** As a recipient: no member. */
const NOBODY = -2;
/** Why a backlog is given up. */
const OUTGROWN = 'its backlog has outgrown the memory for it';
/** `from` of a member that gets no units from the log. */
const NOTHING = Number.POSITIVE_INFINITY;

export class Attachments implements Audience {
  /**
   * Members of slots 0–31 and 32–63 that are excluded from the units, or floor, last asked about.
   */
  maskLow = 0;
  maskHigh = 0;
  /** Units through this number have the same mask as the one last asked about. */
  private maskThrough = NOTHING;
  private readonly object: number;
  private readonly source: StateObject;
  private readonly log: UnitLog;
  private readonly context: ChannelContext;
  private readonly composer: Composer;
  private readonly self: number;
  private readonly slots: number;
  /** What each member has of our units, as of `changes`. */
  private readonly acknowledged: readonly VectorRecord[];
  private readonly state: Attachment[];
  /** The incarnation of the member that the state is about; 0: not heard yet. */
  private readonly incarnation: Float64Array;
  /** The log's units after this number are for the member. */
  private readonly from: Float64Array;
  /**
   * While the member is joining, the log's units through this number are not retained for it: its
   * snapshot must contain them.
   */
  private readonly spared: Float64Array;
  private readonly backlogs: (Backlog | null)[];
  /** 1: an alarm said that the member needs a snapshot, and it has not returned since. */
  private readonly alarmed: Uint8Array;
  /** The number of members that are not attached. */
  private detachedCount = 0;
  private readonly record = new AttachmentRecord();
  private changes = -1;
  private looks = -1;
  private publishAt = 0;

  constructor(source: StateObject, log: UnitLog, context: ChannelContext, composer: Composer) {
    const { slots } = context.settings;
    this.object = source.id;
    this.source = source;
    this.log = log;
    this.context = context;
    this.composer = composer;
    this.self = selfIndex(context.settings);
    this.slots = slots;
    this.acknowledged = Array.from({ length: slots }, () => new VectorRecord());
    this.state = new Array<Attachment>(slots).fill(Attachment.ATTACHED);
    this.incarnation = new Float64Array(slots);
    this.from = new Float64Array(slots);
    this.spared = new Float64Array(slots);
    this.alarmed = new Uint8Array(slots);
    this.backlogs = new Array<Backlog | null>(slots).fill(null);
    for (let member = 0; member < slots; member++) this.resume(member);
  }

  /** Units in all backlogs. */
  get backlogUnits(): number {
    let units = 0;
    for (const backlog of this.backlogs) if (backlog !== null) units += backlog.log.units + backlog.fold.records;
    return units;
  }

  get backlogMembers(): number {
    let members = 0;
    for (const backlog of this.backlogs) if (backlog !== null) members++;
    return members;
  }

  /** Whether more can be sent as soon as something is acknowledged. */
  get isWaiting(): boolean {
    if (this.detachedCount === 0) return false;
    for (const backlog of this.backlogs) if (backlog?.isWaiting) return true;
    return false;
  }

  /** When a backlog has something due, in ms. */
  get deadline(): number {
    if (this.detachedCount === 0) return NOTHING;
    let deadline = NOTHING;
    for (const backlog of this.backlogs) if (backlog !== null) deadline = Math.min(deadline, backlog.deadline);
    return deadline;
  }

  /**
   * Reads what the members acknowledged, and which members came, left or restarted. Returns whether
   * anything may have changed.
   */
  refresh(): boolean {
    const { board, peers } = this.context;
    const changes = board.changes(this.object);
    if (changes === this.changes && peers.looks === this.looks) return false;
    this.changes = changes;
    this.looks = peers.looks;
    for (let member = 0; member < this.slots; member++) {
      const incarnation = peers.present[member] === 0 ? 0 : peers.incarnation[member];
      if (incarnation !== this.incarnation[member]) this.meet(member, incarnation);
      if (peers.present[member] === 1) board.readVector(this.object, member, this.self, this.acknowledged[member]);
    }
    return true;
  }

  /**
   * Whether units of ours are kept for that incarnation of the member. If the member is joining,
   * also whether the floor that it hears is its own. While another member's backlog is under way,
   * the announced floor is lower (`floor`), and a snapshot of that member would leave an unseen
   * gap.
   */
  retainsFor(member: number, incarnation: number): boolean {
    if (this.incarnation[member] !== incarnation || this.state[member] === Attachment.ABSENT) return false;
    const isJoining = this.context.peers.joining[member] === 1;
    return !isJoining || this.backlogs[member] !== null || !this.isBacklogUnderWay;
  }

  /**
   * Whether some heard member is sent both the log's units and units of its backlog that the log no
   * longer has.
   */
  private get isBacklogUnderWay(): boolean {
    if (this.detachedCount === 0) return false;
    const { silent } = this.context.peers;
    for (let member = 0; member < this.slots; member++) {
      const backlog = this.backlogs[member];
      if (backlog === null || this.from[member] === NOTHING || silent[member] === 1) continue;
      if (backlog.log.floor < this.log.floor) return true;
    }
    return false;
  }

  /** Sets to 1 the entries of the members that the log's units are for. */
  markAttached(members: Uint8Array): void {
    const { present } = this.context.peers;
    for (let member = 0; member < this.slots; member++)
      if (present[member] === 1 && this.from[member] < NOTHING) members[member] = 1;
  }

  /** The number through which the member has every unit of ours. */
  acknowledgedThrough(member: number): number {
    return this.acknowledged[member].contiguous;
  }

  /**
   * The number through which the member has every unit; infinite: it is not attached, silent, or
   * not present.
   */
  attachedThrough(member: number): number {
    const { present, silent } = this.context.peers;
    const isAttached = present[member] === 1 && silent[member] === 0 && this.state[member] === Attachment.ATTACHED;
    return isAttached ? this.acknowledged[member].contiguous : NOTHING;
  }

  /** Whether the log's units are for any member. */
  get isAnyAttached(): boolean {
    const { present } = this.context.peers;
    for (let member = 0; member < this.slots; member++)
      if (present[member] === 1 && this.from[member] < NOTHING) return true;
    return false;
  }

  /** Whether the log's unit that begins at `first` is for the member, and the member lacks it. */
  lacks(member: number, first: number): boolean {
    const { present } = this.context.peers;
    return present[member] === 1 && first > this.from[member] && !this.acknowledged[member].has(first);
  }

  /** The log's units through this number are no longer needed. */
  stable(): number {
    return this.through(false);
  }

  heardThrough(): number {
    return this.through(true);
  }

  slowestLacking(first: number): number {
    const { silent, timeout } = this.context.peers;
    let slowest = 0;
    for (let member = 0; member < this.slots; member++)
      if (silent[member] === 0 && timeout[member] > slowest && this.lacks(member, first)) slowest = timeout[member];
    return slowest;
  }

  /**
   * Whether a heard member that lacks the unit beginning at `first` has a later one: the unit was
   * lost, and is not merely late.
   */
  isOvertaken(first: number): boolean {
    const { silent } = this.context.peers;
    for (let member = 0; member < this.slots; member++)
      if (silent[member] === 0 && this.acknowledged[member].last > first && this.lacks(member, first)) return true;
    return false;
  }

  /**
   * The only member to which a unit must be sent again: the only heard member that lacks it or, if
   * no heard member does, the only silent one. `EVERYONE`: several lack it. `NOBODY`: none does.
   */
  recipientOf(first: number): number {
    const { silent } = this.context.peers;
    let heard = NOBODY;
    let unheard = NOBODY;
    for (let member = 0; member < this.slots; member++) {
      if (!this.lacks(member, first)) continue;
      if (silent[member] === 1) unheard = unheard === NOBODY ? member : EVERYONE;
      else if (heard !== NOBODY) return EVERYONE;
      else heard = member;
    }
    return heard === NOBODY ? unheard : heard;
  }

  /**
   * The only member that the mask last asked for does not exclude; `EVERYONE`: several, or none.
   */
  get soleAudience(): number {
    const { present } = this.context.peers;
    let sole = EVERYONE;
    for (let member = 0; member < this.slots; member++) {
      const excluded = ((member < 32 ? this.maskLow : this.maskHigh) >>> (member & 31)) & 1;
      if (present[member] === 0 || excluded === 1) continue;
      if (sole !== EVERYONE) return EVERYONE;
      sole = member;
    }
    return sole;
  }

  isLacking(first: number): boolean {
    for (let member = 0; member < this.slots; member++) if (this.lacks(member, first)) return true;
    return false;
  }

  /**
   * The lowest number that can still be sent to a member that is not excluded from messages without
   * units.
   */
  floor(): number {
    let { floor } = this.log;
    if (this.detachedCount === 0) return floor;
    for (let member = 0; member < this.slots; member++) {
      const backlog = this.backlogs[member];
      if (backlog !== null && this.from[member] < NOTHING) floor = Math.min(floor, backlog.log.floor);
    }
    return floor;
  }

  /**
   * Computes the mask of members to exclude from a message whose first unit begins at `first`;
   * `NOTHING`: a message without units.
   */
  maskFor(first: number = NOTHING): void {
    this.maskLow = 0;
    this.maskHigh = 0;
    this.maskThrough = NOTHING;
    if (this.detachedCount === 0) return;
    for (let member = 0; member < this.slots; member++) {
      const from = this.from[member];
      if (from < first) continue;
      if (from < this.maskThrough) this.maskThrough = from;
      if (member < 32) this.maskLow |= 1 << member;
      else this.maskHigh |= 1 << (member & 31);
    }
  }

  /** Whether the units last asked about are for every member. */
  get isForAll(): boolean {
    return (this.maskLow | this.maskHigh) === 0;
  }

  /**
   * Whether a unit that begins at `first`, after the one `maskFor` was asked about, is for the same
   * members.
   */
  isAlike(first: number): boolean {
    return first <= this.maskThrough;
  }

  /**
   * Adds a unit that was put into the log to the backlogs of the members that get nothing from
   * there.
   */
  addToBacklogs(count: number, words: Int32Array, at: number, length: number): void {
    if (this.detachedCount === 0) return;
    for (let member = 0; member < this.slots; member++) {
      const backlog = this.backlogs[member];
      if (backlog === null || this.from[member] < NOTHING) continue;
      if (backlog.isRetained && this.context.peers.joining[member] === 1) {
        if (!backlog.addExact(count, words, at, length) || this.isTooLarge(backlog)) this.forgetRetained(member);
        continue;
      }
      backlog.add(count, words, at, length);
      if (this.isTooLarge(backlog)) this.lose(member, OUTGROWN);
    }
  }

  /**
   * Detaches the members that delay the pruning of the log's units through `sequence`: the silent
   * ones and, if `patience` is set, those that are heard. Returns their names. For a joining
   * member, the units are retained as they are: folded units would not fit what its donor has.
   */
  detachLaggards(sequence: number, patience: boolean): string[] {
    const { peers } = this.context;
    const names: string[] = [];
    for (let member = 0; member < this.slots; member++) {
      if (peers.present[member] === 0 || this.from[member] === NOTHING) continue;
      if (Math.max(this.from[member], this.acknowledged[member].contiguous) >= sequence) continue;
      if (peers.joining[member] === 1) {
        if (peers.speaks[member] === 1) this.spared[member] = sequence;
        else this.retain(member);
        continue;
      }
      if (peers.silent[member] === 0 && !patience) continue;
      names.push(peers.members.name(member));
      this.detach(member);
    }
    return names;
  }

  /** Sends backlogs, and changes the members' states. Returns the amount of work done. */
  poll(now: number, outlet: Outlet): number {
    if (this.detachedCount === 0) return 0;
    const { peers } = this.context;
    let work = 0;
    for (let member = 0; member < this.slots; member++) {
      if (this.state[member] === Attachment.ABSENT) {
        // A joining member lacks no more than its snapshot has to contain.
        if (peers.joining[member] === 1) this.attach(member);
        else if (peers.silent[member] === 0) this.goOn(member);
      }
      const backlog = this.backlogs[member];
      if (backlog === null) continue;
      if (backlog.isRetained && peers.joining[member] === 1) {
        this.maskFor();
        work += backlog.sendFloor(now, outlet, this.maskLow, this.maskHigh);
        this.reportRetained(member, backlog, now);
      }
      work += backlog.poll(now, outlet);
      this.settle(member, backlog);
    }
    if (now >= this.publishAt) {
      this.publishAt = now + PUBLISH_MS;
      for (let member = 0; member < this.slots; member++) if (this.backlogs[member] !== null) this.publish(member);
    }
    return work;
  }

  /** Restarts the pace of the backlogs: silent members are heard again. */
  restart(): void {
    for (const backlog of this.backlogs) backlog?.restart();
  }

  /**
   * Resumes the member's state from the board. The backlogs were lost with the thread that had
   * them.
   */
  private resume(member: number): void {
    const { record } = this;
    record.floats.fill(0);
    this.context.board.readAttachment(this.object, member, record);
    this.incarnation[member] = record.incarnation;
    if (record.state === Attachment.ATTACHED) return;
    this.state[member] = record.state;
    this.from[member] = NOTHING;
    this.detachedCount++;
    if (record.state === Attachment.BACKLOG) this.lose(member, 'the send thread that kept its backlog has ended');
  }

  /**
   * Another incarnation of the member, or another member, has the slot; or a member is heard for
   * the first time.
   */
  private meet(member: number, incarnation: number): void {
    const first = this.incarnation[member] === 0;
    this.incarnation[member] = incarnation;
    this.spared[member] = 0;
    this.alarmed[member] = 0;
    // It has no state, or asks for a snapshot: the units that the log still has, and all later
    // ones, are for it.
    const isNew = !first || this.context.peers.joining[member] === 1;
    if (isNew && this.state[member] !== Attachment.ATTACHED) this.attach(member);
    else this.publish(member);
  }

  /**
   * Detaches the member: keeps what it lacks from here on as a backlog. The log's units are no
   * longer for it.
   */
  detach(member: number): void {
    const { context, log } = this;
    if (context.peers.speaks[member] === 1) {
      this.lose(member, 'the unit log is full, and it speaks an earlier version, in which nothing can be kept for it');
      return;
    }
    // This poll may have received the acknowledgement that completes the last backlog, and more
    // than that.
    if (this.backlogs[member]?.isComplete) this.restore(member);
    let position = this.firstLacking(member);
    const backlog =
      this.backlogs[member] ?? this.newBacklog(member, position === log.tail ? log.nextSequence : log.first);
    if (this.state[member] === Attachment.ATTACHED) this.detachedCount++;
    this.state[member] = Attachment.BACKLOG;
    this.from[member] = NOTHING;
    context.counts.add('state_tx_detached', 1);
    while (position !== log.tail) {
      const sent = position !== log.unsent && ((position - log.unsent) | 0) < 0;
      position = log.load(position);
      if (log.first !== backlog.through + 1) {
        this.lose(member, `what is kept for it ends at ${backlog.through}, and the unit log goes on at ${log.first}`);
        return;
      }
      if (!sent) backlog.add(log.count, log.words, log.recordsAt, log.recordWords);
      else if (!backlog.addExact(log.count, log.words, log.recordsAt, log.recordWords)) {
        this.lose(member, OUTGROWN);
        return;
      }
    }
    if (this.isTooLarge(backlog)) this.lose(member, OUTGROWN);
    else this.publish(member);
  }

  /**
   * The position of the log's first unit that the member lacks, which is loaded; the log's tail:
   * the member lacks none.
   */
  private firstLacking(member: number): number {
    const { log } = this;
    const contiguous = Math.max(this.from[member], this.acknowledged[member].contiguous);
    let position = log.head;
    while (position !== log.tail) {
      const next = log.load(position);
      if (log.first > contiguous) break;
      position = next;
    }
    return position;
  }

  /**
   * Retains the units of a full log and all later ones, unfolded, for a joining member, so that the
   * log need not wait for its snapshot. The member gets those that follow its snapshot.
   */
  private retain(member: number): void {
    const { log } = this;
    let position = this.firstLacking(member);
    const backlog = this.newBacklog(member, position === log.tail ? log.nextSequence : log.first, true);
    if (this.state[member] === Attachment.ATTACHED) this.detachedCount++;
    this.state[member] = Attachment.BACKLOG;
    this.from[member] = NOTHING;
    this.context.counts.add('state_tx_retained', 1);
    while (position !== log.tail) {
      position = log.load(position);
      if (backlog.addExact(log.count, log.words, log.recordsAt, log.recordWords)) continue;
      this.forgetRetained(member);
      return;
    }
    if (this.isTooLarge(backlog)) this.forgetRetained(member);
    else this.publish(member);
  }

  /**
   * Reports once what is retained for a member that is still joining. Retained units take memory
   * until the join ends.
   */
  private reportRetained(member: number, backlog: Backlog, now: number): void {
    if (this.alarmed[member] === 1) return;
    const bytesMax = Math.min(this.context.settings.backlogBytesEach, this.context.backlogBudget.limit);
    if (backlog.isReported || (backlog.retainedMs(now) < RETAINED_MS && backlog.bytes < RETAINED_SHARE * bytesMax))
      return;
    backlog.isReported = true;
    const name = this.context.peers.members.name(member);
    const seconds = Math.round(backlog.retainedMs(now) / 1000);
    this.context.onAlarm(
      `${name} is still joining: since ${seconds} s the unit log is not enough, and ${backlog.numbers} records ` +
        `(${(backlog.bytes / 2 ** 20).toFixed(1)} MiB of ${(bytesMax / 2 ** 20).toFixed(1)}) are retained for it; ` +
        'beyond replication.backlog_bytes it has to take another snapshot',
      this.object,
    );
  }

  /**
   * A member joins so slowly that what is retained for it has outgrown its bound: it needs a later
   * snapshot.
   */
  private forgetRetained(member: number): void {
    this.attach(member);
    // Otherwise the log would wait for it.
    this.spared[member] = this.log.nextSequence - 1;
    this.context.counts.add('state_tx_backlogs_lost', 1);
    if (this.alarmed[member] === 0)
      this.context.onAlarm(
        `${this.context.peers.members.name(member)} joins more slowly than units can be kept for it, and has to take another ` +
          'snapshot: raise replication.backlog_bytes, or lower the load while it joins',
        this.object,
      );
    this.alarmed[member] = 1;
  }

  /** An absent member is heard again. */
  private goOn(member: number): void {
    if (this.context.peers.speaks[member] === 1) {
      this.attach(member);
      return;
    }
    this.newBacklog(member, this.log.nextSequence);
    this.state[member] = Attachment.BACKLOG;
  }

  /**
   * Attaches the member to the log once all of its backlog is under way. Ends a backlog that is
   * acknowledged or void.
   */
  private settle(member: number, backlog: Backlog): void {
    const { contiguous } = this.acknowledged[member];
    const last = backlog.log.nextSequence - 1;
    if (contiguous > last && contiguous + 1 < this.log.floor) {
      this.lose(member, 'it has a snapshot that is too old');
    } else if (backlog.isTorn) {
      this.lose(member, 'the numbers that it took over from a snapshot do not fit the backlog that is kept for it');
    } else if (contiguous > last || backlog.isComplete) {
      // If it has more than we sent it, it took a snapshot, and has the log's unit boundaries.
      this.restore(member);
    } else if (backlog.isUnderWay && this.from[member] === NOTHING && this.context.peers.silent[member] === 0) {
      this.from[member] = last;
    }
  }

  /** The member has all of its backlog. */
  private restore(member: number): void {
    this.context.counts.add('state_tx_reattached', 1);
    this.alarmed[member] = 0;
    this.attach(member);
  }

  private attach(member: number): void {
    if (this.state[member] !== Attachment.ATTACHED) this.detachedCount--;
    this.backlogs[member]?.drop();
    this.backlogs[member] = null;
    this.state[member] = Attachment.ATTACHED;
    this.from[member] = 0;
    this.publish(member);
  }

  private lose(member: number, why: string): void {
    if (this.state[member] === Attachment.ATTACHED) this.detachedCount++;
    this.backlogs[member]?.drop();
    this.backlogs[member] = null;
    this.state[member] = Attachment.ABSENT;
    this.from[member] = NOTHING;
    this.publish(member);
    this.context.counts.add('state_tx_backlogs_lost', 1);
    if (this.alarmed[member] === 0)
      this.context.onAlarm(`${this.context.peers.members.name(member)} needs a snapshot: ${why}`, this.object);
    this.alarmed[member] = 1;
  }

  private newBacklog(member: number, first: number, isRetained = false): Backlog {
    const { source, context, composer } = this;
    const acknowledged = this.acknowledged[member];
    const backlog = new Backlog({ source, member, acknowledged, first, isRetained, context, composer });
    this.backlogs[member] = backlog;
    return backlog;
  }

  private isTooLarge(backlog: Backlog): boolean {
    const { backlogBudget } = this.context;
    return backlogBudget.used > backlogBudget.limit || backlog.fold.bytes > backlogBudget.perFold;
  }

  private through(heard: boolean): number {
    const { joining, present, silent } = this.context.peers;
    let through = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < this.slots; member++) {
      if (present[member] === 0 || (heard && silent[member] === 1)) continue;
      const needed = Math.max(this.from[member], this.acknowledged[member].contiguous);
      through = Math.min(through, joining[member] === 1 ? Math.max(needed, this.spared[member]) : needed);
    }
    return through;
  }

  private publish(member: number): void {
    const { record } = this;
    const backlog = this.backlogs[member];
    record.state = this.state[member];
    record.incarnation = this.incarnation[member];
    record.backlogRecords = backlog === null ? 0 : backlog.numbers;
    record.backlogBytes = backlog === null ? 0 : backlog.bytes;
    record.cut = this.from[member] === NOTHING ? this.log.nextSequence - 1 : this.from[member];
    this.context.board.writeAttachment(this.object, member, record);
  }
}
