/**
 * An instance under fuzz: its shared memory with real state objects, and its two agents, stepped by
 * hand.
 */

import { createAckBoard } from '../../shm/ack-board.js';
import { coarseSeconds } from '../../shm/clock.js';
import { Control, createControl } from '../../shm/control.js';
import { createLogRing, LogProducer } from '../../shm/log.js';
import { MetricCatalogue, Metrics } from '../../shm/metrics.js';
import { NONE } from '../../shm/none.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import type { StateDefinition, StateObject, Writer } from '../../shm/objects/core/object.js';
import { counterVector } from '../../shm/objects/counting/counters.js';
import { flowTable, KEY_WORDS_IPV4_FIVE_TUPLE } from '../../shm/objects/flow/flow-table.js';
import { natBinding, portAndProtocol } from '../../shm/objects/nat/nat-binding.js';
import { lastWriter } from '../../shm/objects/sets/register.js';
import { removeSet } from '../../shm/objects/sets/shared-set.js';
import { Region } from '../../shm/region.js';
import { createRejectTable } from '../../shm/reject-table.js';
import { createSealBoard, type SealKey } from '../../shm/seal-board.js';
import { ReceiveAgent } from '../../workers/engine/receive.js';
import { SendAgent } from '../../workers/engine/send.js';
import { REPLICATION_METRICS } from '../../workers/replication/metrics.js';
import { datagramBytes, newIncarnation, type ReplicationSettings } from '../../workers/replication/settings.js';
import { createForeignLogs } from '../../workers/replication/units/foreign-log.js';
import { createUnitLogs } from '../../workers/replication/units/unit-log.js';
import { DatagramPool, type PooledDatagram } from '../../workers/transport/datagram-pool.js';
import type { OnDatagram, ReceiveTransport, SendTransport } from '../../workers/transport/transport.js';

export const MEANING_HASH = [0x1234567, -0x7654321] as const;
const SEND = 0;
const RECEIVE = 1;
const THREADS = 2;
const WORKER_WRITER = 1;
const RECEIVE_WRITER = 2;
const FLOWS = 512;
const CELLS = 64;
/**
 * Fewer than there is room for, also for half-open bindings: who has no room holds less than the
 * others.
 */
const KEYS = 100;
const ADDRESS = 0x0a000001;
const EXPIRES_S = 3600;
const UDP = 17;

/** Sends by calling a function, with a copy. */
class CallingSender implements SendTransport {
  readonly errors = 0;
  private readonly pool: DatagramPool;
  private readonly onSend: (bytes: Uint8Array) => void;

  constructor(byteLength: number, onSend: (bytes: Uint8Array) => void) {
    this.pool = new DatagramPool(8, byteLength);
    this.onSend = onSend;
  }

  async open(): Promise<void> {}
  async close(): Promise<void> {}

  claim(): PooledDatagram | null {
    return this.pool.claim();
  }

  send(datagram: PooledDatagram, bytes: number): void {
    this.onSend(datagram.bytes.slice(0, bytes));
    this.pool.release(datagram);
  }
}

/** Receives what it is handed. */
class HandedReceiver implements ReceiveTransport {
  readonly errors = 0;
  readonly bufferBytes = 0;
  deliver: OnDatagram = () => {};

  async open(onDatagram: OnDatagram): Promise<void> {
    this.deliver = onDatagram;
  }
  async close(): Promise<void> {}
}

export class FuzzInstance {
  readonly settings: ReplicationSettings;
  readonly metrics: Metrics;
  readonly memory: Readonly<Record<'board' | 'foreign' | 'unitLogs' | 'rejects', SharedArrayBuffer>>;
  readonly sealBoard: SharedArrayBuffer | null;
  /** The objects' memory: what the arena holds. */
  readonly arena: SharedArrayBuffer[] = [];
  /** As the receive thread has them. */
  readonly objects: StateObject[] = [];
  /** Errors thrown by the objects' own code. */
  readonly failures: unknown[] = [];
  private readonly send: SendAgent;
  private readonly receive: ReceiveAgent;
  private readonly network = new HandedReceiver();
  private readonly log: LogProducer;
  private readonly journals = createJournals(RECEIVE_WRITER);
  private readonly operations: ((n: number, now: number) => void)[] = [];
  private readonly control: Control;

  constructor(settings: ReplicationSettings, keys: readonly SealKey[] | null, onSend: (bytes: Uint8Array) => void) {
    this.settings = settings;
    const ring = createLogRing(1 << 14);
    this.log = new LogProducer(ring);
    this.openObjects();
    const objects = this.objects.length;
    const { slots } = settings;
    const catalogue = new MetricCatalogue(REPLICATION_METRICS);
    const metrics = new SharedArrayBuffer(catalogue.bytes(THREADS));
    this.metrics = new Metrics(catalogue, metrics, THREADS);
    this.control = new Control(createControl(THREADS));
    this.memory = {
      board: createAckBoard(objects, slots, newIncarnation()),
      foreign: createForeignLogs(objects, slots, settings.foreignLogBytes),
      unitLogs: createUnitLogs(objects, settings.unitLogBytes),
      rejects: createRejectTable(),
    };
    this.sealBoard = keys === null ? null : createSealBoard(slots, keys);
    const shared = {
      settings,
      meaningHash: MEANING_HASH,
      ackBoard: this.memory.board,
      foreignLogs: this.memory.foreign,
      sealBoard: this.sealBoard,
      control: this.control,
      metrics: this.metrics,
    };
    this.send = new SendAgent({
      ...shared,
      objects: this.senderObjects,
      logs: [ring],
      unitLogs: this.memory.unitLogs,
      thread: SEND,
      transport: new CallingSender(datagramBytes(settings), onSend),
    });
    this.receive = new ReceiveAgent({
      ...shared,
      objects: this.objects,
      rejects: this.memory.rejects,
      thread: RECEIVE,
      transport: this.network,
      onError: (error) => this.failures.push(error),
    });
  }

  async open(): Promise<void> {
    await this.receive.onStart();
  }

  /** Operation `n` of a worker, on every object. */
  work(n: number): void {
    const now = coarseSeconds(Date.now());
    for (const operation of this.operations) operation(n, now);
    this.log.publish();
  }

  /** A round of both threads. Returns what the send thread did. */
  step(): number {
    this.receive.doWork();
    return this.send.doWork();
  }

  /** A datagram reaches the receive thread. */
  deliver(datagram: Uint8Array, source: string): void {
    this.network.deliver(datagram, source);
  }

  get settled(): boolean {
    return this.send.sender.keptUnits === 0 && !this.send.sender.hasUnsent;
  }

  digests(): string[] {
    const now = coarseSeconds(Date.now());
    return this.objects.map((object) => object.digest(now, true));
  }

  private readonly senderObjects: StateObject[] = [];

  private openObjects(): void {
    const key = new Int32Array(KEY_WORDS_IPV4_FIVE_TUPLE);
    const word = new Int32Array(2);
    const { slots: members } = this.settings;
    this.add(natBinding({ addresses: [0x010200c0], flows: FLOWS, allocation: 'leased' }), (nat) => (n, now) => {
      const inside = portAndProtocol(1 + (n % KEYS), UDP);
      const hash = nat.hash(ADDRESS, inside);
      const slot = nat.findOutbound(hash, ADDRESS, inside, now);
      if (slot === NONE) nat.add(hash, ADDRESS, inside, now, now + EXPIRES_S);
    });
    const flows = flowTable({ capacity: FLOWS, keyWords: KEY_WORDS_IPV4_FIVE_TUPLE, valueWords: 2 });
    this.add(flows, (table) => (n, now) => {
      key.fill(n % KEYS);
      word.fill(n);
      const hash = table.hash(key, 0);
      if (table.find(hash, key, 0, now) === NONE) table.add(hash, key, 0, word, 0, 1, now, now + EXPIRES_S);
    });
    this.add(
      counterVector({ length: CELLS, form: 'totals', members }),
      (cells) => (n) => void cells.add(n % CELLS, n + 1),
    );
    this.add(
      counterVector({ length: CELLS, form: 'increments', members }),
      (cells) => (n) => void cells.add(n % CELLS, 3),
    );
    this.add(removeSet({ capacity: FLOWS, keyWords: 1, members }), (set) => (n, now) => {
      word[0] = n % 50;
      const hash = set.hash(word, 0);
      if (n % 3 === 0) set.remove(hash, word, 0, now);
      else set.add(hash, word, 0, now, now + EXPIRES_S);
    });
    this.add(lastWriter({ length: CELLS, valueWords: 2 }), (registers) => (n) => {
      word.fill(n);
      registers.set(n % CELLS, word, 0, Date.now());
    });
  }

  private add<T extends StateObject>(
    definition: StateDefinition<T>,
    operation: (object: T) => (n: number, now: number) => void,
  ): void {
    const id = this.objects.length;
    const { settings } = this;
    const memberIndex = settings.members.findIndex((member) => member.id === settings.self);
    const buffer = new SharedArrayBuffer(definition.bytes);
    this.arena.push(buffer);
    const localBytes = definition.localBytes?.(1) ?? 0;
    const local = new Region(new SharedArrayBuffer(localBytes));
    const open = (writer: Writer | null): T =>
      definition.open({
        id,
        region: new Region(buffer),
        secret: Int32Array.of(memberIndex + 1, 2, 3, 4),
        writer,
        memberIndex,
        memberCount: settings.slots,
        ...(localBytes > 0 && { local, stripes: 1 }),
      });
    const journal = (writer: number): Journal => new Journal(this.journals, writer);
    this.objects.push(open({ id: RECEIVE_WRITER, journal: journal(RECEIVE_WRITER), log: null }));
    this.senderObjects.push(open(null));
    this.operations.push(operation(open({ id: WORKER_WRITER, journal: journal(WORKER_WRITER), log: this.log })));
  }
}
