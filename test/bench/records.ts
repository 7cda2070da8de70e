/**
 * Records end to end: two processes, each with the threads of replication, on a LAN (a veth pair)
 * and 50 ms apart (the relay). Measured are records per second, the cost to send and to receive
 * each, its size, and how long it takes.
 */

import { fileURLToPath } from 'node:url';
import type { Program } from '../testbed/program.js';
import { Testbed } from '../testbed/testbed.js';
import type { Topology } from '../testbed/topology.js';
import { pause } from './af-xdp-bed.js';
import type { Lag, PeerFigures } from './bench-peer.js';

const PEER = fileURLToPath(new URL('./replication-peer.js', import.meta.url));
const ADDRESSES = ['10.255.0.1', '10.255.0.2'];
const WARM_UP = 'load 20000 2';
const SETTLE_MS_MAX = 20_000;
const SETTLE_STEP_MS = 20;

export interface RecordFigures {
  readonly recordsPerS: number;
  readonly sendNs: number;
  readonly receiveNs: number;
  readonly bytes: number;
  readonly lag: Lag;
}

function topology(delayMs: number): Topology {
  const ends = ADDRESSES.map((address, i) => ({ node: `peer-${i}`, interface: 'state', addresses: [`${address}/24`] }));
  return {
    nodes: { 'peer-0': {}, 'peer-1': {} },
    links: [{ name: 'state', ends, ...(delayMs > 0 && { relayed: { delay_ms: delayMs } }) }],
  };
}

/** Measures at each rate in turn (0: as fast as possible). `delayMs`: one way. */
export async function measureRecords(
  delayMs: number,
  rates: readonly number[],
  seconds: number,
): Promise<RecordFigures[]> {
  const testbed = await Testbed.build(topology(delayMs));
  try {
    const [a, b] = ADDRESSES.map((_, i) =>
      testbed.start(`peer-${i}`, `peer-${i}`, ['taskset', '-c', `${i}`, process.execPath, PEER, `${i}`, ...ADDRESSES]),
    );
    for (const peer of [a, b]) await peer.waitFor(/^ready$/m);
    await tell(a, WARM_UP, /^loaded$/m);
    await settled(a);
    const results: RecordFigures[] = [];
    for (const rate of rates) results.push(await measure(a, b, rate, seconds));
    for (const peer of [a, b]) peer.write('quit\n');
    return results;
  } finally {
    await testbed.down();
  }
}

async function measure(a: Program, b: Program, rate: number, seconds: number): Promise<RecordFigures> {
  await ask<Lag | null>(b, 'lag'); // what came before
  const [aBefore, bBefore] = [await ask<PeerFigures>(a, 'figures'), await ask<PeerFigures>(b, 'figures')];
  const start = performance.now();
  await tell(a, `load ${rate} ${seconds}`, /^loaded$/m);
  await settled(a);
  const elapsed = (performance.now() - start) / 1000;
  const [aAfter, bAfter] = [await ask<PeerFigures>(a, 'figures'), await ask<PeerFigures>(b, 'figures')];
  const records = aAfter.added - aBefore.added;
  const lag = await ask<Lag | null>(b, 'lag');
  if (records === 0 || lag === null) throw new Error('no record came through');
  return {
    recordsPerS: records / elapsed,
    sendNs: (aAfter.sendNs - aBefore.sendNs) / records,
    receiveNs: (bAfter.receiveNs - bBefore.receiveNs) / records,
    bytes: (aAfter.sentBytes - aBefore.sentBytes) / records,
    lag,
  };
}

/** Waits until b has acknowledged all that a added. */
async function settled(a: Program): Promise<void> {
  const deadline = performance.now() + SETTLE_MS_MAX;
  for (;;) {
    const { owed } = await ask<PeerFigures>(a, 'figures');
    if (owed === 0) return;
    if (performance.now() > deadline) throw new Error(`${owed} records are still owed`);
    await pause(SETTLE_STEP_MS);
  }
}

async function ask<T>(peer: Program, word: string): Promise<T> {
  const [, answer] = await tell(peer, word, new RegExp(`^${word} (.*)$`, 'm'));
  return JSON.parse(answer) as T;
}

/** Sends a command and waits for its answer. */
async function tell(peer: Program, command: string, answer: RegExp): Promise<RegExpMatchArray> {
  peer.output = '';
  peer.write(`${command}\n`);
  return peer.waitFor(answer, 120_000);
}
