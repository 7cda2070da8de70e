/** UDP ports for tests. */

import { createSocket } from 'node:dgram';
import { once } from 'node:events';

/** A port that nobody used a moment ago: on `address`, or, without one, on any. */
export async function freePort(address = '0.0.0.0'): Promise<number> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.bind(0, address);
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}
