/**
 * The external addresses that new bindings may have: those that every member has, as far as the
 * members have reported. The main thread writes them when it learns the peers' lists. Each worker
 * reads them with every new binding. The memory is local to this instance.
 *
 *     version   grows with every change
 *     barred    a bit for each address, in the order of their places; 1: no new binding gets it
 *
 * Without memory, as in a thread that has only the shared region, every address may be used.
 */

import type { Region } from '../../region.js';
import { LINE, struct } from '../../struct.js';

const WORD_SHIFT = 5;
const BIT_MASK = 31;
const WORDS = struct({ version: LINE, barred: 8 });

export const ADDRESS_USE_BYTES = WORDS.bytes;

export class AddressUse {
  private readonly words: Int32Array;

  constructor(local: Region | undefined, byteOffset: number) {
    this.words =
      local === undefined || local.byteLength === 0 ? new Int32Array(WORDS.words) : local.i32(byteOffset, WORDS.words);
  }

  /** If it has changed, whatever was derived from the bits must be derived again. */
  get version(): number {
    return Atomics.load(this.words, WORDS.at.version);
  }

  isBarred(index: number): boolean {
    return ((this.words[WORDS.at.barred + (index >>> WORD_SHIFT)] >>> (index & BIT_MASK)) & 1) === 1;
  }

  /** For the main thread. `barred`: indices of addresses. Returns whether the bits changed. */
  bar(barred: ReadonlySet<number>): boolean {
    const bits = new Int32Array(8);
    for (const index of barred) bits[index >>> WORD_SHIFT] |= 1 << (index & BIT_MASK);
    const before = this.words.subarray(WORDS.at.barred, WORDS.at.barred + bits.length);
    if (bits.every((word, i) => word === before[i])) return false;
    for (const [i, word] of bits.entries()) Atomics.store(before, i, word);
    Atomics.add(this.words, WORDS.at.version, 1);
    return true;
  }
}
