/**
 * A program for the testbed's nodes: numbered datagrams one way, to see what a path does to them.
 *
 *     node udp-probe.js receive PORT         writes `ready`, then `ID DELAY_US` for every datagram
 *     node udp-probe.js send ADDRESS PORT COUNT    about one per millisecond
 *
 * All namespaces of a machine share the monotonic clock, so one-way delays can be measured.
 */

import { createSocket } from 'node:dgram';

const [mode, ...rest] = process.argv.slice(2);

function receive(port: number): void {
  const socket = createSocket('udp4');
  socket.on('message', (message) => {
    const delayUs = Number(process.hrtime.bigint() - message.readBigUInt64LE(4)) / 1e3;
    console.log(`${message.readUInt32LE(0)} ${delayUs.toFixed(0)}`);
  });
  socket.bind(port, () => console.log('ready'));
}

async function send(address: string, port: number, count: number): Promise<void> {
  const socket = createSocket('udp4');
  for (let id = 0; id < count; id++) {
    const message = Buffer.alloc(64);
    message.writeUInt32LE(id, 0);
    message.writeBigUInt64LE(process.hrtime.bigint(), 4);
    await new Promise((resolve) => socket.send(message, port, address, resolve));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  socket.close();
}

if (mode === 'receive') receive(Number(rest[0]));
else await send(rest[0], Number(rest[1]), Number(rest[2]));
