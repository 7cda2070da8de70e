import { strict as assert } from 'node:assert';
import { createRecordRing, RecordReader, RecordWriter } from '../../shm/record-ring.js';

/** Past 2^32 ms there is a second word of time. */
const NOW_MS = Date.UTC(2026, 0, 1) + 7;

describe('record ring', () => {
  it('hands records over whole, in order, across the wrap, with their times', () => {
    const ring = createRecordRing(0);
    const [writer, reader] = [new RecordWriter(ring), new RecordReader(ring)];
    for (let n = 0; n < 5000; n++) {
      const payload = Int32Array.from({ length: 1 + (n % 37) }, (_, i) => n * i - 5);
      assert.ok(writer.write(n % 5, NOW_MS + n, payload));
      const seen: unknown[] = [];
      assert.equal(
        reader.read(10, (kind, unixMs, words) => seen.push([kind, unixMs, [...words]])),
        1,
      );
      assert.deepEqual(seen, [[n % 5, NOW_MS + n, [...payload]]]);
    }
  });

  it('refuses what finds no room, keeps what there is, and goes on when there is room again', () => {
    const ring = createRecordRing(0);
    const [writer, reader] = [new RecordWriter(ring), new RecordReader(ring)];
    const payload = new Int32Array(20);
    let written = 0;
    while (writer.write(1, NOW_MS, payload.fill(written))) written++;
    assert.ok(written > 50);
    const seen: number[] = [];
    const see = (_kind: number, _ms: number, words: Int32Array): void => void seen.push(words[19]);
    assert.equal(reader.read(10, see), 10, 'no more than asked');
    assert.ok(writer.write(1, NOW_MS, payload.fill(written++)));
    while (reader.read(1000, see) > 0);
    assert.deepEqual(
      seen,
      Array.from({ length: written }, (_, n) => n),
    );
  });

  it('goes on where a worker that died had published last', () => {
    const ring = createRecordRing(0);
    new RecordWriter(ring).write(1, NOW_MS, Int32Array.of(1));
    new RecordWriter(ring).write(1, NOW_MS, Int32Array.of(2));
    const seen: number[] = [];
    new RecordReader(ring).read(10, (_kind, _ms, words) => seen.push(words[0]));
    assert.deepEqual(seen, [1, 2]);
  });
});
