import { strict as assert } from 'node:assert';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import {
  committedPosition,
  createLogRing,
  LogConsumer,
  LogProducer,
  MAX_OBJECT_ID,
  MAX_PAYLOAD_WORDS,
} from '../../shm/log.js';
import { NONE } from '../../shm/none.js';

function append(log: LogProducer, objectId: number, op: number, payload: readonly number[]): boolean {
  const at = log.claim(objectId, op, payload.length);
  if (at === NONE) return false;
  payload.forEach((word, i) => {
    log.words[at + i] = word;
  });
  log.commit();
  return true;
}

function take(log: LogConsumer): { objectId: number; op: number; payload: number[] } | null {
  if (!log.next()) return null;
  return { objectId: log.objectId, op: log.op, payload: Array.from(log.words.subarray(log.at, log.at + log.length)) };
}

describe('log ring', () => {
  it('carries whole records in order through any mix of appends, aborts, publishes and reads', () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('append' as const),
        objectId: fc.integer({ min: 0, max: MAX_OBJECT_ID }),
        op: fc.integer({ min: 0, max: 255 }),
        payload: fc.array(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), { maxLength: MAX_PAYLOAD_WORDS }),
      }),
      fc.record({ kind: fc.constant('abort' as const), words: fc.integer({ min: 0, max: MAX_PAYLOAD_WORDS }) }),
      fc.record({ kind: fc.constant('publish' as const) }),
      fc.record({ kind: fc.constant('read' as const), count: fc.integer({ min: 1, max: 8 }) }),
      fc.record({ kind: fc.constant('reopen' as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 200 }), (steps) => {
        const buffer = createLogRing(1);
        let producer = new LogProducer(buffer);
        const consumer = new LogConsumer(buffer);
        const committed: unknown[] = [];
        let visible = 0;
        let read = 0;
        for (const s of steps) {
          if (s.kind === 'append') {
            if (append(producer, s.objectId, s.op, s.payload))
              committed.push({ objectId: s.objectId, op: s.op, payload: s.payload });
          } else if (s.kind === 'abort') {
            if (producer.claim(1, 1, s.words) !== NONE) producer.abort();
          } else if (s.kind === 'publish') {
            assert.equal(producer.publish(), visible !== committed.length);
            visible = committed.length;
          } else if (s.kind === 'reopen') {
            // a dead producer's committed records are not lost
            producer = new LogProducer(buffer);
            visible = committed.length;
          } else {
            for (let i = 0; i < s.count; i++) {
              const record = take(consumer);
              if (read === visible) assert.equal(record, null);
              else assert.deepEqual(record, committed[read++]);
            }
            consumer.release();
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('refuses a record it has no room for and takes it once room was given back', () => {
    const buffer = createLogRing(1);
    const producer = new LogProducer(buffer);
    const consumer = new LogConsumer(buffer);
    let appended = 0;
    while (append(producer, 7, 1, [appended, 0, 0])) appended++;
    assert.equal(appended, 256); // 1024 words, four a record
    producer.publish();
    assert.deepEqual(take(consumer)?.payload, [0, 0, 0]);
    assert.equal(append(producer, 7, 1, [1, 2, 3]), false, 'stepped over is not yet given back');
    consumer.release();
    assert.equal(append(producer, 7, 1, [1, 2, 3]), true);
  });

  it('shows a claimed record to nobody before commit, and a committed one only once published', () => {
    const buffer = createLogRing(1);
    const producer = new LogProducer(buffer);
    const consumer = new LogConsumer(buffer);
    producer.claim(1, 1, 2);
    producer.publish();
    assert.equal(consumer.next(), false);
    producer.commit();
    assert.equal(consumer.next(), false);
    assert.equal(committedPosition(buffer), 3);
    producer.publish();
    assert.equal(consumer.next(), true);
    assert.equal(consumer.backlog, 0);
  });

  it('goes on past 2^32 words of position', () => {
    const buffer = createLogRing(1);
    // Both sides opened just before the wrap: the control words are the ring's only memory of the
    // position.
    const control = new Int32Array(buffer, 0, 48);
    control[0] = control[16] = control[32] = -20;
    const producer = new LogProducer(buffer);
    const consumer = new LogConsumer(buffer);
    for (let i = 0; i < 5000; i++) {
      assert.equal(append(producer, 3, 2, [i, ~i]), true);
      producer.publish();
      assert.deepEqual(take(consumer), { objectId: 3, op: 2, payload: [i, ~i] });
      consumer.release();
    }
  });

  it('loses and tears nothing between two threads running as fast as they can', async function () {
    this.timeout(60_000);
    const records = 2_000_000;
    const buffer = createLogRing(4096);
    const producer = new Worker(new URL('./log-producer.js', import.meta.url), { workerData: { buffer, records } });
    const failed = new Promise<never>((_, reject) => producer.once('error', reject));
    const consumer = new LogConsumer(buffer);
    let seen = 0;
    while (seen < records) {
      let batch = 0;
      while (batch < 256 && consumer.next()) {
        const words = (seen % 7) + 1;
        if (consumer.objectId !== (seen & 0xfff) || consumer.op !== (seen & 0xff) || consumer.length !== words)
          assert.fail(`record ${seen}: header ${consumer.objectId} ${consumer.op} ${consumer.length}`);
        for (let i = 0; i < words; i++)
          if (consumer.words[consumer.at + i] !== ((seen * 31 + i) | 0)) assert.fail(`record ${seen}: word ${i}`);
        seen++;
        batch++;
      }
      consumer.release();
      if (batch === 0) await Promise.race([new Promise(setImmediate), failed]);
    }
    await new Promise((resolve) => producer.once('exit', resolve));
    assert.equal(consumer.backlog, 0);
  });
});
