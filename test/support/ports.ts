/**
 * UDP and TCP ports for servers of tests.
 *
 * A port that is found free and released can be taken before the test uses it. The kernel may take
 * it for an outgoing connection if it is in the ephemeral range, or another test process may look
 * at the same time. So ports come from outside that range, and each process takes them from a block
 * that no other process has. An abstract Unix socket reserves a block. Like ports, it belongs to
 * the network namespace, and the kernel removes it with the process.
 */

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';

const BLOCK_PORTS = 256;
/** Below are the default ports of programs. */
const LOWEST = 10_000;
const HIGHEST = 65_535;

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/**
 * Returns the larger of the two ranges below and above the ephemeral one, within `LOWEST` and
 * `HIGHEST`.
 */
export function rangeOutside({ first, last }: PortRange): PortRange {
  const below = { first: LOWEST, last: Math.min(first - 1, HIGHEST) };
  const above = { first: Math.max(last + 1, LOWEST), last: HIGHEST };
  const range = below.last - below.first >= above.last - above.first ? below : above;
  if (range.last - range.first + 1 < BLOCK_PORTS)
    throw new Error(
      `the ephemeral ports ${first} to ${last} leave no ${BLOCK_PORTS} others from ${LOWEST} on for tests (sysctl net.ipv4.ip_local_port_range)`,
    );
  return range;
}

function ephemeralRange(): PortRange {
  const [first, last] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split('\t').map(Number);
  return { first, last };
}

let block: Promise<number> | null = null;
let next = 0;

/** First port of this process's block. */
async function reserveBlock(): Promise<number> {
  const { first, last } = rangeOutside(ephemeralRange());
  const blocks = Math.floor((last - first + 1) / BLOCK_PORTS);
  for (let n = 0; n < blocks; n++) {
    const candidate = first + ((process.pid + n) % blocks) * BLOCK_PORTS;
    const guard = createServer();
    const isOurs = await new Promise<boolean>((resolve, reject) => {
      guard.once('error', (error: NodeJS.ErrnoException) =>
        error.code === 'EADDRINUSE' ? resolve(false) : reject(error),
      );
      guard.listen(`\0constellation-test-ports-${candidate}`, () => resolve(true));
    });
    if (!isOurs) continue;
    guard.unref();
    return candidate;
  }
  throw new Error(`all ${blocks} blocks of ports are taken by other test processes`);
}

/**
 * Returns a port of this process's block on which nobody listens, neither UDP nor TCP, on
 * `address`. The default is any address.
 */
export async function freePort(address = '0.0.0.0'): Promise<number> {
  block ??= reserveBlock();
  const first = await block;
  for (let n = 0; n < BLOCK_PORTS; n++) {
    const port = first + (next++ % BLOCK_PORTS);
    if ((await isFreeUdp(port, address)) && (await isFreeTcp(port, address))) return port;
  }
  throw new Error(`all ports from ${first} to ${first + BLOCK_PORTS - 1} are in use`);
}

function isInUse(error: NodeJS.ErrnoException): boolean {
  if (error.code === 'EADDRINUSE') return true;
  throw error;
}

async function isFreeUdp(port: number, address: string): Promise<boolean> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  try {
    socket.bind(port, address);
    await once(socket, 'listening');
  } catch (error) {
    socket.close();
    return !isInUse(error as NodeJS.ErrnoException);
  }
  socket.close();
  await once(socket, 'close');
  return true;
}

async function isFreeTcp(port: number, address: string): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, address);
    await once(server, 'listening');
  } catch (error) {
    return !isInUse(error as NodeJS.ErrnoException);
  }
  server.close();
  await once(server, 'close');
  return true;
}
