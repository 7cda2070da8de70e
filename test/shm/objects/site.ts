/**
 * One instance around one state object, stepped by hand: its workers with their logs, the send
 * thread's staging as it really is (workers/replication/sending/staging.ts), and the receive
 * thread. What its send thread cuts is a message of records.
 */

import { createLogRing, LogConsumer, type LogProducer } from '../../../shm/log.js';
import { NONE } from '../../../shm/none.js';
import { createJournals, Journal } from '../../../shm/objects/core/journal.js';
import type { OpenContext, StateDefinition, StateObject, Writer } from '../../../shm/objects/core/object.js';
import { Region } from '../../../shm/region.js';
import { RECORD_WORDS_MAX, STAGING_WORDS, StagingArea } from '../../../workers/replication/sending/staging.js';
import { Countdown, DyingJournal, DyingLog } from './dying.js';

export const SITE_OBJECT = 3;

/** Records as they travel: header, payload, header, … */
export type Message = Int32Array;

export class Site<T extends StateObject> {
  readonly region: Region;
  readonly countdown = new Countdown();
  readonly workers: T[] = [];
  readonly logs: LogProducer[] = [];
  receiver: T;
  sender: T;
  /** Records cut so far; and told to the object as settled. */
  sequence = 0;
  private readonly definition: StateDefinition<T>;
  private readonly member: Pick<OpenContext, 'memberIndex' | 'memberCount' | 'local' | 'stripes'>;
  private readonly secret: Int32Array;
  private readonly rings: SharedArrayBuffer[];
  private readonly journals: SharedArrayBuffer;
  private consumers: LogConsumer[];
  private stage: StagingArea;

  constructor(definition: StateDefinition<T>, memberIndex: number, memberCount: number, workers = 2, logWords = 1) {
    this.definition = definition;
    this.region = new Region(new SharedArrayBuffer(definition.bytes));
    const local = new Region(new SharedArrayBuffer(definition.localBytes?.(workers) ?? 0));
    this.member = { memberIndex, memberCount, local, stripes: workers };
    this.secret = Int32Array.of(memberIndex + 1, 2, 3, 4);
    this.journals = createJournals(workers + 2);
    this.rings = Array.from({ length: workers }, () => createLogRing(logWords));
    for (let worker = 0; worker < workers; worker++) this.startWorker(worker);
    this.consumers = this.rings.map((ring) => new LogConsumer(ring));
    this.receiver = this.open({ id: workers + 2, journal: new Journal(this.journals, workers + 2), log: null });
    this.sender = this.open(null);
    this.stage = new StagingArea(this.sender);
  }

  private open(writer: Writer | null): T {
    return this.definition.open({
      id: SITE_OBJECT,
      region: this.region,
      secret: this.secret,
      writer,
      ...this.member,
    });
  }

  /**
   * The region as it is in a snapshot: with what the object keeps beside it added, as the child of
   * a fork does.
   */
  snapshot(): Region {
    const copy = new Region(new SharedArrayBuffer(this.region.byteLength));
    copy.u8().set(this.region.u8());
    const { addends } = this.receiver;
    if (addends === undefined) return copy;
    const into = copy.f64();
    const from = (this.member.local as Region).f64();
    for (let cell = 0; cell < addends.cells; cell++)
      for (let lane = 0; lane < addends.lanes; lane++)
        into[(addends.target + cell * addends.targetStride) / 8] +=
          from[(addends.source + cell * addends.sourceStride + lane * addends.laneStride) / 8];
    return copy;
  }

  startWorker(worker: number): void {
    const log = new DyingLog(this.rings[worker], this.countdown);
    this.logs[worker] = log;
    const journal = new DyingJournal(this.journals, worker + 1, this.countdown);
    this.workers[worker] = this.open({ id: worker + 1, journal, log });
  }

  /** Mends what a dead worker left, as main does, and starts it again. */
  buryWorker(worker: number): void {
    this.countdown.clear();
    this.receiver.recover(worker + 1, new Journal(this.journals, worker + 1), this.logs[worker].position);
    this.startWorker(worker);
  }

  /** Takes up to `records` from each ring into the stage. */
  drain(records = Number.POSITIVE_INFINITY): void {
    for (const log of this.logs) log.publish();
    for (const ring of this.consumers)
      for (let i = 0; i < records && this.hasRoom && ring.next(); i++)
        this.stage.add(ring.op, ring.words, ring.at, ring.length);
    const words = new Int32Array(8);
    while (this.hasRoom) {
      const unreplicated = this.sender.nextUnreplicated?.(words, 0) ?? NONE;
      if (unreplicated === NONE) break;
      this.stage.add(unreplicated & 0xff, words, 0, unreplicated >>> 8);
    }
  }

  private get hasRoom(): boolean {
    return this.stage.used + RECORD_WORDS_MAX <= STAGING_WORDS;
  }

  /** Puts what is staged into a message. */
  cut(): Message {
    const { stage } = this;
    const message = stage.words.slice(0, stage.used);
    for (let i = 0; i < stage.records; i++) this.sequence += stage.weight[i];
    if (stage.records > 0) {
      stage.clear();
      this.sender.settle?.(this.sequence);
    }
    for (const ring of this.consumers) ring.release();
    return message;
  }

  /** Everything logged, in as many messages as it takes. */
  flush(): Message[] {
    const messages: Message[] = [];
    for (;;) {
      this.drain();
      const message = this.cut();
      if (message.length === 0) return messages;
      messages.push(message);
    }
  }

  /** The send thread dies with what it has staged, and another takes its place. */
  restartSender(): void {
    this.consumers = this.rings.map((ring) => new LogConsumer(ring));
    this.sender = this.open(null);
    this.stage = new StagingArea(this.sender);
  }

  apply(message: Message, origin: number, now: number): void {
    for (let at = 0; at < message.length; ) {
      const length = message[at] & 0xff;
      this.receiver.apply((message[at] >>> 8) & 0xff, message, at + 1, length, origin, now);
      at += 1 + length;
    }
  }
}
