/**
 * What must hold when an incarnation of a member ends and the next one follows: all that are heard
 * have the same of the one that ended (P13), and what its counters had reached is the base of the
 * next one's.
 */

import { LifeRecord, PeerRecord, VectorRecord } from '../../shm/board-records.js';
import type { Instance } from './instance.js';
import type { Plan } from './plan.js';
import { demand } from './violation.js';

/**
 * What members that have not ended since knew of the totals of a slot when its present incarnation
 * took them over.
 */
export class Succession {
  private readonly at: Instance;
  /** Per instance and object: count of each cell. */
  private readonly known = new Map<Instance, readonly (readonly number[])[]>();

  constructor(at: Instance, others: readonly Instance[]) {
    this.at = at;
    for (const other of others)
      this.known.set(
        other,
        other.subjects.map((subject) => subject.totalsOf(at.member, at.settings.slots)),
      );
  }

  /** Once all have come together: nothing was counted on top of less than that. */
  check(): void {
    const { at } = this;
    if (!at.up) return;
    for (const [object, subject] of at.subjects.entries())
      for (const [cell, total] of subject.totalsOf(at.member, at.settings.slots).entries()) {
        const counted = at.life.issued[object].cells.get(cell) ?? 0;
        for (const [other, known] of this.known)
          demand(
            !other.up || total >= known[object][cell] + counted,
            'equal-to-model',
            () =>
              `${at.name}, object ${object}, cell ${cell}: counts ${total}; ${other.name} knew of ${known[object][cell]} by former lives, and ${counted} were counted since`,
          );
      }
  }
}

/** Which incarnation of each slot each instance had closed when it was last looked at. */
export class Closings {
  private readonly closed = new Map<Instance, Float64Array>();
  /**
   * The start of each instance that has been ready: what its snapshot took for closed, its donor
   * closed.
   */
  private readonly started = new Map<Instance, number>();
  private readonly life = new LifeRecord();
  private readonly theirLife = new LifeRecord();
  private readonly peer = new PeerRecord();
  private readonly ours = new VectorRecord();
  private readonly theirs = new VectorRecord();
  private readonly isNeeded: boolean;

  constructor({ steps }: Plan) {
    this.isNeeded = steps.some(({ do: what }) => what === 'crash' || what === 'evict' || what === 'leave');
  }

  /**
   * Demands, of each incarnation that was closed since the last look, that it is the same at all
   * members that are heard. `isReported`: whether an alarm said of the slot that it is not.
   */
  look(at: Instance, others: readonly Instance[], isReported: (slot: number) => boolean): void {
    if (!this.isNeeded) return;
    const { life } = this;
    const closed = this.closed.get(at) ?? new Float64Array(at.board.members);
    this.closed.set(at, closed);
    const isChecked = at.entry.isReady && this.started.get(at) === at.life.incarnation;
    if (at.entry.isReady) this.started.set(at, at.life.incarnation);
    for (let slot = 0; slot < closed.length; slot++) {
      if (slot === at.member) continue;
      at.board.readLife(slot, life);
      if (!life.isClosed || life.former === closed[slot]) continue;
      closed[slot] = life.former;
      if (life.former === 0 || !isChecked || at.isCondemned || isReported(slot)) continue;
      // One that is declared dead is not waited for.
      const living = others.filter(
        (one) => one !== at && one.member !== slot && one.up && one.entry.isReady && !one.isCondemned,
      );
      // One that is not heard may have passed on what it has to some that are; so may one that has
      // died meanwhile.
      if (!living.every((other) => this.hears(at, other)) || this.hasOneDiedSince(at, slot)) continue;
      for (const other of living) this.compare(at, other, slot);
    }
  }

  /** Whether an incarnation of another slot has ended since that of `slot`, which is in `life`. */
  private hasOneDiedSince(at: Instance, slot: number): boolean {
    const { life, theirLife } = this;
    for (let other = 0; other < at.board.members; other++) {
      if (other === slot) continue;
      at.board.readLife(other, theirLife);
      if (theirLife.former !== 0 && theirLife.frozenAt >= life.frozenAt) return true;
    }
    return false;
  }

  private hears(at: Instance, other: Instance): boolean {
    const { peer } = this;
    at.board.readPeer(other.member, peer);
    if (peer.incarnation !== other.life.incarnation || peer.isJoining) return false;
    return at.localMs - peer.heardAt <= at.settings.silentMs;
  }

  /**
   * Whether `at` knows that the member has nothing to say of the incarnation at present: it has
   * just started, or has closed the incarnation while `at` was joining or silent. What one of them
   * lacks is passed on to it later.
   */
  private isElsewhere(at: Instance, object: number, member: number, slot: number): boolean {
    const { theirs, life } = this;
    theirs.clear();
    at.board.readFormerVector(object, member, slot, theirs);
    if (theirs.incarnation === life.former) return false;
    theirs.clear();
    at.board.readVector(object, member, slot, theirs);
    return theirs.incarnation === 0 || theirs.incarnation > life.former;
  }

  private compare(at: Instance, other: Instance, slot: number): void {
    const { life, theirLife, ours, theirs } = this;
    other.board.readLife(slot, theirLife);
    if (theirLife.former !== life.former) return;
    for (let object = 0; object < at.board.objects; object++) {
      if (this.isElsewhere(at, object, other.member, slot)) continue;
      ours.clear();
      theirs.clear();
      at.board.readFormer(object, slot, ours);
      other.board.readFormer(object, slot, theirs);
      const isInOrder = at.subjects[object].receive.delivery === 'in-order';
      demand(
        isInOrder
          ? ours.contiguous === theirs.contiguous
          : ours.equals(theirs) || (hasNothing(ours) && hasNothing(theirs)),
        'ended-alike',
        () =>
          `${at.name}, object ${object}: closes an incarnation of member ${slot} with ${ours.contiguous} (${ours.ranges} ranges); ${other.name} has ${theirs.contiguous} (${theirs.ranges})`,
      );
    }
  }
}

function hasNothing({ contiguous, ranges }: VectorRecord): boolean {
  return contiguous === 0 && ranges === 0;
}
