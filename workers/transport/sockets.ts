/** The UDP sockets that both transports use. */

import { createSocket, type Socket } from 'node:dgram';
import { isIP } from 'node:net';

/** Addresses are numeric, so no lookup and no turn of the event loop is needed. */
const numericOnly = (
  hostname: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void => callback(null, hostname, family(hostname));

/**
 * Returns 4 or 6. Throws a `RangeError` if the address is not numeric (an IPv6 zone is allowed).
 */
export function family(address: string): 4 | 6 {
  const version = isIP(address.split('%')[0]);
  if (version === 0) throw new RangeError(`${address} is not an IP address`);
  return version as 4 | 6;
}

/**
 * An unbound socket for the family of `address`. `reuse`: other sockets may listen on the same
 * address and port.
 */
export function udpSocket(address: string, reuse = false): Socket {
  return createSocket({
    type: family(address) === 6 ? 'udp6' : 'udp4',
    reuseAddr: reuse,
    lookup: numericOnly,
  });
}

export function bind(socket: Socket, address: string | undefined, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    const bound = (): void => {
      socket.off('error', reject);
      resolve();
    };
    if (address === undefined) socket.bind(port, bound);
    else socket.bind(port, address, bound);
  });
}

/**
 * Requests a receive buffer. Returns what the kernel granted, in bytes: it caps the request at
 * net.core.rmem_max, and reports twice the size.
 */
export function receiveBuffer(socket: Socket, bytes: number): number {
  try {
    socket.setRecvBufferSize(bytes);
  } catch {
    // A smaller buffer is no error: lost datagrams are sent again, and the granted size is a
    // metric.
  }
  return socket.getRecvBufferSize();
}

/** Requests a send buffer. */
export function sendBuffer(socket: Socket, bytes: number): void {
  try {
    socket.setSendBufferSize(bytes);
  } catch {
    // As above.
  }
}

/** Waits until the handle is closed, so that the port is free. */
export function closeSocket(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.close(resolve));
}
