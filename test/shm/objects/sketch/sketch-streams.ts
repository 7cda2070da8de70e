/**
 * Streams of keys that sketches are measured on: drawn after Zipf's law, and from captures of real
 * packets.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { PcapReader } from '../../../../workers/drivers/pcap-file.js';

export type Key = readonly [number, number];

/** Numbers from 0 to 1, the same every time. */
export function drawing(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    const mixed = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
    return ((mixed ^ (mixed >>> 13)) >>> 0) / 2 ** 32;
  };
}

/** `length` keys out of `keys`, the n-th with a chance in proportion to n^-skew. */
export function zipf(length: number, keys: number, skew: number, seed: number): Key[] {
  const sums = new Float64Array(keys);
  let sum = 0;
  for (let n = 0; n < keys; n++) {
    sum += (n + 1) ** -skew;
    sums[n] = sum;
  }
  const draw = drawing(seed);
  return Array.from({ length }, () => {
    const at = draw() * sum;
    let [low, high] = [0, keys - 1];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sums[middle] < at) low = middle + 1;
      else high = middle;
    }
    return [Math.imul(low + 1, 0x9e3779b1), low & 7] as const;
  });
}

const FOLDER = process.env['CAPTURES'] ?? '../shared/captures';

/** An IPv4 packet of a capture. */
export interface CapturedPacket {
  /** Source and destination address. */
  readonly key: Key;
  readonly bytes: number;
  /** When it was captured, in ms. */
  readonly ms: number;
  /** Source and destination port as one word, 0 where it has none; and the IP protocol. */
  readonly ports: number;
  readonly protocol: number;
}

/** The IPv4 packets of a capture; `null` where there is no such file. */
export function capture(name: string): CapturedPacket[] | null {
  return withCapture(name, readPackets);
}

/**
 * Reads a capture, by the path of its file, which is unpacked where it has to be; `null` where
 * there is no such file.
 */
export function withCapture<T>(name: string, read: (file: string) => T): T | null {
  let file = join(FOLDER, name);
  let folder: string | null = null;
  try {
    if (name.endsWith('.gz')) {
      const bytes = gunzipSync(readFileSync(file));
      folder = mkdtempSync(join(tmpdir(), 'constellation-capture-'));
      file = join(folder, 'capture.pcap');
      writeFileSync(file, bytes);
    }
    return read(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  } finally {
    if (folder !== null) rmSync(folder, { recursive: true });
  }
}

function readPackets(file: string): CapturedPacket[] {
  const reader = new PcapReader(file);
  const packets: CapturedPacket[] = [];
  while (reader.next()) {
    const { buffer, at, bytes } = reader;
    if (bytes < 34 || buffer.readUInt16BE(at + 12) !== 0x0800) continue;
    const transport = at + 14 + (buffer[at + 14] & 0x0f) * 4;
    const protocol = buffer[at + 23];
    const hasPorts = (protocol === 6 || protocol === 17) && transport + 4 <= at + bytes;
    packets.push({
      key: [buffer.readInt32LE(at + 26), buffer.readInt32LE(at + 30)],
      bytes,
      ms: reader.seconds * 1000 + reader.nanoseconds / 1e6,
      ports: hasPorts ? buffer.readInt32LE(transport) : 0,
      protocol,
    });
  }
  reader.close();
  return packets;
}

/**
 * Skips a test, in words, where a capture is not there: captures are others' data and lie outside
 * the project.
 */
export function captureOrSkip(context: Mocha.Context, name: string): CapturedPacket[] {
  const packets = capture(name);
  if (packets !== null) return packets;
  console.log(`      skipped: there is no ${join(FOLDER, name)}; set CAPTURES to the folder of captures`);
  return context.skip();
}
