/** A sending transport that seals messages: everything sent is encrypted and authenticated. */

import type { Datagram } from '../replication/wire/message.js';
import type { Sealer } from '../replication/wire/seal.js';
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

  /** Seals the message once, whichever members it is sent to. */
  send(datagram: Datagram, bytes: number, object: number, member: number, spareLow: number, spareHigh: number): void {
    this.inner.send(datagram, this.sealer.seal(datagram.bytes, bytes), object, member, spareLow, spareHigh);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
