/**
 * Public captures, if available: in the folder that `CAPTURES` names, or in one beside the
 * repository.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { PcapReader } from '../../workers/drivers/pcap-file.js';

const FOLDER = process.env['CAPTURES'] ?? '../shared/captures';

/** Returns at most `most` frames of a capture; `null` if the capture is missing. */
export function captureFrames(name: string, most = Number.POSITIVE_INFINITY): Uint8Array[] | null {
  const path = join(FOLDER, name);
  if (existsSync(path)) return readFrames(path, most);
  if (!existsSync(`${path}.gz`)) return null;
  const folder = mkdtempSync(join(tmpdir(), 'constellation-capture-'));
  try {
    const plain = join(folder, name);
    writeFileSync(plain, gunzipSync(readFileSync(`${path}.gz`)));
    return readFrames(plain, most);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Like `captureFrames`; if the capture is missing, skips the test with the reason. */
export function captureFramesOrSkip(context: Mocha.Context, name: string): Uint8Array[] {
  const frames = captureFrames(name);
  if (frames !== null) return frames;
  console.log(`      skipped: there is no ${join(FOLDER, name)}; set CAPTURES to the folder of captures`);
  return context.skip();
}

function readFrames(path: string, most: number): Uint8Array[] {
  const reader = new PcapReader(path);
  const frames: Uint8Array[] = [];
  while (frames.length < most && reader.next())
    frames.push(Uint8Array.from(reader.buffer.subarray(reader.at, reader.at + reader.bytes)));
  reader.close();
  return frames;
}
