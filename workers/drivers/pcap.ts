/**
 * The pcap driver: packets are read from capture files and written to capture files. It needs no
 * privilege.
 *
 * Each port has a file to read, a file to write, both, or neither. Frames arrive in the order of
 * their time stamps over all files; those with equal time stamps arrive in the order of the ports.
 * So a captured conversation is replayed in its original order. A frame is written with the time
 * stamp it was read with, so the same input gives the same output, byte for byte. A held frame gets
 * the time stamp of the last frame that was read before it was sent.
 *
 * Damage in the middle of a file ends that file. It is reported and counted, and affects nothing
 * else.
 */

import { realpathSync } from 'node:fs';
import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { type Columns, columnsOf, counterMetrics } from '../base/counters.js';
import { BATCH_CAPACITY, type Batch } from '../packet/batch.js';
import { PacketMemory } from '../packet/memory.js';
import type { PacketDriver } from './driver.js';
import { PcapReader, PcapWriter } from './pcap-file.js';

const COUNTERS = {
  pcap_oversized: 'frames of a capture file passed over because they are longer than a packet buffer',
  pcap_truncated: 'capture files that end within their last record, which is passed over',
  pcap_damaged: 'capture files read no further because of damage',
  pcap_unwritten: 'frames not written because writing to the capture file failed',
} as const;

export const PCAP_METRICS: Metric[] = counterMetrics(COUNTERS);

const HEADROOM = 258; // 2 modulo 4
const CHUNK_BYTES = 16_384; // fits jumbo frames and segments merged by the capturing host
export const PCAP_FRAME_BYTES_MAX = CHUNK_BYTES - HEADROOM;

export interface PcapPort {
  /** Capture file with the frames that arrive. */
  readonly in?: string | undefined;
  /** Capture file for the frames that leave. An existing file is overwritten. */
  readonly out?: string | undefined;
}

interface PcapDriverOptions {
  readonly ports: readonly PcapPort[];
  /** `asap`: as fast as they can be read. `recorded`: with the captured gaps. */
  readonly pace: 'asap' | 'recorded';
  readonly catalogue: MetricCatalogue;
  readonly row: Float64Array;
  /** Logs a sentence about damage or failure. */
  readonly report: (problem: string) => void;
  /** Monotonic milliseconds. Tests pass their own. */
  readonly clock?: () => number;
}

export class PcapDriver implements PacketDriver {
  readonly memory: PacketMemory;
  private readonly readers: (PcapReader | null)[] = [];
  private readonly writers: (PcapWriter | null)[] = [];
  private readonly recorded: boolean;
  private readonly row: Float64Array;
  private readonly columns: Columns<typeof COUNTERS>;
  private readonly report: (problem: string) => void;
  private readonly clock: () => number;
  /**
   * Time stamps by packet of the batch. Packet `i` is in chunk `i`, because a batch is given back
   * before the next one is taken.
   */
  private readonly seconds = new Float64Array(BATCH_CAPACITY);
  private readonly nanoseconds = new Float64Array(BATCH_CAPACITY);
  /** Time stamp of the last frame read. */
  private lastSeconds = 0;
  private lastNanoseconds = 0;
  /**
   * The offset from a time stamp to the `clock` time when its frame is due, in milliseconds. NaN
   * before the first frame.
   */
  private offsetMs = Number.NaN;
  private unflushed = false;
  /** Ports whose file could not be written. */
  private readonly failedPorts = new Set<number>();
  private readonly sleeper = new Int32Array(new SharedArrayBuffer(4));

  /**
   * Opens all files. Throws an error that names the file and what is wrong with it. Nothing stays
   * open then.
   */
  constructor(options: PcapDriverOptions) {
    this.memory = new PacketMemory(new SharedArrayBuffer(BATCH_CAPACITY * CHUNK_BYTES), 0, BATCH_CAPACITY, CHUNK_BYTES);
    this.recorded = options.pace === 'recorded';
    this.row = options.row;
    this.columns = columnsOf(options.catalogue, COUNTERS);
    this.report = options.report;
    this.clock = options.clock ?? (() => performance.now());
    try {
      for (const port of options.ports) this.readers.push(port.in === undefined ? null : new PcapReader(port.in));
      this.open(options.ports);
    } catch (error) {
      this.close();
      throw error;
    }
    for (let port = 0; port < this.readers.length; port++) this.step(port);
  }

  private open(ports: readonly PcapPort[]): void {
    const taken = new Map<string, string>();
    for (const reader of this.readers) if (reader !== null) taken.set(realpathSync(reader.file), 'read');
    const nanoseconds = this.readers.some((reader) => reader?.nanosecondFile);
    for (const { out } of ports) {
      if (out === undefined) {
        this.writers.push(null);
        continue;
      }
      const use = taken.get(realPath(out));
      if (use !== undefined) throw new Error(`${out}: would be written, but is ${use} already`);
      this.writers.push(new PcapWriter(out, nanoseconds));
      taken.set(realpathSync(out), 'written');
    }
  }

  receive(batch: Batch): number {
    let n = 0;
    while (n < BATCH_CAPACITY) {
      const port = this.earliest();
      if (port < 0) break;
      const reader = this.readers[port] as PcapReader;
      if (this.recorded && this.untilDueMs(reader) > 0) break;
      if (reader.bytes > PCAP_FRAME_BYTES_MAX) this.row[this.columns.pcap_oversized]++;
      else this.copyIn(batch, n++, port, reader);
      this.step(port);
    }
    if (n === 0) this.flush();
    batch.count = n;
    return n;
  }

  private copyIn(batch: Batch, i: number, port: number, reader: PcapReader): void {
    const start = i * CHUNK_BYTES + HEADROOM;
    this.memory.u8.set(reader.buffer.subarray(reader.at, reader.at + reader.bytes), start);
    batch.start[i] = start;
    batch.length[i] = reader.bytes;
    batch.port[i] = port;
    this.seconds[i] = reader.seconds;
    this.nanoseconds[i] = reader.nanoseconds;
    this.lastSeconds = reader.seconds;
    this.lastNanoseconds = reader.nanoseconds;
  }

  transmit(batch: Batch): void {
    this.transmitBefore(batch, batch.count);
    batch.count = batch.handed = 0;
  }

  transmitBefore(batch: Batch, end: number): void {
    for (let i = batch.handed; i < end; i++) {
      const port = batch.egress[i];
      if (port >= 0)
        this.write(port, this.memory.u8, batch.start[i], batch.length[i], this.seconds[i], this.nanoseconds[i]);
    }
    batch.handed = end;
  }

  hasRoom(): boolean {
    return true;
  }

  send(port: number, frames: Uint8Array, at: number, length: number): boolean {
    this.write(port, frames, at, length, this.lastSeconds, this.lastNanoseconds);
    return true;
  }

  insert(batch: Batch, port: number, frames: Uint8Array, at: number, length: number): boolean {
    const i = batch.count++;
    const start = i * CHUNK_BYTES + HEADROOM;
    for (let byte = 0; byte < length; byte++) this.memory.u8[start + byte] = frames[at + byte];
    batch.start[i] = start;
    batch.length[i] = length;
    batch.port[i] = port;
    this.seconds[i] = this.lastSeconds;
    this.nanoseconds[i] = this.lastNanoseconds;
    return true;
  }

  private write(
    port: number,
    frames: Uint8Array,
    at: number,
    length: number,
    seconds: number,
    nanoseconds: number,
  ): void {
    const writer = this.writers[port];
    if (writer === null) {
      if (this.failedPorts.has(port)) this.row[this.columns.pcap_unwritten]++;
      return;
    }
    try {
      writer.write(frames, at, length, seconds, nanoseconds);
      this.unflushed = true;
    } catch (error) {
      this.row[this.columns.pcap_unwritten]++; // this frame, besides those that were buffered
      this.failed(port, writer, error);
    }
  }

  wait(timeoutMs: number): void {
    this.flush();
    const port = this.earliest();
    if (port < 0) return this.sleep(timeoutMs);
    if (this.recorded) this.sleep(Math.min(timeoutMs, this.untilDueMs(this.readers[port] as PcapReader)));
  }

  get exhausted(): boolean {
    return this.earliest() < 0;
  }

  close(): void {
    for (const reader of this.readers.splice(0)) reader?.close();
    for (const writer of this.writers.splice(0)) {
      try {
        writer?.close();
      } catch (error) {
        this.report(`${writer?.file}: ${(error as Error).message}`);
      }
    }
  }

  /** The port with the earliest next frame, or -1 at the end of all files. */
  private earliest(): number {
    let best = -1;
    for (let port = 0; port < this.readers.length; port++) {
      const reader = this.readers[port];
      if (reader === null) continue;
      const than = best < 0 ? null : this.readers[best];
      if (than === null || isBefore(reader, than)) best = port;
    }
    return best;
  }

  /** Steps a port's reader. At the end of its file, removes it. */
  private step(port: number): void {
    const reader = this.readers[port];
    if (reader === null) return;
    try {
      if (reader.next()) return;
      if (reader.truncated) {
        this.row[this.columns.pcap_truncated]++;
        this.report(`${reader.file}: ends within its last record, which is passed over`);
      }
    } catch (error) {
      this.row[this.columns.pcap_damaged]++;
      this.report(`${(error as Error).message}; the file is read no further`);
    }
    reader.close();
    this.readers[port] = null;
  }

  /** Milliseconds until a frame is due. Time starts when the first frame is asked for. */
  private untilDueMs(reader: PcapReader): number {
    const stampMs = reader.seconds * 1000 + reader.nanoseconds / 1e6;
    const now = this.clock();
    if (Number.isNaN(this.offsetMs)) this.offsetMs = now - stampMs;
    return stampMs + this.offsetMs - now;
  }

  private flush(): void {
    if (!this.unflushed) return;
    this.unflushed = false;
    for (const [port, writer] of this.writers.entries()) {
      try {
        writer?.flush();
      } catch (error) {
        if (writer !== null) this.failed(port, writer, error);
      }
    }
  }

  /** Stops writing to a file that failed, because half a record may be in it. */
  private failed(port: number, writer: PcapWriter, error: unknown): void {
    this.row[this.columns.pcap_unwritten] += writer.pending;
    this.writers[port] = null;
    this.failedPorts.add(port);
    this.report(`${writer.file}: ${(error as Error).message}; frames for it are discarded from here on`);
    try {
      writer.close();
    } catch {
      // The same failure again, which has been reported.
    }
  }

  private sleep(ms: number): void {
    if (ms > 0) Atomics.wait(this.sleeper, 0, 0, ms);
  }
}

function isBefore(a: PcapReader, b: PcapReader): boolean {
  return a.seconds !== b.seconds ? a.seconds < b.seconds : a.nanoseconds < b.nanoseconds;
}

/** The real path of a file, or the path itself if the file does not exist. */
function realPath(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return file;
  }
}
