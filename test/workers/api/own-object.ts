/**
 * A state object of one's own, written against the public API alone: spans, numbered from 0, each
 * the smallest and the largest number that any instance has seen.
 *
 * Both ends change in one operation, under a lock and with one log record, so nobody sees half of
 * one, also when the thread dies in it (`Transaction`). A join takes the smaller low and the larger
 * high; so records may come in any order, any number of times.
 *
 *     span     lock, low, high
 *     record   span, low, high
 */

import {
  Applied,
  ContentDigest,
  type Journal,
  merged,
  NONE,
  type OpenContext,
  type Region,
  recoverTransaction,
  type StateDefinition,
  type StateObject,
  struct,
  Transaction,
  tryAgain,
} from 'constellation';

const SPAN = struct({ lock: 1, low: 1, high: 1 });
const RECORD = struct({ span: 1, low: 1, high: 1 });
const WIDEN = 1;

export interface SpansOptions {
  readonly length: number;
}

export function spans({ length }: SpansOptions): StateDefinition<Spans> {
  return {
    kind: 'spans',
    parameters: { length },
    bytes: length * SPAN.bytes,
    open: (context) => new Spans(context, length),
  };
}

export class Spans implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  private readonly length: number;
  private readonly words: Int32Array;
  private readonly transaction: Transaction | null;

  constructor({ id, region, writer }: OpenContext, length: number) {
    this.id = id;
    this.length = length;
    this.words = region.i32();
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
  }

  /**
   * Widens span `i` to take in a number above 0. False: it could not be told, or another thread
   * held the lock; nothing was changed.
   */
  widen(i: number, number: number): boolean {
    const { words, tx } = this;
    const at = i * SPAN.words;
    if (this.takesIn(at, number, number)) return true;
    const record = tx.beginLogged(WIDEN, RECORD.words);
    if (record === NONE) return false;
    if (!tx.lock(at + SPAN.at.lock)) {
      tx.abort();
      return false;
    }
    this.join(at, number, number);
    tx.record[record + RECORD.at.span] = i;
    tx.record[record + RECORD.at.low] = words[at + SPAN.at.low];
    tx.record[record + RECORD.at.high] = words[at + SPAN.at.high];
    tx.commit();
    return true;
  }

  /** 0 until there is one. */
  low(i: number): number {
    return this.words[i * SPAN.words + SPAN.at.low];
  }

  high(i: number): number {
    return this.words[i * SPAN.words + SPAN.at.high];
  }

  apply(op: number, words: Int32Array, at: number, length: number): Applied {
    const span = words[at + RECORD.at.span];
    const low = words[at + RECORD.at.low];
    const high = words[at + RECORD.at.high];
    if (op !== WIDEN || length !== RECORD.words || span < 0 || span >= this.length || low < 1 || low > high)
      return Applied.MALFORMED;
    return this.widenTo(span * SPAN.words, low, high);
  }

  private widenTo(at: number, low: number, high: number): Applied {
    const { tx } = this;
    if (this.takesIn(at, low, high)) return Applied.UNCHANGED;
    for (let tries = 1; ; tries++) {
      tx.begin();
      if (tx.lock(at + SPAN.at.lock)) break;
      tx.abort();
      if (!tryAgain(tries, true)) return Applied.BUSY;
    }
    this.join(at, low, high);
    tx.commit();
    return Applied.CHANGED;
  }

  private takesIn(at: number, low: number, high: number): boolean {
    const lowest = this.words[at + SPAN.at.low];
    return lowest !== 0 && lowest <= low && this.words[at + SPAN.at.high] >= high;
  }

  /** Under the span's lock. */
  private join(at: number, low: number, high: number): void {
    const { words, tx } = this;
    const lowest = words[at + SPAN.at.low];
    tx.set(at + SPAN.at.low, lowest === 0 ? low : Math.min(lowest, low));
    tx.set(at + SPAN.at.high, Math.max(words[at + SPAN.at.high], high));
  }

  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return words[at + RECORD.at.span];
  }

  coalesce(_op: number, words: Int32Array, earlier: number, later: number): boolean {
    if (words[earlier + RECORD.at.span] !== words[later + RECORD.at.span]) return false;
    words[earlier + RECORD.at.low] = Math.min(words[earlier + RECORD.at.low], words[later + RECORD.at.low]);
    words[earlier + RECORD.at.high] = Math.max(words[earlier + RECORD.at.high], words[later + RECORD.at.high]);
    return true;
  }

  merge(from: Region): number {
    const theirs = from.i32();
    let changed = 0;
    for (let at = 0; at < this.length * SPAN.words; at += SPAN.words)
      if (theirs[at + SPAN.at.low] !== 0)
        changed += merged(this.widenTo(at, theirs[at + SPAN.at.low], theirs[at + SPAN.at.high]), this.id);
    return changed;
  }

  digest(): string {
    const digest = new ContentDigest();
    for (let i = 0; i < this.length; i++) digest.add(Int32Array.of(i, this.low(i), this.high(i)));
    return digest.toString();
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  describe(): Record<string, number> {
    return {
      capacity: this.length,
      used: Array.from({ length: this.length }, (_, i) => this.low(i)).filter(Boolean).length,
    };
  }

  private get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }
}
