/**
 * The half-open entries that one thread has made, oldest first, in a thread-local ring. Each item
 * is a slot, the generation that its entry then had, and the coarse second of its arrival (a
 * generation may be ahead of the clock). An entry that has since risen, expired or gone is still in
 * the ring, and the reader skips it. If the ring is full, the oldest item is overwritten.
 */

import { NONE } from '../../none.js';
import { powerOfTwo } from '../../struct.js';

const WORDS = 3;

export class Arrivals {
  private readonly ring: Int32Array;
  private readonly mask: number;
  private head = 0;
  private tail = 0;
  /** Generation and arrival (coarse seconds) of the item that `look` read last. */
  generation = 0;
  since = 0;

  /** Room for at least this number of entries. Memory is not touched before it is used. */
  constructor(entries: number) {
    const count = powerOfTwo(entries);
    this.ring = new Int32Array(count * WORDS);
    this.mask = count - 1;
  }

  push(slot: number, generation: number, now: number): void {
    if (((this.head - this.tail) | 0) > this.mask) this.tail = (this.tail + 1) | 0;
    const at = (this.head & this.mask) * WORDS;
    this.ring[at] = slot;
    this.ring[at + 1] = generation;
    this.ring[at + 2] = now;
    this.head = (this.head + 1) | 0;
  }

  /** The slot of the oldest item, or `NONE` if the ring is empty. */
  look(): number {
    if (this.head === this.tail) return NONE;
    const at = (this.tail & this.mask) * WORDS;
    this.generation = this.ring[at + 1];
    this.since = this.ring[at + 2];
    return this.ring[at];
  }

  /** Removes the oldest item. */
  drop(): void {
    this.tail = (this.tail + 1) | 0;
  }
}
