/**
 * A program beside the far end of a veth pair (native/veth.ts):
 *
 *     node udp-client.js send ADDRESS COUNT BYTES    sends datagrams, each from one of 16 ports
 *     node udp-client.js echo ADDRESS COUNT BYTES    sends them a few at a time, and waits for each to come back;
 *                                                    writes how many did
 */

import { createSocket, type Socket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';

const PORT = 4000;
/** So many as fit a socket's default buffer. */
const WINDOW = +process.argv[5] > 4000 ? 4 : 16;
const PATIENCE_MS = 5000;
const [mode, address, count, bytes] = [process.argv[2], process.argv[3], +process.argv[4], +process.argv[5]];

const send = (socket: Socket, message: Buffer): Promise<void> =>
  new Promise((resolve) => socket.send(message, PORT, address, () => resolve()));

async function sendAll(): Promise<void> {
  const sockets = Array.from({ length: 16 }, () => createSocket('udp4'));
  for (let i = 0; i < count; i++) await send(sockets[i % sockets.length], Buffer.alloc(bytes, i));
  for (const socket of sockets) socket.close();
}

async function echoAll(): Promise<number> {
  const socket = createSocket('udp4');
  const back = new Set<number>();
  socket.on('message', (message) => {
    if (message.length === bytes && message.subarray(4).every((byte) => byte === (message[0] ^ 0xff)))
      back.add(message.readUInt32LE(0));
  });
  for (let id = 0; id < count; id++) {
    const message = Buffer.alloc(bytes, (id & 0xff) ^ 0xff);
    message.writeUInt32LE(id, 0);
    await send(socket, message);
    for (let waited = 0; back.size <= id - WINDOW && waited < PATIENCE_MS; waited++) await sleep(1);
  }
  for (let waited = 0; back.size < count && waited < PATIENCE_MS; waited++) await sleep(1);
  socket.close();
  return back.size;
}

if (mode === 'send') await sendAll();
else console.log(await echoAll());
