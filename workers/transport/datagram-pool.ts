/**
 * Memory for outgoing messages. A buffer given to a socket must not be touched until the socket is
 * done with it. A message to several members is done when the last copy is sent.
 */

import { Datagram } from '../replication/wire/message.js';

/**
 * A datagram with the number of sockets that still read it. Its callback is made once, not per
 * message.
 */
export class PooledDatagram extends Datagram {
  pending = 0;
  readonly onSent: (error: Error | null) => void;

  constructor(byteLength: number, onSent: (datagram: PooledDatagram, error: Error | null) => void) {
    super(byteLength);
    this.onSent = (error) => onSent(this, error);
  }
}

export class DatagramPool {
  /** The number of sends that failed. */
  errors = 0;
  private readonly idle: PooledDatagram[] = [];
  private readonly size: number;

  constructor(size: number, byteLength: number) {
    this.size = size;
    for (let i = 0; i < size; i++)
      this.idle.push(new PooledDatagram(byteLength, (datagram, error) => this.sent(datagram, error)));
  }

  /** Whether no datagram is under way. */
  get isIdle(): boolean {
    return this.idle.length === this.size;
  }

  claim(): PooledDatagram | null {
    return this.idle.pop() ?? null;
  }

  release(datagram: PooledDatagram): void {
    this.idle.push(datagram);
  }

  private sent(datagram: PooledDatagram, error: Error | null): void {
    if (error !== null) this.errors++;
    datagram.pending--;
    if (datagram.pending === 0) this.release(datagram);
  }
}
