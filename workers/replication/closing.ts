/**
 * How a life of a member ends: frozen, repaired, closed, and only then followed by the next.
 *
 * | life is…  | because                                               | what is taken of it      | it ends when                          |
 * | --------- | ----------------------------------------------------- | ------------------------ | ------------------------------------- |
 * | present   | it is believed (lives.ts) and the one before is closed | everything               | it is declared dead, a later life of the member is believed, or another member says it is over |
 * | frozen    | then                                                  | what others pass on      | every member that is heard says it is frozen there too, with the same units |
 * | closed    | then; or, counted, when that took too long            | what others pass on      | another life of the member ends, or nobody can lack anything of it any more |
 *
 * While frozen, each member passes on what another lacks (repair.ts), so all come to have what any had. Nothing comes from the
 * dead life itself any more, so what a member says of a frozen life only grows, and grows to that. In order, what lies
 * beyond a hole that nobody can fill is dropped, everywhere alike.
 *
 * **Who was silent** meanwhile is not waited for. It keeps hearing of the closed life in the others' keepalives until it is
 * known to have all of it, and gets what it lacks, or gives what only it has, when it comes back.
 *
 * A member that was cut off for the whole of a life hears of it only by its end: it takes it for frozen, with nothing of it, and
 * so gets what others hold for it. One that never heard of any life of the slot has nothing to do with it.
 */

import type { AckBoard, PeerRecord } from '../../shm/ack-board.js';
import { LifeRecord, VectorRecord } from '../../shm/board-records.js';
import type { MemberTable } from '../../shm/members.js';
import { FREEZING_VERSION } from './message.js';
import type { Counts } from './metrics.js';
import type { ReceiveChannel } from './receive-channel.js';
import type { ReplicationSettings } from './settings.js';

/** A frozen life that is repaired no further for so many times the silence limit is closed as it is. */
const PATIENCE = 6;

export interface ClosingContext {
  readonly settings: ReplicationSettings;
  readonly self: number;
  readonly board: AckBoard;
  readonly members: MemberTable;
  readonly peers: readonly PeerRecord[];
  readonly counts: Counts;
  /** [object][member]: the intake of the present life, and of the former one; they change places when a life ends. */
  readonly present: ReceiveChannel[][];
  readonly former: ReceiveChannel[][];
  /** A life of the slot is over: what it said of others is worth nothing, and the others must hear of its end soon. */
  readonly onEnd: (slot: number, now: number) => void;
  /** Told of a life that was closed though members lack units of it. */
  readonly onAlarm: (problem: string, member: number) => void;
}

export class Closing {
  /** Per slot. */
  readonly lives: readonly LifeRecord[];
  private readonly context: ClosingContext;
  /** Per slot: when something about its former life last changed. */
  private readonly progressAt: Float64Array;
  private readonly theirs = new VectorRecord();

  constructor(context: ClosingContext) {
    this.context = context;
    this.lives = context.peers.map((_, slot) => {
      const life = new LifeRecord();
      context.board.readLife(slot, life);
      return life;
    });
    this.progressAt = Float64Array.from(this.lives, (life) => life.frozenAt);
  }

  /** A life of the slot is believed that is not the present one. Returns whether it is the present one from now on. */
  begin(slot: number, incarnation: number, now: number): boolean {
    const life = this.lives[slot];
    if (life.current !== 0) this.freeze(slot, now);
    life.pending = incarnation;
    return this.admit(slot, now);
  }

  /** Without state of our own there is nothing to close: another life of the slot follows at once. */
  replace(slot: number, incarnation: number, now: number): void {
    const { present, onEnd, board } = this.context;
    const life = this.lives[slot];
    if (life.current !== 0) {
      for (const channels of present) channels[slot].begin(false);
      onEnd(slot, now);
    }
    life.current = incarnation;
    board.writeLife(slot, life);
  }

  /** Makes the life that waits the present one, if the one before it is closed. */
  admit(slot: number, now: number): boolean {
    const life = this.lives[slot];
    if (life.former !== 0 && !life.isClosed && !this.tryClose(slot, now)) {
      this.context.board.writeLife(slot, life);
      return false;
    }
    life.current = life.pending;
    life.pending = 0;
    this.context.board.writeLife(slot, life);
    return true;
  }

  /** The slot's present life is over: nothing more of it is taken but what others pass on. */
  freeze(slot: number, now: number): void {
    const { board, present, former } = this.context;
    const life = this.lives[slot];
    for (let object = 0; object < present.length; object++) {
      const ended = present[object][slot];
      present[object][slot] = former[object][slot];
      former[object][slot] = ended;
      present[object][slot].begin(false);
      ended.freeze(life.current);
    }
    this.end(slot, life.current, now);
    board.writeLife(slot, life);
  }

  /** Another member says that this life of the slot is over. `grew`: and has more of it than it said before. */
  hearFrozen(slot: number, incarnation: number, grew: boolean, now: number): void {
    const { former, board } = this.context;
    const life = this.lives[slot];
    if (grew) this.progressAt[slot] = now;
    if (incarnation === life.former) {
      if (!life.isClosed && this.tryClose(slot, now)) board.writeLife(slot, life);
      return;
    }
    if (life.isOver(incarnation)) return;
    // Of a life that we know nothing of but the end we take what is held; but first the one we know of is closed.
    if (life.current !== 0 && incarnation >= life.current) this.freeze(slot, now);
    if (life.current !== 0 || life.former === 0 || !life.isClosed) return;
    for (const channels of former) channels[slot].begin(true, incarnation);
    this.end(slot, incarnation, now);
    board.writeLife(slot, life);
  }

  /** We were passed on more of the slot's former life. */
  hearRepair(slot: number, now: number): void {
    this.progressAt[slot] = now;
  }

  /** What time brings: deaths declared by the table, patience that ends, lives nobody can lack anything of. */
  tick(now: number): void {
    const { self, members, board } = this.context;
    for (let slot = 0; slot < this.lives.length; slot++) {
      if (slot === self) continue;
      const life = this.lives[slot];
      if (life.current !== 0 && life.current <= members.dead(slot)) this.freeze(slot, now);
      if (life.former === 0) continue;
      if (!life.isClosed) {
        if (!this.tryClose(slot, now)) this.losePatience(slot, now);
      } else if (this.isRetired(slot, now)) this.retire(slot);
      else continue;
      board.writeLife(slot, life);
    }
  }

  /** Another member has the slot from now on. */
  forget(slot: number): void {
    const { present, former, board } = this.context;
    this.lives[slot].floats.fill(0);
    board.writeLife(slot, this.lives[slot]);
    for (const channels of present) channels[slot].begin(false);
    for (const channels of former) channels[slot].begin(true);
  }

  /** All from the board anew: it was filled with another member's knowledge. */
  reload(): void {
    const { board } = this.context;
    this.lives.forEach((life, slot) => {
      life.floats.fill(0);
      board.readLife(slot, life);
      this.progressAt[slot] = life.frozenAt;
    });
  }

  /** Everything of the slot's former life through this number is at every member that takes part. */
  formerSafeThrough(object: number, slot: number): number {
    const { self, members, peers } = this.context;
    const incarnation = this.lives[slot].former;
    let through = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < peers.length; member++) {
      if (member === self || member === slot || !members.isMember(member) || peers[member].incarnation === 0) continue;
      if (this.isElsewhere(object, member, slot)) continue;
      const known = this.theirs.incarnation === incarnation;
      through = Math.min(through, known ? this.theirs.contiguous : 0);
    }
    return through;
  }

  private end(slot: number, incarnation: number, now: number): void {
    const life = this.lives[slot];
    life.former = incarnation;
    if (life.pending === incarnation) life.pending = 0;
    life.isClosed = false;
    life.current = 0;
    life.frozenAt = now;
    this.progressAt[slot] = now;
    this.context.onEnd(slot, now);
  }

  /** Closes the slot's frozen life if all that are heard have the same of it. */
  private tryClose(slot: number, now: number): boolean {
    const { board } = this.context;
    for (let member = 0; member < board.members; member++) {
      if (!this.isWaitedFor(member, slot, now)) continue;
      for (let object = 0; object < board.objects; object++) if (!this.agrees(object, member, slot)) return false;
    }
    this.close(slot);
    return true;
  }

  private isWaitedFor(member: number, slot: number, now: number): boolean {
    const { self, members, peers, settings } = this.context;
    const peer = peers[member];
    if (member === self || member === slot || !members.isMember(member) || peer.incarnation === 0) return false;
    return now - peer.heardAt <= settings.silentMs && !peer.isJoining && peer.speaks >= FREEZING_VERSION;
  }

  private agrees(object: number, member: number, slot: number): boolean {
    if (this.isElsewhere(object, member, slot)) return true;
    const { theirs } = this;
    const ours = this.context.former[object][slot];
    if (theirs.incarnation !== this.lives[slot].former) return false;
    return ours.inOrder ? theirs.contiguous === ours.reception.contiguous : theirs.equals(ours.reception);
  }

  /**
   * Whether the member has nothing to say of the slot's former life: it speaks of another one by now, or never heard of any, as
   * one that has just started and could not be given what is safe at all others any more.
   */
  private isElsewhere(object: number, member: number, slot: number): boolean {
    const { board } = this.context;
    const { theirs } = this;
    const life = this.lives[slot];
    theirs.incarnation = 0;
    board.readVector(object, member, slot, theirs);
    const present = theirs.incarnation;
    theirs.clear();
    board.readFormerVector(object, member, slot, theirs);
    if (theirs.incarnation === life.former) return false;
    return theirs.incarnation > life.former || present === 0 || present > life.former || present === life.pending;
  }

  private close(slot: number): void {
    const { former } = this.context;
    const life = this.lives[slot];
    for (const channels of former) channels[slot].close();
    life.isClosed = true;
    if (life.pending > life.former) life.closedThrough = Math.max(life.closedThrough, life.former);
    else life.bar(life.former);
  }

  private losePatience(slot: number, now: number): void {
    const { settings, counts, onAlarm, members } = this.context;
    if (now - this.progressAt[slot] <= PATIENCE * settings.silentMs) return;
    this.close(slot);
    counts.add('state_lives_unrepaired', 1);
    onAlarm(
      `what ${members.name(slot)} sent before it died is not the same everywhere: ` +
        'some of it is held by no member any more; a snapshot repairs it',
      slot,
    );
  }

  /**
   * Whether every member, silent or not, speaks of the next life: it has closed this one. Not before: one that has not may
   * still have to hear from us what we have. One that has just started may have heard of the life before we heard of it.
   */
  private isRetired(slot: number, now: number): boolean {
    const { self, members, peers, board, settings } = this.context;
    const { theirs } = this;
    const life = this.lives[slot];
    if (life.current === 0 || now - this.progressAt[slot] <= settings.silentMs) return false;
    for (let member = 0; member < peers.length; member++) {
      if (member === self || member === slot || !members.isMember(member)) continue;
      if (this.lives[member].pending !== 0) return false;
      if (peers[member].incarnation === 0) continue;
      if (peers[member].isJoining || peers[member].speaks < FREEZING_VERSION) continue;
      for (let object = 0; object < board.objects; object++) {
        theirs.incarnation = 0;
        board.readVector(object, member, slot, theirs);
        if (theirs.incarnation !== life.current) return false;
      }
    }
    return true;
  }

  /** Speaks of the closed life no more, and lets go of what was kept of it. */
  private retire(slot: number): void {
    for (const channels of this.context.former) channels[slot].begin(true);
    this.lives[slot].former = 0;
  }
}
