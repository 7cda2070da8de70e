/**
 * The traffic of the demo without privileges: a conversation in capture files. The clients'
 * requests are generated. The replies are made, as a server would, from what site a sent out. What
 * site b lets in is compared with what was requested.
 */

import { PcapReader, PcapWriter } from '../../workers/drivers/pcap-file.js';
import { describeFrame, frame } from '../workers/support/frames.js';

const SERVER = '198.51.100.1:80';

export const MAC = {
  inside: '02:00:00:00:00:01',
  outside: '02:00:00:00:00:02',
  client: '02:00:00:00:00:11',
  router: '02:00:00:00:00:12',
} as const;

interface Stamped {
  readonly atMs: number;
  readonly text: string;
}

/** `10.1.0.7:4007` of the n-th client flow. */
const clientOf = (n: number): string => `10.1.0.${1 + (n % 250)}:${4000 + n}`;

function write(file: string, frames: readonly Stamped[]): void {
  const writer = new PcapWriter(file, false);
  for (const { atMs, text } of [...frames].sort((a, b) => a.atMs - b.atMs)) {
    const bytes = frame(text);
    writer.write(bytes, 0, bytes.length, Math.trunc(atMs / 1000), (atMs % 1000) * 1e6);
  }
  writer.close();
}

/** The packets of a file as text, without the parts that are the same in all. */
function read(file: string): string[] {
  const reader = new PcapReader(file);
  const packets: string[] = [];
  while (reader.next()) packets.push(describeFrame(reader.buffer.subarray(reader.at, reader.at + reader.bytes)));
  reader.close();
  return packets;
}

/** Writes one connection request per flow, `gapMs` apart. */
export function writeRequests(file: string, flows: number, gapMs: number): void {
  write(
    file,
    Array.from({ length: flows }, (_, n) => ({
      atMs: n * gapMs,
      text: `tcp ${clientOf(n)} > ${SERVER} S to ${MAC.inside} from ${MAC.client}`,
    })),
  );
}

const TRANSLATED = /^tcp (203\.0\.113\.1:(\d+)) > 198\.51\.100\.1:80 S ttl 63$/;

/**
 * The external endpoint of each flow, in the order of the flows. Throws if a packet is not as
 * expected.
 */
export function readTranslated(file: string): string[] {
  const endpoints = read(file).map((text) => {
    const match = TRANSLATED.exec(text);
    if (match === null) throw new Error(`site a sent out a packet that is not right: ${text}`);
    return match[1];
  });
  if (new Set(endpoints).size !== endpoints.length) throw new Error('site a gave one external port to two flows');
  return endpoints;
}

/**
 * Writes the server's answer to each endpoint, `gapMs` apart, and repeats each after all of
 * `triesMs`.
 */
export function writeReplies(
  file: string,
  endpoints: readonly string[],
  gapMs: number,
  triesMs: readonly number[],
): void {
  write(
    file,
    endpoints.flatMap((endpoint, n) =>
      triesMs.map((later) => ({
        atMs: n * gapMs + later,
        text: `tcp ${SERVER} > ${endpoint} SA to ${MAC.outside} from ${MAC.router}`,
      })),
    ),
  );
}

export interface Received {
  /** Replies that reached their client, by flow. */
  readonly byFlow: readonly number[];
  /** Unexpected packets. */
  readonly wrong: readonly string[];
}

/** What site b let in, by flow. */
export function readReceived(file: string, flows: number): Received {
  const byFlow = new Array<number>(flows).fill(0);
  const wrong: string[] = [];
  const expected = new Map(byFlow.map((_, n) => [`tcp ${SERVER} > ${clientOf(n)} SA ttl 63`, n]));
  for (const text of read(file)) {
    const flow = expected.get(text);
    if (flow === undefined) wrong.push(text);
    else byFlow[flow]++;
  }
  return { byFlow, wrong };
}
