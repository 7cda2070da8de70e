/**
 * Whether the healed members have come together, how long they may take, and whether they then hold
 * the same.
 */

import { LifeRecord, VectorRecord } from '../../shm/board-records.js';
import type { Instance } from './instance.js';
import type { MemberLife, Model } from './model.js';
import type { Plan } from './plan.js';
import type { Subject } from './subjects.js';
import { demand } from './violation.js';

/** Of its largest round trips, by the promise. */
const ROUND_TRIPS = 10;

/**
 * A frozen incarnation that is repaired no further is closed after so many times the silence limit
 * (closing.ts).
 */
const PATIENCE = 6;

/** Looks of main, a donor that was just asked and died, its back-off, and a snapshot's way. */
const JOIN_MS = 1200;

export class Convergence {
  private readonly core: readonly Instance[];
  private readonly model: Model;
  private readonly plan: Plan;
  private readonly alive: ReadonlySet<MemberLife>;
  private readonly vector = new VectorRecord();
  private readonly life = new LifeRecord();

  /** `alive`: the lives whose work all must have; default: those of the core. */
  constructor(
    core: readonly Instance[],
    model: Model,
    plan: Plan,
    alive: readonly MemberLife[] = core.map(({ life }) => life),
  ) {
    this.core = core;
    this.model = model;
    this.plan = plan;
    this.alive = new Set(alive);
  }

  /**
   * Ten of the largest round trips, and what the timers may add:
   *
   * - a keepalive: until a member that was silent is heard again;
   * - the longest back-off, twice: a unit tried just before the healing, and the one whose answer
   *   was lost then;
   * - acknowledgement delays of a round trip each;
   * - a member whose clock went back before it started again is believed after some silence
   *   (lives.ts);
   * - who has to join: that a member it still takes for alive falls silent, all say that they hold
   *   for it, and the snapshot's way;
   * - with a limit on what is sent: what waits in the log ring, the unit logs and as backlogs, sent
   *   to all, twice;
   * - one wait for buffers (`WAIT_MS_BUSY` of the shell), and a thread that was being started
   *   again.
   */
  allowedMs(roundTripMs: number): number {
    const { keepaliveMs, retransmitMsMax, ackDelayMsMax, silentMs } = this.core[0].settings;
    const wentBack = this.plan.steps.some((step) => step.do === 'clock' && step.stepMs < 0);
    return (
      ROUND_TRIPS * (roundTripMs + ackDelayMsMax) +
      2 * keepaliveMs +
      2 * retransmitMsMax +
      (this.core.some(({ entry }) => !entry.isReady) ? silentMs + 4 * keepaliveMs + JOIN_MS + this.slowJoinMs() : 0) +
      (wentBack ? silentMs + 5 * keepaliveMs : 0) +
      100 +
      this.longestRestart() +
      this.backlogMs()
    );
  }

  /**
   * How much longer it may take if an incarnation cannot be repaired: until it is closed, and for
   * what waits for that.
   */
  patienceMs(): number {
    return (PATIENCE + 2) * this.core[0].settings.silentMs + JOIN_MS + this.slowJoinMs();
  }

  /** What snapshots take longer than others do. */
  private slowJoinMs(): number {
    const { transferMs = [0, 0], loadMs = [0, 0] } = this.plan;
    return transferMs[1] + loadMs[1];
  }

  private longestRestart(): number {
    let longest = 0;
    for (const step of this.plan.steps)
      if (step.do === 'send-dies' || step.do === 'receive-dies') longest = Math.max(longest, step.downMs);
    return longest;
  }

  /**
   * A limit is kept in any 100 ms. So beside the two messages to everybody that may leave at once,
   * units get what the limit carries less than those in 100 ms, and a quarter of it at least
   * (pacing.ts).
   */
  private backlogMs(): number {
    const copies = this.plan.settings.transport?.kind === 'multicast' ? 1 : this.plan.members - 1;
    let longest = 0;
    for (const { settings, sender, backlog } of this.core) {
      if (settings.bandwidth === 0 || sender === null) continue;
      const limit = settings.bandwidth / 8000;
      const rate = Math.max(limit / 4, limit - (2 * copies * settings.mtu) / 100);
      const waiting = sender.heldBytes + sender.debtBytes + 4 * backlog;
      longest = Math.max(longest, (2 * waiting * (this.plan.members - 1)) / rate);
    }
    return longest;
  }

  reached(): boolean {
    return this.findLacking() === null;
  }

  /** What is still missing, for people. */
  lacking(): string {
    return this.findLacking() ?? 'nothing';
  }

  private findLacking(): string | null {
    for (const origin of this.core) {
      if (!origin.entry.isReady)
        return `${origin.name} is ${origin.entry.joining.state}: ${origin.entry.joining.reason}`;
      if (origin.sender === null) return `${origin.name} has no send thread`;
      if (origin.receiver === null) return `${origin.name} has no receive thread`;
      if (origin.backlog > 0) return `${origin.name} has ${origin.backlog} words in its log ring`;
      for (let slot = 0; slot < this.plan.members; slot++) {
        const { life } = this;
        life.floats.fill(0);
        origin.board.readLife(slot, life);
        // Of its own former life a member knows what its donor did: others close it.
        if (slot !== origin.member && life.former !== 0 && !life.isClosed)
          return `${origin.name}: a former life of member ${slot} is not closed`;
      }
      for (let object = 0; object < this.plan.objects.length; object++) {
        const numbered = origin.board.numbered(object);
        if (origin.board.sequence(object) < numbered)
          return `${origin.name}, object ${object}: has units it never sent`;
        for (const other of this.core) {
          const lacking = other === origin ? null : this.between(origin, other, object, numbered);
          if (lacking !== null) return lacking;
        }
      }
    }
    return null;
  }

  private between(origin: Instance, other: Instance, object: number, numbered: number): string | null {
    const { vector } = this;
    vector.clear();
    other.board.readReception(object, origin.member, vector);
    if (vector.incarnation !== origin.life.incarnation)
      return `${other.name}, object ${object}: has not heard ${origin.name}`;
    if (vector.contiguous < numbered)
      return `${other.name}, object ${object}: has ${vector.contiguous} of ${numbered} of ${origin.name}`;
    vector.clear();
    origin.board.readVector(object, other.member, origin.member, vector);
    if (vector.incarnation !== origin.life.incarnation || vector.contiguous < numbered)
      return `${origin.name}, object ${object}: does not know that ${other.name} has all ${numbered}`;
    return null;
  }

  // ——— After quiet ———

  /** Demands that all hold the same, and what the model says. */
  compare(): void {
    demand(this.differing() === null, 'equal-to-others', () => this.differing() ?? '');
    for (const [object, kind] of this.plan.objects.entries())
      for (const instance of this.core)
        if (kind === 'notes' || kind === 'ordered') this.compareToModel(instance, object);
        else this.compareCells(instance, object);
  }

  /**
   * What differs between members, also of lives that are over; `ofJoinable`: and can be joined from
   * snapshots.
   */
  differing(ofJoinable = false): string | null {
    const [first, ...rest] = this.core;
    for (const [object, kind] of this.plan.objects.entries())
      for (const other of rest) {
        if (ofJoinable && (kind === 'increments' || kind === 'ordered')) continue;
        const { coarse } = first.moment;
        const [ours, theirs] = [first, other].map(({ subjects }) => content(subjects[object], coarse, ofJoinable));
        if (ours !== theirs)
          return `object ${object} (${kind}): ${first.name} has ${ours}; ${other.name} has ${theirs}`;
      }
    return null;
  }

  private isAlive(life: MemberLife): boolean {
    return this.alive.has(life);
  }

  private compareToModel(instance: Instance, object: number): void {
    for (const life of this.alive) {
      const issued = life.issued[object];
      const received = instance.subjects[object].ledger?.received.get(life.author);
      const notes = received?.notes.size ?? 0;
      const where = `${instance.name}, object ${object}, of author ${life.author}`;
      demand(notes === issued.notes, 'equal-to-model', () => `${where}: ${notes} notes of ${issued.notes}`);
      for (const [key, { count, check }] of issued.adds) {
        const sum = received?.adds.get(key);
        demand(
          sum?.count === count && sum.check === check,
          'equal-to-model',
          () => `${where}: key ${key} has ${sum?.count ?? 0} additions of ${count}`,
        );
      }
    }
  }

  /** Counts are those of the model; of lives that are over, some of theirs. */
  private compareCells(instance: Instance, object: number): void {
    for (const [cell, value] of instance.subjects[object].cells().entries()) {
      let least = 0;
      let most = 0;
      for (const life of this.model.all) {
        const count = life.issued[object].cells.get(cell) ?? 0;
        most += count;
        if (this.isAlive(life)) least += count;
      }
      demand(
        value >= least && value <= most,
        'equal-to-model',
        () => `${instance.name}, object ${object}, cell ${cell}: counts ${value}, not ${least}…${most}`,
      );
    }
  }
}

function content(subject: Subject, coarse: number, ofJoinable: boolean): string {
  const { ledger } = subject;
  return ledger !== null && ofJoinable ? ledger.notesDigest() : subject.digest(coarse);
}
