/**
 * A program for the testbed's nodes: many UDP flows, each from its own port.
 *
 *     node udp-flows.js SOURCE FIRST_PORT COUNT ADDRESS PORT
 *
 * Writes `ready`. Each line on its standard input is a number: it sends that many datagrams from
 * every port, back to back, and writes `sent`. For each datagram that returns to a port, it writes
 * `reply PORT`.
 *
 *     node udp-flows.js echo PORT     writes `ready` and returns every datagram to its sender
 */

import { createSocket, type Socket } from 'node:dgram';
import { createInterface } from 'node:readline';

function bound(port: number, address: string): Promise<Socket> {
  const socket = createSocket('udp4');
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('listening', () => resolve(socket));
    socket.bind(port, address);
  });
}

async function flows(source: string, firstPort: number, count: number, address: string, port: number): Promise<void> {
  const sockets = await Promise.all(Array.from({ length: count }, (_, i) => bound(firstPort + i, source)));
  for (const [i, socket] of sockets.entries()) socket.on('message', () => console.log(`reply ${firstPort + i}`));
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const datagrams = sockets.flatMap((socket) => new Array<Socket>(Number(line)).fill(socket));
    await Promise.all(datagrams.map((socket) => new Promise((resolve) => socket.send('x', port, address, resolve))));
    console.log('sent');
  }
  for (const socket of sockets) socket.close();
}

async function echo(port: number): Promise<void> {
  const socket = await bound(port, '0.0.0.0');
  socket.on('message', (message, from) => socket.send(message, from.port, from.address));
  console.log('ready');
}

const words = process.argv.slice(2);
if (words[0] === 'echo') await echo(Number(words[1]));
else await flows(words[0], Number(words[1]), Number(words[2]), words[3], Number(words[4]));
