/** ICMP echo from a node, with the program that is installed: ping, or nping (of nmap). */

import { findTool } from '../support/require.js';
import type { Testbed } from './testbed.js';

export interface PingResult {
  readonly sent: number;
  readonly received: number;
  /** Mean round trip; NaN if no reply came. */
  readonly rttMs: number;
}

export function findPing(): string | null {
  return findTool('ping') ?? findTool('nping');
}

/**
 * Sends `count` echo requests of `bytes`, five per second. Requests above the path's MTU are
 * fragmented.
 */
export async function ping(
  testbed: Testbed,
  node: string,
  address: string,
  count: number,
  from?: string,
  bytes = 56,
): Promise<PingResult> {
  if (findTool('ping') !== null) {
    const source = from === undefined ? [] : ['-I', from];
    const options = ['-n', '-q', '-i', '0.2', '-W', '2', '-c', String(count), '-s', String(bytes), ...source];
    return read((await testbed.run(node, ['ping', ...options, address], true)).stdout);
  }
  const source = from === undefined ? [] : ['--source-ip', from];
  const options = ['--icmp', '-H', '--delay', '200ms', '--data-length', String(bytes), '-c', String(count), ...source];
  return read((await testbed.run(node, ['nping', ...options, address], true)).stdout);
}

function read(output: string): PingResult {
  // iputils: "5 packets transmitted, 4 received" and "rtt min/avg/max/mdev = 0.1/0.2/…"
  // nping:   "Raw packets sent: 5 (140B) | Rcvd: 4 (112B)" and "Avg rtt: 0.2ms"
  const sent = /(\d+) packets transmitted/.exec(output) ?? /packets sent: (\d+)/.exec(output);
  const received = /(\d+) (?:packets )?received/.exec(output) ?? /Rcvd: (\d+)/.exec(output);
  const rtt = /min\/avg\/max[^=]*= [\d.]+\/([\d.]+)/.exec(output) ?? /Avg rtt: ([\d.]+)ms/.exec(output);
  if (sent === null || received === null) throw new Error(`not understood:\n${output}`);
  return { sent: Number(sent[1]), received: Number(received[1]), rttMs: rtt === null ? Number.NaN : Number(rtt[1]) };
}
