/**
 * Units of one origin that arrived before their turn, for an object that needs them in order. The
 * size is bounded: a unit that does not fit is not buffered, and comes again.
 */

interface BufferedUnit {
  readonly first: number;
  readonly last: number;
  readonly records: Int32Array;
}

/** Cost of a buffered unit in addition to its records. */
const OVERHEAD_BYTES = 64;

export class ReorderBuffer {
  bytes = 0;
  private readonly limit: number;
  /** Ascending by number. */
  private held: BufferedUnit[] = [];

  constructor(bytesMax: number) {
    this.limit = bytesMax;
  }

  get units(): number {
    return this.held.length;
  }

  /** Copies a unit that is not buffered yet. Returns false if there is no room. */
  add(first: number, last: number, words: Int32Array, at: number, recordWords: number): boolean {
    const bytes = OVERHEAD_BYTES + recordWords * 4;
    if (this.bytes + bytes > this.limit) return false;
    let place = this.held.length;
    while (place > 0 && this.held[place - 1].first > first) place--;
    this.held.splice(place, 0, { first, last, records: words.slice(at, at + recordWords) });
    this.bytes += bytes;
    return true;
  }

  /** Removes and returns the earliest unit if it ends at or below `contiguous`, else null. */
  take(contiguous: number): BufferedUnit | null {
    const head = this.held[0];
    if (head === undefined || head.last > contiguous) return null;
    this.held.shift();
    this.bytes -= OVERHEAD_BYTES + head.records.length * 4;
    return head;
  }

  clear(): void {
    this.held = [];
    this.bytes = 0;
  }
}
