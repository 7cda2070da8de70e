/**
 * How an incarnation of a member ends: it is frozen, repaired, closed, and only then followed by
 * the next one.
 *
 * | state   | entered when                                                        | accepted                     | left when |
 * | ------- | ------------------------------------------------------------------- | ---------------------------- | --------- |
 * | present | it is believed (incarnations.ts) and the one before it is closed           | everything                   | it is declared dead, a later incarnation of the slot is believed, or another member says that it has ended |
 * | frozen  | the present incarnation ends                                        | repairs from other members   | every heard member says that it is frozen there too, with the same units |
 * | closed  | all heard members agree; or the repair takes too long, which counts | repairs from other members   | another incarnation of the slot ends, or no member can lack any of its units |
 *
 * While an incarnation is frozen, each member passes on what another lacks (repair.ts). So all
 * members come to have what any of them had. The dead incarnation itself sends nothing more. So
 * what a member says of a frozen incarnation only grows, up to the union of all. For an in-order
 * object, the units beyond a gap that no member can fill are dropped, at every member alike.
 *
 * **Silent members** are not waited for, nor are members that we know from a donor's snapshot only.
 * The keepalives of the others name the closed incarnation until the silent member is known to have
 * all of it. When that member comes back, it gets what it lacks and passes on what only it has.
 *
 * The slot's next incarnation takes part like any other member, but is not waited for. It takes its
 * state from a donor. If a member has more of the slot's former incarnation than that donor had, or
 * knows of one that the donor did not, it passes that on.
 *
 * A member that was cut off for the whole of an incarnation hears only of its end. It takes it as
 * frozen with no units, and so gets what the others have of it. A member that never heard of any
 * incarnation of the slot ignores it.
 */

import type { AckBoard, PeerRecord } from '../../../shm/ack-board.js';
import { SlotIncarnations, VectorRecord } from '../../../shm/board-records.js';
import type { MemberTable } from '../../../shm/members.js';
import type { Counts } from '../metrics.js';
import type { ReplicationSettings } from '../settings.js';
import { FREEZING_VERSION } from '../wire/message.js';
import type { ReceiveChannel } from './receive-channel.js';

/**
 * A frozen incarnation without progress in its repair for this many silence limits is closed as it
 * is.
 */
const PATIENCE = 6;

interface ClosingContext {
  readonly settings: ReplicationSettings;
  readonly self: number;
  readonly board: AckBoard;
  readonly members: MemberTable;
  readonly peers: readonly PeerRecord[];
  readonly counts: Counts;
  /**
   * [object][member]: the channels of the present incarnation and of the former one. They are
   * swapped when an incarnation ends.
   */
  readonly present: ReceiveChannel[][];
  readonly former: ReceiveChannel[][];
  /** The slot's present incarnation has ended: what it said of other members is void. */
  readonly onFrozen: (slot: number) => void;
  /** The other members must hear soon that an incarnation has ended. */
  readonly onEnd: (now: number) => void;
  /** Called when an incarnation is closed although members lack units of it. */
  readonly onAlarm: (problem: string, member: number) => void;
}

export class Closing {
  /** Per slot. */
  readonly incarnationsBySlot: readonly SlotIncarnations[];
  /** An incarnation was being ended when a thread died: `finish` must be called. */
  isUnfinished: boolean;
  private readonly context: ClosingContext;
  /** Per slot: when the knowledge of its former incarnation last changed, in ms. */
  private readonly progressAt: Float64Array;
  private readonly theirs = new VectorRecord();
  /**
   * Per member: 0, or 1 + the slot of which it may lack units of an incarnation before the former
   * one.
   */
  private readonly leftBehind: Int32Array;

  constructor(context: ClosingContext) {
    this.context = context;
    this.incarnationsBySlot = context.peers.map((_, slot) => {
      const incarnations = new SlotIncarnations();
      context.board.readIncarnations(slot, incarnations);
      return incarnations;
    });
    this.progressAt = Float64Array.from(this.incarnationsBySlot, (incarnations) => incarnations.frozenAt);
    this.leftBehind = new Int32Array(this.incarnationsBySlot.length);
    this.isUnfinished = this.incarnationsBySlot.some((_, slot) => this.endingOf(slot) !== 0);
  }

  /**
   * An incarnation of the slot other than the present one is believed. Returns whether it is the
   * present one from now on.
   */
  begin(slot: number, incarnation: number, now: number): boolean {
    const incarnations = this.incarnationsBySlot[slot];
    if (incarnations.current !== 0) this.freeze(slot, now);
    if (incarnations.pending > incarnation && !this.passOver(slot, now)) return false;
    incarnations.pending = incarnation;
    return this.admit(slot, now);
  }

  /**
   * The pending incarnation has ended: one with a lower number is alive. Other members may have
   * units of the pending one, and say that it has ended. Returns false while the incarnation before
   * it is not closed.
   */
  private passOver(slot: number, now: number): boolean {
    const incarnations = this.incarnationsBySlot[slot];
    if (incarnations.former !== 0 && !incarnations.isClosed && !this.tryClose(slot, now)) return false;
    this.takeUp(slot, incarnations.pending, now);
    return true;
  }

  /** Takes an incarnation of which we know only the end as frozen, and accepts repairs for it. */
  private takeUp(slot: number, incarnation: number, now: number): void {
    if (this.endingOf(slot) === 0) this.leaveFormer(slot, now);
    for (const channels of this.context.former) channels[slot].begin(true, incarnation);
    this.end(slot, incarnation, now);
    this.context.board.writeIncarnations(slot, this.incarnationsBySlot[slot]);
  }

  /**
   * Replaces the slot's present incarnation at once. This instance has no state yet, so there is
   * nothing to close.
   */
  replace(slot: number, incarnation: number): void {
    const { present, onFrozen, board } = this.context;
    const incarnations = this.incarnationsBySlot[slot];
    if (incarnations.current !== 0) {
      for (const channels of present) channels[slot].begin(false);
      onFrozen(slot);
    }
    incarnations.current = incarnation;
    board.writeIncarnations(slot, incarnations);
  }

  /** Makes the pending incarnation the present one if the one before it is closed. */
  admit(slot: number, now: number): boolean {
    const incarnations = this.incarnationsBySlot[slot];
    if (incarnations.former !== 0 && !incarnations.isClosed && !this.tryClose(slot, now)) {
      this.context.board.writeIncarnations(slot, incarnations);
      return false;
    }
    incarnations.current = incarnations.pending;
    incarnations.pending = 0;
    this.context.board.writeIncarnations(slot, incarnations);
    return true;
  }

  /**
   * Ends the slot's present incarnation: from now on only repairs by other members are accepted.
   */
  freeze(slot: number, now: number): void {
    const { board, present, former } = this.context;
    const incarnations = this.incarnationsBySlot[slot];
    if (this.endingOf(slot) === 0) this.leaveFormer(slot, now);
    let torn = 0;
    for (let object = 0; object < present.length; object++) {
      if (former[object][slot].reception.incarnation === incarnations.current) {
        // A receive thread that died had already done this object.
        torn += former[object][slot].torn;
        present[object][slot].begin(false);
        continue;
      }
      const ended = present[object][slot];
      // Write the former cell before the present one is cleared: `finish` resumes from the former
      // cell.
      torn += ended.freeze(incarnations.current);
      present[object][slot] = former[object][slot];
      former[object][slot] = ended;
      present[object][slot].begin(false);
    }
    if (torn > 0) {
      // The main thread takes snapshots of the others to replace what was skipped.
      this.context.counts.add('state_rx_records_skipped', torn);
      this.giveUp(slot, 'it was sending this instance a coalesced backlog, of which only a part has come');
    }
    const { current } = incarnations;
    incarnations.current = 0;
    this.leftBehind[slot] = 0;
    this.end(slot, current, now);
    this.context.onFrozen(slot);
    board.writeIncarnations(slot, incarnations);
  }

  /**
   * Completes the ends of incarnations during which a receive thread died. Call it before anything
   * is received.
   */
  finish(now: number): void {
    for (let slot = 0; slot < this.incarnationsBySlot.length; slot++) {
      const incarnation = this.endingOf(slot);
      if (incarnation === 0) continue;
      if (incarnation === this.incarnationsBySlot[slot].current) this.freeze(slot, now);
      else this.takeUp(slot, incarnation, now);
    }
    this.isUnfinished = false;
  }

  /**
   * The incarnation of the slot that a receive thread was ending when it died; 0: none. The former
   * vectors on the board are already about that incarnation, and the slot's `SlotIncarnations` is
   * not yet.
   */
  private endingOf(slot: number): number {
    const incarnations = this.incarnationsBySlot[slot];
    for (const channels of this.context.former) {
      const { incarnation } = channels[slot].reception;
      if (incarnation !== 0 && incarnation !== incarnations.former) return incarnation;
    }
    return 0;
  }

  /**
   * Another member says that this incarnation of the slot has ended. `grew`: it has more units of
   * it than it said before.
   */
  hearFrozen(slot: number, incarnation: number, grew: boolean, now: number): void {
    const { board } = this.context;
    const incarnations = this.incarnationsBySlot[slot];
    if (grew) this.progressAt[slot] = now;
    if (incarnation === incarnations.former) {
      if (!incarnations.isClosed && this.tryClose(slot, now)) board.writeIncarnations(slot, incarnations);
      return;
    }
    // Never go back to an earlier incarnation: a member that still names one hears of the later one
    // from us.
    if (incarnations.isOver(incarnation) || incarnation < incarnations.former) return;
    if (
      incarnations.current === incarnation ||
      (incarnations.current < incarnation && incarnations.current !== 0 && !this.isAlive(slot, now))
    )
      this.freeze(slot, now);
    // The former incarnation that we know must be closed first.
    const known = incarnations.closedThrough > 0 || incarnations.barred > 0;
    if (incarnations.former === incarnation || (incarnations.former === 0 ? !known : !incarnations.isClosed)) return;
    this.takeUp(slot, incarnation, now);
  }

  /**
   * The slot's present incarnation answers us, so it has not ended, whatever other number is named
   * for the slot.
   */
  private isAlive(slot: number, now: number): boolean {
    const { peers, settings } = this.context;
    return peers[slot].hasAnswered && now - peers[slot].heardAt <= settings.silentMs;
  }

  /** A repair brought new units of the slot's former incarnation. */
  hearRepair(slot: number, now: number): void {
    this.progressAt[slot] = now;
  }

  /**
   * Freezes incarnations that the member table declares dead, closes frozen ones if members agree
   * or `PATIENCE` is over, and retires closed ones that no member can lack.
   */
  tick(now: number): void {
    const { members, board } = this.context;
    this.missBehind(now);
    for (let slot = 0; slot < this.incarnationsBySlot.length; slot++) {
      const incarnations = this.incarnationsBySlot[slot];
      if (incarnations.current !== 0 && incarnations.current <= members.dead(slot)) this.freeze(slot, now);
      if (incarnations.former === 0) continue;
      if (!incarnations.isClosed) {
        if (!this.tryClose(slot, now)) this.losePatience(slot, now);
      } else if (this.isRetired(slot, now)) this.retire(slot);
      else continue;
      board.writeIncarnations(slot, incarnations);
    }
  }

  /** The slot is given to another member. */
  forget(slot: number): void {
    const { present, former, board } = this.context;
    for (const channels of present) channels[slot].begin(false);
    for (const channels of former) channels[slot].begin(true);
    this.incarnationsBySlot[slot].floats.fill(0);
    this.leftBehind[slot] = 0;
    board.writeIncarnations(slot, this.incarnationsBySlot[slot]);
  }

  /** Reads everything from the board again: it was filled with a donor's knowledge. */
  reload(): void {
    const { board } = this.context;
    this.incarnationsBySlot.forEach((incarnations, slot) => {
      incarnations.floats.fill(0);
      board.readIncarnations(slot, incarnations);
      this.progressAt[slot] = incarnations.frozenAt;
    });
  }

  /**
   * Whether an incarnation of another member takes part, as we or the donor of our snapshot heard.
   * It is not known to have any units until we hear it.
   */
  takesPart(member: number): boolean {
    return this.context.members.isMember(member) && this.incarnationsBySlot[member].current !== 0;
  }

  /**
   * The number through which every member that takes part has all units of the slot's former
   * incarnation.
   */
  formerSafeThrough(object: number, slot: number): number {
    const { peers } = this.context;
    const incarnation = this.incarnationsBySlot[slot].former;
    let through = Number.MAX_SAFE_INTEGER;
    for (let member = 0; member < peers.length; member++) {
      if (!this.takesPart(member)) continue;
      if (peers[member].incarnation === 0) return 0;
      if (this.isElsewhere(object, member, slot)) continue;
      const known = this.theirs.incarnation === incarnation;
      through = Math.min(through, known ? this.theirs.contiguous : 0);
    }
    return through;
  }

  /**
   * Another incarnation of the slot has ended, so the former one is no longer repaired. Notes the
   * members that are not known to have the same units of it as we: they go on without them if they
   * are heard again. Call it before the former channels are reused.
   */
  private leaveFormer(slot: number, now: number): void {
    if (this.incarnationsBySlot[slot].former === 0) return;
    const { peers } = this.context;
    for (let member = 0; member < peers.length; member++) {
      if (member === slot || !this.takesPart(member)) continue;
      if (peers[member].incarnation !== 0 && (this.isMute(member) || this.isLevel(member, slot, now))) continue;
      this.leftBehind[member] = slot + 1;
    }
  }

  /**
   * Whether the member has what we have of the slot's former incarnation. Either it says so of the
   * ended incarnation, for every object. Or it names a later incarnation for some object, so it has
   * closed this one, and reports no difference. What it said of this one while it took it as the
   * present one proves nothing: it may have got more since. The exception is a joining member,
   * which gets nothing.
   */
  private isLevel(member: number, slot: number, now: number): boolean {
    const { board, peers, settings } = this.context;
    const { theirs } = this;
    const { former } = this.incarnationsBySlot[slot];
    const { isJoining } = peers[member];
    let agreed = 0;
    // A joining member takes a snapshot. It may instead begin without state (joining.ts) if it
    // still takes the former incarnation as the present one. A silent one may have done so.
    const isHeard = now - peers[member].heardAt <= settings.silentMs;
    let isPast = isJoining && isHeard && !this.mayBegin(member, slot);
    for (let object = 0; object < board.objects; object++) {
      if (this.differs(object, member, slot)) return false;
      if (theirs.incarnation > former) isPast = true;
      let agrees = theirs.incarnation === former;
      theirs.clear();
      board.readVector(object, member, slot, theirs);
      if (theirs.incarnation > former) isPast = true;
      if (isJoining && theirs.incarnation === former && this.isSame(object, slot)) agrees = true;
      if (agrees) agreed++;
    }
    return isPast || agreed === board.objects;
  }

  /**
   * Reports members that were left behind in a slot's former incarnation and are heard: they go on
   * without some of its units.
   */
  private missBehind(now: number): void {
    const { peers, settings } = this.context;
    for (let member = 0; member < peers.length; member++) {
      if (this.leftBehind[member] === 0 || now - peers[member].heardAt > settings.silentMs) continue;
      const slot = this.leftBehind[member] - 1;
      this.leftBehind[member] = 0;
      this.giveUp(slot, `${this.context.members.name(member)} was away while the next incarnation ended, too`);
    }
  }

  private end(slot: number, incarnation: number, now: number): void {
    const incarnations = this.incarnationsBySlot[slot];
    incarnations.former = incarnation;
    if (incarnations.pending === incarnation) incarnations.pending = 0;
    incarnations.isClosed = false;
    incarnations.frozenAt = now;
    this.progressAt[slot] = now;
    this.context.onEnd(now);
  }

  /** Closes the slot's frozen incarnation if all heard members have the same units of it. */
  private tryClose(slot: number, now: number): boolean {
    const { board } = this.context;
    // While a heard member speaks an earlier version, all members do, and none can say what it has.
    const mute = this.incarnationsBySlot.some((_, member) => this.isHeard(member, slot, now) && this.isMute(member));
    for (let member = 0; member < board.members && !mute; member++) {
      if (!this.isHeard(member, slot, now) || this.context.peers[member].isJoining) continue;
      for (let object = 0; object < board.objects; object++) if (!this.agrees(object, member, slot)) return false;
    }
    this.close(slot, now);
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
    return this.theirs.incarnation === this.incarnationsBySlot[slot].former && this.isSame(object, slot);
  }

  /**
   * Whether the member has nothing to say of the slot's former incarnation. It names a later one by
   * now. Or it never heard of any, as a member that has just started and for which units that all
   * others have are no longer kept.
   */
  private isElsewhere(object: number, member: number, slot: number): boolean {
    const { board } = this.context;
    const { theirs } = this;
    const incarnations = this.incarnationsBySlot[slot];
    theirs.incarnation = 0;
    board.readVector(object, member, slot, theirs);
    const present = theirs.incarnation;
    theirs.clear();
    board.readFormerVector(object, member, slot, theirs);
    if (theirs.incarnation === incarnations.former) return false;
    return (
      theirs.incarnation > incarnations.former ||
      present === 0 ||
      present > incarnations.former ||
      present === incarnations.pending
    );
  }

  private close(slot: number, now: number): void {
    const { former } = this.context;
    const incarnations = this.incarnationsBySlot[slot];
    for (const channels of former) channels[slot].close();
    incarnations.isClosed = true;
    this.progressAt[slot] = now;
    if (incarnations.pending > incarnations.former)
      incarnations.closedThrough = Math.max(incarnations.closedThrough, incarnations.former);
    else incarnations.bar(incarnations.former);
  }

  private losePatience(slot: number, now: number): void {
    const { settings } = this.context;
    if (now - this.progressAt[slot] <= PATIENCE * settings.silentMs) return;
    this.close(slot, now);
    this.giveUp(slot, 'a member that is heard lacks some of it, and nobody can give it that');
  }

  /**
   * Counts and reports that members go on without some units of an ended incarnation of the slot.
   */
  private giveUp(slot: number, because: string): void {
    const { counts, onAlarm, members } = this.context;
    counts.add('state_incarnations_unrepaired', 1);
    onAlarm(
      `what ${members.name(slot)} sent before it died is not the same everywhere: ${because}; a snapshot repairs it`,
      slot,
    );
  }

  /**
   * Whether no member can lack anything of the slot's former incarnation. This holds if every
   * member that takes part is heard now, and for `silentMs` each has named the next incarnation
   * and reported no difference in this one. In that time, a member that closed it alone hears from
   * the others.
   */
  private isRetired(slot: number, now: number): boolean {
    const { peers, settings } = this.context;
    const isSilent = peers.some(
      ({ incarnation, heardAt }, member) =>
        this.takesPart(member) && (incarnation === 0 || now - heardAt > settings.silentMs),
    );
    if (isSilent || this.incarnationsBySlot[slot].current === 0 || !this.isEverywhere(slot))
      this.progressAt[slot] = now;
    return now - this.progressAt[slot] > settings.silentMs;
  }

  private isEverywhere(slot: number): boolean {
    const { self, members, peers, board } = this.context;
    const { theirs } = this;
    const { current, former } = this.incarnationsBySlot[slot];
    for (let member = 0; member < peers.length; member++) {
      if (member === self || !members.isMember(member)) continue;
      if (member !== slot && this.incarnationsBySlot[member].pending !== 0) return false;
      if (peers[member].incarnation === 0 || this.isMute(member)) continue;
      for (let object = 0; object < board.objects; object++) {
        if (this.differs(object, member, slot)) return false;
        if (member === slot) {
          // Once it is ready, it hears of its former incarnation from us, and says what it has of
          // it.
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
   * Whether a joining member takes the slot's former incarnation as the present one. Delayed
   * messages of that incarnation may let the member begin without state together with it
   * (joining.ts). Then the member must be given what that incarnation had sent.
   */
  private mayBegin(member: number, slot: number): boolean {
    const { board } = this.context;
    const { theirs } = this;
    for (let object = 0; object < board.objects; object++) {
      theirs.incarnation = 0;
      board.readVector(object, member, slot, theirs);
      if (theirs.incarnation === this.incarnationsBySlot[slot].former) return true;
    }
    return false;
  }

  /** Whether the member said that it has other units of the slot's former incarnation than we. */
  private differs(object: number, member: number, slot: number): boolean {
    const { theirs } = this;
    theirs.clear();
    this.context.board.readFormerVector(object, member, slot, theirs);
    return theirs.incarnation === this.incarnationsBySlot[slot].former && !this.isSame(object, slot);
  }

  /** Whether `theirs`, as read, equals what we have of the slot's former incarnation. */
  private isSame(object: number, slot: number): boolean {
    const { theirs } = this;
    const { inOrder, reception } = this.context.former[object][slot];
    return inOrder ? theirs.contiguous === reception.contiguous : theirs.equals(reception);
  }

  /** Stops naming the closed incarnation, and clears what was kept of it. */
  private retire(slot: number): void {
    const incarnations = this.incarnationsBySlot[slot];
    // Another member may have closed it before we took our state from there.
    incarnations.bar(incarnations.former);
    for (const channels of this.context.former) channels[slot].begin(true);
    incarnations.former = 0;
  }
}
