/**
 * One life of a member: a process's shared memory and its threads, as the shells in workers/ run
 * them, but stepped by events. Its send thread wakes by the bell and at `Sender.deadline` only, so
 * what the core forgets to ask for shows.
 */

import { AckBoard, createAckBoard } from '../../shm/ack-board.js';
import { coarseSeconds } from '../../shm/clock.js';
import type { LogConsumer } from '../../shm/log.js';
import { MemberTable, MemberTableWriter, Role } from '../../shm/members.js';
import { MetricCatalogue } from '../../shm/metrics.js';
import type { Outlet } from '../../workers/replication/channel.js';
import { createForeignLogs, openForeignLogs } from '../../workers/replication/foreign-log.js';
import { Datagram } from '../../workers/replication/message.js';
import { Counts, REPLICATION_METRICS } from '../../workers/replication/metrics.js';
import { Receiver } from '../../workers/replication/receiver.js';
import { Sender } from '../../workers/replication/sender.js';
import { memberTableOf, type ReplicationSettings } from '../../workers/replication/settings.js';
import { createUnitLogs } from '../../workers/replication/unit-log.js';
import { Reason } from '../../workers/replication/window.js';
import { Fuse } from './deaths.js';
import { Entry, type EntryStep, type Snapshot } from './entry.js';
import type { EventQueue } from './event-queue.js';
import type { Flight } from './flight.js';
import { MEANING_HASH, memberSettings } from './member-settings.js';
import { Meter } from './meter.js';
import type { MemberLife, Model } from './model.js';
import type { Defect, Plan } from './plan.js';
import { Stream } from './random.js';
import type { SavedStates } from './saved.js';
import { SealedEnds } from './sealing.js';
import { Death, type Moment, Subject, WorkerLog } from './subjects.js';
import { Upkeep } from './upkeep.js';
import { demand, Violation } from './violation.js';

/** Simulated time 0 on the wall. */
const UNIX_MS = Date.UTC(2026, 0, 1);
const CATALOGUE = new MetricCatalogue(REPLICATION_METRICS);

/**
 * As in the shells (workers/send.ts): records drained in one round; shortest wait; longest, where
 * buffers may come back.
 */
const ROUND_RECORDS = 4096;
const [WAIT_MS_MIN, WAIT_MS_BUSY] = [1, 100];
/** The receive thread looks so often what time brings. */
const TICK_MS = 100;
/** Datagrams a socket holds for a thread that does not take them. */
const SOCKET_DATAGRAMS = 256;
/**
 * Rounds of one wake-up; wake-ups one after the other in which nothing was done; how long what is
 * due may wait.
 */
const [ROUNDS_MAX, IDLE_WAKES_MAX, DUE_MS_MAX] = [5000, 5000, 1000];

/** What an instance needs of the world around it. */
export interface Host {
  readonly plan: Plan;
  readonly queue: EventQueue;
  readonly model: Model;
  readonly saved: SavedStates;
  /**
   * A datagram of `from` leaves, for `to`, or everybody (-1), but by unicast not to those that are
   * spared it.
   */
  transmit(from: Instance, bytes: Uint8Array, object: number, to: number, isSpared: (member: number) => boolean): void;
  /** `before` and after a message was received; `reject`: why it was refused, or null. */
  beforeReceive(at: Instance, flight: Flight): void;
  afterReceive(at: Instance, flight: Flight, reject: string | null): void;
  afterPoll(at: Instance): void;
  afterTick(at: Instance): void;
  /** A step of joining or leaving: a plan may let somebody die here. */
  reachedStep(at: Instance, step: EntryStep): void;
  hasLeft(at: Instance): void;
  /** It heard nobody, and began without state. */
  beganAlone(at: Instance): void;
  /** It has the state of a member, and goes on from what its former lives counted. */
  succeeded(at: Instance): void;
  /** Main asks a donor; `done` is told the snapshot, or why there is none. */
  fetchSnapshot(at: Instance, donor: number, done: (snapshot: Snapshot | string) => void): void;
  /**
   * `slot`: the member that the receive thread's alarm is about; the send thread's is about an
   * object.
   */
  alarm(at: Instance, problem: string, slot?: number): void;
  /** The digest watch of `at` found that a member's content of the object is not ours. */
  differs(at: Instance, object: number, slot: number): void;
  /** It skips records of the member in `slot`, or has a snapshot of one that did. */
  lacking(at: Instance, slot: number): void;
  /** How far the key file of a member has come. */
  keyStage(member: number): number;
  happened(what: string): void;
}

export class Instance {
  readonly member: number;
  readonly life: MemberLife;
  readonly settings: ReplicationSettings;
  readonly board: AckBoard;
  readonly counts = new Counts(CATALOGUE, new Float64Array(REPLICATION_METRICS.length));
  readonly subjects: readonly Subject[];
  sender: Sender | null = null;
  receiver: Receiver | null = null;
  up = true;
  /** Some member was told that this life is over. */
  isCondemned = false;
  /**
   * It began without state: it takes snapshots for what was let go of, and does not get it as
   * units.
   */
  hasBegunAlone = false;
  /** Wall clock, against the simulation's, in ms. */
  skewMs: number;
  /** Its ends of the seal; null: messages are not sealed. */
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
  /** Since when something was due, each time the send thread was woken; infinite: nothing is. */
  private dueSince = Number.POSITIVE_INFINITY;
  /** Units that it had sent again when the send thread was last woken. */
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
    // Before the threads speak: they are to say that they join.
    this.entry = new Entry(this, this.table);
    this.upkeep = new Upkeep(this);
  }

  get name(): string {
    return `member ${this.member} (life ${this.life.author})`;
  }

  /** This process's monotonic clock, ms. */
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

  /** Bytes waiting in the log ring. */
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

  /** Main was told that a member is gone for good: its last life is over. */
  evict(member: number, incarnation: number): void {
    this.rewrite(member, Role.EVICTED, incarnation);
  }

  /** Main was told that a member has left: it is waited for no more. */
  forget(member: number, incarnation: number): void {
    this.rewrite(member, Role.LEFT, incarnation);
  }

  /** The next life of a member that was evicted may take part. */
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
   * Does something again and again while the process lives and is not paused, until `act` returns
   * false.
   */
  every(ms: number, act: () => boolean): void {
    this.host.queue.after(ms, () => {
      if (this.up && (this.isPaused || act())) this.every(ms, act);
    });
  }

  /** Ends the threads, and starts them again afterwards, which takes as long as the plan says. */
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

  /** Ends the receive thread, and starts it again afterwards. */
  withoutReceiver(act: () => void): void {
    this.receiver = null;
    act();
    this.startReceiver();
  }

  /** Members know `known` of this slot, which is later than ours. */
  raiseIncarnation(known: number): void {
    this.host.happened('incarnation raised');
    this.withoutThreads(() => {
      this.life.incarnation = known + 1 + this.draw.below(2 ** 20);
      this.board.raiseIncarnation(this.life.incarnation);
      this.sealed?.raiseIncarnation(this.life.incarnation);
    });
  }

  /** At the barrier: numbers everything that was logged. False: it cannot be done now. */
  settle(): boolean {
    if (this.sender === null || this.isPaused) return false;
    while (this.backlog > 0) if (this.drain(this.sender) === 0) return false;
    return true;
  }

  /** At a message, or, if `points` is given, at one of the calls that deaths.ts lists. */
  killSender(after: number, downMs: number, points?: number): void {
    if (points === undefined) this.sendsLeft = after;
    else this.sendFuse.light(points);
    this.sendDownMs = downMs;
  }

  /** At a record, or likewise. */
  killReceiver(after: number, downMs: number, points?: number): void {
    if (points === undefined) this.draw.pick(this.subjects).receive.lives = after;
    else this.receiveFuse.light(points);
    this.receiveDownMs = downMs;
  }

  /** Whether a unit with this number of a life of another member is kept, to be passed on. */
  keeps(object: number, origin: number, incarnation: number, number: number): boolean {
    const log = openForeignLogs(this.foreignLogs, this.subjects.length, this.settings.slots)[object][origin];
    for (let position = log.head; position !== log.tail; ) {
      position = log.load(position);
      if (log.incarnation === incarnation && log.first <= number && number < log.first + log.count) return true;
    }
    return false;
  }

  /** No thread is to die any more, and nothing is locked. */
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

  /** `flight`: the datagram that it was receiving. */
  private receiverDied(flight: Flight | null): void {
    this.host.happened(`receive thread died ${this.receiveFuse.diedAt}`);
    this.receiver = null;
    if (flight !== null) this.subjects[flight.object]?.ledger?.died(this.vectorVersion(flight));
    this.host.queue.after(this.receiveDownMs, () => {
      if (this.up && this.receiver === null) this.startReceiver();
    });
  }

  /** The process is gone, with its memory. */
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

  /** Whether the transport has no memory left. */
  busy(noBuffers: boolean): void {
    this.noBuffers = noBuffers;
  }

  // ——— Worker ———
  /** Does up to `count` operations, as one batch. Returns how many were done. */
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
    // A limit on what is sent makes what is due wait while other units are sent again.
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
   * As the send thread's shell: records wait in the ring while a path is congested, until it is
   * half full.
   */
  private take(sender: Sender, now: number): number {
    const mustWait = sender.hold(now) !== Reason.NONE && this.backlog < this.consumer.words.length / 2;
    return mustWait ? 0 : this.drain(sender);
  }

  /** As the send thread's shell drains the rings. */
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
  /** Whether a datagram that comes now is read now. */
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

  /** The receive thread takes what waits, one datagram after the other, each at its cost. */
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
   * Changes when what the message's units become part of is noted: the sender's vector, or that of
   * a former life it repairs.
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
