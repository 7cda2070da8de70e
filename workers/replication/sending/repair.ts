/**
 * Repair: members pass on units of an ended incarnation to those that lack them, in the dead
 * origin's name.
 *
 * The members' vectors say what each has of a frozen incarnation (closing.ts), and every member
 * sees the same vectors. So it is determined which member passes on a lacking unit: the one with
 * the lowest slot among those that have it. That member may have died too, or pruned the unit. So
 * if nothing changes, the next one passes it on after one timeout, and the one after that after
 * two. A unit passed on twice is a duplicate, and does no harm.
 *
 * Units of an in-order object beyond a gap of ours are not passed on: no member could apply them
 * before the gap is filled.
 */

import { SlotIncarnations, VectorRecord } from '../../../shm/board-records.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import type { ForeignLog } from '../units/foreign-log.js';
import { FIRST_SEQUENCE } from '../units/unit-log.js';
import type { Datagram } from '../wire/message.js';
import { type ChannelContext, Composer } from './channel.js';
import { EVERYONE, type Outlet } from './outlet.js';

/** Time between two reads of the members' incarnations, in ms. */
const LOOK_MS = 2;
/** Most messages to each member in one round, for one object and incarnation. */
const MESSAGES_MAX = 64;

/** The repair of one object's part of a former incarnation: its progress, and when it is due. */
interface Round {
  /** Sum over what the members said they have: it changes when one gets more. */
  progress: number;
  /** When `progress` last changed, in ms. */
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
  private readonly incarnations = new SlotIncarnations();
  private readonly ours = new VectorRecord();
  /** Per member: what it said it has of the incarnation under repair; incarnation 0: nothing. */
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
      this.incarnations.former = 0;
      if (
        origin === this.self ||
        board.readIncarnations(origin, this.incarnations) === 0 ||
        this.incarnations.former === 0
      )
        continue;
      for (let object = 0; object < this.objects.length; object++)
        messages += this.repair(object, origin, this.incarnations.former, now, outlet);
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
    // By multicast: send to everyone what several members lack, and to each member what only that
    // one lacks.
    if (this.isMulticast) messages += this.passOn(object, origin, EVERYONE, now - round.since, timeout, now, outlet);
    for (let member = 0; member < settings.slots; member++)
      if (peers.silent[member] === 0 && this.lacks(member, object))
        messages += this.passOn(object, origin, member, now - round.since, timeout, now, outlet);
    return messages;
  }

  /**
   * Reads what the members have. Returns the longest timeout (ms) among heard members that lack
   * something; 0: none lacks anything.
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
   * Sends `member`, or everyone, the lacking units that are our turn to pass on after `waited` ms.
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
        // The unit was overwritten to make room, as were all before the present head.
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
   * Whether the loaded unit is of the incarnation under repair and must be passed on to `member`
   * or, by multicast if several heard members lack it, to `EVERYONE`.
   */
  private isLacking(log: ForeignLog, member: number, object: number): boolean {
    const { ours } = this;
    const last = log.first + log.count - 1;
    if (log.incarnation !== ours.incarnation || !ours.has(log.first)) return false;
    if (this.isInOrder(object) && last > ours.contiguous) return false;
    if (member !== EVERYONE && this.theirs[member].has(log.first)) return false;
    return !this.isMulticast || this.lackingOf(log.first) > 1 === (member === EVERYONE);
  }

  /** The number of heard members that lack the unit that begins at `first`. */
  private lackingOf(first: number): number {
    const { peers } = this.context;
    const { theirs } = this;
    let lacking = 0;
    for (let each = 0; each < theirs.length; each++)
      if (theirs[each].incarnation !== 0 && peers.silent[each] === 0 && !theirs[each].has(first)) lacking++;
    return lacking;
  }

  /** The number of members before us that could pass the unit on. */
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
