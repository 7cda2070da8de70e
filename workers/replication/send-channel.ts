/**
 * The sending side of one channel: one object's units to the other members, and our reception vectors to their origins.
 *
 *     records ─ add ─▶ stage ─ cut ─▶ unit log ─ poll ─▶ messages
 *                                        ▲ prune, retransmit
 *                                        └── what the members acknowledged (board)
 *
 * **What the object is asked**, if it tells more than its log records say (counters): `tell` of each record when it is
 * staged, `nextUntold` once a poll for what the workers' logs had no room for, `settle` after every cut. Errors thrown
 * there are counted and end neither the round nor the thread.
 *
 * **A silent member** holds the log's units until the log is full. Then the oldest units that every member that is heard
 * has are let go (all are silent: the oldest), counted, and said once, until no member is silent any more. The log keeps
 * the latest that fit; a member that is heard again skips what is below `floor`, and counts that. A member that is heard
 * and lags still holds up draining: it will acknowledge, or fall silent.
 */

import { VectorRecord } from '../../shm/ack-board.js';
import { NONE } from '../../shm/none.js';
import type { StateObject } from '../../shm/objects/object.js';
import { Acknowledging } from './acknowledging.js';
import { type ChannelContext, Composer, EVERYONE, type Outlet } from './channel.js';
import { type Datagram, UNIT_WORDS } from './message.js';
import { type Audience, Retransmission } from './retransmission.js';
import { selfIndex } from './settings.js';
import { RECORD_WORDS_MAX, STAGE_WORDS, Stage } from './stage.js';
import type { UnitLog } from './unit-log.js';

/** Messages with new units in one poll. */
const NEW_MESSAGES_MAX = 64;
/** Longest record an object tells without the log's help, and most of them in one poll. */
const UNTOLD_WORDS = 8;
const UNTOLD_RECORDS_MAX = 4096;
/** A full log lets go of this part of it at a time: few enough for who returns, enough to go on with. */
const LET_GO_SHARE = 1 / 16;
export class SendChannel implements Audience {
  readonly object: number;
  readonly log: UnitLog;
  private readonly source: StateObject;
  private readonly untold = new Int32Array(UNTOLD_WORDS);
  private readonly stage: Stage;
  private readonly context: ChannelContext;
  private readonly self: number;
  /** Slots: members that may come and go. */
  private readonly slots: number;

  /** What each member has of ours, as of `changes`. */
  private readonly acknowledged: VectorRecord[];
  private changes = -1;
  private presence = 0;
  private revivals = 0;
  /** Whether units were let go since members fell silent. */
  private lettingGo = false;

  private readonly composer: Composer;
  private readonly acknowledging: Acknowledging;
  private readonly retransmission: Retransmission;
  private hungry = false;
  private stageLimit = 0;

  constructor(object: StateObject, log: UnitLog, context: ChannelContext) {
    const { settings, board } = context;
    this.object = object.id;
    this.source = object;
    this.log = log;
    this.stage = new Stage(object);
    this.context = context;
    this.self = selfIndex(settings);
    this.slots = settings.slots;
    this.acknowledged = Array.from({ length: settings.slots }, () => new VectorRecord());
    this.composer = new Composer(this.object, context);
    this.acknowledging = new Acknowledging(this.object, context, this.composer, () => log.floor);
    this.retransmission = new Retransmission(log, this, context.peers, settings, context.unitWords);
    board.setHungry(this.object, false);
    board.setNumbered(this.object, log.nextSequence - 1);
    if (board.sequence(this.object) === 0) board.setSequence(this.object, log.floor - 1);
  }

  /**
   * Finds out how much may be staged until the next `cut`; returns whether that is a record of any size. Nothing else
   * takes room in the log meanwhile.
   */
  makeRoom(): boolean {
    const { stage, log, context } = this;
    this.stageLimit = Math.min(STAGE_WORDS, log.room(context.unitWords, RECORD_WORDS_MAX)) - RECORD_WORDS_MAX;
    const room = stage.used <= this.stageLimit;
    if (room === this.hungry) {
      this.hungry = !room;
      context.board.setHungry(this.object, this.hungry);
    }
    return room;
  }

  /** Whether the unit log is full: some member lags. */
  get isFull(): boolean {
    return this.log.room(this.context.unitWords, RECORD_WORDS_MAX) < RECORD_WORDS_MAX;
  }

  /** Stages a record, for which there must be room. Returns whether there is room for another. */
  add(op: number, words: Int32Array, at: number, length: number): boolean {
    const { counts } = this.context;
    counts.row[counts.at.state_tx_records]++;
    if (this.stage.add(op, words, at, length)) counts.row[counts.at.state_tx_records_coalesced]++;
    return this.stage.used <= this.stageLimit;
  }

  /** Cuts everything staged into units, numbers them and puts them into the log. */
  cut(): void {
    const { stage, context } = this;
    context.counts.add('state_tx_coalesce_failed', stage.failures);
    stage.failures = 0;
    if (stage.records === 0) return;
    let begin = 0;
    let weight = 0;
    for (let i = 0; i < stage.records; i++) {
      const end = i + 1 < stage.records ? stage.start[i + 1] : stage.used;
      if (end - begin > context.unitWords) {
        this.append(weight, begin, stage.start[i]);
        begin = stage.start[i];
        weight = 0;
      }
      weight += stage.weight[i];
    }
    this.append(weight, begin, stage.used);
    context.board.setNumbered(this.object, this.log.nextSequence - 1);
    stage.clear();
    try {
      this.source.settle?.(this.log.nextSequence - 1);
    } catch {
      context.counts.add('state_tx_coalesce_failed', 1);
    }
  }

  /** Stages and cuts what the workers counted while their logs were full. Returns how many records that was. */
  private tellUntold(): number {
    if (this.source.nextUntold === undefined || !this.makeRoom()) return 0;
    let told = 0;
    for (let room = true; room && told < UNTOLD_RECORDS_MAX; told++) {
      const next = this.nextUntold();
      if (next === NONE) break;
      room = this.add(next & 0xff, this.untold, 0, next >>> 8);
    }
    this.cut();
    return told;
  }

  /** The object's next record without the log's help, in `untold`; `NONE` also where the object's code fails. */
  private nextUntold(): number {
    const { source, untold } = this;
    try {
      const next = source.nextUntold?.(untold, 0) ?? NONE;
      if (next === NONE || next >>> 8 <= UNTOLD_WORDS) return next;
    } catch {}
    this.context.counts.add('state_tx_coalesce_failed', 1);
    return NONE;
  }

  private append(count: number, begin: number, end: number): void {
    this.log.append(count, this.stage.words, begin, end - begin);
    this.context.counts.add('state_tx_units', 1);
  }

  /** Sends what is due. Returns how much was done: messages sent and units pruned. */
  poll(now: number, outlet: Outlet): number {
    let work = this.readBoard() + this.letGo() + this.tellUntold();
    if (this.context.peers.others === 0) return work + this.discard(now);
    work += this.sendNew(now, outlet);
    if (now >= this.retransmission.nextScan) work += this.retransmit(now, outlet);
    return work + this.acknowledging.poll(now, outlet);
  }

  /** When `poll` has something to do at the latest, in ms of its clock. */
  get deadline(): number {
    return Math.min(this.retransmission.nextScan, this.acknowledging.deadline);
  }

  /** Takes in what the members acknowledged; lets go of what all have. */
  private readBoard(): number {
    const { board, peers, counts } = this.context;
    if (peers.revivals !== this.revivals) {
      this.revivals = peers.revivals;
      this.retransmission.startAnew();
    }
    const changes = board.changes(this.object);
    if (changes === this.changes && peers.presence === this.presence) return 0;
    this.changes = changes;
    this.presence = peers.presence;
    let stable = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < this.slots; member++) {
      if (peers.present[member] === 0) continue;
      const record = this.acknowledged[member];
      board.readVector(this.object, member, this.self, record);
      stable = Math.min(stable, record.contiguous);
    }
    const pruned = this.log.prune(stable);
    counts.add('state_pruned_units', pruned);
    this.retransmission.notePruned();
    return pruned;
  }

  /** Makes room in a full log at the cost of the members that are silent. Returns the number of units let go. */
  private letGo(): number {
    const { log, context } = this;
    const silent = this.silentMembers();
    if (silent === 0) this.lettingGo = false;
    if (!this.hungry || silent === 0 || this.makeRoom()) return 0;
    const units = log.prune(this.heardThrough(), log.capacityWords * LET_GO_SHARE);
    context.counts.add('state_tx_units_let_go', units);
    this.retransmission.notePruned();
    if (units > 0 && !this.lettingGo) {
      this.lettingGo = true;
      context.onAlarm(
        `the unit log is full, and the oldest units are let go though silent members lack them (${this.silentNames()}): ` +
          'they will miss those entries until these are refreshed; raise replication.unit_log_bytes to outlast longer silences',
        this.object,
      );
    }
    return units;
  }

  private silentMembers(): number {
    const { present, silent } = this.context.peers;
    let count = 0;
    for (let member = 0; member < this.slots; member++) if (present[member] === 1 && silent[member] === 1) count++;
    return count;
  }

  private silentNames(): string {
    const { members, present, silent } = this.context.peers;
    const names: string[] = [];
    for (let member = 0; member < this.slots; member++)
      if (present[member] === 1 && silent[member] === 1) names.push(members.name(member));
    return names.join(', ');
  }

  heardThrough(): number {
    const { present, silent } = this.context.peers;
    let through = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < this.slots; member++)
      if (present[member] === 1 && silent[member] === 0)
        through = Math.min(through, this.acknowledged[member].contiguous);
    return through;
  }

  /** Alone in the cluster: nobody lacks anything. */
  private discard(now: number): number {
    const { log } = this;
    while (log.unsent !== log.tail) log.markSent(log.unsent, now);
    this.acknowledging.rest();
    return log.prune(Number.MAX_SAFE_INTEGER);
  }

  private sendNew(now: number, outlet: Outlet): number {
    const { log } = this;
    const { writer } = this.context;
    let messages = 0;
    while (log.unsent !== log.tail && messages < NEW_MESSAGES_MAX) {
      const datagram = this.composer.begin(now, outlet);
      if (datagram === null) break;
      log.load(log.unsent);
      this.acknowledging.piggyback(now, UNIT_WORDS + log.recordWords);
      do {
        writer.addUnit(log.first, log.count, log.words, log.recordsAt, log.recordWords);
        this.context.board.setSequence(this.object, log.first + log.count - 1);
        if (log.markSent(log.unsent, now) === log.tail) break;
        log.load(log.unsent);
      } while (writer.fits(log.recordWords));
      this.composer.finish(datagram, outlet, EVERYONE, log.floor);
      messages++;
    }
    if (messages > 0) this.retransmission.noteSent(now);
    return messages;
  }

  /**
   * Finds the units that are overdue at some member and sends them again. Their time counts from now even where the
   * outlet ran out of memory half-way: a host that cannot get its messages out should not try sooner.
   */
  private retransmit(now: number, outlet: Outlet): number {
    const { counts, peers, settings } = this.context;
    const found = this.retransmission.scan(now);
    if (found === 0) return 0;
    let messages = 0;
    if (settings.transport.kind === 'multicast') messages = this.sendAgain(now, outlet, found, EVERYONE);
    else
      for (let member = 0; member < this.slots; member++)
        if (peers.present[member] === 1) messages += this.sendAgain(now, outlet, found, member);
    for (let i = 0; i < found; i++) this.log.markSent(this.retransmission.due[i], now);
    counts.add('state_tx_retransmissions', found);
    return messages;
  }

  slowestLacking(first: number): number {
    const { peers } = this.context;
    let slowest = 0;
    for (let member = 0; member < this.acknowledged.length; member++) {
      if (peers.present[member] === 0 || peers.silent[member] === 1) continue;
      if (peers.timeout[member] > slowest && !this.acknowledged[member].has(first)) slowest = peers.timeout[member];
    }
    return slowest;
  }

  isLacking(first: number): boolean {
    const { present } = this.context.peers;
    for (let member = 0; member < this.acknowledged.length; member++)
      if (present[member] === 1 && !this.acknowledged[member].has(first)) return true;
    return false;
  }

  /** Sends those of the first `found` due units that `member` lacks; `EVERYONE`: all of them. */
  private sendAgain(now: number, outlet: Outlet, found: number, member: number): number {
    const { log } = this;
    const { writer } = this.context;
    let messages = 0;
    let datagram: Datagram | null = null;
    for (let i = 0; i < found; i++) {
      log.load(this.retransmission.due[i]);
      if (member !== EVERYONE && this.acknowledged[member].has(log.first)) continue;
      if (datagram !== null && !writer.fits(log.recordWords)) {
        this.composer.finish(datagram, outlet, member, log.floor);
        datagram = null;
      }
      if (datagram === null) {
        datagram = this.composer.begin(now, outlet);
        if (datagram === null) return messages;
        messages++;
      }
      writer.addUnit(log.first, log.count, log.words, log.recordsAt, log.recordWords);
    }
    if (datagram !== null) this.composer.finish(datagram, outlet, member, log.floor);
    return messages;
  }
}
