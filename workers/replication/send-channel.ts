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

import { type AckBoard, VectorRecord } from '../../shm/ack-board.js';
import { NONE } from '../../shm/none.js';
import type { StateObject } from '../../shm/objects/object.js';
import { type Datagram, type MessageWriter, UNIT_WORDS } from './message.js';
import type { Counts } from './metrics.js';
import type { PeerView } from './peer-view.js';
import { type ReplicationSettings, selfIndex } from './settings.js';
import { RECORD_WORDS_MAX, STAGE_WORDS, Stage } from './stage.js';
import type { UnitLog } from './unit-log.js';

/** As a destination: every other member. */
export const EVERYONE = -1;

/** Where messages go. The core composes in the outlet's memory and knows nothing of sockets. */
export interface Outlet {
  /** Memory for one message, or null while all of it is under way. A claimed datagram is always sent. */
  claim(): Datagram | null;
  /** Sends the first `bytes` bytes of a claimed datagram, about `object`, to `member` (an index) or `EVERYONE`. */
  send(datagram: Datagram, bytes: number, object: number, member: number): void;
}

/** What all channels of an instance share. */
export interface ChannelContext {
  readonly settings: ReplicationSettings;
  readonly board: AckBoard;
  readonly writer: MessageWriter;
  readonly peers: PeerView;
  readonly counts: Counts;
  /** Told, once an episode, that units which silent members lack are being let go. */
  readonly onAlarm: (problem: string, object: number) => void;
  /** Longest unit, in words of records. */
  readonly unitWords: number;
}

/**
 * Messages with new units in one poll, and with units sent again in one scan (to each member that lacks them): so a poll
 * is bounded, and a member that comes back is sent some 10 MB/s.
 */
const NEW_MESSAGES_MAX = 64;
const RETRANSMIT_MESSAGES_MAX = 16;
const RETRANSMIT_UNITS_MAX = 2048;
/** Longest record an object tells without the log's help, and most of them in one poll. */
const UNTOLD_WORDS = 8;
const UNTOLD_RECORDS_MAX = 4096;
/** A full log lets go of this part of it at a time: few enough for who returns, enough to go on with. */
const LET_GO_SHARE = 1 / 16;
/** Between two scans for units to send again. */
const SCAN_SPACING_MS = 2;
/** The log is scanned at least so often while something is not acknowledged. */
const SCAN_IDLE_MS = 1000;

export class SendChannel {
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
  private membersVersion = 0;
  private revivals = 0;
  private nextScan = Number.POSITIVE_INFINITY;
  private readonly due = new Int32Array(RETRANSMIT_UNITS_MAX);
  /** All members that are heard have what lies before this position and up to this number. */
  private settled: number;
  private settledThrough = 0;
  /** Where the scan under way goes on, and the earliest time of what it has passed; `settled` and none between scans. */
  private scanAt: number;
  private scanNext = Number.POSITIVE_INFINITY;
  /** Whether units were let go since members fell silent. */
  private lettingGo = false;

  /** Version of each origin's vector that we last told. */
  private readonly told: Int32Array;
  private readonly vector = new VectorRecord();
  private served: number;
  private ackDue = Number.POSITIVE_INFINITY;
  private vectorSentAt = Number.NEGATIVE_INFINITY;
  private keepaliveDue = Number.NEGATIVE_INFINITY;
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
    this.told = new Int32Array(settings.slots);
    this.served = board.served(this.object);
    this.settled = log.head;
    this.scanAt = log.head;
    if (log.unsent !== log.head) this.nextScan = 0;
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
    if (now >= this.nextScan) work += this.retransmit(now, outlet);
    return work + this.sendVectors(now, outlet);
  }

  /** When `poll` has something to do at the latest, in ms of its clock. */
  get deadline(): number {
    return Math.min(this.nextScan, this.ackDue, this.keepaliveDue);
  }

  /** Takes in what the members acknowledged; lets go of what all have. */
  private readBoard(): number {
    const { board, peers, counts } = this.context;
    if (peers.revivals !== this.revivals) {
      this.revivals = peers.revivals;
      // How often a unit was sent into silence says nothing about a member that is heard again.
      this.log.forgetAttempts();
      if (this.log.head !== this.log.unsent) this.nextScan = 0;
    }
    const changes = board.changes(this.object);
    if (changes === this.changes && peers.members.version === this.membersVersion) return 0;
    this.changes = changes;
    this.membersVersion = peers.members.version;
    let stable = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < this.slots; member++) {
      if (peers.present[member] === 0) continue;
      const record = this.acknowledged[member];
      board.readVector(this.object, member, this.self, record);
      stable = Math.min(stable, record.contiguous);
    }
    const pruned = this.log.prune(stable);
    counts.add('state_pruned_units', pruned);
    if (this.log.head === this.log.unsent) this.nextScan = Number.POSITIVE_INFINITY;
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
    if (log.head === log.unsent) this.nextScan = Number.POSITIVE_INFINITY;
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

  /** Every member that is heard has everything through this number; `MAX_SAFE_INTEGER` when none is heard. */
  private heardThrough(): number {
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
    this.keepaliveDue = Number.POSITIVE_INFINITY;
    return log.prune(Number.MAX_SAFE_INTEGER);
  }

  private sendNew(now: number, outlet: Outlet): number {
    const { log } = this;
    const { writer, settings } = this.context;
    let messages = 0;
    while (log.unsent !== log.tail && messages < NEW_MESSAGES_MAX) {
      const datagram = this.begin(now, outlet);
      if (datagram === null) break;
      log.load(log.unsent);
      this.piggyback(now, UNIT_WORDS + log.recordWords);
      do {
        writer.addUnit(log.first, log.count, log.words, log.recordsAt, log.recordWords);
        this.context.board.setSequence(this.object, log.first + log.count - 1);
        if (log.markSent(log.unsent, now) === log.tail) break;
        log.load(log.unsent);
      } while (writer.fits(log.recordWords));
      this.finish(datagram, outlet, EVERYONE);
      messages++;
    }
    if (messages > 0) this.nextScan = Math.min(this.nextScan, now + settings.retransmitMsMin);
    return messages;
  }

  /**
   * Finds the units that are overdue at some member and sends them again. Their time counts from now even where the
   * outlet ran out of memory half-way: a host that cannot get its messages out should not try sooner.
   */
  private retransmit(now: number, outlet: Outlet): number {
    const { counts, peers, settings } = this.context;
    const found = this.findDue(now);
    if (found === 0) return 0;
    let messages = 0;
    if (settings.transport.kind === 'multicast') messages = this.sendAgain(now, outlet, found, EVERYONE);
    else
      for (let member = 0; member < this.slots; member++)
        if (peers.present[member] === 1) messages += this.sendAgain(now, outlet, found, member);
    for (let i = 0; i < found; i++) this.log.markSent(this.due[i], now);
    counts.add('state_tx_retransmissions', found);
    return messages;
  }

  /**
   * Notes the units whose time is over, oldest first, and when to look again. A unit's time is that of the slowest member
   * that lacks it, doubled each time it was sent; members that are silent do not count, but for the oldest unit, which is
   * the probe they get. Where more is due than one scan may send, the next one goes on there: what it passed waits for it.
   */
  private findDue(now: number): number {
    const { log } = this;
    const { peers, unitWords } = this.context;
    this.passSettled();
    let found = this.findProbe(now);
    let room = RETRANSMIT_MESSAGES_MAX * unitWords;
    let position = this.scanAt;
    while (position !== log.unsent && found < RETRANSMIT_UNITS_MAX) {
      const after = log.load(position);
      const timeout = this.slowestLacking();
      if (timeout > 0) {
        let at = log.sentAt + peers.backedOff(timeout, log.attempts);
        if (at <= now) {
          room -= log.recordWords + UNIT_WORDS;
          if (room < 0) break;
          this.due[found++] = position;
          at = now + peers.backedOff(timeout, log.attempts + 1);
        }
        this.scanNext = Math.min(this.scanNext, at);
      }
      position = after;
    }
    this.scanAt = position;
    let next = now;
    if (position === log.unsent) {
      next = Math.min(this.scanNext, now + SCAN_IDLE_MS);
      this.scanAt = this.settled;
      this.scanNext = Number.POSITIVE_INFINITY;
    }
    this.nextScan = log.head === log.unsent ? Number.POSITIVE_INFINITY : Math.max(next, now + SCAN_SPACING_MS);
    return found;
  }

  /**
   * Moves `settled` on over what all members that are heard have, which a scan need not look at: while one is silent, that
   * is nearly the whole log. It goes back to the start when one is heard again, or has started again.
   */
  private passSettled(): void {
    const { log } = this;
    const through = this.heardThrough();
    if (through < this.settledThrough) {
      this.settled = log.head;
      this.scanAt = log.head;
      this.scanNext = Number.POSITIVE_INFINITY;
    } else if (isBefore(this.settled, log.head)) this.settled = log.head;
    this.settledThrough = through;
    while (this.settled !== log.unsent) {
      const after = log.load(this.settled);
      if (log.first + log.count - 1 > through) break;
      this.settled = after;
    }
    // Not further than what there is: who is silent, and was all there is, may lack what comes after.
    if (this.settled === log.unsent) this.settledThrough = Math.min(through, log.nextSequence - 1);
    if (isBefore(this.scanAt, this.settled)) this.scanAt = this.settled;
  }

  /** The oldest unit, as the first that is due, if only silent members lack it and its time is over. */
  private findProbe(now: number): number {
    const { log } = this;
    const { peers, settings } = this.context;
    if (log.head === log.unsent) return 0;
    log.load(log.head);
    if (this.slowestLacking() > 0 || !this.isLacking()) return 0;
    const at = log.sentAt + peers.backedOff(settings.keepaliveMs, log.attempts);
    if (at > now) {
      this.scanNext = Math.min(this.scanNext, at);
      return 0;
    }
    this.due[0] = log.head;
    this.scanNext = Math.min(this.scanNext, now + peers.backedOff(settings.keepaliveMs, log.attempts + 1));
    return 1;
  }

  /** Timeout of the slowest member, not silent, that lacks the loaded unit; 0 if there is none. */
  private slowestLacking(): number {
    const { peers } = this.context;
    const { first } = this.log;
    let slowest = 0;
    for (let member = 0; member < this.acknowledged.length; member++) {
      if (peers.present[member] === 0 || peers.silent[member] === 1) continue;
      if (peers.timeout[member] > slowest && !this.acknowledged[member].has(first)) slowest = peers.timeout[member];
    }
    return slowest;
  }

  private isLacking(): boolean {
    const { present } = this.context.peers;
    for (let member = 0; member < this.acknowledged.length; member++)
      if (present[member] === 1 && !this.acknowledged[member].has(this.log.first)) return true;
    return false;
  }

  /** Sends those of the first `found` due units that `member` lacks; `EVERYONE`: all of them. */
  private sendAgain(now: number, outlet: Outlet, found: number, member: number): number {
    const { log } = this;
    const { writer } = this.context;
    let messages = 0;
    let datagram: Datagram | null = null;
    for (let i = 0; i < found; i++) {
      log.load(this.due[i]);
      if (member !== EVERYONE && this.acknowledged[member].has(log.first)) continue;
      if (datagram !== null && !writer.fits(log.recordWords)) {
        this.finish(datagram, outlet, member);
        datagram = null;
      }
      if (datagram === null) {
        datagram = this.begin(now, outlet);
        if (datagram === null) return messages;
        messages++;
      }
      writer.addUnit(log.first, log.count, log.words, log.recordsAt, log.recordWords);
    }
    if (datagram !== null) this.finish(datagram, outlet, member);
    return messages;
  }

  /** Acknowledgements that can wait no longer for a message to ride on, and keepalives. */
  private sendVectors(now: number, outlet: Outlet): number {
    const { board, counts, settings } = this.context;
    const owed = board.owed(this.object);
    const keepalive = now >= this.keepaliveDue;
    if (!keepalive) {
      if (owed === this.served) return 0;
      if (this.ackDue === Number.POSITIVE_INFINITY)
        this.ackDue = Math.min(now, board.owedAt(this.object)) + this.context.peers.ackDelayMs;
      if (now < this.ackDue) return 0;
    }
    let messages = 0;
    let origin = 0;
    do {
      const datagram = this.begin(now, outlet);
      if (datagram === null) return messages;
      origin = this.addEntries(now, origin, keepalive, 0);
      this.finish(datagram, outlet, EVERYONE);
      messages++;
    } while (origin < this.slots);
    this.noteServed(owed, now);
    if (keepalive) this.keepaliveDue = now + settings.keepaliveMs;
    counts.add(keepalive ? 'state_tx_keepalives' : 'state_tx_acks', messages);
    return messages;
  }

  /** Lets an owed acknowledgement ride on the message begun, leaving `reserve` words, but not on every one. */
  private piggyback(now: number, reserve: number): void {
    const owed = this.context.board.owed(this.object);
    if (owed === this.served || now - this.vectorSentAt < this.context.peers.ackDelayMs / 4) return;
    if (this.addEntries(now, 0, false, reserve) === this.slots) this.noteServed(owed, now);
  }

  /**
   * Adds entries for origins from index `origin` on: all that were heard, or those whose vector changed since it was last
   * told. Returns the index of the first that did not fit.
   */
  private addEntries(now: number, origin: number, all: boolean, reserve: number): number {
    const { board, peers, writer } = this.context;
    for (let i = origin; i < this.slots; i++) {
      if (peers.present[i] === 0 || (!all && board.receptionVersion(this.object, i) === this.told[i])) continue;
      const { vector } = this;
      vector.incarnation = 0;
      const version = board.readReception(this.object, i, vector);
      if (vector.incarnation === 0) continue;
      if (!writer.addEntry(peers.members.id(i), vector, now, reserve)) return i;
      this.told[i] = version;
    }
    return this.slots;
  }

  /** Everything owed up to `owed` has been told. What came meanwhile is owed anew: see the board on this race. */
  private noteServed(owed: number, now: number): void {
    const { board } = this.context;
    this.served = owed;
    this.vectorSentAt = now;
    board.setServed(this.object, owed);
    this.ackDue = board.owed(this.object) === owed ? Number.POSITIVE_INFINITY : now + this.context.peers.ackDelayMs;
  }

  /** Begins a message, or notes that there is no memory for one. */
  private begin(now: number, outlet: Outlet): Datagram | null {
    const { board, counts, writer } = this.context;
    const datagram = outlet.claim();
    if (datagram === null) {
      counts.add('state_tx_busy', 1);
      return null;
    }
    const number = board.datagram(this.object) + 1;
    board.setDatagram(this.object, number);
    writer.begin(datagram, this.object, number, now);
    return datagram;
  }

  private finish(datagram: Datagram, outlet: Outlet, member: number): void {
    const { board, counts, writer } = this.context;
    const bytes = writer.finish(this.log.floor, board.sequence(this.object));
    counts.row[counts.at.state_tx_messages]++;
    counts.row[counts.at.state_tx_bytes] += bytes;
    outlet.send(datagram, bytes, this.object, member);
  }
}

/** Of two positions in a log. */
function isBefore(position: number, other: number): boolean {
  return ((position - other) | 0) < 0;
}
