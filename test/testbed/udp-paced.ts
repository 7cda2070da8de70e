/**
 * A program for the testbed's nodes: datagrams at a steady rate, to measure which of them a path
 * lets through.
 *
 *     node udp-paced.js send PORT SECONDS ADDRESS:RATE:BYTES…
 *         sends from one socket, RATE datagrams per second to each address
 *     node udp-paced.js receive PORT ADDRESS…
 *         writes `ready`; for every line on its input, writes one of JSON: the arrival times of
 *         datagrams to each of its own addresses, in ms
 *
 * If the sender falls behind, it sends what is due as soon as it can.
 */

import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';

const [what, port, ...words] = process.argv.slice(2);
if (what === 'send') await send(Number(port), Number(words[0]), words.slice(1));
else await receive(Number(port), words);

async function send(to: number, seconds: number, targets: readonly string[]): Promise<void> {
  const streams = targets.map((target) => {
    const [address, rate, bytes] = target.split(':');
    return { address, rate: Number(rate), payload: Buffer.alloc(Number(bytes)), sent: 0 };
  });
  const socket = createSocket('udp4');
  const start = performance.now();
  while (performance.now() - start < seconds * 1000) {
    const elapsed = performance.now() - start;
    for (const stream of streams)
      for (const due = Math.floor((elapsed * stream.rate) / 1000); stream.sent < due; stream.sent++)
        socket.send(stream.payload, to, stream.address);
    await new Promise((resolve) => setTimeout(resolve, 0.5));
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
  socket.close();
}

async function receive(at: number, addresses: readonly string[]): Promise<void> {
  const came = new Map<string, number[]>();
  await Promise.all(
    addresses.map((address) => {
      const times: number[] = [];
      came.set(address, times);
      const socket = createSocket('udp4');
      socket.on('message', () => times.push(performance.now()));
      return new Promise<void>((resolve) => socket.bind(at, address, resolve));
    }),
  );
  console.log('ready');
  for await (const _line of createInterface({ input: process.stdin }))
    console.log(JSON.stringify(Object.fromEntries(came)));
  process.exit(0);
}
