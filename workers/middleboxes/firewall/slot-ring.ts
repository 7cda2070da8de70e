/**
 * A bounded queue of slots of a flow table, each with its entry's generation, a word, and when it
 * came. The oldest makes room.
 */

const WORDS = 4;

export class SlotRing {
  count = 0;
  private readonly words: Int32Array;
  private readonly mask: number;
  private first = 0;

  /** `capacity`: a power of two. */
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

  /** Drops the oldest. */
  drop(): void {
    this.first = (this.first + 1) & this.mask;
    this.count--;
  }

  // Entry `n` counts from the oldest, 0.

  slot(n: number): number {
    return this.words[this.at(n)];
  }

  generation(n: number): number {
    return this.words[this.at(n) + 1];
  }

  since(n: number): number {
    return this.words[this.at(n) + 3];
  }

  /** Keeps the entries for which `stays` is true, in their order. It must not push. */
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
