/**
 * A sending transport that seals what passes it: all that leaves is encrypted and authenticated.
 */

import type { Datagram } from '../replication/message.js';
import type { Sealer } from '../replication/seal.js';
import type { SendTransport } from './transport.js';

export class SealingSender implements SendTransport {
  private readonly inner: SendTransport;
  private readonly sealer: Sealer;

  constructor(inner: SendTransport, sealer: Sealer) {
    this.inner = inner;
    this.sealer = sealer;
  }

  get errors(): number {
    return this.inner.errors;
  }

  open(): Promise<void> {
    return this.inner.open();
  }

  claim(): Datagram | null {
    return this.inner.claim();
  }

  /** Sealed once, whoever it goes to. */
  send(datagram: Datagram, bytes: number, object: number, member: number, spareLow: number, spareHigh: number): void {
    this.inner.send(datagram, this.sealer.seal(datagram.bytes, bytes), object, member, spareLow, spareHigh);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
