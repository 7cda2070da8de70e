/**
 * Uploads over TCP and echoes over UDP, a program for the testbed's nodes.
 *
 *     node transfer.js serve PORT                         takes uploads, and echoes datagrams
 *     node transfer.js upload SOURCE ADDRESS PORT BYTES   exits with 0 if all bytes arrived intact
 *     node transfer.js echo SOURCE ADDRESS PORT BYTES     sends a datagram of BYTES every second
 *                                                         until it returns
 */

import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { bodyOf, bodyPath, sha256 } from './http/body.js';

const GIVE_UP_MS = 20_000;
const AGAIN_MS = 1000;

const bodyOfBytes = (bytes: number): Buffer => bodyOf(bodyPath(bytes, 7)) ?? Buffer.alloc(0);

function serve(port: number): void {
  createServer({ allowHalfOpen: true }, (socket) => {
    const parts: Buffer[] = [];
    socket.on('data', (part) => void parts.push(part));
    socket.on('end', () => socket.end(sha256(Buffer.concat(parts))));
    socket.on('error', () => {});
  }).listen(port, '0.0.0.0', () => {
    const echo = createSocket('udp4');
    echo.on('message', (bytes, from) => echo.send(bytes, from.port, from.address));
    echo.bind(port, () => console.log('ready'));
  });
}

function upload(localAddress: string, host: string, port: number, bytes: number): void {
  const body = bodyOfBytes(bytes);
  const socket = connect({ host, port, localAddress });
  let answer = '';
  socket.on('data', (part) => {
    answer += part;
  });
  socket.on('end', () => process.exit(answer === sha256(body) ? 0 : 1));
  socket.on('error', (error) => {
    console.log(error.message);
    process.exit(1);
  });
  socket.end(body);
}

function echo(localAddress: string, host: string, port: number, bytes: number): void {
  const body = bodyOfBytes(bytes);
  const socket = createSocket('udp4');
  socket.on('message', (received) => process.exit(received.equals(body) ? 0 : 1));
  socket.bind(0, localAddress, () => {
    const send = (): void => socket.send(body, port, host);
    send();
    setInterval(send, AGAIN_MS);
  });
}

const [what, ...words] = process.argv.slice(2);
if (what === 'serve') serve(Number(words[0]));
else {
  setTimeout(() => {
    console.log('nothing came back');
    process.exit(1);
  }, GIVE_UP_MS).unref();
  const run = what === 'upload' ? upload : echo;
  run(words[0], words[1], Number(words[2]), Number(words[3]));
}
