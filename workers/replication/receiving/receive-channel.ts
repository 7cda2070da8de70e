/**
 * The receiving side of one channel for one incarnation of another member: which units we have, and
 * how they are applied.
 *
 * A unit is applied whole, and is known from then on. So it is applied exactly once in each
 * incarnation of its origin, with the two exceptions below:
 *
 * | unit is…            | `any-order`       | `in-order`                          | reported to the origin as |
 * | ------------------- | ----------------- | ----------------------------------- | --------------------- |
 * | next                | applied           | applied, with those buffered behind it | contiguous         |
 * | beyond a gap        | applied           | buffered                            | a range               |
 * | known               | dropped           | dropped                             | still there           |
 * | not rememberable    | dropped           | dropped                             | missing: comes again  |
 * | locked (`BUSY`)     | partly applied    | stopped at that record              | missing: comes again  |
 *
 * **Locked.** If the object gives up on a lock, the message's further units are not tried: each
 * might wait as long. An any-order object gets the unit's records before the locked one again when
 * the unit comes again. Such objects are idempotent. For an in-order object, the channel stops at
 * that record. It resumes there when the unit comes again, and forgets what was buffered behind it.
 *
 * **Death of the thread.** The vector is written to the board once a message's units are applied;
 * for an in-order object, after each unit. If the thread dies abruptly, an any-order object may get
 * one message again. An in-order object may get some records of the one unit under way again. A
 * count by increments is then too large by these. Totals are not affected.
 *
 * **Folded units** of a backlog stand for their numbers only all together. If the origin dies
 * before the backlog is complete, the numbers from the first folded unit on are forgotten: at other
 * members the same numbers stand for other records. Snapshots of the other members bring what we
 * lack. No member has to wait until we have their units, so we report that we have all that they
 * have. Repairs are then applied to any-order objects only: an in-order object could apply a record
 * twice.
 *
 * **After the end of the incarnation** (closing.ts) only repairs are accepted: its units as other
 * members pass them on. Like all accepted units, they are kept in the foreign log until every
 * member has them.
 *
 * Units below the origin's floor cannot be sent any more. They are skipped and counted. This
 * happens only to a member that has restarted without its state, or whose backlog was given up.
 */

import type { AckBoard } from '../../../shm/ack-board.js';
import { VECTOR_DETACHED, type VectorRecord } from '../../../shm/board-records.js';
import { Applied, type StateObject } from '../../../shm/objects/core/object.js';
import type { Counts } from '../metrics.js';
import type { ForeignLog } from '../units/foreign-log.js';
import { Arrival, Reception } from '../units/reception.js';
import { FIRST_SEQUENCE } from '../units/unit-log.js';
import type { MessageReader } from '../wire/message.js';
import { ReorderBuffer } from './reorder-buffer.js';

export interface ReceiveContext {
  readonly board: AckBoard;
  readonly counts: Counts;
  /** Called with errors thrown by an object's own code. */
  readonly onError: (error: unknown, object: number, origin: number) => void;
  readonly reorderBytes: number;
  /** [object][origin] */
  readonly foreign: readonly (readonly ForeignLog[])[];
  /** Whether there is a third member to which units could be passed on. */
  keeping: boolean;
  /** Whether this instance has no state yet to which units could be applied. */
  joining: boolean;
  /** Prunes the foreign log of the object and origin: removes units that are safe without us. */
  readonly prune: (object: number, origin: number) => void;
}

/** The foreign log is pruned once it is filled to this part, once every `PRUNE_UNITS` units. */
const PRUNE_SHARE = 1 / 2;
const PRUNE_UNITS = 32;

export class ReceiveChannel {
  readonly reception = new Reception();
  readonly inOrder: boolean;
  private readonly object: StateObject;
  private readonly origin: number;
  private readonly context: ReceiveContext;
  private readonly reorder: ReorderBuffer | null;
  /**
   * In-order objects: the first number of the unit that stopped at a lock, and how many of its
   * words were applied.
   */
  private bufferedFirst = 0;
  private bufferedWords = 0;
  private readonly foreign: ForeignLog;
  private kept = 0;
  private isFormer: boolean;
  /**
   * The backlog is complete once every number through this one is here; infinite: it still grows.
   */
  private foldedThrough = Number.POSITIVE_INFINITY;

  /**
   * Resumes from the board's record of the present or the former incarnation of `origin`, a slot.
   */
  constructor(object: StateObject, origin: number, context: ReceiveContext, isFormer: boolean) {
    this.object = object;
    this.origin = origin;
    this.context = context;
    this.reorder = object.delivery === 'in-order' ? new ReorderBuffer(context.reorderBytes) : null;
    this.inOrder = object.delivery === 'in-order';
    this.foreign = context.foreign[object.id][origin];
    this.isFormer = isFormer;
    this.reload();
  }

  /** Resumes from the board's record. */
  reload(): void {
    const { board } = this.context;
    this.clear();
    if (this.isFormer) board.readFormer(this.object.id, this.origin, this.reception);
    else board.readReception(this.object.id, this.origin, this.reception);
    if (this.reorder !== null) this.bufferAgain(this.reorder);
  }

  /**
   * The buffered units were lost with the last thread. Buffers them again from the foreign log. If
   * their origin is dead, other members may have lost theirs as well, and nobody could pass them
   * on. What is no longer there is forgotten: a living origin still has it, since it keeps all
   * units beyond `contiguous`.
   */
  private bufferAgain(reorder: ReorderBuffer): void {
    const { reception, foreign } = this;
    const claimed = new Reception();
    claimed.floats.set(reception.floats);
    reception.forgetRanges();
    const { tail } = foreign;
    for (let position = foreign.head; claimed.ranges > 0 && position !== tail; ) {
      const next = foreign.load(position);
      if (next === position) return;
      position = next;
      const { first, count, records, recordWords } = foreign;
      const last = first + count - 1;
      if (foreign.incarnation !== reception.incarnation || !claimed.has(first) || !claimed.has(last)) continue;
      if (reception.classify(first, last) !== Arrival.BEYOND) continue;
      if (reorder.add(first, last, records, 0, recordWords)) reception.add(first, last);
    }
  }

  get bufferedBytes(): number {
    return this.reorder === null ? 0 : this.reorder.bytes;
  }

  /**
   * Starts with an incarnation of which we have nothing: the present one, or one of which we hear
   * only the end.
   */
  begin(isFormer: boolean, incarnation = 0): void {
    this.clear();
    this.isFormer = isFormer;
    this.reception.incarnation = incarnation;
    this.note();
  }

  /**
   * The incarnation has ended: from now on it is the former one. Returns how many records we have
   * only a part of. Such a part is not what the other members have, and cannot be completed: the
   * backlog that the records came in ended with the origin.
   */
  freeze(incarnation: number): number {
    const { reception } = this;
    this.isFormer = true;
    reception.incarnation = incarnation;
    reception.highest = Math.max(reception.highest, reception.last);
    const { torn } = this;
    if (torn > 0) {
      reception.retreat(reception.folded);
      this.reorder?.clear();
      this.bufferedFirst = 0;
    }
    this.note();
    return torn;
  }

  /** How many records of the former incarnation we have only a part of. */
  get torn(): number {
    const { folded, highest } = this.reception;
    return folded === 0 ? 0 : Math.max(1, highest - folded + 1);
  }

  /**
   * Another member has these numbers of the former incarnation. Returns whether we now report more
   * numbers than before (see "Folded units" above).
   */
  adopt(theirs: VectorRecord): boolean {
    const { reception } = this;
    if (!this.isFormer || reception.folded === 0 || theirs.incarnation !== reception.incarnation) return false;
    const before = reception.contiguous;
    const grew = reception.join(theirs);
    if (this.inOrder) reception.forgetRanges();
    if (!grew || (this.inOrder && reception.contiguous === before)) return false;
    this.note();
    return true;
  }

  /**
   * No member has more of the incarnation than we. An in-order object gives up units beyond a gap.
   */
  close(): void {
    if (this.reorder === null) return;
    let given_up = 0;
    for (let i = 0; i < this.reception.ranges; i++) given_up += this.reception.end(i) - this.reception.start(i) + 1;
    this.context.counts.add('state_rx_records_skipped', given_up);
    this.reception.forgetRanges();
    this.reorder.clear();
    this.note();
  }

  /** Applies the message's units, which another member passes on. Returns whether any was new. */
  repair(reader: MessageReader, coarse: number): boolean {
    const { counts } = this.context;
    const before = counts.row[counts.at.state_rx_units];
    for (let i = 0; i < reader.units; i++) {
      reader.unit(i);
      if (!this.takeUnit(reader, coarse)) break;
    }
    this.note();
    const taken = counts.row[counts.at.state_rx_units] - before;
    counts.add('state_rx_units_repaired', taken);
    return taken > 0;
  }

  /**
   * Reads what the message says of its origin and, unless we are excluded from them, applies its
   * units. `coarse`: coarse seconds, for the state objects.
   */
  takeUnits(reader: MessageReader, excluded: boolean, now: number, coarse: number): void {
    const { reception } = this;
    if (reception.incarnation === 0) {
      reception.incarnation = reader.incarnation;
      reception.contiguous = FIRST_SEQUENCE - 1;
    }
    const told = !excluded && reader.unitsOrigin === reader.sender;
    // A late message, or a recording, may say what no longer holds.
    if (told && reader.datagram > reception.datagram) {
      reception.floor = reader.floor;
      reception.setExcluded(reader.excludedLow, reader.excludedHigh);
    }
    const ours = told && !this.context.joining;
    if (ours && reader.floor > reception.contiguous + 1) {
      const applied = reception.contiguous;
      this.context.counts.add('state_rx_records_skipped', reception.advance(reader.floor - 1));
      this.applyBuffered(applied, coarse);
    }
    if (told && reader.highest > reception.highest) reception.highest = reader.highest;
    if (reader.datagram > reception.datagram) {
      reception.datagram = reader.datagram;
      if (reader.unitsOrigin === reader.sender) this.noteDetached(reader, excluded);
      reception.stamp = reader.stamp;
      reception.arrivalMs = now;
    }
    for (let i = 0; ours && i < reader.units; i++) {
      reader.unit(i);
      if (!this.takeUnit(reader, coarse)) break;
    }
    if (reception.contiguous >= this.foldedThrough) reception.folded = 0;
    this.note();
  }

  /**
   * Notes whether the origin has detached us. It excludes itself from messages that are for one
   * detached member alone. If another message with its latest numbers does not exclude us, the
   * whole backlog is under way.
   */
  private noteDetached(reader: MessageReader, excluded: boolean): void {
    const { reception } = this;
    const isDetached = excluded || reader.excludes(this.origin);
    reception.flags = isDetached ? VECTOR_DETACHED : 0;
    if (isDetached) this.foldedThrough = Number.POSITIVE_INFINITY;
    else if (this.foldedThrough === Number.POSITIVE_INFINITY) this.foldedThrough = reader.highest;
  }

  /**
   * Writes the vector to the board, where the send thread reads what to acknowledge, and a
   * successor of this thread where to resume.
   */
  private note(): void {
    const { board } = this.context;
    if (this.isFormer) board.writeFormer(this.object.id, this.origin, this.reception);
    else board.writeReception(this.object.id, this.origin, this.reception);
  }

  private clear(): void {
    this.reception.clear();
    this.reorder?.clear();
    this.bufferedFirst = 0;
    this.foldedThrough = Number.POSITIVE_INFINITY;
  }

  /** Notes that the unit at the reader's position was accepted. */
  private noteTaken(reader: MessageReader): void {
    const { reception } = this;
    reception.add(reader.first, reader.first + reader.count - 1);
    if (reader.folded) {
      reception.folded = reception.folded === 0 ? reader.first : Math.min(reception.folded, reader.first);
      this.foldedThrough = Number.POSITIVE_INFINITY;
    }
    this.keep(reader);
  }

  /** Keeps the unit for members that may lack it when its origin dies. */
  private keep(reader: MessageReader): void {
    const { foreign, context } = this;
    // Folded units were made for us alone, and are of no use to others.
    if (!context.keeping || reader.folded) return;
    if (foreign.usedWords > foreign.capacityWords * PRUNE_SHARE && this.kept++ % PRUNE_UNITS === 0)
      context.prune(this.object.id, this.origin);
    const { first, count, words, recordsAt, recordWords } = reader;
    const dropped = foreign.append(this.reception.incarnation, first, count, words, recordsAt, recordWords);
    context.counts.add('state_foreign_units_dropped', dropped);
  }

  /** Handles the unit at the reader's position. Returns false if what it changes is locked. */
  private takeUnit(reader: MessageReader, coarse: number): boolean {
    const { reception, reorder } = this;
    const { counts } = this.context;
    const { first } = reader;
    const last = first + reader.count - 1;
    switch (reception.classify(first, last)) {
      case Arrival.DUPLICATE:
        counts.add('state_rx_units_duplicate', 1);
        return true;
      case Arrival.OVERLAP:
        counts.add('state_rx_units_overlap', 1);
        return true;
      case Arrival.NO_ROOM:
        counts.add('state_rx_units_dropped', 1);
        return true;
      case Arrival.NEXT:
        if (!this.apply(first, reader.words, reader.recordsAt, reader.recordWords, coarse)) return false;
        counts.row[counts.at.state_rx_units]++;
        this.noteTaken(reader);
        return reorder === null || this.applyBuffered(last, coarse);
      case Arrival.BEYOND:
        if (reorder === null) {
          if (!this.apply(first, reader.words, reader.recordsAt, reader.recordWords, coarse)) return false;
        } else if (!reorder.add(first, last, reader.words, reader.recordsAt, reader.recordWords)) {
          counts.add('state_rx_units_dropped', 1);
          return true;
        }
        this.noteTaken(reader);
        counts.add('state_rx_units_out_of_order', 1);
    }
    counts.row[counts.at.state_rx_units]++;
    return true;
  }

  /**
   * For an in-order object: everything through `applied` has been applied. Applies the buffered
   * units up to the number that the vector has reached. If one is locked, moves the vector back to
   * before it and returns false.
   */
  private applyBuffered(applied: number, coarse: number): boolean {
    const { reception, reorder } = this;
    if (reorder === null) return true;
    const through = reception.contiguous;
    reception.contiguous = applied;
    for (;;) {
      this.note();
      const unit = reorder.take(through);
      if (unit === null) break;
      if (!this.apply(unit.first, unit.records, 0, unit.records.length, coarse)) {
        // It comes again, unless its origin has pruned it meanwhile: then it is skipped and
        // counted.
        reception.contiguous = unit.first - 1;
        reception.forgetRanges();
        reorder.clear();
        return false;
      }
      reception.contiguous = unit.last;
    }
    reception.contiguous = through;
    return true;
  }

  /**
   * Whether a repair of the unit that begins at `first` may contain records that were in a folded
   * unit.
   */
  private isTorn(first: number): boolean {
    return this.isFormer && this.reception.folded !== 0 && first >= this.reception.folded;
  }

  /**
   * Applies a unit's records. An error in one does not stop the rest. Returns false if one is
   * locked; the rest was not tried.
   */
  private apply(first: number, words: Int32Array, at: number, recordWords: number, coarse: number): boolean {
    const { counts } = this.context;
    const { object, origin } = this;
    // An in-order object must not apply a record again that was in a folded unit.
    if (this.inOrder && this.isTorn(first)) return true;
    const end = at + recordWords;
    let next = at;
    // Once sent, a unit is never cut differently.
    if (first === this.bufferedFirst && this.bufferedWords < recordWords) next += this.bufferedWords;
    while (next < end) {
      const length = words[next] & 0xff;
      try {
        const outcome = object.apply((words[next] >>> 8) & 0xff, words, next + 1, length, origin, coarse);
        if (outcome === Applied.BUSY) {
          counts.add('state_rx_units_busy', 1);
          if (this.reorder !== null) {
            this.bufferedFirst = first;
            this.bufferedWords = next - at;
          }
          return false;
        }
        counts.row[outcomeColumn(counts, outcome)]++;
      } catch (error) {
        counts.add('state_rx_records_failed', 1);
        this.context.onError(error, object.id, origin);
      }
      next += 1 + length;
    }
    return true;
  }
}

function outcomeColumn(counts: Counts, outcome: Applied): number {
  switch (outcome) {
    case Applied.CHANGED:
      return counts.at.state_rx_records_changed;
    case Applied.UNCHANGED:
      return counts.at.state_rx_records_unchanged;
    case Applied.FULL:
      return counts.at.state_rx_records_full;
    default:
      return counts.at.state_rx_records_malformed;
  }
}
