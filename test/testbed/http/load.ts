/**
 * Downloads over HTTP, a program for the testbed's nodes. Each download is a curl process or, if
 * curl is not installed, is done by Node. Every body is checked byte by byte (by hash). Writes one
 * `Fetched` per line as JSON, in the order in which downloads end. Its argument is a `Load` as
 * JSON:
 *
 *     node load.js '{"origins": ["http://198.51.100.1"], "count": 200, "bytes": 100000, …}'
 *
 * Ends after `count` downloads, or at the end of its standard input, when the current downloads
 * have finished.
 */

import { spawn } from 'node:child_process';
import { get } from 'node:http';
import { findTool } from '../../support/require.js';
import { bodyOf, bodyPath, sha256 } from './body.js';

export interface Load {
  /** Used in turn. */
  readonly origins: readonly string[];
  /** Source addresses, used in turn. */
  readonly sources: readonly string[];
  readonly bytes: number;
  readonly concurrency: number;
  /** Absent: until the end of the input. */
  readonly count?: number;
  /** Pause between the starts of two downloads; default: 0. */
  readonly gap_ms?: number;
  readonly timeout_s?: number;
  /** Rate limit of each download, bytes per second; only with curl. */
  readonly rate?: number;
  /** `curl` or `node`; absent: curl if it is installed. */
  readonly client?: 'curl' | 'node';
}

export interface Fetched {
  readonly origin: string;
  /** Whether the body was correct. */
  readonly ok: boolean;
  /**
   * Time from the first SYN until the connection is established. It shows the delay that a lost
   * first reply causes.
   */
  readonly connect_ms: number;
  readonly total_ms: number;
  readonly bytes: number;
  /** The reason, if `ok` is false. */
  readonly error?: string;
}

interface Raw {
  readonly body: Buffer;
  readonly connect_ms: number;
  readonly error?: string;
}

const TIMEOUT_S = 60;

async function run(load: Load): Promise<void> {
  const client = load.client ?? (findTool('curl') !== null ? 'curl' : 'node');
  const { rate } = load;
  if (rate !== undefined && client !== 'curl') throw new Error('only curl limits its rate');
  const fetchOne: Fetcher = client === 'curl' ? (url, source, timeoutS) => byCurl(url, source, timeoutS, rate) : byNode;
  let stopped = false;
  process.stdin.on('end', () => {
    stopped = true;
  });
  process.stdin.on('error', () => {}).resume();
  const underWay = new Set<Promise<void>>();
  for (let i = 0; i < (load.count ?? Number.POSITIVE_INFINITY) && !stopped; i++) {
    if (underWay.size >= load.concurrency) await Promise.race(underWay);
    const one: Promise<void> = fetchChecked(load, i, fetchOne).then(() => {
      underWay.delete(one);
    });
    underWay.add(one);
    if (load.gap_ms) await new Promise((resolve) => setTimeout(resolve, load.gap_ms));
  }
  await Promise.all(underWay);
  process.stdin.destroy();
}

type Fetcher = (url: string, source: string, timeoutS: number) => Promise<Raw>;

async function fetchChecked(load: Load, i: number, fetchOne: Fetcher): Promise<void> {
  const origin = load.origins[i % load.origins.length];
  const source = load.sources[i % load.sources.length];
  const path = bodyPath(load.bytes, i);
  const start = performance.now();
  const { body, connect_ms, error } = await fetchOne(origin + path, source, load.timeout_s ?? TIMEOUT_S);
  const right = sha256(body) === sha256(bodyOf(path) ?? Buffer.alloc(0));
  const why = error ?? (right ? undefined : `wrong bytes: ${body.length} came, ${load.bytes} were asked for`);
  const fetched: Fetched = {
    origin,
    ok: why === undefined,
    connect_ms: Number(connect_ms.toFixed(1)),
    total_ms: Number((performance.now() - start).toFixed(1)),
    bytes: body.length,
    ...(why === undefined ? {} : { error: why }),
  };
  console.log(JSON.stringify(fetched));
}

function byCurl(url: string, source: string, timeoutS: number, rate?: number): Promise<Raw> {
  const argv = ['--silent', '--show-error', '--fail', '--noproxy', '*', '--max-time', String(timeoutS)];
  if (rate !== undefined) argv.push('--limit-rate', String(rate));
  const child = spawn('curl', [...argv, '--interface', source, '--write-out', '%{stderr}connect=%{time_connect}', url]);
  const body: Buffer[] = [];
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => body.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  return new Promise((resolve) => {
    const end = (failed: string | null): void => {
      const connect_ms = 1000 * Number(/connect=([\d.]+)/.exec(said)?.[1] ?? Number.NaN);
      const error = failed === null ? {} : { error: `curl: ${failed}: ${said.trim()}` };
      resolve({ body: Buffer.concat(body), connect_ms, ...error });
    };
    child.on('error', (error) => end(error.message));
    child.on('close', (code) => end(code === 0 ? null : `code ${code}`));
  });
}

function byNode(url: string, source: string, timeoutS: number): Promise<Raw> {
  const start = performance.now();
  let connect_ms = Number.NaN;
  const body: Buffer[] = [];
  return new Promise((resolve) => {
    const end = (error: string | null): void =>
      resolve({ body: Buffer.concat(body), connect_ms, ...(error === null ? {} : { error }) });
    const request = get(url, { localAddress: source, agent: false, timeout: timeoutS * 1000 }, (response) => {
      response.on('data', (chunk: Buffer) => body.push(chunk));
      response.on('end', () => end(response.statusCode === 200 ? null : `status ${response.statusCode}`));
      response.on('error', (error) => end(error.message));
    });
    request.on('socket', (socket) =>
      socket.once('connect', () => {
        connect_ms = performance.now() - start;
      }),
    );
    request.on('timeout', () => request.destroy(new Error(`nothing for ${timeoutS} s`)));
    request.on('error', (error) => end(error.message));
  });
}

await run(JSON.parse(process.argv[2]) as Load);
