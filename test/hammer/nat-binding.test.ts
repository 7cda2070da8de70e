import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { committedPosition, createLogRing, LogConsumer, recoverLog } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import { Applied } from '../../shm/objects/core/object.js';
import { NAT_BIND, type NatBinding } from '../../shm/objects/nat/nat-binding.js';
import { NAT_RECORD_WORDS } from '../../shm/objects/nat/nat-record.js';
import { Region } from '../../shm/region.js';
import { entriesOf } from '../shm/objects/nat/nat-model.js';
import { scaled } from '../support/scale.js';
import {
  Draw,
  EXTERNAL,
  endpointOf,
  flooded,
  foreignRecords,
  HAMMER_ID,
  type HammerCounts,
  type HammerWork,
  hammered,
  UDP,
} from './nat-hammer.js';

const START = 70_000_000;
const WORKERS = 4;
const RECEIVER = WORKERS + 1;
const READY_MS = 20_000;

function open(region: SharedArrayBuffer, definition = hammered): NatBinding {
  return definition.open({
    id: HAMMER_ID,
    region: new Region(region),
    secret: Int32Array.of(1, 2, 3, 4),
    writer: { id: 1, journal: new Journal(createJournals(1), 1), log: null },
    memberIndex: 0,
    memberCount: 1,
  });
}

/**
 * One instance whose threads hammer one object, while main reads their logs as the send thread
 * would.
 */
class Instance {
  readonly region = new SharedArrayBuffer(hammered.bytes);
  readonly journals = createJournals(RECEIVER);
  readonly control = new Int32Array(new SharedArrayBuffer(8));
  readonly object: NatBinding;
  /** Everything a second instance is to be told. */
  readonly said: number[][] = [];
  readonly rings = Array.from({ length: WORKERS }, () => createLogRing(1 << 14));
  private readonly consumers = this.rings.map((ring) => new LogConsumer(ring));
  private readonly threads = new Map<number, Worker>();
  private readonly records: Int32Array;
  private readonly lifetime: number;
  private readonly flood: boolean;
  private draining = true;
  private seed = 1;
  private readonly drained: Promise<void>;

  constructor(lifetime: number, flood = false) {
    this.lifetime = lifetime;
    this.flood = flood;
    this.object = open(this.region, flood ? flooded : hammered);
    this.control[0] = START;
    this.records = foreignRecords(3000, START, lifetime, new Draw(7));
    this.drained = this.drainAlong();
  }

  async start(id: number): Promise<void> {
    const work: HammerWork = {
      id,
      role: id === RECEIVER ? 'receiver' : 'worker',
      region: this.region,
      journals: this.journals,
      control: this.control.buffer as SharedArrayBuffer,
      ring: this.rings[id - 1],
      records: this.records,
      lifetime: this.lifetime,
      flood: this.flood,
      seed: this.seed++,
    };
    const thread = new Worker(new URL('./nat-worker.js', import.meta.url), { workerData: work });
    this.threads.set(id, thread);
    await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });
  }

  /**
   * Ends a thread wherever it is, and mends what it left. Returns whether it was within an
   * operation.
   */
  async kill(id: number): Promise<boolean> {
    await this.threads.get(id)?.terminate();
    this.threads.delete(id);
    const journal = new Journal(this.journals, id);
    const ring = this.rings[id - 1];
    const within = journal.state !== 0;
    this.object.recover(id, journal, ring === undefined ? 0 : committedPosition(ring));
    assert.equal(journal.state, 0);
    if (ring !== undefined) recoverLog(ring);
    return within;
  }

  /** Ends everything, also after a failure. */
  async close(): Promise<void> {
    this.draining = false;
    await Promise.all([...this.threads.values()].map((thread) => thread.terminate()));
    await this.drained;
  }

  async stop(): Promise<HammerCounts> {
    const ends = [...this.threads.values()].map(async (thread) => {
      const [counts] = (await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) })) as [HammerCounts];
      return counts;
    });
    Atomics.store(this.control, 1, 1);
    const counts = await Promise.all(ends);
    await this.close();
    this.drain();
    for (let at = 0; at < this.records.length; at += NAT_RECORD_WORDS)
      this.said.push([...this.records.subarray(at, at + NAT_RECORD_WORDS)]);
    const sum = { added: 0, refreshed: 0, applied: 0, refused: 0, torn: 0 };
    for (const one of counts) for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += one[name];
    return sum;
  }

  private drain(): void {
    for (const consumer of this.consumers) {
      while (consumer.next()) {
        assert.equal(consumer.objectId, HAMMER_ID);
        this.said.push([...consumer.words.subarray(consumer.at, consumer.at + consumer.length)]);
      }
      consumer.release();
    }
  }

  private async drainAlong(): Promise<void> {
    while (this.draining) {
      this.drain();
      await sleep(1);
    }
  }

  /** No lock held, no endpoint twice, no port with two owners, and both directions agree. */
  assertConsistent(now: number): void {
    assert.equal(this.object.locksHeld(), 0);
    const hosts = new Set<number>();
    const ports = new Set<number>();
    for (const entry of entriesOf(this.object, now)) {
      assert.ok(!hosts.has(entry.internalAddress), `host ${entry.internalAddress} is in the table twice`);
      hosts.add(entry.internalAddress);
      const key = endpointOf(entry.internalAddress);
      const hash = this.object.hash(entry.internalAddress, key);
      const slot = this.object.findOutbound(hash, entry.internalAddress, key, now);
      assert.equal(slot === NONE, entry.dead);
      if (entry.dead) continue;
      assert.ok(!ports.has(entry.externalPort), `port ${entry.externalPort} has two owners`);
      ports.add(entry.externalPort);
      const raw = ((entry.externalPort & 0xff) << 8) | (entry.externalPort >>> 8);
      assert.equal(this.object.findInbound(this.object.place(EXTERNAL, raw, UDP), now), slot);
    }
    assert.equal(this.object.describe(now)['malformed'], 0);
  }

  /** A second instance that is told everything, last things first, ends the same. */
  assertReplicated(now: number): void {
    const second = open(new SharedArrayBuffer(hammered.bytes));
    for (const record of this.said.reverse()) {
      const applied = second.apply(NAT_BIND, Int32Array.from(record), 0, record.length, 1, now);
      assert.ok(applied === Applied.CHANGED || applied === Applied.UNCHANGED);
    }
    assert.equal(second.digest(now), this.object.digest(now));
  }
}

describe('nat binding under several threads', () => {
  let instance: Instance;

  afterEach(() => instance.close());

  it('tears, loses and doubles nothing, and its log tells another instance everything', async () => {
    instance = new Instance(100_000);
    for (let id = 1; id <= RECEIVER; id++) await instance.start(id);
    await sleep(scaled(700, 2000));
    const counts = await instance.stop();
    assert.equal(counts.torn, 0);
    assert.ok(counts.added > 0 && counts.refreshed > 0 && counts.applied > 0);
    instance.assertConsistent(START);
    instance.assertReplicated(START);
  });

  it('stays whole while entries run out and their slots and ports are taken again', async () => {
    instance = new Instance(8);
    for (const id of [1, 2, RECEIVER]) await instance.start(id);
    for (let tick = 0; tick < 60; tick++) {
      await sleep(20);
      Atomics.add(instance.control, 0, 1);
    }
    const counts = await instance.stop();
    assert.ok(counts.added > 0);
    instance.assertConsistent(instance.control[0]);
    const later = instance.control[0] + 100;
    instance.object.sweep(later, 4096);
    assert.equal(instance.object.describe(later)['used'], 0);
    assert.equal(instance.object.locksHeld(), 0);
  });

  it('stays whole while half-open bindings are put out', async () => {
    instance = new Instance(100, true);
    for (const id of [1, 2, RECEIVER]) await instance.start(id);
    for (let tick = 0; tick < 60; tick++) {
      await sleep(20);
      Atomics.add(instance.control, 0, 1);
    }
    const counts = await instance.stop();
    const now = instance.control[0];
    assert.equal(counts.torn, 0);
    instance.assertConsistent(now);
    const figures = instance.object.describe(now);
    assert.ok(figures['half_open_evicted'] > 0 && figures['half_open_refused'] > 0, JSON.stringify(figures));
    const later = now + 1000;
    instance.object.sweep(later, 4096);
    assert.equal(instance.object.describe(later)['used'], 0);
    assert.equal(instance.object.describe(later)['half_open'], 0);
  });

  it('is whole again after threads were killed wherever they were', async () => {
    instance = new Instance(100_000);
    const draw = new Draw(Date.now());
    const ids = [1, 2, RECEIVER];
    for (const id of ids) await instance.start(id);
    let within = 0;
    for (let kill = 0; kill < scaled(5, 10); kill++) {
      const id = ids[draw.below(ids.length)];
      await sleep(draw.below(20));
      if (await instance.kill(id)) within++;
      await instance.start(id);
    }
    await instance.stop();
    if (within === 0) console.log('      no thread was within an operation when it was killed');
    instance.assertConsistent(START);
    instance.assertReplicated(START);
  });
});
