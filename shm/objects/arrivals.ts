/**
 * The half-open entries that one thread has made, oldest first: a ring of slots, each with the
 * generation its entry then had, and when that was (a generation may run ahead of the clock). Of
 * this thread alone. An entry that has risen, run out or gone meanwhile is still in it, and is
 * passed over when it is taken; when the ring is full, the oldest is forgotten.
 */

import { NONE } from '../none.js';
import { powerOfTwo } from '../struct.js';

const WORDS = 3;

export class Arrivals {
  private readonly ring: Int32Array;
  private readonly mask: number;
  private head = 0;
  private tail = 0;
  /** Of the entry looked at last; when: coarse seconds. */
  generation = 0;
  since = 0;

  /** Room for so many. Memory that was never used is never touched. */
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

  /** The slot of the oldest; `NONE`: there is none. */
  look(): number {
    if (this.head === this.tail) return NONE;
    const at = (this.tail & this.mask) * WORDS;
    this.generation = this.ring[at + 1];
    this.since = this.ring[at + 2];
    return this.ring[at];
  }

  /** Takes the oldest out of the ring. */
  drop(): void {
    this.tail = (this.tail + 1) | 0;
  }
}
