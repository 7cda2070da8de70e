/**
 * Checks the end of an incarnation and the start of the next one. All members that are heard must
 * hold the same operations of the ended incarnation (P13 in ARCHITECTURE.md), and the next one's
 * counts must start from its totals.
 */

import { PeerRecord, SlotIncarnations, VectorRecord } from '../../shm/board-records.js';
import type { Instance } from './instance.js';
import type { Plan } from './plan.js';
import { demand } from './violation.js';

/**
 * What other members knew of a slot's totals when its present incarnation took them over. Members
 * that have ended since do not count.
 */
export class Succession {
  private readonly at: Instance;
  /** The count of each cell, per instance and object. */
  private readonly known = new Map<Instance, readonly (readonly number[])[]>();

  constructor(at: Instance, others: readonly Instance[]) {
    this.at = at;
    for (const other of others)
      this.known.set(
        other,
        other.subjects.map((subject) => subject.totalsOf(at.member, at.settings.slots)),
      );
  }

  /** After convergence, demands that the incarnation did not count from a smaller base. */
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

/** The incarnation of each slot that each instance had closed at the last look. */
export class Closings {
  private readonly closed = new Map<Instance, Float64Array>();
  /**
   * The incarnation of each instance that was ready at the last look. What is closed at its first
   * look was closed by the donor of its snapshot.
   */
  private readonly started = new Map<Instance, number>();
  private readonly life = new SlotIncarnations();
  private readonly theirIncarnations = new SlotIncarnations();
  private readonly peer = new PeerRecord();
  private readonly ours = new VectorRecord();
  private readonly theirs = new VectorRecord();
  private readonly isNeeded: boolean;

  constructor({ steps }: Plan) {
    this.isNeeded = steps.some(({ do: what }) => what === 'crash' || what === 'evict' || what === 'leave');
  }

  /**
   * Demands that each incarnation closed since the last look is the same at all members that are
   * heard. `isReported`: whether an alarm reported for the slot that it is not.
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
      at.board.readIncarnations(slot, life);
      if (!life.isClosed || life.former === closed[slot]) continue;
      closed[slot] = life.former;
      if (life.former === 0 || !isChecked || at.isCondemned || isReported(slot)) continue;
      // A member that is declared dead is not waited for.
      const living = others.filter(
        (one) => one !== at && one.member !== slot && one.up && one.entry.isReady && !one.isCondemned,
      );
      // A member that is not heard may have repaired only some of the others. So may a member that
      // has died meanwhile.
      if (!living.every((other) => this.hears(at, other)) || this.hasOneDiedSince(at, slot)) continue;
      // A member for which the next incarnation of the slot has ended, too, repairs this one no
      // more. It reports at its next tick which members lack some of it.
      if (living.some((other) => this.hasLaterFormer(other, slot))) continue;
      for (const other of living) this.compare(at, other, slot);
    }
  }

  /**
   * Whether an incarnation of another slot has ended since the one of `slot`, which is in `life`.
   */
  private hasOneDiedSince(at: Instance, slot: number): boolean {
    const { life, theirIncarnations } = this;
    for (let other = 0; other < at.board.members; other++) {
      if (other === slot) continue;
      at.board.readIncarnations(other, theirIncarnations);
      if (theirIncarnations.former !== 0 && theirIncarnations.frozenAt >= life.frozenAt) return true;
    }
    return false;
  }

  private hasLaterFormer(other: Instance, slot: number): boolean {
    other.board.readIncarnations(slot, this.theirIncarnations);
    return this.theirIncarnations.former > this.life.former;
  }

  private hears(at: Instance, other: Instance): boolean {
    const { peer } = this;
    at.board.readPeer(other.member, peer);
    if (peer.incarnation !== other.life.incarnation || peer.isJoining) return false;
    return at.localMs - peer.heardAt <= at.settings.silentMs;
  }

  /**
   * Whether `at` knows that the member reports nothing about the incarnation now: it has just
   * started, or it closed the incarnation while `at` was joining or silent. What one of them lacks
   * is repaired later.
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
    const { life, theirIncarnations, ours, theirs } = this;
    other.board.readIncarnations(slot, theirIncarnations);
    if (theirIncarnations.former !== life.former) return;
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
