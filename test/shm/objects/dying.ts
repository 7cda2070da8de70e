/**
 * A writer that dies at a chosen step of an operation: its journal and its log throw at the n-th
 * call, before or after doing what was asked. The operation is left exactly as a thread's end at
 * that statement would leave it, for no code of the objects catches anything.
 */

import { LogProducer } from '../../../shm/log.js';
import { Journal, type JournalState } from '../../../shm/objects/core/journal.js';

export class Death extends Error {}

export class Countdown {
  private left = Number.POSITIVE_INFINITY;

  /** Dies at the `steps`th step from now. */
  set(steps: number): void {
    this.left = steps;
  }

  clear(): void {
    this.left = Number.POSITIVE_INFINITY;
  }

  step(): void {
    if (--this.left <= 0) throw new Death();
  }
}

export class DyingJournal extends Journal {
  private readonly countdown: Countdown;

  constructor(buffer: SharedArrayBuffer, writer: number, countdown: Countdown) {
    super(buffer, writer);
    this.countdown = countdown;
  }

  private around(act: () => void): void {
    this.countdown.step();
    act();
    this.countdown.step();
  }

  override open(state: JournalState, objectId: number, position: number): void {
    this.around(() => super.open(state, objectId, position));
  }

  override noteLock(index: number): void {
    this.around(() => super.noteLock(index));
  }

  override dropLock(): void {
    this.around(() => super.dropLock());
  }

  override noteWord(index: number, old: number): void {
    this.around(() => super.noteWord(index, old));
  }

  override forgetWords(): void {
    this.around(() => super.forgetWords());
  }

  override done(): void {
    this.around(() => super.done());
  }

  override lockAt(i: number): number {
    this.countdown.step(); // between locks let go
    return super.lockAt(i);
  }

  override close(): void {
    this.around(() => super.close());
  }
}

export class DyingLog extends LogProducer {
  private readonly countdown: Countdown;

  constructor(buffer: SharedArrayBuffer, countdown: Countdown) {
    super(buffer);
    this.countdown = countdown;
  }

  override claim(objectId: number, op: number, words: number): number {
    this.countdown.step();
    return super.claim(objectId, op, words);
  }

  override commit(): void {
    this.countdown.step();
    super.commit();
    this.countdown.step();
  }

  override note(objectId: number, op: number, words: number, first: number): boolean {
    this.countdown.step();
    const noted = super.note(objectId, op, words, first);
    this.countdown.step();
    return noted;
  }

  override abort(): void {
    this.countdown.step();
    super.abort();
  }
}
