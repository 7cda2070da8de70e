/**
 * How a life of a member ends: frozen, repaired, closed, and only then followed by the next.
 *
 * | life is…  | because                                               | what is taken of it      | it ends when                          |
 * | --------- | ----------------------------------------------------- | ------------------------ | ------------------------------------- |
 * | present   | it is believed (lives.ts) and the one before is closed | everything               | it is declared dead, a later life of the member is believed, or another member says it is over |
 * | frozen    | then                                                  | what others pass on      | every member that is heard says it is frozen there too, with the same units |
 * | closed    | then; or, counted, when that took too long            | what others pass on      | another life of the member ends, or nobody can lack anything of it any more |
 *
 * While frozen, each member passes on what another lacks (repair.ts), so all come to have what any
 * had. Nothing comes from the dead life itself any more, so what a member says of a frozen life
 * only grows, and grows to that. In order, what lies beyond a hole that nobody can fill is dropped,
 * everywhere alike.
 *
 * **Who was silent** meanwhile is not waited for. It keeps hearing of the closed life in the
 * others' keepalives until it is known to have all of it, and gets what it lacks, or gives what
 * only it has, when it comes back.
 *
 * The slot's next life is in this a member as others are, though not waited for: who had more of
 * its former life than the donor of its snapshot, or knew of one that the donor did not, passes
 * that on to it.
 *
 * A member that was cut off for the whole of a life hears of it only by its end: it takes it for
 * frozen, with nothing of it, and so gets what others hold for it. One that never heard of any life
 * of the slot has nothing to do with it.
 */

import type { AckBoard, PeerRecord } from '../../shm/ack-board.js';
import { LifeRecord, VectorRecord } from '../../shm/board-records.js';
import type { MemberTable } from '../../shm/members.js';
import { FREEZING_VERSION } from './message.js';
import type { Counts } from './metrics.js';
import type { ReceiveChannel } from './receive-channel.js';
import type { ReplicationSettings } from './settings.js';

/**
 * A frozen life that is repaired no further for so many times the silence limit is closed as it is.
 */
const PATIENCE = 6;

export interface ClosingContext {
  readonly settings: ReplicationSettings;
  readonly self: number;
  readonly board: AckBoard;
  readonly members: MemberTable;
  readonly peers: readonly PeerRecord[];
  readonly counts: Counts;
  /**
   * [object][member]: the intake of the present life, and of the former one; they change places
   * when a life ends.
   */
  readonly present: ReceiveChannel[][];
  readonly former: ReceiveChannel[][];
  /** The slot's present life is over: what it said of others is worth nothing. */
  readonly onFrozen: (slot: number) => void;
  /** The others must hear soon of a life that is over. */
  readonly onEnd: (now: number) => void;
  /** Told of a life that was closed though members lack units of it. */
  readonly onAlarm: (problem: string, member: number) => void;
}

export class Closing {
  /** Per slot. */
  readonly lives: readonly LifeRecord[];
  /** `finish` is to be called. */
  isUnfinished: boolean;
  private readonly context: ClosingContext;
  /** Per slot: when something about its former life last changed. */
  private readonly progressAt: Float64Array;
  private readonly theirs = new VectorRecord();
  /** Per member: 0, or one more than the slot of whose last life but one it may lack something. */
  private readonly leftBehind: Int32Array;

  constructor(context: ClosingContext) {
    this.context = context;
    this.lives = context.peers.map((_, slot) => {
      const life = new LifeRecord();
      context.board.readLife(slot, life);
      return life;
    });
    this.progressAt = Float64Array.from(this.lives, (life) => life.frozenAt);
    this.leftBehind = new Int32Array(this.lives.length);
    this.isUnfinished = this.lives.some((_, slot) => this.endingOf(slot) !== 0);
  }

  /**
   * A life of the slot is believed that is not the present one. Returns whether it is the present
   * one from now on.
   */
  begin(slot: number, incarnation: number, now: number): boolean {
    const life = this.lives[slot];
    if (life.current !== 0) this.freeze(slot, now);
    if (life.pending > incarnation && !this.passOver(slot, now)) return false;
    life.pending = incarnation;
    return this.admit(slot, now);
  }

  /**
   * The incarnation that waits has ended: one with a lower number is alive. Others may have units
   * of it, and say that it ended. Returns false while the one before it is not closed.
   */
  private passOver(slot: number, now: number): boolean {
    const life = this.lives[slot];
    if (life.former !== 0 && !life.isClosed && !this.tryClose(slot, now)) return false;
    this.takeUp(slot, life.pending, now);
    return true;
  }

  /** An incarnation of which we know nothing but the end: we take what others hold of it. */
  private takeUp(slot: number, incarnation: number, now: number): void {
    if (this.endingOf(slot) === 0) this.leaveFormer(slot);
    for (const channels of this.context.former) channels[slot].begin(true, incarnation);
    this.end(slot, incarnation, now);
    this.context.board.writeLife(slot, this.lives[slot]);
  }

  /**
   * Without state of our own there is nothing to close: another life of the slot follows at once.
   */
  replace(slot: number, incarnation: number): void {
    const { present, onFrozen, board } = this.context;
    const life = this.lives[slot];
    if (life.current !== 0) {
      for (const channels of present) channels[slot].begin(false);
      onFrozen(slot);
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
    if (this.endingOf(slot) === 0) this.leaveFormer(slot);
    let torn = 0;
    for (let object = 0; object < present.length; object++) {
      if (former[object][slot].reception.incarnation === life.current) {
        // A receive thread that died had come so far.
        torn += former[object][slot].torn;
        present[object][slot].begin(false);
        continue;
      }
      const ended = present[object][slot];
      // The former cell is written before the present one is cleared: `finish` goes on from there.
      torn += ended.freeze(life.current);
      present[object][slot] = former[object][slot];
      former[object][slot] = ended;
      present[object][slot].begin(false);
    }
    if (torn > 0) {
      // Main takes snapshots of the others for what was skipped.
      this.context.counts.add('state_rx_records_skipped', torn);
      this.giveUp(slot, 'it was sending this instance a coalesced backlog, of which only a part has come');
    }
    const { current } = life;
    life.current = 0;
    this.leftBehind[slot] = 0;
    this.end(slot, current, now);
    this.context.onFrozen(slot);
    board.writeLife(slot, life);
  }

  /**
   * Ends the incarnations that a receive thread was ending when it died. Before anything is
   * received.
   */
  finish(now: number): void {
    for (let slot = 0; slot < this.lives.length; slot++) {
      const incarnation = this.endingOf(slot);
      if (incarnation === 0) continue;
      if (incarnation === this.lives[slot].current) this.freeze(slot, now);
      else this.takeUp(slot, incarnation, now);
    }
    this.isUnfinished = false;
  }

  /**
   * The incarnation of the slot that a receive thread was ending when it died: the vectors of the
   * former incarnation on the board are about it, and the record of the slot is not. 0: there is
   * none.
   */
  private endingOf(slot: number): number {
    const life = this.lives[slot];
    for (const channels of this.context.former) {
      const { incarnation } = channels[slot].reception;
      if (incarnation !== 0 && incarnation !== life.former) return incarnation;
    }
    return 0;
  }

  /**
   * Another member says that this life of the slot is over. `grew`: and has more of it than it said
   * before.
   */
  hearFrozen(slot: number, incarnation: number, grew: boolean, now: number): void {
    const { board } = this.context;
    const life = this.lives[slot];
    if (grew) this.progressAt[slot] = now;
    if (incarnation === life.former) {
      if (!life.isClosed && this.tryClose(slot, now)) board.writeLife(slot, life);
      return;
    }
    // Never back to an earlier one: who still speaks of it hears of the later one from us.
    if (life.isOver(incarnation) || incarnation < life.former) return;
    if (life.current === incarnation || (life.current < incarnation && life.current !== 0 && !this.isAlive(slot, now)))
      this.freeze(slot, now);
    // First the one we know of is closed.
    const known = life.closedThrough > 0 || life.barred > 0;
    if (life.former === incarnation || (life.former === 0 ? !known : !life.isClosed)) return;
    this.takeUp(slot, incarnation, now);
  }

  /**
   * The present incarnation of the slot answers us: it has not ended, whatever number of the slot
   * has.
   */
  private isAlive(slot: number, now: number): boolean {
    const { peers, settings } = this.context;
    return peers[slot].hasAnswered && now - peers[slot].heardAt <= settings.silentMs;
  }

  /** We were passed on more of the slot's former life. */
  hearRepair(slot: number, now: number): void {
    this.progressAt[slot] = now;
  }

  /**
   * What time brings: deaths declared by the table, patience that ends, lives nobody can lack
   * anything of.
   */
  tick(now: number): void {
    const { members, board } = this.context;
    this.missBehind(now);
    for (let slot = 0; slot < this.lives.length; slot++) {
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
    for (const channels of present) channels[slot].begin(false);
    for (const channels of former) channels[slot].begin(true);
    this.lives[slot].floats.fill(0);
    this.leftBehind[slot] = 0;
    board.writeLife(slot, this.lives[slot]);
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

  /**
   * Everything of the slot's former life through this number is at every member that takes part.
   */
  formerSafeThrough(object: number, slot: number): number {
    const { self, members, peers } = this.context;
    const incarnation = this.lives[slot].former;
    let through = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < peers.length; member++) {
      if (member === self || !members.isMember(member) || peers[member].incarnation === 0) continue;
      if (this.isElsewhere(object, member, slot)) continue;
      const known = this.theirs.incarnation === incarnation;
      through = Math.min(through, known ? this.theirs.contiguous : 0);
    }
    return through;
  }

  /**
   * Another life of the slot is over, and of the former one we speak no more: who is not known to
   * have the same of it as we goes without, if it is ever heard again. Before the former one's
   * channels are taken for the other.
   */
  private leaveFormer(slot: number): void {
    if (this.lives[slot].former === 0) return;
    const { self, members, peers } = this.context;
    for (let member = 0; member < peers.length; member++) {
      if (member === self || member === slot || !members.isMember(member)) continue;
      if (peers[member].incarnation === 0 || this.isMute(member) || this.isLevel(member, slot)) continue;
      this.leftBehind[member] = slot + 1;
    }
  }

  /**
   * Whether the member has what we have of the slot's former life: it says so on every object,
   * whether or not it takes that life for over; or it speaks of a later one on any, and so has
   * closed this one, and says nothing else.
   */
  private isLevel(member: number, slot: number): boolean {
    const { board, peers } = this.context;
    const { theirs } = this;
    const { former } = this.lives[slot];
    let agreed = 0;
    // One that is joining takes a snapshot, unless it still takes the former incarnation for the
    // present one: it may yet begin without state (joining.ts).
    let isPast = peers[member].isJoining && !this.mayBegin(member, slot);
    for (let object = 0; object < board.objects; object++) {
      if (this.differs(object, member, slot)) return false;
      if (theirs.incarnation > former) isPast = true;
      let agrees = theirs.incarnation === former;
      theirs.clear();
      board.readVector(object, member, slot, theirs);
      if (theirs.incarnation > former) isPast = true;
      if (theirs.incarnation === former && this.isSame(object, slot)) agrees = true;
      if (agrees) agreed++;
    }
    return isPast || agreed === board.objects;
  }

  /**
   * Who was left behind in a slot's former life, and is heard again, or still: it goes on without
   * something of it.
   */
  private missBehind(now: number): void {
    const { peers, settings } = this.context;
    for (let member = 0; member < peers.length; member++) {
      if (this.leftBehind[member] === 0 || now - peers[member].heardAt > settings.silentMs) continue;
      const slot = this.leftBehind[member] - 1;
      this.leftBehind[member] = 0;
      this.giveUp(slot, `${this.context.members.name(member)} was away while the next life ended, too`);
    }
  }

  private end(slot: number, incarnation: number, now: number): void {
    const life = this.lives[slot];
    life.former = incarnation;
    if (life.pending === incarnation) life.pending = 0;
    life.isClosed = false;
    life.frozenAt = now;
    this.progressAt[slot] = now;
    this.context.onEnd(now);
  }

  /** Closes the slot's frozen life if all that are heard have the same of it. */
  private tryClose(slot: number, now: number): boolean {
    const { board } = this.context;
    // While a member that is heard speaks an earlier version, all do, and nobody can say what it
    // has.
    const mute = this.lives.some((_, member) => this.isHeard(member, slot, now) && this.isMute(member));
    for (let member = 0; member < board.members && !mute; member++) {
      if (!this.isHeard(member, slot, now) || this.context.peers[member].isJoining) continue;
      for (let object = 0; object < board.objects; object++) if (!this.agrees(object, member, slot)) return false;
    }
    this.close(slot);
    return true;
  }

  private isHeard(member: number, slot: number, now: number): boolean {
    const { self, members, peers, settings } = this.context;
    const peer = peers[member];
    if (member === self || member === slot || !members.isMember(member) || peer.incarnation === 0) return false;
    return now - peer.heardAt <= settings.silentMs;
  }

  private isMute(member: number): boolean {
    return this.context.peers[member].speaks < FREEZING_VERSION;
  }

  private agrees(object: number, member: number, slot: number): boolean {
    if (this.isElsewhere(object, member, slot)) return true;
    return this.theirs.incarnation === this.lives[slot].former && this.isSame(object, slot);
  }

  /**
   * Whether the member has nothing to say of the slot's former life: it speaks of another one by
   * now, or never heard of any, as one that has just started and could not be given what is safe at
   * all others any more.
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
    const { settings } = this.context;
    if (now - this.progressAt[slot] <= PATIENCE * settings.silentMs) return;
    this.close(slot);
    this.giveUp(slot, 'a member that is heard lacks some of it, and nobody can give it that');
  }

  /** Members will go on without something of a life of the slot that is over. */
  private giveUp(slot: number, because: string): void {
    const { counts, onAlarm, members } = this.context;
    counts.add('state_lives_unrepaired', 1);
    onAlarm(
      `what ${members.name(slot)} sent before it died is not the same everywhere: ${because}; a snapshot repairs it`,
      slot,
    );
  }

  /**
   * Whether every member that was ever heard, is heard, and has for some keepalives now spoken of
   * the next life and of nothing of this one that we have not: then nobody can lack anything of it.
   * Who closed it alone hears from the others in that time.
   */
  private isRetired(slot: number, now: number): boolean {
    const { peers, settings } = this.context;
    const isSilent = peers.some(({ incarnation, heardAt }) => incarnation !== 0 && now - heardAt > settings.silentMs);
    if (isSilent || this.lives[slot].current === 0 || !this.isEverywhere(slot)) this.progressAt[slot] = now;
    return now - this.progressAt[slot] > settings.silentMs;
  }

  private isEverywhere(slot: number): boolean {
    const { self, members, peers, board } = this.context;
    const { theirs } = this;
    const { current, former } = this.lives[slot];
    for (let member = 0; member < peers.length; member++) {
      if (member === self || !members.isMember(member)) continue;
      if (member !== slot && this.lives[member].pending !== 0) return false;
      if (peers[member].incarnation === 0 || this.isMute(member)) continue;
      for (let object = 0; object < board.objects; object++) {
        if (this.differs(object, member, slot)) return false;
        if (member === slot) {
          // From then on it hears of its former incarnation from us, and says what it has of it.
          if (peers[member].isJoining) return false;
          continue;
        }
        theirs.incarnation = 0;
        board.readVector(object, member, slot, theirs);
        if (theirs.incarnation <= former && theirs.incarnation !== current) return false;
      }
    }
    return true;
  }

  /**
   * Whether a member that is joining takes the slot's former incarnation for the present one. It
   * may begin without state together with it, by messages that were long under way (joining.ts);
   * then it is to be given what that incarnation had sent.
   */
  private mayBegin(member: number, slot: number): boolean {
    const { board } = this.context;
    const { theirs } = this;
    for (let object = 0; object < board.objects; object++) {
      theirs.incarnation = 0;
      board.readVector(object, member, slot, theirs);
      if (theirs.incarnation === this.lives[slot].former) return true;
    }
    return false;
  }

  /** Whether the member said that it has other units of the slot's former life than we. */
  private differs(object: number, member: number, slot: number): boolean {
    const { theirs } = this;
    theirs.clear();
    this.context.board.readFormerVector(object, member, slot, theirs);
    return theirs.incarnation === this.lives[slot].former && !this.isSame(object, slot);
  }

  /** Whether what was read is what we have of the slot's former life. */
  private isSame(object: number, slot: number): boolean {
    const { theirs } = this;
    const { inOrder, reception } = this.context.former[object][slot];
    return inOrder ? theirs.contiguous === reception.contiguous : theirs.equals(reception);
  }

  /** Speaks of the closed life no more, and lets go of what was kept of it. */
  private retire(slot: number): void {
    const life = this.lives[slot];
    // It may have been closed elsewhere, before our state was taken from there.
    life.bar(life.former);
    for (const channels of this.context.former) channels[slot].begin(true);
    life.former = 0;
  }
}
