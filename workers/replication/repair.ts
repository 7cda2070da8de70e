/**
 * Repair: what a member lacks of a life that is over, it gets from those that have it, in the dead
 * origin's name.
 *
 * All that members have of a frozen life is in their vectors (closing.ts), and everybody sees the
 * same ones. So of each unit that somebody lacks it is clear who passes it on: the member with the
 * lowest slot of those that have it. If nothing changes, for it may have died too, or had to let go
 * of the unit, the next one steps in after one timeout, the one after it after two. A unit passed
 * on twice is a duplicate, and does no harm.
 *
 * In order, what lies beyond a hole of ours is not passed on: nobody could apply it before the hole
 * is filled.
 */

import { LifeRecord, VectorRecord } from '../../shm/board-records.js';
import type { StateObject } from '../../shm/objects/object.js';
import { type ChannelContext, Composer, EVERYONE, type Outlet } from './channel.js';
import type { ForeignLog } from './foreign-log.js';
import type { Datagram } from './message.js';
import { FIRST_SEQUENCE } from './unit-log.js';

/** Between two looks at the lives of the members. */
const LOOK_MS = 2;
/** Messages to each member in one round, of one object and life. */
const MESSAGES_MAX = 64;

/** One object's part of a former life: what was seen of it, and when something is due. */
interface Round {
  /** Sum over what the members said they have: it moves when one gets more. */
  progress: number;
  /** When it last moved. */
  since: number;
  nextAt: number;
}

export class Repair {
  private readonly context: ChannelContext;
  private readonly self: number;
  private readonly objects: readonly StateObject[];
  private readonly composers: readonly Composer[];
  private readonly isMulticast: boolean;
  /** [object][origin] */
  private readonly logs: readonly (readonly ForeignLog[])[];
  private readonly rounds: readonly (readonly Round[])[];
  private readonly life = new LifeRecord();
  private readonly ours = new VectorRecord();
  /** Per member: what it said it has of the life looked at; incarnation 0: nothing. */
  private readonly theirs: readonly VectorRecord[];
  private nextLook = Number.NEGATIVE_INFINITY;
  private nextDue = Number.POSITIVE_INFINITY;

  constructor(
    context: ChannelContext,
    self: number,
    objects: readonly StateObject[],
    logs: readonly (readonly ForeignLog[])[],
  ) {
    this.context = context;
    this.self = self;
    this.objects = objects;
    this.isMulticast = context.settings.transport.kind === 'multicast';
    this.composers = objects.map(({ id }) => new Composer(id, context));
    this.logs = logs;
    this.rounds = logs.map((origins) => origins.map(() => ({ progress: -1, since: 0, nextAt: 0 })));
    this.theirs = Array.from({ length: context.settings.slots }, () => new VectorRecord());
  }

  /** Passes on what is due. Returns the number of messages sent. */
  poll(now: number, outlet: Outlet): number {
    if (now < this.nextLook) {
      this.nextDue = Math.min(this.nextDue, this.nextLook);
      return 0;
    }
    this.nextLook = now + LOOK_MS;
    this.nextDue = Number.POSITIVE_INFINITY;
    const { board, settings } = this.context;
    let messages = 0;
    for (let origin = 0; origin < settings.slots; origin++) {
      this.life.former = 0;
      if (origin === this.self || board.readLife(origin, this.life) === 0 || this.life.former === 0) continue;
      for (let object = 0; object < this.objects.length; object++)
        messages += this.repair(object, origin, this.life.former, now, outlet);
    }
    return messages;
  }

  /** When `poll` has something to do at the latest, in ms of its clock. */
  get deadline(): number {
    return this.nextDue;
  }

  private repair(object: number, origin: number, incarnation: number, now: number, outlet: Outlet): number {
    const { ours } = this;
    ours.clear();
    this.context.board.readFormer(object, origin, ours);
    if (ours.incarnation !== incarnation) return 0;
    const timeout = this.readLacking(object, origin, incarnation);
    if (timeout === 0) return 0;
    const round = this.rounds[object][origin];
    this.noteProgress(round, now);
    if (now < round.nextAt) {
      this.nextDue = Math.min(this.nextDue, round.nextAt);
      return 0;
    }
    round.nextAt = now + timeout;
    this.nextDue = Math.min(this.nextDue, round.nextAt);
    const { settings, peers } = this.context;
    let messages = 0;
    // By multicast: to everyone what several lack, and to each member what only that one lacks.
    if (this.isMulticast) messages += this.passOn(object, origin, EVERYONE, now - round.since, timeout, now, outlet);
    for (let member = 0; member < settings.slots; member++)
      if (peers.silent[member] === 0 && this.lacks(member, object))
        messages += this.passOn(object, origin, member, now - round.since, timeout, now, outlet);
    return messages;
  }

  /**
   * Reads what the members have; returns the timeout of the slowest that is heard and lacks
   * something, 0: nobody.
   */
  private readLacking(object: number, origin: number, incarnation: number): number {
    const { board, peers, settings } = this.context;
    let timeout = 0;
    for (let member = 0; member < settings.slots; member++) {
      const record = this.theirs[member];
      record.clear();
      if (member === this.self || peers.present[member] === 0) continue;
      board.readFormerVector(object, member, origin, record);
      if (record.incarnation !== incarnation) record.clear();
      else if (peers.silent[member] === 0 && this.lacks(member, object))
        timeout = Math.max(timeout, peers.timeout[member]);
    }
    return timeout;
  }

  private lacks(member: number, object: number): boolean {
    const { ours } = this;
    const theirs = this.theirs[member];
    if (theirs.incarnation === 0) return false;
    return this.isInOrder(object) ? theirs.contiguous < ours.contiguous : !theirs.equals(ours);
  }

  private isInOrder(object: number): boolean {
    return this.objects[object].delivery === 'in-order';
  }

  private noteProgress(round: Round, now: number): void {
    let progress = 0;
    for (const { contiguous, ranges, last, incarnation } of this.theirs)
      if (incarnation !== 0) progress += contiguous + ranges + last;
    if (progress === round.progress) return;
    round.progress = progress;
    round.since = now;
  }

  /**
   * Sends `member`, or everyone, the units lacking that it is our turn to pass on after `waited`
   * ms.
   */
  private passOn(
    object: number,
    origin: number,
    member: number,
    waited: number,
    timeout: number,
    now: number,
    outlet: Outlet,
  ): number {
    const { writer } = this.context;
    const { ours } = this;
    const log = this.logs[object][origin];
    const { tail } = log;
    let messages = 0;
    let datagram: Datagram | null = null;
    for (let position = log.head; position !== tail; ) {
      const next = log.load(position);
      if (next === position) {
        // It had to make room; so had all before what is there now.
        position = log.head;
        if (((tail - position) | 0) < 0) break;
        continue;
      }
      position = next;
      if (!this.isLacking(log, member, object) || waited < this.placeOf(log.first, origin) * timeout) continue;
      if (datagram !== null && !writer.fits(log.recordWords)) {
        this.composers[object].finish(datagram, outlet, member, FIRST_SEQUENCE, ours.last);
        datagram = null;
      }
      if (datagram === null) {
        if (messages === MESSAGES_MAX) return messages;
        datagram = this.composers[object].begin(now, outlet);
        if (datagram === null) return messages;
        writer.speakFor(this.context.peers.members.id(origin), ours.incarnation);
        messages++;
      }
      writer.addUnit(log.first, log.count, log.records, 0, log.recordWords);
      this.context.counts.add('state_tx_units_repaired', 1);
    }
    if (datagram !== null) this.composers[object].finish(datagram, outlet, member, FIRST_SEQUENCE, ours.last);
    return messages;
  }

  /**
   * Whether the unit loaded is of the life looked at and is to be passed on to `member`, or to
   * `EVERYONE`, which is by multicast: several members that are heard lack it.
   */
  private isLacking(log: ForeignLog, member: number, object: number): boolean {
    const { ours } = this;
    const last = log.first + log.count - 1;
    if (log.incarnation !== ours.incarnation || !ours.has(log.first)) return false;
    if (this.isInOrder(object) && last > ours.contiguous) return false;
    if (member !== EVERYONE && this.theirs[member].has(log.first)) return false;
    return !this.isMulticast || this.lackingOf(log.first) > 1 === (member === EVERYONE);
  }

  /** How many members that are heard lack the unit that begins at `first`. */
  private lackingOf(first: number): number {
    const { peers } = this.context;
    const { theirs } = this;
    let lacking = 0;
    for (let each = 0; each < theirs.length; each++)
      if (theirs[each].incarnation !== 0 && peers.silent[each] === 0 && !theirs[each].has(first)) lacking++;
    return lacking;
  }

  /** How many members before us could pass the unit on. */
  private placeOf(first: number, origin: number): number {
    const { peers } = this.context;
    let place = 0;
    for (let member = 0; member < this.self; member++)
      if (
        member !== origin &&
        this.theirs[member].incarnation !== 0 &&
        peers.silent[member] === 0 &&
        this.theirs[member].has(first)
      )
        place++;
    return place;
  }
}
