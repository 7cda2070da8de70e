import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { committedPosition, createLogRing, LogConsumer, recoverLog } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import type { TrafficGraph } from '../../shm/objects/graph/graph.js';
import type { CountMin } from '../../shm/objects/sketch/count-min.js';
import { Region } from '../../shm/region.js';
import { RECORD_WORDS_MAX, STAGING_WORDS, StagingArea } from '../../workers/replication/sending/staging.js';
import { scaled } from '../support/scale.js';
import {
  HAMMER_ID,
  hammered,
  KEYS,
  type Kind,
  MEMBERS,
  NODES,
  PACKET_BYTES,
  RECEIVER,
  type SketchEnd,
  type SketchWork,
  WORKERS,
} from './sketch-hammer.js';

const START = 70_000_000;
const READY_MS = 20_000;
/** Writer id of main, which repairs. */
const MENDER = RECEIVER + 1;

/**
 * An instance whose threads hammer one object, while main is its send thread, and a third member
 * that is told it.
 */
class Hammer {
  readonly object: StateObject;
  readonly other: StateObject;
  readonly control = new Int32Array(new SharedArrayBuffer(8));
  private readonly kind: Kind;
  private readonly region: SharedArrayBuffer;
  private readonly local: SharedArrayBuffer;
  private readonly journals = createJournals(MENDER);
  private readonly rings = Array.from({ length: WORKERS }, () => createLogRing(1 << 14));
  private readonly consumers = this.rings.map((ring) => new LogConsumer(ring));
  private readonly threads = new Map<number, Worker>();
  private readonly sender: StateObject;
  private readonly stage: StagingArea;
  private seed = 1;
  private draining = true;
  private readonly drained: Promise<void>;

  constructor(kind: Kind) {
    const definition = hammered[kind];
    this.kind = kind;
    this.control[0] = START;
    this.region = new SharedArrayBuffer(definition.bytes);
    this.local = new SharedArrayBuffer(definition.localBytes?.(WORKERS) ?? 0);
    this.object = this.open(this.region, this.local, 0);
    this.sender = this.object;
    this.other = this.open(new SharedArrayBuffer(definition.bytes), new SharedArrayBuffer(this.local.byteLength), 2);
    this.stage = new StagingArea(this.sender);
    this.drained = this.drainAlong();
  }

  private open(region: SharedArrayBuffer, local: SharedArrayBuffer, memberIndex: number): StateObject {
    return hammered[this.kind].open({
      id: HAMMER_ID,
      region: new Region(region),
      secret: Int32Array.of(1, 2, 3, 4),
      writer: { id: MENDER, journal: new Journal(this.journals, MENDER), log: null },
      memberIndex,
      memberCount: MEMBERS,
      local: new Region(local),
      stripes: WORKERS,
    });
  }

  async start(id: number): Promise<void> {
    const work: SketchWork = {
      kind: this.kind,
      id,
      region: this.region,
      local: this.local,
      journals: this.journals,
      control: this.control.buffer as SharedArrayBuffer,
      ring: this.rings[id - 1] ?? null,
      seed: this.seed++ * 7919,
    };
    const thread = new Worker(new URL('./sketch-worker.js', import.meta.url), { workerData: work });
    this.threads.set(id, thread);
    await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });
  }

  /**
   * Ends a worker wherever it is, mends what it left, and starts it again. Returns whether it was
   * within an operation.
   */
  async replace(id: number): Promise<boolean> {
    await this.threads.get(id)?.terminate();
    const ring = this.rings[id - 1];
    const journal = new Journal(this.journals, id);
    const within = journal.state !== 0;
    this.object.recover(id, journal, committedPosition(ring));
    assert.equal(journal.state, 0);
    recoverLog(ring);
    await this.start(id);
    return within;
  }

  /**
   * Stops the threads and tells the third member all that they did. Returns what they did, those
   * replaced left out.
   */
  async stop(): Promise<SketchEnd> {
    const ends = [...this.threads.values()].map(async (thread) => {
      const [end] = (await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) })) as [SketchEnd];
      return end;
    });
    Atomics.store(this.control, 1, 1);
    const told = await Promise.all(ends);
    await this.close();
    while (this.round() > 0);
    const peer = told.find((end) => end.peer !== null)?.peer ?? null;
    assert.ok(peer !== null);
    this.other.merge?.(new Region(peer), this.now);
    const sum = (of: (end: SketchEnd) => number): number => told.reduce((all, end) => all + of(end), 0);
    return { done: sum((end) => end.done), refused: sum((end) => end.refused), torn: sum((end) => end.torn), peer };
  }

  get now(): number {
    return Atomics.load(this.control, 0);
  }

  /** Ends everything, also after a failure. */
  async close(): Promise<void> {
    this.draining = false;
    await Promise.all([...this.threads.values()].map((thread) => thread.terminate()));
    await this.drained;
  }

  /**
   * What the send thread does in a round, and the third member with what it gets. Returns the
   * records told.
   */
  private round(): number {
    const { stage, sender } = this;
    const hasRoom = (): boolean => stage.used + RECORD_WORDS_MAX <= STAGING_WORDS;
    for (const ring of this.consumers)
      while (hasRoom() && ring.next()) {
        assert.equal(ring.objectId, HAMMER_ID);
        stage.add(ring.op, ring.words, ring.at, ring.length);
      }
    const words = new Int32Array(8);
    while (hasRoom()) {
      const unreplicated = sender.nextUnreplicated?.(words, 0) ?? NONE;
      if (unreplicated === NONE) break;
      stage.add(unreplicated & 0xff, words, 0, unreplicated >>> 8);
    }
    const { records } = stage;
    for (let i = 0; i < records; i++) {
      const header = stage.words[stage.start[i]];
      this.other.apply((header >>> 8) & 0xff, stage.words, stage.start[i] + 1, header & 0xff, 0, this.now);
    }
    stage.clear();
    if (records > 0) sender.settle?.(records);
    for (const ring of this.consumers) ring.release();
    return records;
  }

  private async drainAlong(): Promise<void> {
    while (this.draining) {
      this.round();
      await sleep(1);
    }
  }

  assertReplicated(): void {
    const { now } = this;
    for (const object of [this.object, this.other]) assert.equal(object.describe(now)['malformed'], 0);
    const digest = (object: StateObject): string => (object as TrafficGraph).digest(now);
    assert.equal(digest(this.other), digest(this.object));
  }
}

/**
 * No lock is held, no edge is there twice, and the degrees are those of the edges that are there.
 */
function assertConsistent(object: TrafficGraph, now: number): void {
  assert.equal(object.locksHeld(), 0);
  const out = new Map<number, number>();
  const into = new Map<number, number>();
  const seen = new Set<string>();
  object.forEachEdge(now, (from, to, packets, bytes) => {
    assert.ok(!seen.has(`${from} ${to}`));
    seen.add(`${from} ${to}`);
    assert.equal(bytes, packets * PACKET_BYTES);
    out.set(from, (out.get(from) ?? 0) + 1);
    into.set(to, (into.get(to) ?? 0) + 1);
  });
  object.forEachNode((node, outDegree, inDegree) => {
    assert.equal(outDegree, out.get(node) ?? 0);
    assert.equal(inDegree, into.get(node) ?? 0);
    out.delete(node);
    into.delete(node);
  });
  assert.equal(out.size + into.size, 0);
}

describe('sketches and graph under several threads', () => {
  let hammer: Hammer;

  afterEach(() => hammer.close());

  async function run(kind: Kind, steps = scaled(25, 75), tick = 0): Promise<SketchEnd> {
    hammer = new Hammer(kind);
    for (let id = 1; id <= RECEIVER; id++) await hammer.start(id);
    for (let step = 0; step < steps; step++) {
      await sleep(20);
      if (tick > 0 && step % tick === 0) Atomics.add(hammer.control, 0, 1);
    }
    return hammer.stop();
  }

  it('graph: tears, loses and doubles nothing', async () => {
    const end = await run('graph', 75);
    assert.equal(end.torn, 0);
    assert.ok(end.done > 0);
    hammer.assertReplicated();
    const traffic = hammer.object as TrafficGraph;
    assertConsistent(traffic, START);
    let packets = 0;
    traffic.forEachEdge(START, (_from, _to, count) => {
      packets += count;
    });
    assert.equal(packets, end.done, 'every packet of every worker and of the other instance');
    for (let node = 0; node < NODES; node++) assert.equal(traffic.outDegree(node), NODES);
  });

  it('graph: stays whole while edges run out and are made again', async () => {
    const end = await run('graph that expires', 75, 5);
    assert.equal(end.torn, 0);
    const traffic = hammer.object as TrafficGraph;
    assert.ok(traffic.describe(hammer.now)['reclaimed'] > 0);
    for (let i = 0; i < 4; i++) traffic.sweep(hammer.now + 1000, 512);
    assertConsistent(traffic, hammer.now + 1000);
    assert.equal(traffic.describe(hammer.now)['nodes_used'], 0);
  });

  it('HyperLogLog: loses no key', async () => {
    const end = await run('hyperloglog');
    hammer.assertReplicated();
    assert.ok(end.done > 0 && hammer.object.describe(START)['used'] > 0);
  });

  it('keyed HyperLogLogs: lose no key that was told of', async () => {
    const end = await run('keyed hyperloglogs');
    hammer.assertReplicated();
    const { replicated, keys, displaced } = hammer.object.describe(START);
    assert.ok(end.done > 0);
    assert.deepEqual([replicated, keys, displaced], [KEYS, KEYS, 0]);
  });

  it('count-min sketch: loses and doubles no count', async () => {
    const end = await run('count-min');
    assert.equal(end.refused, 0);
    hammer.assertReplicated();
    const sketch = hammer.object as CountMin;
    assert.equal(sketch.total(), end.done);
    assert.equal((hammer.other as CountMin).total(), end.done);
    assert.ok(sketch.heavyHitters().length <= 50);
    for (const { key } of sketch.heavyHitters()) assert.ok(key.length === 2 && key[0] < 50 && key[1] === 1);
  });

  for (const kind of ['graph', 'hyperloglog', 'keyed hyperloglogs'] as const)
    it(`${kind}: is whole again after workers were killed wherever they were`, async () => {
      hammer = new Hammer(kind);
      for (const id of [1, 2, RECEIVER]) await hammer.start(id);
      for (let kill = 0; kill < scaled(6, 12); kill++) {
        await sleep(kill * 5);
        await hammer.replace(1 + (kill % 2));
      }
      const end = await hammer.stop();
      assert.equal(end.torn, 0);
      hammer.assertReplicated();
      if (kind === 'graph') assertConsistent(hammer.object as TrafficGraph, START);
    });
});
