/**
 * A program for the testbed's nodes that opens new flows and reports what became of their first
 * packets. Each line of JSON on its standard input is an `Ask`. When all its exchanges have ended,
 * it writes an `Answer` as one line of JSON. Asks may overlap.
 */

import { createInterface } from 'node:readline';
import type { Answer, Ask, Exchange } from './exchange.js';
import { burst, curl, iperf3, ping, traceroute } from './programs.js';
import { dns, established, stun, udp } from './sockets.js';

const RUN: Readonly<Record<Ask['what'], (ask: Ask) => Promise<Exchange[]>>> = {
  burst,
  curl,
  dns,
  established,
  iperf3,
  ping,
  stun,
  stun_spread: stun,
  traceroute,
  udp,
};

async function answer(ask: Ask): Promise<Answer> {
  try {
    return { id: ask.id, exchanges: await RUN[ask.what](ask) };
  } catch (error) {
    return { id: ask.id, exchanges: [], error: `${ask.what}: ${(error as Error).message}` };
  }
}

console.log('ready');
for await (const line of createInterface({ input: process.stdin }))
  void answer(JSON.parse(line) as Ask).then((done) => console.log(JSON.stringify(done)));
