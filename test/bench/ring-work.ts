/** The producer of the ring benchmark, in the benchmark's own thread or in a separate one. */

import { parentPort, workerData } from 'node:worker_threads';
import { RingBuffer } from 'ringbuf.js';
import { LogProducer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';

export type RingKind = 'log' | 'ringbuf' | 'ringbuf-gathered';
export const RING_WORDS = 1 << 14;
const PAYLOAD_WORDS = 6;
export const RECORD_WORDS = PAYLOAD_WORDS + 1;

type Ring = InstanceType<typeof RingBuffer>;

/** Writes records from `n` on, up to `count` of them. Returns how many fitted. */
export type Produce = (n: number, count: number) => number;

function produceLog(log: LogProducer): Produce {
  return (n, count) => {
    let done = 0;
    while (done < count) {
      const at = log.claim(1, 1, PAYLOAD_WORDS);
      if (at === NONE) break;
      for (let w = 0; w < PAYLOAD_WORDS; w++) log.words[at + w] = n + done + w;
      log.commit();
      done++;
    }
    log.publish();
    return done;
  };
}

function produceRingbuf(ring: Ring): Produce {
  const record = new Int32Array(RECORD_WORDS);
  return (n, count) => {
    let done = 0;
    while (done < count && ring.availableWrite() >= RECORD_WORDS) {
      record[0] = PAYLOAD_WORDS;
      for (let w = 0; w < PAYLOAD_WORDS; w++) record[w + 1] = n + done + w;
      ring.push(record);
      done++;
    }
    return done;
  };
}

function produceRingbufGathered(ring: Ring): Produce {
  const gathered = new Int32Array(32 * RECORD_WORDS);
  return (n, count) => {
    const room = Math.min(count, Math.floor(ring.availableWrite() / RECORD_WORDS));
    for (let i = 0; i < room; i++) {
      gathered[i * RECORD_WORDS] = PAYLOAD_WORDS;
      for (let w = 0; w < PAYLOAD_WORDS; w++) gathered[i * RECORD_WORDS + 1 + w] = n + i + w;
    }
    ring.push(gathered, room * RECORD_WORDS);
    return room;
  };
}

/** Opens the producer of a ring of this kind. */
export function producerFor(kind: RingKind, buffer: SharedArrayBuffer): Produce {
  if (kind === 'log') return produceLog(new LogProducer(buffer));
  const ring = new RingBuffer(buffer, Int32Array);
  return kind === 'ringbuf' ? produceRingbuf(ring) : produceRingbufGathered(ring);
}

interface Work {
  readonly kind: RingKind;
  readonly buffer: SharedArrayBuffer;
  readonly records: number;
}

if (parentPort !== null && (workerData as Work | null)?.buffer !== undefined) {
  const { kind, buffer, records } = workerData as Work;
  const produce = producerFor(kind, buffer);
  parentPort.once('message', () => {
    for (let n = 0; n < records; ) n += produce(n, Math.min(32, records - n));
  });
  parentPort.postMessage('ready');
}
