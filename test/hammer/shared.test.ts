import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { committedPosition, createLogRing, LogConsumer, recoverLog } from '../../shm/log.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import { Applied } from '../../shm/objects/core/object.js';
import { scaled } from '../support/scale.js';
import { hammeredRegisters, hammeredSet, NOW, openShared, type SharedEnd, type SharedWork } from './shared-hammer.js';

const WORKERS = 4;
const RECEIVER = WORKERS + 1;
const MAIN = WORKERS + 2;
const READY_MS = 20_000;

interface Said {
  readonly object: number;
  readonly op: number;
  readonly words: Int32Array;
}

/**
 * An instance whose threads hammer a set and registers, while main reads their logs as the send
 * thread would.
 */
class Hammer {
  readonly set;
  readonly registers;
  readonly said: Said[] = [];
  private readonly journals = createJournals(MAIN);
  private readonly control = new Int32Array(new SharedArrayBuffer(4));
  private readonly memory = {
    set: new SharedArrayBuffer(hammeredSet.bytes),
    registers: new SharedArrayBuffer(hammeredRegisters.bytes),
  };
  private readonly rings = Array.from({ length: WORKERS }, () => createLogRing(1 << 14));
  private readonly consumers = this.rings.map((ring) => new LogConsumer(ring));
  private readonly threads = new Map<number, Worker>();
  private draining = true;
  private readonly drained: Promise<void>;

  constructor() {
    const main = { id: MAIN, journals: this.journals };
    this.set = openShared(hammeredSet, 0, this.memory.set, main, null);
    this.registers = openShared(hammeredRegisters, 1, this.memory.registers, main, null);
    this.drained = this.drainAlong();
  }

  async start(id: number): Promise<void> {
    const { memory, journals, control } = this;
    const ring = this.rings[id - 1] ?? null;
    const work: SharedWork = { id, ...memory, journals, control: control.buffer as SharedArrayBuffer, ring };
    const thread = new Worker(new URL('./shared-worker.js', import.meta.url), { workerData: work });
    this.threads.set(id, thread);
    await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });
  }

  /** Ends a thread wherever it is, mends what it left, and starts it again. */
  async replace(id: number): Promise<void> {
    await this.threads.get(id)?.terminate();
    const journal = new Journal(this.journals, id);
    const position = committedPosition(this.rings[id - 1]);
    for (const object of [this.set, this.registers]) object.recover(id, journal, position);
    recoverLog(this.rings[id - 1]);
    await this.start(id);
  }

  async stop(): Promise<SharedEnd[]> {
    const ends = [...this.threads.values()].map(async (thread) => {
      const [end] = (await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) })) as [SharedEnd];
      return end;
    });
    Atomics.store(this.control, 0, 1);
    const told = await Promise.all(ends);
    await this.close();
    this.drain();
    return told;
  }

  async close(): Promise<void> {
    this.draining = false;
    await Promise.all([...this.threads.values()].map((thread) => thread.terminate()));
    await this.drained;
  }

  private drain(): void {
    for (const ring of this.consumers) {
      while (ring.next())
        this.said.push({ object: ring.objectId, op: ring.op, words: ring.words.slice(ring.at, ring.at + ring.length) });
      ring.release();
    }
  }

  private async drainAlong(): Promise<void> {
    while (this.draining) {
      this.drain();
      await sleep(1);
    }
  }

  /** No lock is held, and an instance that is told everything, last things first, ends the same. */
  assertReplicated(): void {
    const main = { id: 1, journals: createJournals(1) };
    const set = openShared(hammeredSet, 0, new SharedArrayBuffer(hammeredSet.bytes), main, null, 1);
    const registers = openShared(hammeredRegisters, 1, new SharedArrayBuffer(hammeredRegisters.bytes), main, null, 1);
    for (const { object, op, words } of this.said.toReversed()) {
      const applied = (object === 0 ? set : registers).apply(op, words, 0, words.length, 0, NOW);
      assert.ok(applied === Applied.CHANGED || applied === Applied.UNCHANGED);
    }
    for (const object of [this.set, this.registers]) {
      assert.equal(object.locksHeld(), 0);
      assert.equal(object.describe(NOW)['malformed'], 0);
    }
    assert.equal(set.digest(NOW), this.set.digest(NOW));
    assert.equal(registers.digest(), this.registers.digest());
  }
}

describe('sets and registers under several threads', () => {
  let hammer: Hammer;

  beforeEach(() => {
    hammer = new Hammer();
  });

  afterEach(() => hammer.close());

  it('four workers and the receiver tear nothing and hold no lock', async () => {
    for (const id of [1, 2, 3, 4, RECEIVER]) await hammer.start(id);
    await sleep(scaled(500, 1500));
    for (const { done, torn } of await hammer.stop()) {
      assert.ok(done > 0);
      assert.equal(torn, 0);
    }
    assert.equal(hammer.set.locksHeld() + hammer.registers.locksHeld(), 0);
    assert.equal(hammer.set.describe(NOW)['malformed'], 0);
    assert.equal(hammer.registers.describe(NOW)['malformed'], 0);
  });

  it('the logs of four workers tell everything, though some were killed wherever they were', async () => {
    for (const id of [1, 2, 3, 4]) await hammer.start(id);
    for (let kill = 0; kill < scaled(4, 8); kill++) {
      await sleep((kill * 7) % 23);
      await hammer.replace(1 + (kill % 2));
    }
    for (const { torn } of await hammer.stop()) assert.equal(torn, 0);
    hammer.assertReplicated();
  });
});
