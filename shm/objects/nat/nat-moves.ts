/**
 * Bindings whose port changed while they were in use, because another instance bound the endpoint
 * to another port and that binding stays (nat-tables.ts). The connections that this instance had
 * begun on the old port are lost, and the workers notify their hosts. The memory is local to this
 * instance. The thread that applies records notes a move, and every worker reads all of them.
 *
 *     head     number of moves noted so far
 *     entry    slot, the binding's generation and rank before            a ring of ENTRIES
 *
 * The entry is written before the head, so a reader that sees the head sees the entry (x86-64's
 * ordering; Atomics.store). There is one writer at a time: the receive thread applies records, or
 * the main thread does while the receive thread is paused. A worker that is further behind than
 * half the ring misses moves. Packets of those connections then get the reply of a closed port.
 */

import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD, LINE, struct } from '../../struct.js';

const HEAD = struct({ head: LINE });
const ENTRY = struct({ slot: 1, generation: 1, rank: 1, unused: 1 });
/** A power of two. */
const ENTRIES = 1024;
const WORDS = HEAD.words + ENTRIES * ENTRY.words;

export const MOVES_BYTES = WORDS * BYTES_PER_WORD;

export class Moves {
  /** Generation and rank before the move that `next` read last. */
  generation = 0;
  rank = 0;
  private readonly words: Int32Array;
  private cursor: number;

  /**
   * `memory`: the instance's local memory, used from `byteOffset` on. Without it, this thread keeps
   * the moves for itself.
   */
  constructor(memory: Region | undefined, byteOffset: number) {
    this.words =
      memory === undefined || memory.byteLength === 0 ? new Int32Array(WORDS) : memory.i32(byteOffset, WORDS);
    this.cursor = this.words[HEAD.at.head];
  }

  note(slot: number, generation: number, rank: number): void {
    const { words } = this;
    const head = words[HEAD.at.head];
    const at = HEAD.words + (head & (ENTRIES - 1)) * ENTRY.words;
    words[at + ENTRY.at.slot] = slot;
    words[at + ENTRY.at.generation] = generation;
    words[at + ENTRY.at.rank] = rank;
    Atomics.store(words, HEAD.at.head, (head + 1) | 0);
  }

  /** Whether there is a move that `next` has not read: one plain load. */
  get any(): boolean {
    return this.words[HEAD.at.head] !== this.cursor;
  }

  /** The slot of the next move that this thread has not read, or `NONE`. */
  next(): number {
    const { words } = this;
    const behind = (Atomics.load(words, HEAD.at.head) - this.cursor) | 0;
    if (behind === 0) return NONE;
    // Keep half the ring's distance, because the writer may continue meanwhile.
    if (behind > ENTRIES >> 1) this.cursor = (this.cursor + behind - (ENTRIES >> 1)) | 0;
    const at = HEAD.words + (this.cursor & (ENTRIES - 1)) * ENTRY.words;
    this.cursor = (this.cursor + 1) | 0;
    this.generation = words[at + ENTRY.at.generation];
    this.rank = words[at + ENTRY.at.rank];
    return words[at + ENTRY.at.slot];
  }
}
