/** Reads and writes a TCP connection in exact pieces, with a limit on how long nothing may move. */

import type { Socket } from 'node:net';

class ConnectionError extends Error {}

export class Connection {
  readonly socket: Socket;
  private readonly chunks: AsyncIterator<Buffer>;
  /** Bytes that were received and not taken. */
  private left: Buffer = Buffer.alloc(0);

  /**
   * `idleMs`: if nothing moves for this time, in either direction, the connection is closed, and a
   * waiting reader or writer gets the reason.
   */
  constructor(socket: Socket, idleMs: number) {
    this.socket = socket;
    this.chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    this.setIdle(idleMs);
    socket.on('timeout', () => socket.destroy(new ConnectionError('nothing moved on the connection for too long')));
    socket.on('error', () => {}); // the reader or writer gets it too
  }

  setIdle(ms: number): void {
    this.socket.setTimeout(ms);
  }

  /** Returns exactly `count` bytes. Throws if the connection ends before. */
  async take(count: number): Promise<Buffer> {
    const pieces = [this.left];
    let bytes = this.left.length;
    while (bytes < count) {
      const next = await this.chunks.next();
      if (next.done === true) throw new ConnectionError('the connection ended too early');
      pieces.push(next.value);
      bytes += next.value.length;
    }
    const all = pieces.length === 1 ? this.left : Buffer.concat(pieces, bytes);
    this.left = all.subarray(count);
    return all.subarray(0, count);
  }

  /** Writes the parts, and waits while the other side reads nothing. */
  async put(parts: readonly Uint8Array[]): Promise<void> {
    const { socket } = this;
    if (socket.destroyed) throw socket.errored ?? new ConnectionError('the connection was closed');
    socket.cork();
    let room = true;
    for (const part of parts) room = socket.write(part);
    socket.uncork();
    if (room) return;
    await new Promise<void>((resolve) => {
      const moved = (): void => {
        socket.off('drain', moved);
        socket.off('close', moved);
        resolve();
      };
      socket.on('drain', moved);
      socket.on('close', moved);
    });
    if (socket.destroyed) throw socket.errored ?? new ConnectionError('the connection was closed');
  }

  /**
   * Ends the writing side, and waits until the other side, which has then read everything, closes.
   */
  async finish(): Promise<void> {
    this.socket.end();
    await this.take(1).catch(() => {});
  }

  close(): void {
    this.socket.destroy();
  }
}
