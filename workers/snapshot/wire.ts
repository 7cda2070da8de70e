/** Reading and writing a TCP connection in exact pieces, with a limit on how long nothing may move. */

import { once } from 'node:events';
import type { Socket } from 'node:net';

export class ConnectionError extends Error {}

/** Exactly `count` bytes; throws where the connection ends before, or nothing comes for `idleMs`. */
export async function take(socket: Socket, count: number, idleMs: number): Promise<Buffer> {
  for (;;) {
    const bytes = socket.read(count) as Buffer | null;
    // At the end of the stream what is left comes, however little.
    if (bytes !== null && bytes.length === count) return bytes;
    if (bytes !== null || socket.readableEnded || socket.destroyed)
      throw new ConnectionError('the connection ended too early');
    await moved(socket, ['readable', 'end', 'close'], idleMs);
  }
}

/** Writes, and waits while the other side takes nothing; throws when that lasts longer than `idleMs`. */
export async function put(socket: Socket, parts: readonly Uint8Array[], idleMs: number): Promise<void> {
  if (socket.destroyed) throw new ConnectionError('the connection was closed');
  socket.cork();
  let room = true;
  for (const part of parts) room = socket.write(part);
  socket.uncork();
  if (!room) await moved(socket, ['drain', 'close'], idleMs);
}

async function moved(socket: Socket, events: readonly string[], idleMs: number): Promise<void> {
  if (socket.destroyed) throw new ConnectionError('the connection was closed');
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), idleMs);
  try {
    await Promise.race(events.map((event) => once(socket, event, { signal: abort.signal })));
  } catch (error) {
    if (error instanceof Error && error.name === 'AbortError')
      throw new ConnectionError(`nothing moved on the connection for ${idleMs} ms`);
    throw new ConnectionError(error instanceof Error ? error.message : String(error));
  } finally {
    clearTimeout(timer);
    abort.abort(); // takes the other listeners away
  }
}
