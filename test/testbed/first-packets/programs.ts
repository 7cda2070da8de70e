/**
 * Exchanges of client.ts with other programs: curl, ping, traceroute, iperf3, and bursts by
 * burst.c.
 */

import { spawn } from 'node:child_process';
import { compiled } from '../compile.js';
import { type Ask, BURST_PORT, type Exchange, everyTurn, TCP_LOST_MS } from './exchange.js';

const PING_EVERY_S = 0.3;
const IPERF3_DATAGRAMS = 50;
const BURST_PROGRAM = compiled('burst');

/** The output of a program, which is killed when its time is up. */
function output(argv: readonly string[], timeoutMs: number): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs });
    let text = '';
    const read = (chunk: Buffer): void => {
      text += chunk;
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.on('error', (error) => resolve(error.message));
    child.on('close', () => resolve(text));
  });
}

export function curl(ask: Ask): Promise<Exchange[]> {
  const seconds = String(ask.timeout_ms / 1000);
  return everyTurn(ask, async (server, to, source) => {
    const argv = ['curl', '-s', '-o', '/dev/null', '--noproxy', '*', '--interface', source, '--max-time', seconds];
    const text = await output([...argv, '--write-out', 'connect=%{time_connect}', `http://${to}/1/1`], 60_000);
    const ms = 1000 * Number(/connect=([\d.]+)/.exec(text)?.[1] ?? 0);
    const lost = ms === 0 || ms > TCP_LOST_MS ? 1 : 0;
    return [{ server, sent: 1, lost, ...(lost === 1 ? {} : { ms }) }];
  });
}

/** Sends two echo requests. Only the first one counts. */
export function ping(ask: Ask): Promise<Exchange[]> {
  const seconds = String(Math.max(1, ask.timeout_ms / 1000));
  return everyTurn(ask, async (server, to, source) => {
    const argv = ['ping', '-n', '-c', '2', '-i', String(PING_EVERY_S), '-W', seconds, '-I', source, to];
    const text = await output(argv, 60_000);
    const first = /icmp_seq=1 .*time=([\d.]+)/.exec(text);
    return [{ server, sent: 1, lost: first === null ? 1 : 0, ...(first === null ? {} : { ms: Number(first[1]) }) }];
  });
}

/**
 * Sends one probe to each hop behind the site. Each probe has its own socket, and so its own flow.
 */
export function traceroute(ask: Ask): Promise<Exchange[]> {
  const [first, last] = ask.hops ?? [1, 30];
  const seconds = String(ask.timeout_ms / 1000);
  return everyTurn(ask, async (server, to, source) => {
    const hops = ['-f', String(first), '-m', String(last)];
    const text = await output(['traceroute', '-n', '-q', '1', '-w', seconds, ...hops, '-s', source, to], 60_000);
    return [...text.matchAll(/^ ?(\d+) +(?:\*|[\d.]+ +([\d.]+) ms)/gm)].map(([, hop, ms]) => ({
      server,
      router: Number(hop) < last,
      sent: 1,
      lost: ms === undefined ? 1 : 0,
      ...(ms === undefined ? {} : { ms: Number(ms) }),
    }));
  });
}

/**
 * Receives a stream from the server. The stream starts when the server's reply to the client's
 * first datagram arrives. iperf3 waits half a minute for it, so it is killed when its time is up.
 */
export function iperf3(ask: Ask): Promise<Exchange[]> {
  return everyTurn({ ...ask, each: 1 }, async (server, to, source) => {
    const stream = ['-u', '-R', '-k', String(IPERF3_DATAGRAMS), '-l', '200', '-b', '2M'];
    const text = await output(['iperf3', '-c', to, '-B', source, ...stream, '-J'], 2 * ask.timeout_ms);
    const { packets, lost_packets } = streamed(text);
    return packets === 0 ? [{ server, sent: 1, lost: 1 }] : [{ server, sent: packets, lost: lost_packets }];
  });
}

/** iperf3's counts at the end of a stream; zeros if it failed. */
function streamed(text: string): { packets: number; lost_packets: number } {
  try {
    return JSON.parse(text).end.sum ?? { packets: 0, lost_packets: 0 };
  } catch {
    return { packets: 0, lost_packets: 0 }; // it was ended, or had an error to tell
  }
}

/** Opens connections to each server as fast as they can be started. */
export async function burst({ servers, sources, each, timeout_ms }: Ask): Promise<Exchange[]> {
  const argv = [BURST_PROGRAM, 'connect', BURST_PORT, timeout_ms, each, servers.join(','), sources.join(',')].map(
    String,
  );
  const lines = (await output(argv, 60_000)).trim().split('\n');
  if (lines.length !== servers.length * each) throw new Error(lines.at(-1));
  return lines.map((line) => {
    const [server, ms] = line.split(' ').map(Number); // no number: the connection was not established
    const lost = ms <= TCP_LOST_MS ? 0 : 1;
    return { server, sent: 1, lost, ...(lost === 1 ? {} : { ms }) };
  });
}
