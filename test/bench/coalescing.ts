/**
 * How much coalescing saves if records are kept for a window and merged: a counting Bloom filter
 * and a count-min sketch, with a Zipf trace and with real captures at their recorded times. Staging
 * and coalescing are the send thread's own. A window of 0 is one batch of packets. A full staging
 * area is cut early, as in the send thread.
 *
 * A ratio is the number of marks that workers logged per record sent. The sketches use increments,
 * of which every packet logs one in each of its cells. Totals merge as well.
 */

import { createLogRing, LogConsumer, LogProducer } from '../../shm/log.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import type { StateDefinition, StateObject, Writer } from '../../shm/objects/core/object.js';
import { countMin } from '../../shm/objects/sketch/count-min.js';
import { countingBloom } from '../../shm/objects/sketch/counting-bloom.js';
import { Region } from '../../shm/region.js';
import { RECORD_WORDS_MAX, STAGING_WORDS, StagingArea } from '../../workers/replication/sending/staging.js';
import { capture, zipf } from '../shm/objects/sketch/sketch-streams.js';

export const WINDOWS_MS = [0, 1, 10, 100] as const;
const BATCH = 64;
const KEY_WORDS = 4;
const ZIPF_PACKETS = 1 << 18;
const ZIPF_KEYS = 100_000;
const ZIPF_SKEW = 1;
const ZIPF_PACKETS_PER_MS = 1000;
const FILES = ['echo-500-flows.pcap.gz', 'mixed-many-protocols.pcap'];

export interface Trace {
  readonly name: string;
  /** `KEY_WORDS` words per packet, and the packet's time, ms. */
  readonly keys: Int32Array;
  readonly ms: Float64Array;
}

interface Sketch extends StateObject {
  count(words: Int32Array, at: number, length: number, n: number): boolean;
}

const SKETCHES: Readonly<Record<string, StateDefinition<Sketch>>> = {
  'counting Bloom filter': countingBloom({ capacity: 10_000, form: 'increments' }),
  'count-min sketch': countMin({ epsilon: 0.001, delta: 0.01, form: 'increments' }),
};

export interface Coalesced {
  readonly sketch: string;
  readonly trace: string;
  readonly windowMs: number;
  readonly marks: number;
  readonly records: number;
}

/** The available traces. Captures are third-party data and may be missing. */
export function traces(): Trace[] {
  const stream = zipf(ZIPF_PACKETS, ZIPF_KEYS, ZIPF_SKEW, 1);
  const keys = Int32Array.from(stream.flatMap(([low, high]) => [low, high, 0, 0]));
  const ms = Float64Array.from(stream, (_, i) => i / ZIPF_PACKETS_PER_MS);
  return [{ name: 'Zipf, 1 Mpps', keys, ms }, ...FILES.map(traceOf).filter((trace) => trace !== null)];
}

/** The five-tuple of every IPv4 packet. */
function traceOf(name: string): Trace | null {
  const packets = capture(name);
  if (packets === null) return null;
  const keys = Int32Array.from(packets.flatMap(({ key, ports, protocol }) => [...key, ports, protocol]));
  return { name, keys, ms: Float64Array.from(packets, ({ ms }) => ms) };
}

export function coalescing(trace: Trace): Coalesced[] {
  return Object.entries(SKETCHES).flatMap(([sketch, definition]) =>
    WINDOWS_MS.map((windowMs) => ({ sketch, trace: trace.name, windowMs, ...replay(definition, trace, windowMs) })),
  );
}

function replay(
  definition: StateDefinition<Sketch>,
  trace: Trace,
  windowMs: number,
): { marks: number; records: number } {
  const region = new Region(new SharedArrayBuffer(definition.bytes));
  const local = new Region(new SharedArrayBuffer(definition.localBytes?.(1) ?? 0));
  const secret = Int32Array.of(1, 2, 3, 4);
  const open = (writer: Writer | null): Sketch =>
    definition.open({ id: 0, region, local, secret, writer, memberIndex: 0, memberCount: 2, stripes: 1 });
  const ring = createLogRing(1 << 14);
  const log = new LogProducer(ring);
  const worker = open({ id: 1, journal: new Journal(createJournals(1), 1), log });
  const sender = open(null);
  const stage = new StagingArea(sender);
  const consumer = new LogConsumer(ring);
  let marks = 0;
  let records = 0;
  const cut = (): void => {
    records += stage.records;
    stage.clear();
    sender.settle?.(marks);
  };
  let windowEnd = trace.ms[0] + windowMs;
  for (let packet = 0; packet < trace.ms.length; packet++) {
    worker.count(trace.keys, KEY_WORDS * packet, KEY_WORDS, 1);
    const last = packet + 1 === trace.ms.length;
    if (packet % BATCH !== BATCH - 1 && !last) continue;
    log.publish();
    while (consumer.next()) {
      if (stage.used > STAGING_WORDS - RECORD_WORDS_MAX) cut();
      stage.add(consumer.op, consumer.words, consumer.at, consumer.length);
      marks++;
    }
    consumer.release();
    if (trace.ms[packet] < windowEnd && !last) continue;
    cut();
    windowEnd = trace.ms[packet] + windowMs;
  }
  return { marks, records };
}
