/**
 * A member of the replication benchmark, as a program of the testbed.
 *
 *     node replication-peer.js SELF ADDRESS ADDRESS      SELF: 0 or 1
 *
 * Writes `ready`, then executes the lines of its input: `load RATE SECONDS` (BenchPeer.load), which
 * is answered by `loaded`; `figures` and `lag`, which are answered by a line of JSON; and `quit`.
 */

import { createInterface } from 'node:readline';
import { BenchPeer } from './bench-peer.js';

const [self, ...addresses] = process.argv.slice(2);
const peer = new BenchPeer(Number(self), addresses);
await peer.start();
console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const [word, rate, seconds] = line.split(' ');
  if (word === 'load') {
    await peer.load(Number(rate), Number(seconds));
    console.log('loaded');
  } else if (word === 'figures') console.log(`figures ${JSON.stringify(peer.figures())}`);
  else if (word === 'lag') console.log(`lag ${JSON.stringify(peer.lag())}`);
  else break;
}
await peer.stop();
