/**
 * Network faults between the protocol and the real network, drawn from a seed: datagrams are lost,
 * duplicated or delayed. A datagram delayed longer than a later one arrives out of order. For
 * tests, enabled by configuration.
 */

import type { OnDatagram, ReceiveTransport } from './transport.js';

export interface Faults {
  readonly seed: number;
  /** Probabilities, 0 … 1. */
  readonly loss: number;
  readonly duplicate: number;
  readonly delay: number;
  /** The longest delay of a datagram, in ms. */
  readonly delayMsMax: number;
}

/** Numbers in [0, 1) from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A receiving transport that adds these faults to the network's own. */
export class FaultyReceiver implements ReceiveTransport {
  lost = 0;
  duplicated = 0;
  delayed = 0;
  private readonly inner: ReceiveTransport;
  private readonly faults: Faults;
  private readonly random: () => number;
  private readonly waiting = new Set<NodeJS.Timeout>();

  constructor(inner: ReceiveTransport, faults: Faults) {
    this.inner = inner;
    this.faults = faults;
    this.random = seeded(faults.seed);
  }

  get errors(): number {
    return this.inner.errors;
  }

  get bufferBytes(): number {
    return this.inner.bufferBytes;
  }

  open(onDatagram: OnDatagram): Promise<void> {
    return this.inner.open((datagram, source) => {
      const copies = this.random() < this.faults.duplicate ? 2 : 1;
      if (copies === 2) this.duplicated++;
      for (let i = 0; i < copies; i++) this.pass(datagram, source, onDatagram);
    });
  }

  close(): Promise<void> {
    for (const timer of this.waiting) clearTimeout(timer);
    this.waiting.clear();
    return this.inner.close();
  }

  private pass(datagram: Uint8Array, source: string, onDatagram: OnDatagram): void {
    if (this.random() < this.faults.loss) {
      this.lost++;
      return;
    }
    if (this.random() >= this.faults.delay) {
      onDatagram(datagram, source);
      return;
    }
    this.delayed++;
    const held = datagram.slice();
    const timer = setTimeout(() => {
      this.waiting.delete(timer);
      onDatagram(held, source);
    }, this.random() * this.faults.delayMsMax);
    this.waiting.add(timer);
  }
}
