/**
 * Which sources the IDPS flags in captures of real traffic, as one instance in a wire would: a
 * scan, and traffic in which no source is known to scan. CAPTURES names the folder (default
 * ../shared/captures). A missing capture is left out.
 *
 * The baseline is the plain rule of scan detectors that count, as in Zeek's scan policy: a source
 * with 25 or more failed contacts within five minutes is a scanner. Here, a contact has failed if
 * it was tried and nothing came back, or if it was refused.
 */

import { PcapReader } from '../../workers/drivers/pcap-file.js';
import { withCapture } from '../shm/objects/sketch/sketch-streams.js';
import { IdpsSite } from '../workers/support/idps-site.js';
import type { Bench, BenchResult } from './result.js';

interface Capture {
  readonly file: string;
  /** Sources that are known to scan in it. */
  readonly scanners: readonly string[];
}

const CAPTURES: readonly Capture[] = [
  { file: 'synscan.pcap', scanners: ['172.16.0.8'] },
  { file: 'mixed-many-protocols.pcap', scanners: [] },
  { file: 'echo-500-flows.pcap.gz', scanners: [] },
  { file: 'fragments.pcap', scanners: [] },
];
const THRESHOLD = 25;
const WINDOW_MS = 300_000;
/**
 * A gap in the capture is passed in steps, so that timers run as they would. Long gaps are cut to
 * this, ms.
 */
const GAP_MS_MAX = 10_000;

interface Found {
  packets: number;
  sources: number;
  /** Flagged source → number of its packets until then. */
  readonly flagged: Map<string, number>;
  blocked: number;
}

export const run: Bench = async ({ json }) => {
  const results: BenchResult[] = [];
  for (const { file, scanners } of CAPTURES) {
    const found = withCapture(file, byIdps);
    const counted = withCapture(file, byCounting);
    if (found === null || counted === null) {
      if (!json) console.log(`there is no capture ${file}: set CAPTURES to the folder of captures`);
      continue;
    }
    const row = (what: string, of: (found: Found) => number, unit: string): void => {
      const [value, baseline] = [of(found), of(counted)];
      results.push({
        name: `idps/${file}/${what}`,
        value,
        unit,
        baseline,
        ratio: value === 0 ? null : baseline / value,
      });
    };
    results.push(alone(`idps/${file}/packets`, found.packets, 'packets'));
    results.push(alone(`idps/${file}/sources`, found.sources, 'addresses'));
    for (const scanner of scanners)
      row(`packets of ${scanner} until found`, (by) => by.flagged.get(scanner) ?? Number.POSITIVE_INFINITY, 'packets');
    row(
      'flagged without reason',
      (by) => [...by.flagged.keys()].filter((who) => !scanners.includes(who)).length,
      'addresses',
    );
    results.push(alone(`idps/${file}/blocked`, found.blocked, 'packets'));
  }
  return results;
};

function alone(name: string, value: number, unit: string): BenchResult {
  return { name, value, unit, baseline: null, ratio: null };
}

/** Every Ethernet frame in a file, and its time. */
function* frames(file: string): Generator<{ ms: number; frame: Uint8Array }> {
  const reader = new PcapReader(file);
  try {
    while (reader.next())
      yield {
        ms: reader.seconds * 1000 + reader.nanoseconds / 1e6,
        frame: Uint8Array.from(reader.buffer.subarray(reader.at, reader.at + reader.bytes)),
      };
  } finally {
    reader.close();
  }
}

function byIdps(file: string): Found {
  const site = new IdpsSite({ options: { sources: 32_768 } });
  const found: Found = { packets: 0, sources: 0, flagged: new Map(), blocked: 0 };
  const sent = new Map<string, number>();
  const note = (): void => {
    for (const { src_ip: who } of site.alerts()) if (who !== undefined) found.flagged.set(who, sent.get(who) ?? 0);
  };
  let firstMs = Number.NaN;
  const startMs = site.plane.nowMs;
  let skippedMs = 0;
  for (const { ms, frame } of frames(file)) {
    if (Number.isNaN(firstMs)) firstMs = ms;
    const due = startMs + (ms - firstMs) - skippedMs;
    const gap = due - site.plane.nowMs;
    if (gap > GAP_MS_MAX) skippedMs += gap - GAP_MS_MAX;
    if (gap > 50) site.plane.idle(Math.min(gap, GAP_MS_MAX), 500);
    else if (gap > 0) site.plane.nowMs = due;
    const source = sourceOf(frame);
    if (source !== null) sent.set(source, (sent.get(source) ?? 0) + 1);
    found.packets++;
    site.plane.passFrames({ port: 0, frame });
    note();
  }
  site.plane.idle(GAP_MS_MAX, 500);
  note();
  found.sources = sent.size;
  found.blocked = site.plane.counts()['idps_source_blocked'] ?? 0;
  return found;
}

function sourceOf(frame: Uint8Array): string | null {
  if (frame.length < 34 || frame[12] !== 8 || frame[13] !== 0) return null;
  return `${frame[26]}.${frame[27]}.${frame[28]}.${frame[29]}`;
}

function destinationOf(frame: Uint8Array): string {
  return `${frame[30]}.${frame[31]}.${frame[32]}.${frame[33]}`;
}

/** The baseline, with exact sets that keep everything within the window. */
function byCounting(file: string): Found {
  const found: Found = { packets: 0, sources: 0, flagged: new Map(), blocked: 0 };
  const sent = new Map<string, number>();
  const tried = new Map<string, Map<string, number>>();
  for (const { ms, frame } of frames(file)) {
    found.packets++;
    const source = sourceOf(frame);
    if (source === null || frame[23] !== 6) continue;
    sent.set(source, (sent.get(source) ?? 0) + 1);
    const l4 = 14 + (frame[14] & 15) * 4;
    if (frame.length < l4 + 14) continue;
    const port = (at: number): number => (frame[at] << 8) | frame[at + 1];
    const flags = frame[l4 + 13] & 0x17;
    const destination = destinationOf(frame);
    if (flags === 2) {
      const open = tried.get(source) ?? new Map<string, number>();
      tried.set(source, open.set(`${destination} ${port(l4 + 2)}`, ms));
      const failed = [...open.values()].filter((at) => ms - at <= WINDOW_MS).length;
      if (failed >= THRESHOLD && !found.flagged.has(source)) found.flagged.set(source, sent.get(source) ?? 0);
    } else if (flags === 0x12) tried.get(destination)?.delete(`${source} ${port(l4)}`);
  }
  found.sources = sent.size;
  return found;
}
