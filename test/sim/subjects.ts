/**
 * The state objects of one simulated member, as its threads see them: what a worker does with them,
 * what the send thread stages, and what the receive thread applies. They are ledgers, and real
 * objects of the state library in small sizes so that keys collide.
 */

import { createLogRing, LogConsumer, LogProducer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { createJournals } from '../../shm/objects/core/journal.js';
import { Applied, type StateObject } from '../../shm/objects/core/object.js';
import type { CounterVector } from '../../shm/objects/counting/counters.js';
import { type LedgerCopy, SimLedger } from './ledger.js';
import type { Model } from './model.js';
import type { Defect, ObjectKind } from './plan.js';
import type { Stream } from './random.js';
import { CELLS, RECEIVE_WRITER, RealObject, type RegionCopy } from './real-objects.js';

const LOG_WORDS = 1 << 13;

export interface Moment {
  /** Coarse seconds and Unix ms of this member's wall clock. */
  readonly coarse: number;
  readonly wallMs: number;
}

/** One operation of a worker. Returns false if it was refused. */
export type Operation = (draw: Stream, moment: Moment) => boolean;

/** The content of one object in a snapshot. */
export interface Capture {
  readonly ledger: LedgerCopy | null;
  readonly region: RegionCopy | null;
}

const NO_OBJECT = 200;
const NO_OPERATION = 3;

/** Logs a record that its object, if it exists, refuses. */
function logDefect(log: LogProducer, object: number, author: number): void {
  const at = log.claim(object, NO_OPERATION, 2);
  if (at === NONE) return;
  log.words[at] = author;
  log.words[at + 1] = 0;
  log.commit();
}

/** The death of a thread. It is thrown through the core, as a kill ends a thread at that point. */
export class Death extends Error {}

/** The receive thread's view of an object. It can be locked, and it can kill the thread. */
class ReceiveView implements StateObject {
  readonly id: number;
  readonly delivery: StateObject['delivery'];
  locked = false;
  /** Records until the thread dies. */
  lives = Number.POSITIVE_INFINITY;
  readonly inner: StateObject;

  constructor(inner: StateObject) {
    this.id = inner.id;
    this.delivery = inner.delivery;
    this.inner = inner;
  }

  apply(op: number, words: Int32Array, at: number, length: number, origin: number, now: number): Applied {
    if (this.lives-- <= 0) throw new Death('receive thread');
    if (this.locked) return Applied.BUSY;
    return this.inner.apply(op, words, at, length, origin, now);
  }

  coalesceKey(op: number, words: Int32Array, at: number, length: number): number {
    return this.inner.coalesceKey(op, words, at, length);
  }

  coalesce(): boolean {
    throw new Error('the receive thread does not coalesce');
  }

  digest(now?: number, evictable?: boolean): string {
    return this.inner.digest(now, evictable);
  }

  recover(): number {
    return 0;
  }

  describe(now: number): Record<string, number> {
    return this.inner.describe(now);
  }
}

export class Subject {
  readonly kind: ObjectKind;
  readonly ledger: SimLedger | null;
  receive: ReceiveView;
  private readonly real: RealObject | null;
  private readonly operation: Operation;

  constructor(kind: ObjectKind, id: number, memory: SubjectMemory) {
    this.kind = kind;
    if (kind === 'notes' || kind === 'ordered') {
      const { model, author, member, log } = memory;
      const delivery = kind === 'notes' ? 'any-order' : 'in-order';
      const ledger = new SimLedger(id, delivery, model, `member ${member}, object ${id} (${kind})`);
      this.ledger = ledger;
      this.operation = (draw) => {
        const work = draw.chance(0.6) ? model.nextNote(author, id) : model.nextAdd(author, id, draw.below(4));
        if (!ledger.write(log, author, work)) return false;
        model.note(author, id, work);
        return true;
      };
      this.real = null;
    } else {
      this.ledger = null;
      this.real = new RealObject(kind, id, memory);
      this.operation = (draw, moment) => (this.real as RealObject).operation(draw, moment);
    }
    this.receive = new ReceiveView(this.object);
  }

  private get object(): StateObject {
    return this.real?.receive ?? (this.ledger as SimLedger);
  }

  /** A new send thread's view. */
  openSend(): StateObject {
    return this.real?.openSend() ?? (this.ledger as SimLedger);
  }

  /** A new receive thread's view. */
  openReceive(): StateObject {
    this.receive = new ReceiveView(this.object);
    return this.receive;
  }

  /** The content, as a donor's child writes it at the barrier. */
  capture(): Capture {
    return { ledger: this.ledger?.copyOut() ?? null, region: this.real?.copyOut() ?? null };
  }

  /** Loads a donor's content, while no thread has the object open. */
  load({ ledger, region }: Capture): void {
    if (ledger !== null) this.ledger?.copyIn(ledger);
    if (region !== null) this.real?.copyIn(region);
  }

  work(draw: Stream, moment: Moment): boolean {
    return this.operation(draw, moment);
  }

  /**
   * Performs a defect. Only a ledger gets a record to refuse: objects of the state library would
   * accept any record as theirs.
   */
  misbehave(what: Defect, log: LogProducer, author: number): void {
    if (what === 'coalesce') this.ledger?.failToCoalesce();
    else if (what === 'object') logDefect(log, NO_OBJECT, author);
    else if (this.ledger !== null) logDefect(log, this.ledger.id, author);
  }

  digest(coarse: number): string {
    return this.object.digest(coarse, true);
  }

  /**
   * The counts per cell of all incarnations of the slot's member, as this member knows them. Empty
   * if the object does not keep them.
   */
  totalsOf(slot: number, members: number): readonly number[] {
    if (this.kind !== 'totals') return [];
    const copy = this.real?.copyOut();
    if (copy === undefined) return [];
    const counts = new Float64Array(copy.bytes.buffer);
    return Array.from({ length: CELLS }, (_, cell) => counts[cell * members + slot]);
  }

  /** The cells of a counting object as this member reads them; empty for other objects. */
  cells(): readonly number[] {
    const { object } = this;
    if (this.kind !== 'totals' && this.kind !== 'increments') return [];
    return Array.from({ length: CELLS }, (_, cell) => (object as CounterVector).value(cell));
  }
}

export interface SubjectMemory {
  readonly model: Model;
  readonly author: number;
  readonly member: number;
  readonly members: number;
  readonly log: LogProducer;
  readonly journals: SharedArrayBuffer;
}

/** A member's log ring with its two ends, and the journals of its writers. */
export class WorkerLog {
  readonly producer: LogProducer;
  readonly journals = createJournals(RECEIVE_WRITER);
  private readonly ring = createLogRing(LOG_WORDS);

  constructor() {
    this.producer = new LogProducer(this.ring);
  }

  /** The end of a new send thread. It starts with what was not released. */
  openConsumer(): LogConsumer {
    return new LogConsumer(this.ring);
  }
}
