/**
 * Runs one plan. First comes the *safety* phase: work and faults, while every invariant is checked.
 * Then comes the *liveness* phase: a core of members is healed, the others stay away, and the core
 * must converge within a bound that follows from the plan. After a quiet time, the content of the
 * members is compared with each other and with what was done.
 *
 * The parts of the simulator:
 *
 * - The input: plan.ts says what a plan is. draw.ts draws one from a seed and a profile
 *   (profiles.ts).
 * - The members: instance.ts runs the real core in one incarnation of a member. entry.ts,
 *   upkeep.ts, evictions.ts and saved.ts are main's parts. subjects.ts has the state objects.
 * - The world around them: event-queue.ts is time, links.ts the network, intruder.ts an attacker.
 * - The checks: model.ts records what was done. ledger.ts checks each applied operation, witness.ts
 *   each message, succession.ts each ended incarnation, and convergence.ts the end. violation.ts
 *   lists the invariants.
 * - The programs: main.ts runs many seeds on threads (pool.ts), sums them up (tally.ts) and reduces
 *   failing plans (shrink.ts). planted.ts has bugs that the simulator must find.
 */

import { EPOCH_MS } from '../../shm/clock.js';
import { messageBytes } from '../../workers/replication/settings.js';
import { FIRST_SEQUENCE } from '../../workers/replication/units/unit-log.js';
import { judgeAlarm, noteLacking } from './alarms.js';
import { Convergence } from './convergence.js';
import type { EntryStep, Snapshot } from './entry.js';
import { EventQueue } from './event-queue.js';
import { Evictions, RESTART_MS } from './evictions.js';
import { Dissector, type Flight } from './flight.js';
import { type Host, Instance } from './instance.js';
import { Intruder } from './intruder.js';
import { Links } from './links.js';
import { CLUSTER_ID, MEANING_HASH } from './member-settings.js';
import { checkMemory } from './memory-bounds.js';
import { type MemberIncarnation, Model } from './model.js';
import type { Plan, Step } from './plan.js';
import { Stream } from './random.js';
import { SavedStates } from './saved.js';
import { Closings, Succession } from './succession.js';
import { transfer } from './transfer.js';
import { unrepairable } from './unrepairable.js';
import { type Broken, demand, Violation } from './violation.js';
import { Witness } from './witness.js';

/** Interval of the checks whether members have converged, ms. */
const LOOK_MS = 5;
/** Members learn within this time that another one is gone for good, ms. */
const EVICTION_MS_MAX = 50;
/**
 * Members go on for this many keepalive intervals after they have converged, and must stay
 * converged.
 */
const QUIET_KEEPALIVES = 2;
/**
 * Members take the snapshots that they want within this time, ms. A donor that was away is asked
 * again after a back-off.
 */
const SNAPSHOTS_MS = 120_000;
/**
 * Time for a re-sync, ms. The digest watch needs two whole periods of 64 s, and snapshots of all
 * members take time.
 */
const RESYNC_MS = 600_000;
const RESYNC_LOOK_MS = 1000;

/**
 * What made members equal: snapshots that they merged; or, if an object cannot be merged, restarts
 * of all members but one.
 */
export type Remedy = 'snapshots' | 'restarts';

export interface Outcome {
  readonly violation: Broken | null;
  /** When the violation was found, or when the run ended, in simulated ms. */
  readonly endMs: number;
  /** How long the core took to converge, and how long it was allowed, ms. */
  readonly convergedMs: number;
  readonly allowedMs: number;
  readonly datagrams: number;
  readonly operations: number;
  /** Faults injected and other happenings, by kind. */
  readonly happened: ReadonlyMap<string, number>;
  /**
   * What made members equal if units of an ended incarnation were lost with all members that kept
   * them; null if nothing was needed.
   */
  readonly remedy: Remedy | null;
  /** The protocol's counters, summed over all incarnations of all members. */
  readonly counters: ReadonlyMap<string, number>;
}

export class World implements Host {
  readonly plan: Plan;
  readonly queue = new EventQueue();
  readonly model: Model;
  readonly happenings = new Map<string, number>();
  /** The present or last incarnation of each member. */
  readonly members: Instance[] = [];
  readonly links: Links;
  readonly saved = new SavedStates(this);
  private readonly all: Instance[] = [];
  private readonly witness: Witness;
  private readonly dissector: Dissector;
  private readonly draw: Stream;
  private readonly multicast: boolean;
  private readonly intruder: Intruder;
  private readonly successions: Succession[] = [];
  private readonly closings: Closings;
  readonly evictions = new Evictions(this);
  /** By member: the object whose next message with units is lost. */
  private readonly loseNext = new Map<number, number>();
  /** By member: the stage of its key file. */
  private readonly keyStages: number[];
  /** By member: incarnations that are gone for good. */
  private readonly evicted = new Map<number, number>();
  /** Records that the instance had skipped before the message that it is receiving. */
  private skippedBefore = 0;
  private readonly left = new Map<number, number>();
  /** By member: whether it or its donor dies, and at which step of joining or leaving. */
  private readonly armed = new Map<number, Extract<Step, { do: 'crash-at' }>>();
  /**
   * Slots of members with an ended incarnation that cannot become the same at all members without a
   * snapshot.
   */
  readonly beyondRepair = new Set<number>();
  /**
   * Slots of members with an ended incarnation that an alarm reported as different between members,
   * because a member does not hear the others.
   */
  readonly reported = new Set<number>();
  /** The liveness phase has begun. */
  healed = false;
  private remedy: Remedy | null = null;
  private convergedMs = Number.NaN;
  private allowedMs = Number.NaN;

  constructor(plan: Plan) {
    this.plan = plan;
    this.model = new Model(plan.objects.length);
    this.keyStages = new Array<number>(plan.members).fill(0);
    this.draw = new Stream(plan.seed, 'world');
    this.witness = new Witness(plan.objects.length);
    this.closings = new Closings(plan);
    this.multicast = plan.settings.transport?.kind === 'multicast';
    this.links = new Links(plan.seed, plan.members, plan.network, {
      queue: this.queue,
      deliver: (flight) => this.members[flight.to].deliver(flight),
      happened: (what) => this.happened(what),
    });
    this.intruder = new Intruder(this, this.witness, this.draw);
    for (let member = 0; member < plan.members; member++) this.start(member);
    const bytesMax = messageBytes(this.members[0].settings);
    this.dissector = new Dissector(plan.members, CLUSTER_ID, MEANING_HASH, plan.objects.length, bytesMax);
    // A series of faults may extend beyond the safety phase. Steps that would start after the
    // healing are left out.
    for (const step of plan.steps) if (step.at <= plan.safetyMs) this.queue.at(step.at, () => this.begin(step));
  }

  run(): Outcome {
    let violation: Broken | null = null;
    try {
      while (this.queue.step(this.plan.safetyMs));
      this.heal();
      this.converge();
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      violation = { invariant: error.invariant, message: error.message };
    }
    return {
      violation,
      endMs: this.queue.now,
      convergedMs: this.convergedMs,
      allowedMs: this.allowedMs,
      datagrams: this.links.sent,
      operations: this.model.operations,
      happened: this.happenings,
      remedy: this.remedy,
      counters: this.counters(),
    };
  }

  // ——— Phases ———
  private heal(): void {
    const { core } = this.plan;
    this.healed = true;
    this.links.heal(core);
    this.armed.clear();
    this.loseNext.clear();
    for (const member of this.evictions.toRestart) this.crash(member, null);
    for (const member of core) {
      const instance = this.members[member];
      if (!instance.up) this.restart(member);
      else {
        instance.resume();
        instance.slow(0);
        instance.busy(false);
        instance.spare();
      }
    }
    for (const [member, instance] of this.members.entries()) {
      if (core.includes(member)) continue;
      if (this.left.has(member)) continue;
      this.endProcess(instance);
      this.happened('evicted');
      this.evicted.set(member, instance.life.incarnation);
      // Members learn of it at different times.
      for (const other of core) {
        const { incarnation } = instance.life;
        this.queue.after(this.draw.between(0, EVICTION_MS_MAX), () => this.members[other].evict(member, incarnation));
      }
    }
  }

  private converge(): void {
    // Wait until all members know which ones are gone for good.
    if (this.evicted.size > 0) this.runUntil(this.queue.now + EVICTION_MS_MAX);
    const { now } = this.queue;
    let convergence = this.comeTogether();
    this.convergedMs = this.queue.now - now;
    const core = this.core();
    this.findBeyondRepair(core);
    if (this.beyondRepair.size > 0) {
      this.resync(core, convergence);
      if (convergence.differing() !== null) convergence = this.renew(core);
    }
    convergence.compare();
    // What was lost with all members that kept it is missing in the totals, too.
    if (this.beyondRepair.size === 0) for (const succession of this.successions) succession.check();
  }

  private core(): readonly Instance[] {
    return this.plan.core.map((member) => this.members[member]);
  }

  /**
   * Runs until all members have converged, and for a while after that. A member that learns only
   * now that it was evicted restarts, and then has as long as all had. `alive`: see convergence.ts.
   */
  private comeTogether(alive?: readonly MemberIncarnation[]): Convergence {
    const { plan, queue, links } = this;
    const from = queue.now;
    let core = this.core();
    let convergence = new Convergence(core, this.model, plan, alive);
    let end = from + convergence.allowedMs(links.roundTripMsMax(plan.core));
    let isPatient = false;
    const reached = (): boolean => {
      if (this.core().some((instance, i) => instance !== core[i])) {
        core = this.core();
        convergence = new Convergence(core, this.model, plan, alive);
        end = Math.max(end, queue.now + convergence.allowedMs(links.roundTripMsMax(plan.core)));
      }
      return convergence.reached();
    };
    while (!reached()) {
      if (queue.now >= end && !isPatient && this.findBeyondRepair(core)) {
        isPatient = true;
        // An incarnation that cannot be repaired is closed after a while. Members that wait for
        // that then continue.
        end += convergence.patienceMs();
        continue;
      }
      demand(
        queue.now < end || core.some(({ up }) => !up),
        'converges',
        () => `not within ${(end - from).toFixed(0)} ms: ${convergence.lacking()}`,
      );
      this.runUntil(queue.now < end ? Math.min(end, queue.now + LOOK_MS) : queue.now + LOOK_MS);
    }
    this.allowedMs = end - from;
    const convergedAt = queue.now;
    this.runUntil(
      queue.now + QUIET_KEEPALIVES * this.members[0].settings.keepaliveMs + links.roundTripMsMax(plan.core),
    );
    demand(convergence.reached(), 'converges', () => `came apart again: ${convergence.lacking()}`);
    while (core.some(({ upkeep }) => !upkeep.isIdle)) {
      demand(queue.now < convergedAt + SNAPSHOTS_MS, 'converges', () => 'snapshots to join are still wanted');
      this.runUntil(queue.now + LOOK_MS);
    }
    return convergence;
  }

  private runUntil(at: number): void {
    while (this.queue.step(at));
  }

  /**
   * The digest watch finds what repair could not make equal, and members merge snapshots of each
   * other.
   */
  private resync(core: readonly Instance[], convergence: Convergence): void {
    const { queue } = this;
    // Members whose clocks are far apart do not compare digests.
    for (const instance of core) instance.skewMs = 0;
    const from = queue.now;
    const end = from + RESYNC_MS;
    for (let differs = convergence.differing(true); differs !== null; differs = convergence.differing(true)) {
      demand(queue.now < end, 'equal-to-others', () => `no snapshot made it the same in ${RESYNC_MS} ms: ${differs}`);
      this.runUntil(queue.now + RESYNC_LOOK_MS);
    }
    demand(convergence.reached(), 'converges', () => `came apart after a re-sync: ${convergence.lacking()}`);
    if (queue.now > from) this.remedy = 'snapshots';
  }

  /**
   * Objects that cannot be merged from snapshots differ: an operator restarts all members but one,
   * and they take its state. The one that is kept is, if possible, one that has not reported
   * skipped records. If all have, it may lack operations of all others.
   */
  private renew(core: readonly Instance[]): Convergence {
    const isWhole = ({ subjects }: Instance): boolean => !subjects.some(({ ledger }) => ledger?.mayLack);
    const kept = core.find(isWhole) ?? core[0];
    for (const { member } of core) if (member !== kept.member) this.crash(member, RESTART_MS);
    this.runUntil(this.queue.now + 2 * RESTART_MS);
    const alive = isWhole(kept) ? core.map(({ life }) => life) : [kept.life];
    const convergence = this.comeTogether(alive);
    this.remedy = 'restarts';
    return convergence;
  }

  findBeyondRepair(core: readonly Instance[]): boolean {
    for (const slot of unrepairable(core, this.witness)) {
      this.happened('beyond repair: known by a snapshot only');
      this.beyondRepair.add(slot);
    }
    return this.beyondRepair.size > 0;
  }

  // ——— Steps ———
  private begin(step: Step): void {
    this.happened(`step ${step.do}`);
    const { queue, links } = this;
    // All faults end with the healing, so a later end has nothing to do.
    const later = (act: () => void): void =>
      queue.after('ms' in step ? step.ms : 0, () => {
        if (!this.healed) act();
      });
    switch (step.do) {
      case 'work':
        this.members[step.member].work(step.object, step.count);
        break;
      case 'lost-last':
        this.loseNext.set(step.member, step.object);
        this.members[step.member].work(step.object, 1);
        break;
      case 'cut':
        links.cut(step.from, step.to, 1);
        later(() => links.cut(step.from, step.to, -1));
        break;
      case 'clog':
        links.clog(step.from, step.to, 1);
        later(() => links.clog(step.from, step.to, -1));
        break;
      case 'worsen':
        links.worsen(step.member, step.loss, step.delayMs);
        later(() => links.worsen(step.member, 0, 0));
        break;
      case 'narrow':
        links.narrow(step.member, step.bytesPerMs);
        later(() => links.narrow(step.member, 0));
        break;
      case 'damage':
        links.damageRate = step.rate;
        links.damageHow = step.how;
        later(() => {
          links.damageRate = 0;
        });
        break;
      case 'forge':
        this.intruder.forge(step);
        break;
      case 'flood':
        this.intruder.flood(step.member, step.to, step.count);
        break;
      case 'replay':
        this.intruder.replay(step.to, step.count);
        break;
      case 'playback':
        this.intruder.playBack(step);
        break;
      case 'evict':
        this.evictions.begin(step);
        break;
      case 'crash':
        this.crash(step.member, step.downMs);
        break;
      case 'crash-at':
        this.armed.set(step.member, step);
        break;
      default:
        this.beginAt(this.members[step.member], step, later);
    }
  }

  /** Starts a step that concerns one process. */
  private beginAt(instance: Instance, step: Step, later: (act: () => void) => void): void {
    switch (step.do) {
      case 'slow':
        instance.slow(step.costMs);
        later(() => instance.slow(0));
        break;
      case 'pause':
        instance.pause(step.ms);
        break;
      case 'busy':
        instance.busy(true);
        later(() => instance.busy(false));
        break;
      case 'lock': {
        const subject = instance.subjects[step.object];
        subject.receive.locked = true;
        later(() => {
          subject.receive.locked = false;
        });
        break;
      }
      case 'merge':
        instance.upkeep.takeFrom(step.from);
        break;
      case 'leave':
        instance.entry.leave();
        break;
      case 'defect':
        instance.misbehave(step.object, step.what);
        break;
      case 'send-dies':
        instance.killSender(step.after, step.downMs, step.points);
        break;
      case 'receive-dies':
        instance.killReceiver(step.after, step.downMs, step.points);
        break;
      case 'keys':
        this.keyStages[step.member] = step.stage;
        if (instance.up) instance.sealed?.reload(step.stage);
        break;
      case 'save':
        this.saved.save(instance);
        break;
      case 'clock':
        instance.skewMs += step.stepMs;
        break;
      default:
        throw new Error(`no such step: ${step.do}`);
    }
  }

  /** Starts the member again. It learns again which members are gone for good or have left. */
  private restart(member: number): void {
    this.start(member);
    const instance = this.members[member];
    for (const [other, incarnation] of this.evicted) instance.evict(other, incarnation);
    for (const [other, incarnation] of this.left) instance.forget(other, incarnation);
  }

  private start(member: number): void {
    const wallMs = Date.UTC(2026, 0, 1) + this.queue.now + (this.members[member] ?? this.plan.clocks[member]).skewMs;
    const incarnation = Math.max(1, Math.trunc(wallMs - EPOCH_MS)) * 2 ** 11 + this.draw.below(2 ** 11);
    const instance = new Instance(this, member, incarnation);
    instance.skewMs = (this.members[member] ?? this.plan.clocks[member]).skewMs;
    this.members[member] = instance;
    this.all.push(instance);
  }

  private endProcess(instance: Instance): void {
    instance.crash();
    this.evictions.ended(instance.member);
  }

  crash(member: number, downMs: number | null): void {
    const instance = this.members[member];
    if (!instance.up) return;
    this.endProcess(instance);
    if (downMs === null) return;
    this.queue.after(downMs, () => {
      if (!this.members[member].up) this.restart(member);
    });
  }

  // ——— Host: joining and leaving ———
  reachedStep(at: Instance, step: EntryStep): void {
    const armed = this.armed.get(at.member);
    if (armed === undefined || armed.step !== step) return;
    this.armed.delete(at.member);
    const victim = armed.who === 'itself' ? at.member : at.entry.joining.wantsSnapshotFrom;
    if (victim === null) return;
    this.happened(`died: ${armed.who} at ${step}`);
    this.crash(victim, armed.downMs);
  }

  beganAlone(at: Instance): void {
    at.hasBegunAlone = true;
    this.happened('began without state');
    // What was pruned because the former incarnation had it comes only in snapshots, and not all
    // objects can be merged from them.
    if (at.subjects.some(({ kind, ledger }) => ledger !== null || kind === 'increments'))
      this.beyondRepair.add(at.member);
  }

  /** `lacks`: slots of members whose state the donor lacks, as one does that began without them. */
  succeeded(at: Instance, lacks: readonly number[]): void {
    const others = this.members.filter(
      (other) => other !== at && other.up && other.entry.isReady && !lacks.includes(other.member),
    );
    this.successions.push(new Succession(at, others));
  }

  hasLeft(at: Instance): void {
    this.endProcess(at);
    this.happened('left');
    this.left.set(at.member, at.life.incarnation);
    for (const other of this.members)
      if (other !== at && other.up)
        this.queue.after(this.draw.between(0, EVICTION_MS_MAX), () => {
          if (other.up) other.forget(at.member, at.life.incarnation);
        });
  }

  fetchSnapshot(at: Instance, donor: number, done: (snapshot: Snapshot | string) => void): void {
    transfer(this, this.draw, at, donor, done);
  }

  happened(what: string): void {
    this.happenings.set(what, (this.happenings.get(what) ?? 0) + 1);
  }

  transmit(from: Instance, bytes: Uint8Array, object: number, to: number, isSpared: (member: number) => boolean): void {
    let contents: Flight['contents'];
    try {
      contents = this.dissector.read(bytes);
    } catch (error) {
      throw new Violation('no-crash', `${from.name}: ${(error as Error).message}`);
    }
    const origin = this.lifeOf(contents.origin, contents.originIncarnation);
    demand(origin !== undefined, 'applied-what-was-said', () => `${from.name}: speaks for a life that never was`);
    this.witness.sent(from, object, to, contents, origin);
    if (contents.units.length > 0 && this.loseNext.get(from.member) === object) {
      this.loseNext.delete(from.member);
      this.happened('last message lost');
      return;
    }
    const wire = from.sealed?.seal(bytes) ?? bytes;
    for (let member = 0; member < this.plan.members; member++)
      if (member !== from.member && (to === -1 ? this.multicast || !isSpared(member) : to === member)) {
        if (!this.multicast || to !== -1) this.meter(from, bytes.byteLength);
        this.links.send(from.member, member, object, wire, contents);
      }
    if (this.multicast && to === -1) this.meter(from, bytes.byteLength);
  }

  private meter(from: Instance, bytes: number): void {
    const { bandwidth } = from.settings;
    demand(
      from.meter.pass(bytes, from.localMs),
      'bandwidth-kept',
      () => `${from.name}: sends more than ${bandwidth} bit/s`,
    );
  }

  beforeReceive(at: Instance, flight: Flight): void {
    this.witness.before(at, flight);
    this.skippedBefore = at.counts.value('state_rx_records_skipped');
  }

  /**
   * Whether the message makes the instance skip records, as it may. The sender was not heard when
   * the state was taken, so the state lacks what the sender had pruned. Or the sender lost what it
   * retained for a member that joins too slowly.
   */
  skips(at: Instance, { sender }: Flight): boolean {
    const hasSkipped = at.counts.value('state_rx_records_skipped') > this.skippedBefore;
    const hasLost = this.members[sender].counts.value('state_tx_backlogs_lost') > 0;
    const isBehind = at.entry.unheard.has(sender) || hasLost;
    return hasSkipped && isBehind && this.plan.firstSequence === FIRST_SEQUENCE;
  }

  afterReceive(at: Instance, flight: Flight, reject: string | null): void {
    const { contents } = flight;
    if (contents === null) {
      const wanted = this.intruder.rejectWanted;
      demand(
        reject !== null && (wanted === null || reject === wanted),
        'forgery-refused',
        () =>
          `${at.name}: a message that is ${wanted ?? 'damaged'} was ${reject === null ? 'believed' : `refused for ${reject}`}`,
      );
      return;
    }
    if (reject !== null) {
      // An honest message is refused only because of its incarnation: an earlier one, an evicted
      // one, or one that is not admitted yet. A sealed one is also refused if it arrives twice, if
      // its key was removed, or if the receiver derives too many keys (`seal_busy`).
      const reasons = [
        'incarnation',
        'unclosed',
        'sender',
        ...(this.plan.sealed ? ['seal_replay', 'seal_key', 'seal_busy'] : []),
      ];
      demand(reasons.includes(reject), 'forgery-refused', () => `${at.name}: an honest message was refused: ${reject}`);
      return;
    }
    this.afterTick(at);
    if (this.skips(at, flight)) this.lacking(at, flight.sender);
    const sender = this.lifeOf(flight.sender, contents.incarnation);
    const origin = this.lifeOf(contents.origin, contents.originIncarnation);
    if (sender !== undefined && origin !== undefined) this.witness.after(at, flight, sender, origin);
    if (at.board.isDeclaredDead) {
      demand(at.isCondemned, 'living-kept', () => `${at.name} lives, and was told that its life is over`);
      this.happened('an evicted member learned it');
      this.crash(at.member, RESTART_MS);
      return;
    }
    checkMemory(at);
  }

  afterTick(at: Instance): void {
    this.closings.look(at, this.members, (slot) => this.beyondRepair.has(slot) || this.reported.has(slot));
  }

  afterPoll(at: Instance): void {
    checkMemory(at);
    const others = this.members.filter((one) => one !== at && one.up && one.entry.isReady && !one.isCondemned);
    this.witness.checkPruned(at, others, (other) => this.lacking(other, at.member));
  }

  alarm(at: Instance, problem: string, slot = -1): void {
    judgeAlarm(this, at, problem, slot);
  }

  differs(at: Instance, object: number, slot: number): void {
    this.happened('a digest differed');
    demand(
      this.beyondRepair.size > 0,
      'equal-to-others',
      () => `${at.name}, object ${object}: its digest twice differed from that of member ${slot}`,
    );
  }

  lacking(at: Instance, slot: number): void {
    noteLacking(this, at, slot);
  }

  keyStage(member: number): number {
    return this.keyStages[member];
  }

  private lifeOf(member: number, incarnation: number): Instance | undefined {
    return this.all.find((one) => one.member === member && one.life.incarnation === incarnation);
  }

  private counters(): Map<string, number> {
    const sums = new Map<string, number>();
    // If numbers start far from 1, the first message of a member skips as many.
    for (const { counts } of this.all)
      for (const [name, column] of Object.entries(counts.at))
        if (name !== 'state_rx_records_skipped' || this.plan.firstSequence === FIRST_SEQUENCE)
          sums.set(name, (sums.get(name) ?? 0) + counts.row[column]);
    return sums;
  }
}
