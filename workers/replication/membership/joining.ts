/**
 * How an instance joins the cluster and leaves it: a state machine that reads the board and the
 * member table. It publishes what the instance is (`PeerFlag` bits on the board) and says what must
 * be done next. The main thread drives it and fetches the snapshots.
 *
 *                alone, or all begin together, or no ready member is heard for joinWaitMs (and `hold` is not set)
 *     LISTENING ───────────────────────────────────────────────────────────────────────────▶ READY ── leave() ──▶ LEAVING ──▶ LEFT
 *        │  ▲                                                                                  ▲      all have all of ours,
 *        │  └─────────────────── it fails, or is refused ──────────────┐                       │      and retain nothing for us
 *        └── all ready and heard members retain their units for us ─▶ ASKING ── snapshotTaken ─┘
 *
 * **Listening.** The instance announces that it is joining, and applies no units. Each member that
 * hears this retains for it all units that it still has and all later ones, and says so
 * (`RETAINS`). Units that the member pruned before were at every member by then, so every snapshot
 * taken later contains them. So the snapshot and the units together are complete, whichever member
 * is the donor.
 *
 * **A donor** is ready and heard. The nearest is asked first. If one fails, the next is asked, and
 * each again after a back-off, without end. A member that another member has detached, or that is
 * still receiving a backlog, cannot be a donor: its snapshot does not match the units retained for
 * us. A donor that still has to take the state of others is refused before its snapshot is
 * transferred, unless no other donor is left to ask (`refusesDonor`). A snapshot that leaves a gap
 * before what a member can still send is refused before it is loaded (`refuses`).
 *
 * **Beginning together** without state needs proof that no member has any. A message that only says
 * JOINING may be a recording, or long delayed, while its sender has had state for long. So two
 * things are required of every other member, in messages of its JOINING incarnation. It must have
 * said that it hears *this* incarnation of ours, which makes the message later than our start. And
 * it must have named, for each other member, the incarnation that we hear.
 *
 * Suppose that a member Z has begun without us, together with a member Y that has since restarted.
 * Z was READY before it heard Y's new incarnation, so it never said JOINING and that incarnation
 * together. If we hear the new one, we therefore ask for a snapshot. If we still hear the old one,
 * we may begin with it. Then the others still keep what it had sent (closing.ts, `mayBegin`).
 *
 * **What prevents a start without state** (`hold`): members that answer and are not compatible may
 * have state. An operator must decide which side is right. If more than half of all members, this
 * one included, are heard, the start goes on: one wrongly configured member does not stop the
 * others.
 *
 * **A member that cannot be heard** is not waited for. When it comes back from a partition, it
 * sends what it has for us.
 */

import { type AckBoard, PeerFlag, PeerRecord, VectorRecord } from '../../../shm/ack-board.js';
import { VECTOR_RETAINS } from '../../../shm/board-records.js';
import { type MemberTable, Role } from '../../../shm/members.js';
import { type ReplicationSettings, selfIndex } from '../settings.js';
import { FREEZING_VERSION } from '../wire/message.js';

type JoiningState = 'listening' | 'asking' | 'ready' | 'leaving' | 'left';

/** What a snapshot has of one origin's present incarnation. */
interface SnapshotVector {
  readonly incarnation: number;
  readonly contiguous: number;
}

/**
 * The back-off before a donor that failed is asked again. It doubles with each failure in a row, up
 * to the maximum.
 */
const BACK_OFF_MS_MIN = 250;
const BACK_OFF_MS_MAX = 10_000;

export class Joining {
  state: JoiningState = 'listening';
  /** Why the instance is not ready, or has not left, yet; for operators. */
  reason = 'listens for the others';
  /**
   * Why the instance must not begin without state although no member with state is heard, for
   * operators; null: it may. Set by the main thread.
   */
  block: string | null = null;
  /**
   * The main thread decides before the instance begins without a member's state: it, or another
   * member, may have a state file. Then `wantsToBegin` says why the instance would begin now, and
   * `begin` does it.
   */
  asksFirst = false;
  wantsToBegin: string | null = null;
  /** Whether it would begin because all other members are heard and begin as well. */
  isTogether = false;
  /** The instance began without any state. */
  hasBegunEmpty = false;
  /**
   * Slots of members that may have state that the instance lacks and that no member sends again
   * (unmet.ts). Either they were not heard, or were evicted, when it began without a member's
   * state; or the donor of its snapshot lacks their state.
   */
  unmet: readonly number[] = [];
  /** What the main thread's decision waits for, for operators. */
  waitsFor: string | null = null;
  private alone = false;
  private readonly settings: ReplicationSettings;
  private readonly board: AckBoard;
  private readonly members: MemberTable;
  private readonly self: number;
  private readonly startedAt: number;
  private donor = -1;
  private failures = 0;
  /** Per slot: the time before which it is not asked for a snapshot, in ms. */
  private readonly notBefore: Float64Array;
  /** Slots of donors that still have to take the state of others. */
  private readonly lacking = new Set<number>();
  /**
   * [object * slots + slot]: the incarnation and the floor of each origin, as last read before a
   * snapshot is loaded.
   */
  private readonly incarnationsAt: Float64Array;
  private readonly floors: Float64Array;
  private readonly peers: readonly PeerRecord[];
  private readonly vector = new VectorRecord();

  /** `now`: `monotonicMs()`, in all methods. Until the first `poll` the instance is joining. */
  constructor(settings: ReplicationSettings, board: AckBoard, members: MemberTable, now: number) {
    this.settings = settings;
    this.board = board;
    this.members = members;
    this.self = selfIndex(settings);
    this.startedAt = now;
    this.notBefore = new Float64Array(settings.slots);
    this.incarnationsAt = new Float64Array(board.objects * settings.slots);
    this.floors = new Float64Array(board.objects * settings.slots);
    this.peers = Array.from({ length: settings.slots }, () => new PeerRecord());
    board.setStatus(PeerFlag.JOINING);
  }

  /** Evaluates the board and the member table; called several times a second. */
  poll(now: number): void {
    if (this.state === 'ready' || this.state === 'left') return;
    this.look();
    this.wantsToBegin = null;
    if (this.state === 'leaving') this.goOnLeaving(now);
    else if (this.state === 'listening') this.listen(now);
    else this.noteFloors(now);
  }

  /**
   * An incarnation of our slot that members know and that is later than ours, for example after a
   * clock was set back; 0: none. The members take ours as an earlier one, so the main thread must
   * raise ours above it.
   */
  get outrunBy(): number {
    return this.state === 'listening' ? this.board.outrun : 0;
  }

  /** The slot of the member whose snapshot must be fetched now; null: none. */
  get wantsSnapshotFrom(): number | null {
    return this.state === 'asking' ? this.donor : null;
  }

  /**
   * Why a snapshot with these vectors, [object][slot], cannot be used; null: it can. Call it
   * before the snapshot is loaded.
   */
  refuses(present: readonly (readonly SnapshotVector[])[]): string | null {
    const { slots } = this.settings;
    for (let object = 0; object < this.board.objects; object++)
      for (let slot = 0; slot < slots; slot++) {
        const place = object * slots + slot;
        const floor = this.floors[place];
        // A slot that no longer takes part sends nothing: repairs bring what is missing of it.
        if (!this.isOther(slot)) continue;
        const { incarnation, contiguous } = present[object][slot];
        if (floor <= 1 || (incarnation > this.incarnationsAt[place] && incarnation !== 0)) continue;
        if (incarnation !== this.incarnationsAt[place] || contiguous + 1 < floor)
          return `it ends at number ${incarnation === this.incarnationsAt[place] ? contiguous : 0} of object ${object} of ${this.members.name(slot)}, which can send nothing before ${floor} any more`;
      }
    return null;
  }

  /**
   * Why the donor is refused, before its snapshot is transferred; null: it is not. `lacks`: slots
   * of members whose state the donor still has to join.
   *
   * Refuses a donor that began without state and has not yet joined the state of others, or of our
   * own former incarnation. What that one counted may be missing there, and counts added to too
   * small a total are lost. Such a donor is accepted only if every other heard donor is known to
   * have the same defect.
   */
  refusesDonor(lacks: readonly number[], now: number): string | null {
    const lacked = lacks.filter((slot) => this.members.isMember(slot)).map((slot) => this.members.name(slot));
    if (lacked.length === 0) return null;
    this.look();
    this.lacking.add(this.donor);
    for (let slot = 0; slot < this.settings.slots; slot++)
      if (this.isReady(slot, now) && !this.lacking.has(slot))
        return `it still has to take the state of ${lacked.join(', ')}; ${this.members.name(slot)} may have it`;
    return null;
  }

  /**
   * The snapshot is in the arena, its vectors are on the board, and the receive thread resumes from
   * there. `lacks`: slots of members whose state the donor still has to join.
   */
  snapshotTaken(lacks: readonly number[] = []): void {
    if (this.state !== 'asking') return;
    this.unmet = lacks.filter((slot) => slot !== this.self);
    this.enter('has the state of a member');
  }

  /** The fetch failed, or the snapshot was refused: another donor is asked. */
  snapshotFailed(why: string, now: number): void {
    if (this.state !== 'asking') return;
    const backOffMs = Math.min(BACK_OFF_MS_MIN * 2 ** Math.min(this.failures, 16), BACK_OFF_MS_MAX);
    this.notBefore[this.donor] = now + backOffMs;
    this.failures++;
    this.reason = `no snapshot from ${this.members.name(this.donor)}: ${why}`;
    this.donor = -1;
    this.state = 'listening';
  }

  /**
   * Lets the instance begin without state if no member with state is heard, without further
   * waiting.
   */
  beginAlone(): void {
    this.alone = true;
  }

  /** Begins to leave: no state may be changed from now on. Complete when `state` is `left`. */
  leave(): void {
    if (this.state === 'left') return;
    this.state = 'leaving';
    this.reason = 'is leaving';
    this.board.setStatus(PeerFlag.LEAVING);
  }

  private mayBegin(reason: string, isTogether = false): void {
    this.isTogether = isTogether;
    if (!this.asksFirst) this.enter(reason);
    else {
      this.wantsToBegin = reason;
      this.reason = this.waitsFor ?? reason;
    }
  }

  /** Whether the instance may begin without a member's state at this moment. */
  mayBeginNow(now: number): boolean {
    if (this.state !== 'listening') return false;
    this.poll(now);
    return this.wantsToBegin !== null;
  }

  /**
   * Begins, right after `mayBeginNow`, with what the main thread has put in place. `restored`
   * describes it; null: nothing.
   */
  begin(restored: string | null): void {
    if (this.wantsToBegin !== null) this.enter(restored ?? this.wantsToBegin);
    this.hasBegunEmpty = restored === null;
    this.wantsToBegin = null;
  }

  private enter(reason: string): void {
    this.state = 'ready';
    this.reason = reason;
    this.board.setStatus(0);
  }

  private look(): void {
    this.members.refresh();
    this.peers.forEach((peer, slot) => {
      peer.floats.fill(0);
      this.board.readPeer(slot, peer);
    });
  }

  private isOther(slot: number): boolean {
    return slot !== this.self && this.members.isMember(slot);
  }

  private isHeard(slot: number, now: number): boolean {
    const { incarnation, heardAt } = this.peers[slot];
    return incarnation !== 0 && now - heardAt <= this.settings.silentMs;
  }

  /** Whether the member has state and is heard. */
  private isReady(slot: number, now: number): boolean {
    return this.isOther(slot) && this.isHeard(slot, now) && !this.peers[slot].isJoining;
  }

  private listen(now: number): void {
    let others = 0;
    let ready = 0;
    let unheard = 0;
    const unmet: number[] = [];
    for (let slot = 0; slot < this.settings.slots; slot++) {
      if (this.members.role(slot) === Role.EVICTED) unmet.push(slot);
      if (!this.isOther(slot)) continue;
      others++;
      if (this.isReady(slot, now)) ready++;
      else if (!this.isHeard(slot, now)) {
        unheard++;
        unmet.push(slot);
      }
    }
    this.unmet = unmet;
    if (ready > 0) this.ask(now);
    else if (others === 0) this.mayBegin('began as the only member');
    else if (unheard === 0 && this.disagreeing() === -1) this.mayBegin('began together with the others', true);
    else if (this.alone) this.mayBegin('began without the others, as ordered');
    else if (now - this.startedAt < this.settings.joinWaitMs)
      this.reason =
        unheard > 0
          ? `listens for ${unheard} of ${others} members`
          : `waits until ${this.members.name(this.disagreeing())} answers, and has heard the same members`;
    else if (this.block !== null && 2 * (others - unheard + 1) <= others + 1) this.reason = this.block;
    else this.mayBegin('heard no member that has state');
  }

  /**
   * The slot of a member that has not yet said, while joining, that it hears this incarnation of
   * ours and, of each other member, the one that we hear; -1: all have. An incarnation never goes
   * back to JOINING, and what the board has of one came with its messages so far.
   */
  private disagreeing(): number {
    const { slots } = this.settings;
    for (let slot = 0; slot < slots; slot++)
      for (let other = 0; this.isOther(slot) && other < slots; other++) {
        if (other === slot || (other !== this.self && !this.isOther(other))) continue;
        const incarnation = other === this.self ? this.board.incarnation : this.peers[other].incarnation;
        if (!this.hears(slot, other, incarnation)) return slot;
      }
    return -1;
  }

  private hears(member: number, other: number, incarnation: number): boolean {
    const { board, vector } = this;
    for (let object = 0; object < board.objects; object++) {
      vector.incarnation = 0;
      board.readVector(object, member, other, vector);
      if (vector.incarnation === incarnation) return true;
    }
    return false;
  }

  /** Chooses a donor once all members with state retain their units for us. */
  private ask(now: number): void {
    this.noteFloors(now);
    for (let slot = 0; slot < this.settings.slots; slot++)
      if (this.isReady(slot, now) && !this.retainsForUs(slot)) {
        this.reason = `waits until ${this.members.name(slot)} holds its units for us`;
        return;
      }
    let nearest = -1;
    for (let slot = 0; slot < this.settings.slots; slot++) {
      if (!this.isReady(slot, now) || now < this.notBefore[slot] || this.isDetached(slot, now)) continue;
      if (nearest < 0 || this.distance(slot) < this.distance(nearest)) nearest = slot;
    }
    if (nearest < 0) return;
    this.donor = nearest;
    this.state = 'asking';
    this.reason = `takes a snapshot of ${this.members.name(nearest)}`;
  }

  private distance(slot: number): number {
    const { samples, average, isLeaving } = this.peers[slot];
    return (samples === 0 ? this.settings.silentMs : average) + (isLeaving ? 2 * this.settings.silentMs : 0);
  }

  private retainsForUs(slot: number): boolean {
    const { board, vector } = this;
    if (this.peers[slot].speaks < FREEZING_VERSION) return true; // it cannot say so
    for (let object = 0; object < board.objects; object++) {
      vector.clear();
      board.readVector(object, slot, this.self, vector);
      if (vector.incarnation !== board.incarnation || (vector.flags & VECTOR_RETAINS) === 0) return false;
      // We must also know the floor of what it retains.
      vector.clear();
      board.readReception(object, slot, vector);
      if (vector.incarnation !== this.peers[slot].incarnation || vector.floor === 0) return false;
    }
    return true;
  }

  /** Whether some member with state excludes this one from its units at present. */
  private isDetached(donor: number, now: number): boolean {
    const { board, vector } = this;
    for (let slot = 0; slot < this.settings.slots; slot++) {
      if (slot === donor || !this.isReady(slot, now)) continue;
      for (let object = 0; object < board.objects; object++) {
        vector.clear();
        board.readReception(object, slot, vector);
        if (vector.excludes(donor)) return true;
      }
    }
    return false;
  }

  private noteFloors(now: number): void {
    const { board, vector } = this;
    const { slots } = this.settings;
    for (let slot = 0; slot < slots; slot++) {
      if (!this.isReady(slot, now)) continue;
      for (let object = 0; object < board.objects; object++) {
        vector.clear();
        board.readReception(object, slot, vector);
        this.incarnationsAt[object * slots + slot] = vector.incarnation;
        this.floors[object * slots + slot] = vector.floor;
      }
    }
  }

  private goOnLeaving(now: number): void {
    for (let slot = 0; slot < this.settings.slots; slot++) {
      // A joining member may have taken its snapshot already, without our last units.
      if (this.isOther(slot) && this.isHeard(slot, now) && !this.isDoneWithUs(slot)) {
        this.reason = `waits until ${this.members.name(slot)} has everything of ours`;
        return;
      }
    }
    this.state = 'left';
    this.reason = 'has left';
  }

  private isDoneWithUs(slot: number): boolean {
    const { board, vector } = this;
    for (let object = 0; object < board.objects; object++) {
      vector.clear();
      board.readVector(object, slot, this.self, vector);
      if (vector.incarnation !== board.incarnation || vector.contiguous < board.numbered(object)) return false;
      if ((vector.flags & VECTOR_RETAINS) !== 0) return false;
    }
    return true;
  }
}
