import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { createLogRing, LogConsumer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { createJournals, Journal, JournalState } from '../../shm/objects/core/journal.js';
import { Applied } from '../../shm/objects/core/object.js';
import { FLOW_PUT, type FlowTable } from '../../shm/objects/flow/flow-table.js';
import { Region } from '../../shm/region.js';
import {
  FLOOD_ESTABLISHED,
  FLOOD_QUOTA,
  type FlowWork,
  fitting,
  flooded,
  HAMMER_ID,
  hammered,
  keyOf,
  VALUE_WORDS,
} from './flow-hammer.js';

const NOW = 70_000_000;
const WORKERS = 4;
const RECEIVER = WORKERS + 1;
const READY_MS = 20_000;

function open(region: SharedArrayBuffer, id: number, journals = createJournals(id), definition = hammered): FlowTable {
  return definition.open({
    id: HAMMER_ID,
    region: new Region(region),
    secret: Int32Array.of(1, 2, 3, 4),
    writer: { id, journal: new Journal(journals, id), log: null },
    memberIndex: 0,
    memberCount: 1,
  });
}

describe('flow table under several threads', () => {
  const threads: Worker[] = [];

  function start(work: FlowWork): Worker {
    const thread = new Worker(new URL('./flow-worker.js', import.meta.url), { workerData: work });
    threads.push(thread);
    return thread;
  }

  afterEach(async () => {
    await Promise.all(threads.splice(0).map((thread) => thread.terminate()));
  });

  it('tears and loses nothing, and its log tells another instance everything', async () => {
    const region = new SharedArrayBuffer(hammered.bytes);
    const journals = createJournals(RECEIVER);
    const control = new Int32Array(new SharedArrayBuffer(16));
    const said: Int32Array[] = [];
    const ends: Promise<{ torn: number; read: number }>[] = [];
    const consumers: LogConsumer[] = [];
    const drain = (): void => {
      for (const consumer of consumers) {
        while (consumer.next()) said.push(consumer.words.slice(consumer.at, consumer.at + consumer.length));
        consumer.release();
      }
    };
    for (let id = 1; id <= RECEIVER; id++) {
      const ring = createLogRing(1 << 14);
      consumers.push(new LogConsumer(ring));
      const role = id === RECEIVER ? 'receiver' : 'worker';
      const shared = control.buffer as SharedArrayBuffer;
      const thread = start({ id, role, region, journals, control: shared, ring, now: NOW });
      ends.push(
        new Promise((resolve) => {
          thread.on('message', (message) => {
            if (message instanceof Int32Array) said.push(message);
            else if (message !== 'started') resolve(message);
          });
        }),
      );
    }
    for (let i = 0; i < 200; i++) {
      await sleep(5);
      drain();
    }
    Atomics.store(control, 1, 1);
    const counts = await Promise.all(ends);
    drain();
    assert.equal(
      counts.reduce((sum, { torn }) => sum + torn, 0),
      0,
    );
    assert.ok(counts.some(({ read }) => read > 0));

    const table = open(region, 1);
    assert.equal(table.locksHeld(), 0);
    const keys = new Set<number>();
    table.forEach(NOW, (entry) => {
      assert.ok(!keys.has(entry[3]), `key ${entry[3]} is in the table twice`);
      keys.add(entry[3]);
    });
    const second = open(new SharedArrayBuffer(hammered.bytes), 1);
    for (const record of said.reverse()) {
      const applied = second.apply(FLOW_PUT, record, 0, record.length, 9, NOW);
      assert.ok(applied === Applied.CHANGED || applied === Applied.UNCHANGED);
    }
    assert.equal(second.digest(NOW), table.digest(NOW));
  });

  it('keeps what is established, and every slot its key’s for the guard, while threads put half-open entries out', async () => {
    const region = new SharedArrayBuffer(flooded.bytes);
    const journals = createJournals(RECEIVER);
    const control = new Int32Array(new SharedArrayBuffer(16));
    const main = open(region, RECEIVER, journals, flooded);
    const value = new Int32Array(VALUE_WORDS);
    for (let n = 0; n < FLOOD_ESTABLISHED; n++) {
      const record = Int32Array.from([...keyOf(n), NOW, 1, NOW + 1000, ...fitting(n, value)]);
      assert.equal(main.apply(FLOW_PUT, record, 0, record.length, 9, NOW), Applied.CHANGED);
    }
    const shared = control.buffer as SharedArrayBuffer;
    const consumers: LogConsumer[] = [];
    const ends = Array.from({ length: WORKERS }, (_, i) => {
      const ring = createLogRing(1 << 14);
      consumers.push(new LogConsumer(ring));
      const thread = start({ id: i + 1, role: 'flood', region, journals, control: shared, ring, now: NOW });
      return new Promise<{ torn: number }>((resolve) => {
        thread.on('message', (message) => message !== 'started' && resolve(message));
      });
    });
    let told = 0;
    const seconds = 10;
    for (let i = 0; i < 10 * seconds; i++) {
      await sleep(10);
      // Time runs ten times as fast, which makes the guard as short.
      Atomics.store(control, 0, Math.trunc(i / 10));
      for (const consumer of consumers) {
        while (consumer.next()) told++;
        consumer.release();
      }
    }
    Atomics.store(control, 1, 1);
    for (const { torn } of await Promise.all(ends)) assert.equal(torn, 0);
    const now = NOW + seconds - 1;
    for (let n = 0; n < FLOOD_ESTABLISHED; n++)
      assert.notEqual(main.find(main.hash(keyOf(n), 0), keyOf(n), 0, now), NONE, `${n} was put out`);
    let halfOpen = 0;
    main.forEach(0, (entry) => {
      if (entry[2] === 0) halfOpen++;
    });
    const figures = main.describe(now);
    assert.equal(figures['half_open'], halfOpen);
    assert.ok(halfOpen <= FLOOD_QUOTA + WORKERS);
    assert.ok(figures['half_open_evicted'] > FLOOD_QUOTA && figures['half_open_refused'] > 0);
    assert.ok(told > 0);
    assert.equal(main.locksHeld(), 0);
  });

  it('is whole and free again after a thread was killed within its winner rule', async () => {
    const region = new SharedArrayBuffer(hammered.bytes);
    const journals = createJournals(2);
    const control = new Int32Array(new SharedArrayBuffer(16));
    const main = open(region, 1, journals);
    const value = new Int32Array(VALUE_WORDS);
    const put = (n: number): Applied => {
      const record = Int32Array.from([...keyOf(0), NOW, 0, NOW + 100, ...fitting(n, value)]);
      return main.apply(FLOW_PUT, record, 0, record.length, 9, NOW);
    };
    assert.equal(put(5), Applied.CHANGED);
    const before = main.digest(NOW);
    const shared = control.buffer as SharedArrayBuffer;
    const thread = start({
      id: 2,
      role: 'spinner',
      region,
      journals,
      control: shared,
      ring: createLogRing(1),
      now: NOW,
    });
    await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });
    const wait = Atomics.waitAsync(control, 2, 0, READY_MS);
    assert.notEqual(wait.async ? await wait.value : wait.value, 'timed-out');
    assert.ok(main.locksHeld() > 0);
    const slot = main.find(main.hash(keyOf(0), 0), keyOf(0), 0, NOW);
    assert.equal(main.value(slot, 0), 5, 'readers are not held up');

    await thread.terminate();
    const journal = new Journal(journals, 2);
    assert.notEqual(journal.state, JournalState.EMPTY);
    assert.ok(main.recover(2, journal, 0) > 0);
    assert.equal(main.locksHeld(), 0);
    assert.equal(main.digest(NOW), before);
    assert.equal(put(9), Applied.CHANGED);
    assert.equal(main.value(main.find(main.hash(keyOf(0), 0), keyOf(0), 0, NOW), 0), 9);
  });
});
