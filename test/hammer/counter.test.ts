import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { committedPosition, createLogRing, LogConsumer, recoverLog } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { Journal } from '../../shm/objects/core/journal.js';
import type { CounterCells, WireForm } from '../../shm/objects/counting/counter-cells.js';
import { RECORD_WORDS_MAX, STAGING_WORDS, StagingArea } from '../../workers/replication/sending/staging.js';
import { scaled } from '../support/scale.js';
import {
  CELLS,
  type CounterWork,
  HAMMER_ID,
  type HammerEnd,
  hammerMemory,
  openHammered,
  RECEIVER,
  STEP,
  WORKERS,
} from './counter-hammer.js';

const READY_MS = 20_000;

/**
 * An instance whose threads hammer one vector of counts, while main is its send thread, and the
 * other member.
 */
class Hammer {
  readonly ledger = new Float64Array(new SharedArrayBuffer(2 * 8 * WORKERS));
  readonly object: CounterCells;
  readonly other: CounterCells;
  kills = 0;
  private readonly memory;
  private readonly control = new Int32Array(new SharedArrayBuffer(4));
  private readonly rings: SharedArrayBuffer[];
  private readonly threads = new Map<number, Worker>();
  private consumers: LogConsumer[];
  private sender: CounterCells;
  private stage: StagingArea;
  private draining = true;
  private readonly drained: Promise<void>;

  constructor(form: WireForm, logWords: number) {
    this.memory = hammerMemory(form);
    this.rings = Array.from({ length: WORKERS }, () => createLogRing(logWords));
    this.object = openHammered({ ...this.memory, id: RECEIVER }, null);
    this.other = openHammered({ ...hammerMemory(form), id: RECEIVER }, null, 1);
    this.consumers = this.rings.map((ring) => new LogConsumer(ring));
    this.sender = openHammered({ ...this.memory, id: 0 }, null);
    this.stage = new StagingArea(this.sender);
    this.drained = this.drainAlong();
  }

  async start(id: number): Promise<void> {
    const work: CounterWork = {
      ...this.memory,
      id,
      control: this.control.buffer as SharedArrayBuffer,
      ring: this.rings[id - 1] ?? null,
      ledger: this.ledger.buffer as SharedArrayBuffer,
    };
    const thread = new Worker(new URL('./counter-worker.js', import.meta.url), { workerData: work });
    this.threads.set(id, thread);
    await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });
  }

  /** Ends a worker wherever it is, mends what it left, and starts it again. */
  async replace(id: number): Promise<void> {
    await this.threads.get(id)?.terminate();
    const ring = this.rings[id - 1];
    recoverLog(ring);
    this.object.recover(id, new Journal(this.memory.journals, id), committedPosition(ring));
    this.kills++;
    await this.start(id);
  }

  /** The send thread dies with what it staged and did not cut. */
  loseSender(): void {
    this.stageRecords(100);
    this.consumers = this.rings.map((ring) => new LogConsumer(ring));
    this.sender = openHammered({ ...this.memory, id: 0 }, null);
    this.stage = new StagingArea(this.sender);
  }

  async stop(): Promise<HammerEnd[]> {
    const ends = [...this.threads.values()].map(async (thread) => {
      const [end] = (await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) })) as [HammerEnd];
      return end;
    });
    Atomics.store(this.control, 0, 1);
    const told = await Promise.all(ends);
    await this.close();
    while (this.round() > 0);
    return told;
  }

  /** Ends everything, also after a failure. */
  async close(): Promise<void> {
    this.draining = false;
    await Promise.all([...this.threads.values()].map((thread) => thread.terminate()));
    await this.drained;
  }

  private stageRecords(most: number): void {
    const { stage, sender } = this;
    const hasRoom = (): boolean => stage.used + RECORD_WORDS_MAX <= STAGING_WORDS;
    for (const ring of this.consumers)
      for (let i = 0; i < most && hasRoom() && ring.next(); i++) {
        assert.equal(ring.objectId, HAMMER_ID);
        stage.add(ring.op, ring.words, ring.at, ring.length);
      }
    const words = new Int32Array(8);
    while (hasRoom()) {
      const unreplicated = sender.nextUnreplicated(words, 0);
      if (unreplicated === NONE) break;
      stage.add(unreplicated & 0xff, words, 0, unreplicated >>> 8);
    }
  }

  /**
   * What the send thread does in a round, and the other member with what it gets. Returns the
   * records told.
   */
  private round(): number {
    const { stage } = this;
    this.stageRecords(1000);
    const { records } = stage;
    for (let i = 0; i < records; i++)
      this.other.apply((stage.words[stage.start[i]] >>> 8) & 0xff, stage.words, stage.start[i] + 1, 3, 0);
    stage.clear();
    if (records > 0) this.sender.settle(records);
    for (const ring of this.consumers) ring.release();
    return records;
  }

  private async drainAlong(): Promise<void> {
    while (this.draining) {
      this.round();
      await sleep(1);
    }
  }

  /** Nothing lost, nothing doubled: here, and at the other member. */
  assertWhole(received: number): void {
    let here = 0;
    let there = 0;
    for (let cell = 0; cell < CELLS; cell++) {
      const own = this.object.value(cell) - received * STEP;
      assert.equal(this.other.value(cell), own);
      here += own / STEP;
      there += this.other.value(cell) / STEP;
    }
    const [begun, ended] = [0, 1].map((i) => this.ledger.filter((_, at) => at % 2 === i).reduce((a, b) => a + b, 0));
    assert.ok(here >= ended && here <= begun, `${ended} ended, ${begun} begun, ${here} counted`);
    assert.ok(begun - here <= this.kills);
    assert.equal(there, here);
    assert.equal(this.object.describe()['refused'], 0);
    assert.equal(this.object.describe()['malformed'], 0);
  }
}

describe('counters under several threads', () => {
  let hammer: Hammer;

  afterEach(() => hammer.close());

  for (const form of ['totals', 'increments'] as const) {
    it(`${form}: four workers and the receiver lose, double and tear nothing, though logs are full`, async () => {
      hammer = new Hammer(form, 1);
      for (const id of [1, 2, 3, 4, RECEIVER]) await hammer.start(id);
      await sleep(scaled(500, 1500));
      const ends = await hammer.stop();
      for (const { torn } of ends) assert.equal(torn, 0);
      const received = Math.max(...ends.map(({ applied }) => applied));
      assert.ok(received > 0);
      hammer.assertWhole(received);
      assert.ok(hammer.object.describe()['log_full'] > 0, 'no log was ever full');
    });

    it(`${form}: workers and the send thread killed wherever they were lose and double nothing`, async () => {
      hammer = new Hammer(form, 1 << 13);
      for (const id of [1, 2]) await hammer.start(id);
      for (let kill = 0; kill < scaled(4, 8); kill++) {
        await sleep((kill * 7) % 11);
        if (kill % 3 === 2) hammer.loseSender();
        await hammer.replace(1 + (kill % 2));
      }
      await hammer.stop();
      hammer.assertWhole(0);
    });
  }
});
