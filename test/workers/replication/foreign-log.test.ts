import { strict as assert } from 'node:assert';
import { createForeignLogs, type ForeignLog, openForeignLogs } from '../../../workers/replication/units/foreign-log.js';

const LIFE = 7;
const FORMER = 6;

function memory(): { log: ForeignLog; reader: ForeignLog } {
  const buffer = createForeignLogs(2, 3, 0);
  return { log: openForeignLogs(buffer, 2, 3)[1][2], reader: openForeignLogs(buffer, 2, 3)[1][2] };
}

function put(log: ForeignLog, first: number, words: number, incarnation = LIFE): number {
  return log.append(incarnation, first, 1, new Int32Array(words).fill(first), 0, words);
}

function firsts(log: ForeignLog): number[] {
  const found: number[] = [];
  for (let position = log.head; position !== log.tail; ) {
    const next = log.load(position);
    assert.notEqual(next, position);
    assert.deepEqual([...log.records.subarray(0, log.recordWords)], new Array(log.recordWords).fill(log.first));
    found.push(log.first);
    position = next;
  }
  return found;
}

describe('foreign log', () => {
  it('keeps units in the order they came, also past its end, and drops the oldest for want of room', () => {
    const { log, reader } = memory();
    let oldest = 1;
    for (let first = 1; first < 2000; first++) {
      oldest += put(log, first, 1 + ((first * 37) % 300));
      assert.ok(log.usedWords <= log.capacityWords);
      if (first % 100 !== 0) continue;
      const kept = firsts(reader);
      assert.deepEqual(
        kept,
        Array.from({ length: first - oldest + 1 }, (_, i) => oldest + i),
      );
    }
    assert.ok(oldest > 1);
    assert.equal(put(log, 1, log.capacityWords), 0, 'what cannot be a unit is not kept');
  });

  it('lets go of what is safe, life by life', () => {
    const { log } = memory();
    for (let first = 1; first <= 5; first++) put(log, first, 2, FORMER);
    put(log, 99, 2, FORMER - 1);
    for (let first = 1; first <= 5; first++) put(log, first, 2);
    log.prune(LIFE, 3, FORMER, 4);
    assert.deepEqual(firsts(log), [5, 99, 1, 2, 3, 4, 5]);
    log.prune(LIFE, 3, FORMER, 5);
    assert.deepEqual(firsts(log), [4, 5], 'of lives that nobody speaks of, all');
    log.prune(LIFE, 5, 0, 0);
    assert.deepEqual(firsts(log), []);
    assert.equal(log.usedWords, 0);
  });

  it('tells a reader that the unit it copied had to make room meanwhile', () => {
    const { log, reader } = memory();
    put(log, 1, 300);
    const { head } = reader;
    assert.notEqual(reader.load(head), head);
    for (let first = 2; log.head === head; first++) put(log, first, 300);
    assert.equal(reader.load(head), head);
    // And what it finds there by then may be anything.
    for (let first = 2; first < 5000; first++) {
      put(log, first, 1 + ((first * 37) % 300));
      assert.equal(reader.load(head), head);
    }
  });
});
