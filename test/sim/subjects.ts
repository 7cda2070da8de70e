/**
 * The state objects of one member, as its threads see them: what a worker does with them, what the send thread stages and the
 * receive thread applies. Ledgers, and real objects of the state library in small sizes, so that keys collide.
 */

import { createLogRing, LogConsumer, LogProducer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { type CounterVector, counterVector } from '../../shm/objects/counters.js';
import { flowTable, KEY_WORDS_IPV4_ENDPOINT } from '../../shm/objects/flow-table.js';
import { createJournals, Journal } from '../../shm/objects/journal.js';
import { natBinding, portAndProtocol } from '../../shm/objects/nat-binding.js';
import { Applied, type StateDefinition, type StateObject, type Writer } from '../../shm/objects/object.js';
import { largest, lastWriter } from '../../shm/objects/register.js';
import { removeSet } from '../../shm/objects/shared-set.js';
import { Region } from '../../shm/region.js';
import { SimLedger } from './ledger.js';
import type { Model } from './model.js';
import type { ObjectKind } from './plan.js';
import type { Stream } from './random.js';
import { Violation } from './violation.js';

/** Writer ids: one worker, the receive thread. */
const WORKER = 1;
const RECEIVE = 2;
const LOG_WORDS = 1 << 13;
const KEYS = 24;
const CELLS = 12;
const UDP = 17;

export interface Moment {
  /** Coarse seconds and Unix ms of this member's wall clock. */
  readonly coarse: number;
  readonly wallMs: number;
}

/** One operation of a worker. False: refused. */
type Operation = (draw: Stream, moment: Moment) => boolean;

/** A thread died: thrown through the core, as a kill ends a thread at that point. */
export class Death extends Error {}

/** The receive thread's view: with locks that are held, and where the thread may be killed. */
class ReceiveView implements StateObject {
  readonly id: number;
  readonly delivery: StateObject['delivery'];
  locked = false;
  /** Records until the thread dies. */
  lives = Number.POSITIVE_INFINITY;
  private readonly inner: StateObject;

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

  digest(now?: number): string {
    return this.inner.digest(now);
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
  readonly receive: ReceiveView;
  private readonly openSendView: () => StateObject;
  private readonly operation: Operation;
  private readonly object: StateObject;

  constructor(kind: ObjectKind, id: number, memory: SubjectMemory) {
    this.kind = kind;
    if (kind === 'notes' || kind === 'ordered') {
      const { model, author, member, log } = memory;
      const delivery = kind === 'notes' ? 'any-order' : 'in-order';
      const ledger = new SimLedger(id, delivery, model, `member ${member}, object ${id} (${kind})`);
      this.ledger = ledger;
      this.object = ledger;
      this.openSendView = () => ledger;
      this.operation = (draw) => {
        const work = draw.chance(0.6) ? model.nextNote(author, id) : model.nextAdd(author, id, draw.below(4));
        if (!ledger.write(log, author, work)) return false;
        model.note(author, id, work);
        return true;
      };
    } else {
      const views = openReal(kind, id, memory);
      this.ledger = null;
      this.object = views.receive;
      this.openSendView = views.openSend;
      this.operation = views.operation;
    }
    this.receive = new ReceiveView(this.object);
  }

  /** A new send thread's view. */
  openSend(): StateObject {
    return this.openSendView();
  }

  work(draw: Stream, moment: Moment): boolean {
    return this.operation(draw, moment);
  }

  digest(coarse: number): string {
    return this.object.digest(coarse);
  }

  /** Cells of a counting object as this member reads them; empty for others. */
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

interface Views {
  readonly receive: StateObject;
  readonly openSend: () => StateObject;
  readonly operation: Operation;
}

function openReal(kind: ObjectKind, id: number, memory: SubjectMemory): Views {
  switch (kind) {
    case 'totals':
    case 'increments': {
      const definition = counterVector({ length: CELLS, form: kind, members: memory.members });
      return views(definition, id, memory, (object) => (draw) => {
        const cell = draw.below(CELLS);
        const n = draw.whole(1, 1000);
        if (!object.add(cell, n)) return false;
        memory.model.count(memory.author, id, cell, n);
        return true;
      });
    }
    case 'flows': {
      const key = new Int32Array(KEY_WORDS_IPV4_ENDPOINT);
      const value = new Int32Array(1);
      const definition = flowTable({ capacity: 4 * KEYS, keyWords: KEY_WORDS_IPV4_ENDPOINT, valueWords: 1 });
      return views(definition, id, memory, (flows) => (draw, { coarse }) => {
        key[0] = draw.below(KEYS);
        value[0] = draw.below(1000);
        const hash = flows.hash(key, 0);
        const slot = flows.find(hash, key, 0, coarse);
        const rank = draw.below(4);
        if (slot === NONE) return flows.add(hash, key, 0, value, 0, rank, coarse, coarse + 300) !== NONE;
        return flows.refresh(slot, rank, coarse, draw.whole(200, 400));
      });
    }
    case 'nat': {
      const portRange = { first: 2000, last: 2000 + KEYS - 1 };
      const definition = natBinding({ addresses: [0x010200c0], flows: 4 * KEYS, portRange, allocation: 'shared' });
      return views(definition, id, memory, (nat) => (draw, { coarse }) => {
        const address = 0x0a000000 + draw.below(KEYS);
        const key = portAndProtocol(7, UDP);
        const hash = nat.hash(address, key);
        const slot = nat.findOutbound(hash, address, key, coarse);
        if (slot === NONE) return nat.add(hash, address, key, coarse, coarse + 300) !== NONE;
        return nat.refresh(slot, draw.below(3), coarse, 300);
      });
    }
    case 'set': {
      const key = new Int32Array(1);
      const definition = removeSet({ capacity: 4 * KEYS, keyWords: 1, members: memory.members });
      return views(definition, id, memory, (set) => (draw, { coarse }) => {
        key[0] = draw.below(KEYS);
        const hash = set.hash(key, 0);
        return draw.chance(0.7) ? set.add(hash, key, 0, coarse, coarse + 300) : set.remove(hash, key, 0, coarse);
      });
    }
    case 'register': {
      const value = new Int32Array(2);
      return views(lastWriter({ length: KEYS, valueWords: 2 }), id, memory, (registers) => (draw, { wallMs }) => {
        value[0] = draw.below(1000);
        value[1] = ~value[0];
        return registers.set(draw.below(KEYS), value, 0, wallMs);
      });
    }
    case 'largest':
      return views(
        largest(KEYS),
        id,
        memory,
        (registers) => (draw) => registers.offer(draw.below(KEYS), draw.whole(-1000, 1e6)),
      );
    default:
      throw new Violation('no-crash', `there is no object of the kind ${kind}`);
  }
}

function views<T extends StateObject>(
  definition: StateDefinition<T>,
  id: number,
  { member, members, log, journals }: SubjectMemory,
  operation: (object: T) => Operation,
): Views {
  const region = new Region(new SharedArrayBuffer(definition.bytes));
  const localBytes = definition.localBytes?.(1) ?? 0;
  const local = new Region(new SharedArrayBuffer(localBytes));
  const secret = Int32Array.of(member + 1, 2, 3, 4);
  const open = (writer: Writer | null): T =>
    definition.open({
      id,
      region,
      secret,
      writer,
      memberIndex: member,
      memberCount: members,
      ...(localBytes > 0 && { local, stripes: 1 }),
    });
  return {
    receive: open({ id: RECEIVE, journal: new Journal(journals, RECEIVE), log: null }),
    openSend: () => open(null),
    operation: operation(open({ id: WORKER, journal: new Journal(journals, WORKER), log })),
  };
}

/** A member's log ring with its two ends, and the journals of its writers. */
export class WorkerLog {
  readonly producer: LogProducer;
  readonly journals = createJournals(RECEIVE);
  private readonly ring = createLogRing(LOG_WORDS);

  constructor() {
    this.producer = new LogProducer(this.ring);
  }

  /** A new send thread's end: it begins with what was not released. */
  openConsumer(): LogConsumer {
    return new LogConsumer(this.ring);
  }
}
