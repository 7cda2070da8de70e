/**
 * Decides whether the healed members have converged, how long they may take, and whether they then
 * hold the same content.
 */

import { SlotIncarnations, VectorRecord } from '../../shm/board-records.js';
import type { Instance } from './instance.js';
import type { MemberIncarnation, Model } from './model.js';
import type { Plan } from './plan.js';
import type { Subject } from './subjects.js';
import { demand } from './violation.js';

/** Members must converge within this many of the largest round trips. */
const ROUND_TRIPS = 10;

/**
 * A frozen incarnation that is not repaired further is closed after this many silence limits
 * (closing.ts).
 */
const PATIENCE = 6;

/**
 * Time to join, ms: main's polling, a donor that dies after it was asked, the back-off, and the
 * transfer of a snapshot.
 */
const JOIN_MS = 1200;

export class Convergence {
  private readonly core: readonly Instance[];
  private readonly model: Model;
  private readonly plan: Plan;
  private readonly alive: ReadonlySet<MemberIncarnation>;
  private readonly vector = new VectorRecord();
  private readonly life = new SlotIncarnations();

  /**
   * `alive`: the incarnations whose operations every member must have. Default: those of the core.
   */
  constructor(
    core: readonly Instance[],
    model: Model,
    plan: Plan,
    alive: readonly MemberIncarnation[] = core.map(({ life }) => life),
  ) {
    this.core = core;
    this.model = model;
    this.plan = plan;
    this.alive = new Set(alive);
  }

  /**
   * How long the members may take to converge, ms. Ten of the largest round trips, each with an
   * acknowledgement delay, and what the timers may add:
   *
   * - two keepalive intervals, until a silent member is heard again;
   * - twice the longest back-off: for a unit that was sent just before the healing, and for a unit
   *   whose acknowledgement was lost then;
   * - if a clock stepped back: a member that restarted after that is believed only after some
   *   silence (incarnations.ts);
   * - if a member has to join: until a member that it still believes alive falls silent, until all
   *   confirm that they retain units for it, and the transfer of the snapshot;
   * - with a bandwidth limit: the content of the log ring, the unit logs and the backlogs, sent to
   *   all members twice;
   * - one wait for buffers (`WAIT_MS_BUSY` of the shell), and the longest restart of a thread.
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
   * Additional time, ms, if an incarnation cannot be repaired: until it is closed, and for members
   * that wait for that.
   */
  patienceMs(): number {
    return (PATIENCE + 2) * this.core[0].settings.silentMs + JOIN_MS + this.slowJoinMs();
  }

  /** Longest transfer and load time of a snapshot that the plan sets, ms. */
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
   * Time to send what waits, ms. The limit holds in any 100 ms. Two messages to all members may
   * leave at once. Units get the rest of the limit in those 100 ms, and at least a quarter of the
   * limit (pacing.ts).
   */
  private backlogMs(): number {
    const copies = this.plan.settings.transport?.kind === 'multicast' ? 1 : this.plan.members - 1;
    let longest = 0;
    for (const { settings, sender, backlog } of this.core) {
      if (settings.bandwidth === 0 || sender === null) continue;
      const limit = settings.bandwidth / 8000;
      const rate = Math.max(limit / 4, limit - (2 * copies * settings.mtu) / 100);
      const waiting = sender.keptBytes + sender.backlogBytes + 4 * backlog;
      longest = Math.max(longest, (2 * waiting * (this.plan.members - 1)) / rate);
    }
    return longest;
  }

  reached(): boolean {
    return this.findLacking() === null;
  }

  /** What is still missing, as text. */
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
      origin.members.refresh();
      for (let slot = 0; slot < this.plan.members; slot++) {
        const { life } = this;
        life.floats.fill(0);
        origin.board.readIncarnations(slot, life);
        // The receive thread reads the member table only now and then.
        if (life.current !== 0 && life.current <= origin.members.dead(slot))
          return `${origin.name}: has not ended the life of member ${slot}, which is evicted`;
        if (life.former !== 0 && !life.isClosed) return `${origin.name}: a former life of member ${slot} is not closed`;
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

  /** Demands that all members hold the same content, and that it equals the model. */
  compare(): void {
    demand(this.differing() === null, 'equal-to-others', () => this.differing() ?? '');
    for (const [object, kind] of this.plan.objects.entries())
      for (const instance of this.core)
        if (kind === 'notes' || kind === 'ordered') this.compareToModel(instance, object);
        else this.compareCells(instance, object);
  }

  /**
   * What differs between members, including data of ended incarnations; null if nothing does.
   * `ofJoinable`: compares only what can be merged from snapshots.
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

  private isAlive(life: MemberIncarnation): boolean {
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

  /** Counts equal the model's. Of ended incarnations, a part may be missing. */
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
