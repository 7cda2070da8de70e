/**
 * The log ring beside `ringbuf.js`, between two threads: records of a header word and six payload
 * words (a NAT binding), written in batches of up to 32 as a worker does. And the same in one
 * thread, where scheduling has no effect.
 *
 * `ringbuf.js` moves elements, not records. Its user frames records by a fixed length and must ask
 * for room first, or a nearly full ring takes half a record. It publishes each push. To publish
 * once per batch, its user has to gather the batch first, which is the second baseline.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { RingBuffer } from 'ringbuf.js';
import { createLogRing, LogConsumer } from '../../shm/log.js';
import { type BenchOptions, type BenchResult, median } from './result.js';
import { producerFor, RECORD_WORDS, RING_WORDS, type RingKind } from './ring-work.js';

const ROUNDS = 5;

type Contender = { readonly kind: RingKind; readonly label: string };
const CONTENDERS: readonly Contender[] = [
  { kind: 'ringbuf', label: 'ringbuf.js, record by record' },
  { kind: 'ringbuf-gathered', label: 'ringbuf.js, batch gathered first' },
  { kind: 'log', label: 'log ring' },
];

function createBuffer(kind: RingKind): SharedArrayBuffer {
  return kind === 'log'
    ? createLogRing(RING_WORDS)
    : (RingBuffer.getStorageForCapacity(RING_WORDS, Int32Array) as SharedArrayBuffer);
}

/** Reads until `records` were seen. Returns a checksum, so that no read is optimised away. */
class Reader {
  sum = 0;
  private readonly log: LogConsumer | null;
  private readonly ring: InstanceType<typeof RingBuffer> | null;
  private readonly scratch = new Int32Array(32 * RECORD_WORDS);

  constructor(kind: RingKind, buffer: SharedArrayBuffer) {
    this.log = kind === 'log' ? new LogConsumer(buffer) : null;
    this.ring = kind === 'log' ? null : new RingBuffer(buffer, Int32Array);
  }

  /** Reads up to 32 records. Returns how many. */
  read(): number {
    return this.log !== null ? this.readLog(this.log) : this.readRing(this.ring as never);
  }

  private readLog(log: LogConsumer): number {
    let count = 0;
    while (count < 32 && log.next()) {
      this.sum = (this.sum + log.words[log.at] + log.words[log.at + 5]) | 0;
      count++;
    }
    if (count > 0) log.release();
    return count;
  }

  private readRing(ring: InstanceType<typeof RingBuffer>): number {
    const words = ring.pop(this.scratch);
    for (let at = 0; at < words; at += RECORD_WORDS)
      this.sum = (this.sum + this.scratch[at + 1] + this.scratch[at + 6]) | 0;
    return words / RECORD_WORDS;
  }
}

/** Nanoseconds per record written and read in one thread. */
function oneThread(kind: RingKind, seconds: number): number {
  const buffer = createBuffer(kind);
  const reader = new Reader(kind, buffer);
  const produce = producerFor(kind, buffer);
  let n = 0;
  const work = (until: number): void => {
    while (performance.now() < until)
      for (let i = 0; i < 64; i++) {
        n += produce(n, 32);
        reader.read();
      }
  };
  work(performance.now() + 100);
  n = 0;
  const start = performance.now();
  work(start + seconds * 1000);
  return ((performance.now() - start) * 1e6) / n;
}

/** Million records per second from one thread to another. */
async function twoThreads(kind: RingKind, records: number): Promise<number> {
  const buffer = createBuffer(kind);
  const producer = new Worker(new URL('./ring-work.js', import.meta.url), { workerData: { kind, buffer, records } });
  await once(producer, 'message');
  const reader = new Reader(kind, buffer);
  const start = performance.now();
  producer.postMessage('go');
  for (let seen = 0; seen < records; ) seen += reader.read();
  const elapsed = performance.now() - start;
  await once(producer, 'exit');
  return records / elapsed / 1000;
}

export async function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  const single = new Map<RingKind, number[]>();
  const across = new Map<RingKind, number[]>();
  for (let round = 0; round < ROUNDS; round++)
    for (const { kind } of CONTENDERS) {
      single.set(kind, [...(single.get(kind) ?? []), oneThread(kind, seconds / ROUNDS)]);
      across.set(kind, [...(across.get(kind) ?? []), await twoThreads(kind, 1_000_000)]);
    }
  const results: BenchResult[] = [];
  for (const [what, unit, figures] of [
    ['one thread', 'ns/record', single],
    ['two threads', 'M records/s', across],
  ] as const) {
    const baseline = median(figures.get('ringbuf') ?? []);
    for (const { kind, label } of CONTENDERS) {
      const value = median(figures.get(kind) ?? []);
      const ratio = unit === 'ns/record' ? baseline / value : value / baseline;
      results.push(
        kind === 'ringbuf'
          ? { name: `ring/${what}, ${label}`, value, unit, baseline: null, ratio: null }
          : { name: `ring/${what}, ${label}`, value, unit, baseline, ratio },
      );
    }
  }
  return results;
}
