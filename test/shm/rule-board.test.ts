import { strict as assert } from 'node:assert';
import { Worker } from 'node:worker_threads';
import { createRuleBoard, RULE_ENTRIES_MAX, RULE_WORDS_MAX, RuleBoard, RuleReader } from '../../shm/rule-board.js';

describe('rule board', () => {
  it('gives workers the rules published last, and counts on for entries that stay', () => {
    const buffer = createRuleBoard(2);
    const board = new RuleBoard(buffer, 2);
    const readers = [0, 1].map((worker) => new RuleReader(buffer, 2, worker));
    assert.equal(readers[0].version, 0);
    assert.ok(board.publish(Int32Array.of(11, 12), Int32Array.of(-1, -1)));
    for (const reader of readers) {
      assert.ok(reader.refresh());
      assert.ok(!reader.refresh());
      assert.deepEqual([...reader.words.subarray(reader.base, reader.base + 2)], [11, 12]);
      reader.count(1, 60);
    }
    assert.deepEqual(
      [board.count(0), board.count(1)],
      [
        { packets: 0, bytes: 0 },
        { packets: 2, bytes: 120 },
      ],
    );
    assert.ok(board.publish(Int32Array.of(22), Int32Array.of(1)));
    readers[1].count(1, 40); // with the rules before
    readers[0].refresh();
    readers[0].count(0, 1);
    assert.deepEqual(board.count(0), { packets: 4, bytes: 161 });
    assert.ok(!board.publish(Int32Array.of(33), Int32Array.of(0)), 'one still works with the rules before');
    readers[1].refresh();
    assert.ok(board.publish(Int32Array.of(33), Int32Array.of(0)));
    assert.deepEqual(board.count(0), { packets: 4, bytes: 161 });
  });

  it('does not wait for a worker that is dead, and gives its successor the rules in force', () => {
    const buffer = createRuleBoard(1);
    const board = new RuleBoard(buffer, 1);
    board.publish(Int32Array.of(1), Int32Array.of(-1));
    new RuleReader(buffer, 1, 0).count(0, 5);
    board.publish(Int32Array.of(2), Int32Array.of(0));
    assert.ok(!board.settle());
    board.forget(0);
    assert.ok(board.publish(Int32Array.of(3), Int32Array.of(0)));
    const reader = new RuleReader(buffer, 1, 0);
    assert.equal(reader.words[reader.base], 3);
    assert.deepEqual(board.count(0), { packets: 1, bytes: 5 });
  });

  it('refuses what it has no room for', () => {
    const board = new RuleBoard(createRuleBoard(1), 1);
    assert.throws(() => board.publish(new Int32Array(RULE_WORDS_MAX + 1), new Int32Array(0)), /words/);
    assert.throws(() => board.publish(new Int32Array(0), new Int32Array(RULE_ENTRIES_MAX + 1)), /rules/);
    assert.equal(board.version, 0);
  });

  it('never shows a thread that works at full speed rules of two versions', async () => {
    const buffer = createRuleBoard(1);
    const board = new RuleBoard(buffer, 1);
    const WORDS = 5000;
    board.publish(new Int32Array(WORDS).fill(1), Int32Array.of(-1));
    // Whether the thread is to stop, and how many versions it has seen.
    const stop = new Int32Array(new SharedArrayBuffer(8));
    const worker = new Worker(new URL('./rule-board-reader.js', import.meta.url), {
      workerData: { buffer, stop, WORDS },
    });
    const torn = new Promise<{ torn: number; versions: number; counted: number }>((resolve, reject) => {
      worker.on('message', resolve);
      worker.on('error', reject);
    });
    let published = 1;
    for (const until = performance.now() + 400; stop[1] <= 5 || performance.now() < until; ) {
      if (board.publish(new Int32Array(WORDS).fill(board.version + 1), Int32Array.of(0))) published++;
      else await new Promise(setImmediate);
    }
    stop[0] = 1;
    const seen = await torn;
    await worker.terminate();
    assert.equal(seen.torn, 0);
    assert.ok(seen.versions <= published, `${seen.versions} of ${published} versions`);
    assert.equal(board.count(0).packets, seen.counted, 'no count was lost');
  });
});
