/**
 * The server of first packets, on all addresses of its node: `node server.js` writes `ready`.
 *
 * - DNS: each question of type A or AAAA gets one record.
 * - STUN: a binding request is answered with the address that it came from (RFC 8489 §14.2).
 * - UDP echo.
 */

import { createSocket, type RemoteInfo } from 'node:dgram';
import { DNS_PORT, ECHO_PORT, STUN_PORT } from './exchange.js';
import { answerDns, answerStun } from './messages.js';

function answer(port: number, reply: (request: Buffer, from: RemoteInfo) => Buffer | null): Promise<void> {
  const socket = createSocket('udp4');
  socket.on('message', (request, from) => {
    const bytes = reply(request, from);
    if (bytes !== null) socket.send(bytes, from.port, from.address);
  });
  return new Promise((resolve) => socket.bind(port, '0.0.0.0', resolve));
}

await Promise.all([
  answer(DNS_PORT, answerDns),
  answer(STUN_PORT, (request, from) => answerStun(request, from.address, from.port)),
  answer(ECHO_PORT, (request) => request),
]);
console.log('ready');
