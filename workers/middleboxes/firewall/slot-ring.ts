/**
 * A bounded queue of slots of a flow table. Each entry has a slot, the generation of the slot's
 * entry, a word, and the time of its arrival. If the queue is full, the oldest entry is dropped.
 */

const WORDS = 4;

export class SlotRing {
  count = 0;
  private readonly words: Int32Array;
  private readonly mask: number;
  private first = 0;

  /** `capacity` must be a power of two. */
  constructor(capacity: number) {
    this.words = new Int32Array(capacity * WORDS);
    this.mask = capacity - 1;
  }

  get isFull(): boolean {
    return this.count > this.mask;
  }

  push(slot: number, generation: number, word: number, since: number): void {
    if (this.isFull) this.drop();
    this.write(this.count++, slot, generation, word, since);
  }

  /** Drops the oldest entry. */
  drop(): void {
    this.first = (this.first + 1) & this.mask;
    this.count--;
  }

  // Entry 0 is the oldest.

  slot(n: number): number {
    return this.words[this.at(n)];
  }

  generation(n: number): number {
    return this.words[this.at(n) + 1];
  }

  since(n: number): number {
    return this.words[this.at(n) + 3];
  }

  /** Keeps the entries for which `stays` returns true, in order. `stays` must not push. */
  keep(stays: (slot: number, generation: number, word: number, now: number) => boolean, now: number): void {
    const { words } = this;
    let kept = 0;
    for (let n = 0; n < this.count; n++) {
      const at = this.at(n);
      if (!stays(words[at], words[at + 1], words[at + 2], now)) continue;
      if (kept < n) this.write(kept, words[at], words[at + 1], words[at + 2], words[at + 3]);
      kept++;
    }
    this.count = kept;
  }

  private at(n: number): number {
    return ((this.first + n) & this.mask) * WORDS;
  }

  private write(n: number, slot: number, generation: number, word: number, since: number): void {
    const at = this.at(n);
    this.words[at] = slot;
    this.words[at + 1] = generation;
    this.words[at + 2] = word;
    this.words[at + 3] = since;
  }
}
