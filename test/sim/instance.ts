/**
 * One incarnation of a member: the shared memory and the threads of a process. The threads run as
 * the shells in workers/ run them, but are stepped by events. The send thread wakes only by the
 * doorbell and at `Sender.deadline`, so a wake-up that the core forgets to request shows.
 */

import { AckBoard, createAckBoard } from '../../shm/ack-board.js';
import { coarseSeconds } from '../../shm/clock.js';
import type { LogConsumer } from '../../shm/log.js';
import { MemberTable, MemberTableWriter, Role } from '../../shm/members.js';
import { MetricCatalogue } from '../../shm/metrics.js';
import { Counts, REPLICATION_METRICS } from '../../workers/replication/metrics.js';
import { Receiver } from '../../workers/replication/receiving/receiver.js';
import type { Outlet } from '../../workers/replication/sending/outlet.js';
import { Sender } from '../../workers/replication/sending/sender.js';
import { Reason } from '../../workers/replication/sending/window.js';
import { memberTableOf, type ReplicationSettings } from '../../workers/replication/settings.js';
import { createForeignLogs, openForeignLogs } from '../../workers/replication/units/foreign-log.js';
import { createUnitLogs } from '../../workers/replication/units/unit-log.js';
import { Datagram } from '../../workers/replication/wire/message.js';
import { Fuse } from './deaths.js';
import { Entry, type EntryStep, type Snapshot } from './entry.js';
import type { EventQueue } from './event-queue.js';
import type { Flight } from './flight.js';
import { MEANING_HASH, memberSettings } from './member-settings.js';
import { Meter } from './meter.js';
import type { MemberIncarnation, Model } from './model.js';
import type { Defect, Plan } from './plan.js';
import { Stream } from './random.js';
import type { SavedStates } from './saved.js';
import { SealedEnds } from './sealing.js';
import { Death, type Moment, Subject, WorkerLog } from './subjects.js';
import { Upkeep } from './upkeep.js';
import { demand, Violation } from './violation.js';

/** Wall-clock time at simulated time 0. */
const UNIX_MS = Date.UTC(2026, 0, 1);
const CATALOGUE = new MetricCatalogue(REPLICATION_METRICS);

/**
 * As in the shell (workers/engine/send.ts): records drained in one round; shortest wait, and
 * longest wait while the transport may get buffers back, ms.
 */
const ROUND_RECORDS = 4096;
const [WAIT_MS_MIN, WAIT_MS_BUSY] = [1, 100];
/** Interval of the receive thread's ticks, ms. */
const TICK_MS = 100;
/** Datagrams that a socket buffers for a thread that does not read them. */
const SOCKET_DATAGRAMS = 256;
/**
 * Limits: rounds of one wake-up; consecutive wake-ups without work; time that due work may wait,
 * ms.
 */
const [ROUNDS_MAX, IDLE_WAKES_MAX, DUE_MS_MAX] = [5000, 5000, 1000];

/** What an instance needs from the simulated world. */
export interface Host {
  readonly plan: Plan;
  readonly queue: EventQueue;
  readonly model: Model;
  readonly saved: SavedStates;
  /**
   * A datagram of `from` leaves for `to`, or for all members (-1). With unicast, a member for which
   * `isSpared` is true does not get it.
   */
  transmit(from: Instance, bytes: Uint8Array, object: number, to: number, isSpared: (member: number) => boolean): void;
  /** Called before and after a message is received. `reject`: why it was refused, or null. */
  beforeReceive(at: Instance, flight: Flight): void;
  afterReceive(at: Instance, flight: Flight, reject: string | null): void;
  /** Whether the message that is being received makes the instance skip records, as it may. */
  skips(at: Instance, flight: Flight): boolean;
  afterPoll(at: Instance): void;
  afterTick(at: Instance): void;
  /** A step of joining or leaving was reached. A plan may let a member die here. */
  reachedStep(at: Instance, step: EntryStep): void;
  hasLeft(at: Instance): void;
  /** The instance heard no member and started without state. */
  beganAlone(at: Instance): void;
  /**
   * The instance has loaded a snapshot. It continues from the totals of its former incarnations.
   */
  succeeded(at: Instance, lacks: readonly number[]): void;
  /** Main asks a donor. `done` gets the snapshot, or the reason why there is none. */
  fetchSnapshot(at: Instance, donor: number, done: (snapshot: Snapshot | string) => void): void;
  /**
   * `slot`: the member that an alarm of the receive thread is about. An alarm of the send thread is
   * about an object and has no slot.
   */
  alarm(at: Instance, problem: string, slot?: number): void;
  /**
   * The digest watch of `at` found that its content of the object differs from that of the member
   * in `slot`.
   */
  differs(at: Instance, object: number, slot: number): void;
  /** The instance skips records of the member in `slot`, or took a snapshot that lacks some. */
  lacking(at: Instance, slot: number): void;
  /** The stage that the key file of a member has reached (sealing.ts). */
  keyStage(member: number): number;
  happened(what: string): void;
}

export class Instance {
  readonly member: number;
  readonly life: MemberIncarnation;
  readonly settings: ReplicationSettings;
  readonly board: AckBoard;
  readonly counts = new Counts(CATALOGUE, new Float64Array(REPLICATION_METRICS.length));
  readonly subjects: readonly Subject[];
  sender: Sender | null = null;
  receiver: Receiver | null = null;
  up = true;
  /** A member has declared this incarnation dead. */
  isCondemned = false;
  /** It started without state. It gets what peers had pruned by snapshots, not as units. */
  hasBegunAlone = false;
  /** Slots of members that it once took as evicted, and kept nothing for meanwhile. */
  readonly hasEvicted = new Set<number>();
  /** Offset of the wall clock from simulated time, ms. */
  skewMs: number;
  /** Sealer and opener; null if messages are not sealed. */
  readonly sealed: SealedEnds | null;
  readonly host: Host;
  readonly entry: Entry;
  readonly upkeep: Upkeep;
  readonly meter: Meter;
  private readonly boardMemory: SharedArrayBuffer;
  private readonly unitLogs: SharedArrayBuffer;
  private readonly foreignLogs: SharedArrayBuffer;
  private readonly table: SharedArrayBuffer;
  readonly members: MemberTable;
  private readonly log = new WorkerLog();
  private readonly draw: Stream;
  private readonly workDraw: Stream;
  private readonly rate: number;
  private readonly bootMs: number;
  private consumer!: LogConsumer;
  private readonly memory: Datagram;
  private wakeAt = Number.POSITIVE_INFINITY;
  private idleWakes = 0;
  private wasFull = false;
  private resumeAt = 0;
  private costMs = 0;
  /** Datagrams that wait for the receive thread. */
  private readonly socket: Flight[] = [];
  private noBuffers = false;
  /** Since when work has been due at every wake-up of the send thread; infinite if none is due. */
  private dueSince = Number.POSITIVE_INFINITY;
  /** Retransmissions counted up to the last wake-up of the send thread. */
  private sentAgain = 0;
  /** Messages until the send thread dies. */
  private sendsLeft = Number.POSITIVE_INFINITY;
  private sendDownMs = 0;
  private receiveDownMs = 0;
  private readonly sendFuse = new Fuse();
  private readonly receiveFuse = new Fuse();

  constructor(host: Host, member: number, incarnationBase: number) {
    const { plan, model } = host;
    this.host = host;
    this.member = member;
    this.skewMs = plan.clocks[member].skewMs;
    this.rate = 1 + plan.clocks[member].ppm / 1e6;
    this.life = model.begin(member, incarnationBase);
    const { author } = this.life;
    this.draw = new Stream(plan.seed, 'instance', author);
    this.workDraw = new Stream(plan.seed, 'work', author);
    this.bootMs = this.draw.between(1000, 1e9);
    this.settings = memberSettings(plan, member);
    this.meter = new Meter(this.settings, plan.settings.transport?.kind === 'multicast' ? 1 : plan.members - 1);
    this.memory = new Datagram(this.settings.mtu);
    this.table = memberTableOf(this.settings);
    this.members = new MemberTable(this.table);
    this.sealed = plan.sealed
      ? new SealedEnds(this.settings, this.table, this.life.incarnation, host.keyStage(member))
      : null;
    const objects = plan.objects.length;
    this.boardMemory = createAckBoard(objects, plan.members, this.life.incarnation);
    this.board = new AckBoard(this.boardMemory);
    this.unitLogs = createUnitLogs(objects, this.settings.unitLogBytes, plan.firstSequence);
    this.foreignLogs = createForeignLogs(objects, plan.members, this.settings.foreignLogBytes);
    this.subjects = plan.objects.map(
      (kind, id) =>
        new Subject(kind, id, {
          model,
          author,
          member,
          members: plan.members,
          log: this.log.producer,
          journals: this.log.journals,
        }),
    );
    this.startSender();
    this.startReceiver();
    this.every(TICK_MS, () => {
      this.tick();
      return true;
    });
    // Created before the threads send anything: their messages must say that the member is joining.
    this.entry = new Entry(this, this.table);
    this.upkeep = new Upkeep(this);
  }

  get name(): string {
    return `member ${this.member} (life ${this.life.author})`;
  }

  /** The process's monotonic clock, ms. */
  get localMs(): number {
    return this.bootMs + this.host.queue.now * this.rate;
  }

  get moment(): Moment {
    const wallMs = UNIX_MS + this.host.queue.now + this.skewMs;
    return { wallMs, coarse: coarseSeconds(wallMs) };
  }

  get isPaused(): boolean {
    return this.resumeAt > this.host.queue.now;
  }

  /** Words waiting in the log ring. */
  get backlog(): number {
    return this.consumer.backlog;
  }

  // ——— Threads ———
  startSender(): void {
    this.consumer = this.log.openConsumer();
    this.sendsLeft = Number.POSITIVE_INFINITY;
    this.dueSince = Number.POSITIVE_INFINITY;
    this.sealed?.startSender();
    this.sender = new Sender({
      settings: this.settings,
      meaningHash: MEANING_HASH,
      objects: this.subjects.map((subject) => subject.openSend()),
      board: this.boardMemory,
      unitLogs: this.unitLogs,
      foreignLogs: this.foreignLogs,
      counts: this.counts,
      members: this.table,
      onAlarm: (problem) => this.host.alarm(this, problem),
    });
    this.wake(this.host.queue.now);
  }

  startReceiver(): void {
    this.sealed?.startReceiver(this.localMs);
    this.receiver = new Receiver({
      settings: this.settings,
      meaningHash: MEANING_HASH,
      objects: this.subjects.map((subject) => subject.openReceive()),
      board: this.boardMemory,
      counts: this.counts,
      foreignLogs: this.foreignLogs,
      members: this.table,
      ring: () => this.bell(),
      onAlarm: (problem, slot) => this.host.alarm(this, problem, slot),
      onError: (error) => {
        throw error;
      },
    });
  }

  /** Main learned that an incarnation of the member was declared dead. */
  evict(member: number, incarnation: number): void {
    this.hasEvicted.add(member);
    this.rewrite(member, Role.EVICTED, incarnation);
  }

  /** Main learned that the member has left. It is not waited for any more. */
  forget(member: number, incarnation: number): void {
    this.rewrite(member, Role.LEFT, incarnation);
  }

  /**
   * The next incarnation of an evicted member may take part. `dead`: the incarnation that stays
   * dead; 0 if none does.
   */
  admit(member: number, dead: number): void {
    if (this.up) this.rewrite(member, Role.MEMBER, dead);
  }

  private rewrite(member: number, role: Role, dead: number): void {
    const table = new MemberTable(this.table);
    const entries = Array.from({ length: table.slots }, (_, slot) => table.entry(slot));
    entries[member] = { ...entries[member], role, dead };
    new MemberTableWriter(this.table).write(table.view + 1, entries);
    this.wake(this.host.queue.now);
  }

  /**
   * Calls `act` every `ms` until it returns false or the process ends. Calls are left out while the
   * process is paused.
   */
  every(ms: number, act: () => boolean): void {
    this.host.queue.after(ms, () => {
      if (this.up && (this.isPaused || act())) this.every(ms, act);
    });
  }

  /**
   * Stops the threads, calls `act`, and restarts the threads after the plan's `loadMs`; then calls
   * `done`.
   */
  withoutThreads(act: () => void, done: () => void = () => {}): void {
    this.sender = null;
    this.receiver = null;
    act();
    const start = (): void => {
      if (!this.up) return;
      this.startSender();
      this.startReceiver();
      done();
    };
    const { loadMs } = this.host.plan;
    if (loadMs === undefined) start();
    else this.host.queue.after(this.draw.between(...loadMs), start);
  }

  /** Stops the receive thread, calls `act`, and restarts the thread. */
  withoutReceiver(act: () => void): void {
    this.receiver = null;
    act();
    this.startReceiver();
  }

  /**
   * Members know an incarnation of this slot that is later than ours: `known`. Continues under a
   * larger number.
   */
  raiseIncarnation(known: number): void {
    this.host.happened('incarnation raised');
    this.withoutThreads(() => {
      this.life.incarnation = known + 1 + this.draw.below(2 ** 20);
      this.board.raiseIncarnation(this.life.incarnation);
      this.sealed?.raiseIncarnation(this.life.incarnation);
    });
  }

  /**
   * At the barrier: gives every logged record its number. Returns false if that is not possible
   * now.
   */
  settle(): boolean {
    if (this.sender === null || this.isPaused) return false;
    while (this.backlog > 0) if (this.drain(this.sender) === 0) return false;
    return true;
  }

  /**
   * Lets the send thread die after `after` messages, or, if `points` is given, at that point
   * (deaths.ts). It restarts after `downMs`.
   */
  killSender(after: number, downMs: number, points?: number): void {
    if (points === undefined) this.sendsLeft = after;
    else this.sendFuse.light(points);
    this.sendDownMs = downMs;
  }

  /**
   * Lets the receive thread die after `after` records of an object, or, if `points` is given, at
   * that point. It restarts after `downMs`.
   */
  killReceiver(after: number, downMs: number, points?: number): void {
    if (points === undefined) this.draw.pick(this.subjects).receive.lives = after;
    else this.receiveFuse.light(points);
    this.receiveDownMs = downMs;
  }

  /**
   * Whether a unit that contains this number of another member's incarnation is kept for repair.
   */
  keeps(object: number, origin: number, incarnation: number, number: number): boolean {
    const log = openForeignLogs(this.foreignLogs, this.subjects.length, this.settings.slots)[object][origin];
    for (let position = log.head; position !== log.tail; ) {
      position = log.load(position);
      if (log.incarnation === incarnation && log.first <= number && number < log.first + log.count) return true;
    }
    return false;
  }

  /** Cancels all planned deaths of threads and unlocks all objects. */
  spare(): void {
    this.sendsLeft = Number.POSITIVE_INFINITY;
    this.sendFuse.left = Number.POSITIVE_INFINITY;
    this.receiveFuse.left = Number.POSITIVE_INFINITY;
    for (const { receive } of this.subjects) {
      receive.lives = Number.POSITIVE_INFINITY;
      receive.locked = false;
    }
  }

  private senderDied(): void {
    this.host.happened(`send thread died ${this.sendFuse.diedAt}`);
    this.sender = null;
    this.host.queue.after(this.sendDownMs, () => {
      if (this.up && this.sender === null) this.startSender();
    });
  }

  private tick(): void {
    try {
      this.receiveFuse.run(() => this.receiver?.tick(this.localMs));
    } catch (error) {
      if (!(error instanceof Death)) throw asViolation(error, `${this.name}, receive thread`);
      this.receiverDied(null);
    }
    this.host.afterTick(this);
  }

  /** `flight`: the datagram that was being received; null if there was none. */
  private receiverDied(flight: Flight | null): void {
    this.host.happened(`receive thread died ${this.receiveFuse.diedAt}`);
    this.receiver = null;
    if (flight !== null) this.subjects[flight.object]?.ledger?.died(this.vectorVersion(flight));
    this.host.queue.after(this.receiveDownMs, () => {
      if (this.up && this.receiver === null) this.startReceiver();
    });
  }

  /** The process dies with its memory. */
  crash(): void {
    this.up = false;
    this.sender = null;
    this.receiver = null;
  }

  pause(ms: number): void {
    this.resumeAt = Math.max(this.resumeAt, this.host.queue.now + ms);
  }

  resume(): void {
    this.resumeAt = 0;
    this.wake(this.host.queue.now);
    while (this.socket.length > 0) this.takeFromSocket();
  }

  slow(costMs: number): void {
    this.costMs = costMs;
  }

  /** Sets whether the transport has no buffers left. */
  busy(noBuffers: boolean): void {
    this.noBuffers = noBuffers;
  }

  // ——— Worker ———
  /** Does up to `count` operations as one batch. Returns how many succeeded. */
  work(object: number, count: number): number {
    if (!this.up || this.isPaused || !this.entry.isReady) return 0;
    let done = 0;
    const { moment } = this;
    for (let i = 0; i < count; i++) if (this.subjects[object].work(this.workDraw, moment)) done++;
    if (this.log.producer.publish()) this.bell();
    return done;
  }

  misbehave(object: number, what: Defect): void {
    if (!this.up || this.isPaused || !this.entry.isReady) return;
    this.subjects[object].misbehave(what, this.log.producer, this.life.author);
    if (this.log.producer.publish()) this.bell();
  }

  // ——— Send thread ———
  private bell(): void {
    this.wake(this.host.queue.now + this.draw.between(0.01, 0.2));
  }

  private wake(at: number): void {
    if (at >= this.wakeAt) return;
    this.wakeAt = at;
    this.host.queue.at(at, () => {
      if (this.wakeAt === at) this.run();
    });
  }

  private run(): void {
    this.wakeAt = Number.POSITIVE_INFINITY;
    const { sender } = this;
    if (!this.up || sender === null) return;
    if (this.isPaused) {
      this.dueSince = Number.POSITIVE_INFINITY;
      this.wake(this.resumeAt);
      return;
    }
    const now = this.localMs;
    let busy = false;
    const outlet = this.outlet(() => {
      busy = true;
    });
    let rounds = 0;
    try {
      this.sendFuse.run(() => {
        while (this.take(sender, now) + sender.poll(now, outlet, this.moment.wallMs) > 0)
          demand(
            ++rounds < ROUNDS_MAX,
            'no-spinning',
            () => `${this.name}: the sender always has something more to do`,
          );
      });
    } catch (error) {
      if (!(error instanceof Death)) throw asViolation(error, `${this.name}, send thread`);
      this.senderDied();
      return;
    }
    this.idleWakes = rounds === 0 ? this.idleWakes + 1 : 0;
    demand(this.idleWakes < IDLE_WAKES_MAX, 'no-spinning', () => `${this.name}: woken for nothing, again and again`);
    this.host.afterPoll(this);
    // With a bandwidth limit, due units wait while others are retransmitted.
    const sentAgain = this.counts.value('state_tx_retransmissions');
    const isLimited = this.settings.bandwidth > 0 && sentAgain !== this.sentAgain;
    this.sentAgain = sentAgain;
    if (sender.deadline > now || this.noBuffers || isLimited) this.dueSince = Number.POSITIVE_INFINITY;
    else if (this.dueSince > now) this.dueSince = now;
    demand(now - this.dueSince <= DUE_MS_MAX, 'due-sent', () => `${this.name}: what is due is not sent`);
    const waitMs = Math.max((sender.deadline - now) / this.rate, WAIT_MS_MIN);
    if (Number.isFinite(waitMs) || busy)
      this.wake(this.host.queue.now + (busy ? Math.min(waitMs, WAIT_MS_BUSY) : waitMs));
  }

  /**
   * As in the send thread's shell: while sending is throttled, records wait in the ring until it is
   * half full.
   */
  private take(sender: Sender, now: number): number {
    const mustWait = sender.throttle(now) !== Reason.NONE && this.backlog < this.consumer.words.length / 2;
    return mustWait ? 0 : this.drain(sender);
  }

  /** Drains the ring as the send thread's shell does. Returns the number of records taken. */
  private drain(sender: Sender): number {
    let room = sender.makeRoom();
    if (!room && !this.wasFull) this.counts.add('state_tx_log_full', 1);
    this.wasFull = !room;
    let taken = 0;
    const ring = this.consumer;
    while (room && taken < ROUND_RECORDS && ring.next()) {
      room = sender.append(ring.objectId, ring.op, ring.words, ring.at, ring.length);
      taken++;
    }
    if (taken === 0) return 0;
    sender.cut();
    ring.release();
    return taken;
  }

  private outlet(onBusy: () => void): Outlet {
    return {
      claim: () => {
        if (!this.noBuffers) return this.memory;
        onBusy();
        return null;
      },
      send: (datagram, bytes, object, member, spareLow, spareHigh) => {
        if (this.sendsLeft-- <= 0) throw new Death('send thread');
        const isSpared = (slot: number): boolean => (((slot < 32 ? spareLow : spareHigh) >>> (slot & 31)) & 1) === 1;
        this.host.transmit(this, datagram.bytes.slice(0, bytes), object, member, isSpared);
      },
    };
  }

  // ——— Receive thread ———
  /** Whether a datagram that arrives now is read at once. */
  get takesAtOnce(): boolean {
    return this.socket.length === 0 && this.costMs === 0 && !this.isPaused;
  }

  /** A datagram reaches the socket. */
  deliver(flight: Flight): void {
    const { queue } = this.host;
    if (!this.up || this.receiver === null) {
      this.host.happened('datagram to a dead socket');
      return;
    }
    if (this.takesAtOnce) {
      this.receive(flight);
      return;
    }
    if (this.socket.length >= SOCKET_DATAGRAMS) {
      this.host.happened('datagram to a full socket');
      return;
    }
    this.socket.push(flight);
    if (this.socket.length === 1)
      queue.at(Math.max(queue.now, this.resumeAt) + this.costMs, () => this.takeFromSocket());
  }

  /** The receive thread reads the waiting datagrams one by one, each at its cost. */
  private takeFromSocket(): void {
    if (this.isPaused) {
      if (this.socket.length > 0) this.host.queue.at(this.resumeAt, () => this.takeFromSocket());
      return;
    }
    const flight = this.socket.shift();
    if (flight === undefined) return;
    this.receive(flight);
    if (this.socket.length > 0) this.host.queue.after(this.costMs, () => this.takeFromSocket());
  }

  /**
   * Version of the vector that the message's units are noted in: that of the sender, or that of a
   * former incarnation that the message repairs.
   */
  private vectorVersion({ object, sender, contents }: Flight): number {
    const origin = contents?.origin ?? sender;
    return origin === sender ? this.board.receptionVersion(object, sender) : this.board.formerVersion(object, origin);
  }

  private receive(flight: Flight): void {
    const { receiver } = this;
    if (!this.up || receiver === null) return;
    const ledger = this.subjects[flight.object]?.ledger;
    if (ledger) {
      ledger.beginMessage();
      ledger.vectorVersion = () => this.vectorVersion(flight);
      ledger.skips = () => this.host.skips(this, flight);
    }
    this.host.beforeReceive(this, flight);
    const { coarse, wallMs } = this.moment;
    let reject: string | null;
    try {
      const opened = this.sealed === null ? flight.bytes : this.sealed.open(flight.bytes, this.localMs);
      if (typeof opened === 'string') this.counts.add(`state_rejected_${opened}`, 1);
      if (typeof opened === 'string') reject = opened;
      else reject = this.receiveFuse.run(() => receiver.receive(opened, this.localMs, coarse, wallMs));
    } catch (error) {
      if (!(error instanceof Death)) throw asViolation(error, `${this.name}, receive thread`);
      this.receiverDied(flight);
      return;
    }
    this.host.afterReceive(this, flight, reject);
  }
}

function asViolation(error: unknown, where: string): Violation {
  if (error instanceof Violation) return error;
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new Violation('no-crash', `${where}: ${stack}`);
}
