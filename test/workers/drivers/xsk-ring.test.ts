import { strict as assert } from 'node:assert';
import { CompletionRing, FillRing, RxRing, TxRing } from '../../../workers/drivers/xsk-ring.js';
import type { MappedRing } from '../../../workers/native/index.js';

const ENTRIES = 8;
const AT = { producer: 0, consumer: 64, flags: 128, descriptors: 192 };

/** A ring as the kernel maps it, whose indices are about to leave the range of a signed word. */
function ring(descriptorBytes: number): { mapped: MappedRing; words: Int32Array } {
  const buffer = new ArrayBuffer(AT.descriptors + ENTRIES * descriptorBytes);
  const words = new Int32Array(buffer);
  words[AT.producer / 4] = 0x7fffffff - 2;
  words[AT.consumer / 4] = 0x7fffffff - 2;
  return { mapped: { buffer, entries: ENTRIES, ...AT }, words };
}

const slot = (count: number): number => count & (ENTRIES - 1);

describe('the AF_XDP rings', () => {
  it('fill: addresses are put in order and shown', () => {
    const { mapped, words } = ring(8);
    const fill = new FillRing(mapped);
    const first = words[0];
    fill.put(Int32Array.of(1, 2, 0, 2048, 4096, 6144, 8192), 2, 5);
    assert.equal(words[0], (first + 5) | 0);
    for (let i = 0; i < 5; i++) {
      assert.equal(words[AT.descriptors / 4 + 2 * slot(first + i)], 2048 * i);
      assert.equal(words[AT.descriptors / 4 + 2 * slot(first + i) + 1], 0);
    }
    assert.equal(fill.needsWakeup, false);
    words[AT.flags / 4] = 1;
    assert.equal(fill.needsWakeup, true);
  });

  it('tx: frames are shown at submit, once', () => {
    const { mapped, words } = ring(16);
    const tx = new TxRing(mapped);
    const first = words[0];
    assert.equal(tx.submit(), false);
    for (let i = 0; i < 6; i++) tx.put(2048 * i + 258, 60 + i);
    assert.equal(tx.submit(), true);
    assert.equal(tx.submit(), false);
    assert.equal(words[0], (first + 6) | 0);
    const at = AT.descriptors / 4 + 4 * slot(first + 5);
    assert.deepEqual([...words.subarray(at, at + 4)], [2048 * 5 + 258, 0, 65, 0]);
  });

  it('rx: frames are read in order, at most as many as wanted, and given back', () => {
    const { mapped, words } = ring(16);
    const rx = new RxRing(mapped);
    const first = words[0];
    for (let i = 0; i < 6; i++) {
      const at = AT.descriptors / 4 + 4 * slot(first + i);
      words[at] = 2048 * i + 258;
      words[at + 2] = 60 + i;
    }
    assert.equal(rx.peek(64), 0);
    words[0] = (first + 6) | 0;
    assert.equal(rx.peek(4), 4);
    const [start, length] = [new Int32Array(8), new Int32Array(8)];
    rx.read(start, length, 1, 4);
    assert.deepEqual([...start], [0, 258, 2306, 4354, 6402, 0, 0, 0]);
    assert.deepEqual([...length], [0, 60, 61, 62, 63, 0, 0, 0]);
    rx.release(4);
    assert.equal(words[AT.consumer / 4], (first + 4) | 0);
    assert.equal(rx.peek(64), 2);
  });

  it('completion: chunks come back in order', () => {
    const { mapped, words } = ring(8);
    const completion = new CompletionRing(mapped);
    const first = words[0];
    for (let i = 0; i < ENTRIES; i++) words[AT.descriptors / 4 + 2 * slot(first + i)] = 2048 * i + 258;
    words[0] = (first + ENTRIES) | 0;
    const into = new Int32Array(ENTRIES + 2);
    assert.equal(completion.drain(into, 1, -2048), ENTRIES);
    assert.deepEqual([...into], [0, ...Array.from({ length: ENTRIES }, (_, i) => 2048 * i), 0]);
    assert.equal(completion.drain(into, 0, -2048), 0);
    assert.equal(words[AT.consumer / 4], words[0]);
  });
});
