/**
 * A state object for tests of replication. It remembers every applied operation, so that a doubled,
 * lost or misplaced one is found. It is not idempotent on purpose.
 *
 *     NOTE [id]              is never coalesced
 *     ADD  [key, amount]     coalesces with an earlier ADD of its key by summing
 */

import { Applied, type Delivery, type StateObject } from '../../shm/objects/core/object.js';

export const NOTE = 1;
export const ADD = 2;
const CAPACITY_KEYS = 1 << 16;

export class Ledger implements StateObject {
  readonly id: number;
  readonly delivery: Delivery;
  /** By origin, in the order of application. */
  readonly notes = new Map<number, number[]>();
  readonly sums = new Map<number, number>();
  applied = 0;

  constructor(id: number, delivery: Delivery = 'any-order') {
    this.id = id;
    this.delivery = delivery;
  }

  apply(op: number, words: Int32Array, at: number, length: number, origin: number, _now: number): Applied {
    if (op === NOTE && length === 1) {
      let notes = this.notes.get(origin);
      if (notes === undefined) {
        notes = [];
        this.notes.set(origin, notes);
      }
      notes.push(words[at]);
    } else if (op === ADD && length === 2) {
      if (words[at] < 0 || words[at] >= CAPACITY_KEYS) return Applied.FULL;
      this.sums.set(words[at], (this.sums.get(words[at]) ?? 0) + words[at + 1]);
    } else return Applied.MALFORMED;
    this.applied++;
    return Applied.CHANGED;
  }

  coalesceKey(op: number, words: Int32Array, at: number, _length: number): number {
    return op === NOTE ? ~words[at] : words[at];
  }

  coalesce(op: number, words: Int32Array, earlier: number, later: number, _length: number): boolean {
    if (op !== ADD || words[earlier] !== words[later]) return false;
    words[earlier + 1] += words[later + 1];
    return true;
  }

  digest(): string {
    let sum = 0n;
    for (const [key, value] of this.sums) sum += (BigInt(key) + 1n) * 0x9e3779b97f4a7c15n * BigInt(value);
    return BigInt.asUintN(64, sum).toString(16).padStart(16, '0');
  }

  recover(): number {
    return 0;
  }

  describe(): Record<string, number> {
    return { keys: this.sums.size, applied: this.applied };
  }
}
