/**
 * A state object in shared memory for tests with real threads. It counts how often each number was
 * applied.
 *
 *     COUNT [number]     adds one to the count of the number, so a repeated application shows
 */

import { Applied, type Delivery, type StateObject } from '../../shm/objects/core/object.js';

export const COUNT = 1;

export class Tally implements StateObject {
  readonly id: number;
  readonly delivery: Delivery;
  readonly counts: Int32Array;

  constructor(id: number, delivery: Delivery, memory: SharedArrayBuffer) {
    this.id = id;
    this.delivery = delivery;
    this.counts = new Int32Array(memory);
  }

  static memory(numbers: number): SharedArrayBuffer {
    return new SharedArrayBuffer(numbers * 4);
  }

  apply(op: number, words: Int32Array, at: number, length: number, _origin: number, _now: number): Applied {
    if (op !== COUNT || length !== 1) return Applied.MALFORMED;
    const number = words[at];
    if (number < 0 || number >= this.counts.length) return Applied.MALFORMED;
    Atomics.add(this.counts, number, 1);
    return Applied.CHANGED;
  }

  coalesceKey(_op: number, words: Int32Array, at: number, _length: number): number {
    return words[at];
  }

  coalesce(): boolean {
    return false;
  }

  digest(): string {
    return this.total().toString(16).padStart(16, '0');
  }

  recover(): number {
    return 0;
  }

  describe(): Record<string, number> {
    return { total: this.total() };
  }

  total(): number {
    let total = 0;
    for (let i = 0; i < this.counts.length; i++) total += Atomics.load(this.counts, i);
    return total;
  }
}
