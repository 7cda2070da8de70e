/**
 * A state object that consists of counter cells only: the cells implement all of replication. It
 * uses composition, not inheritance. `CounterCells` stays one shape, so that its packet path stays
 * monomorphic however many kinds use it.
 *
 * A new kind is a definition over `overCells`, and a class with the operations:
 *
 *     class Pairs extends OverCells { count(i: number): boolean { return this.counts.add(i, 1); } }
 *     const pairs = (options) => overCells('pairs', {}, options, (cells) => new Pairs(cells));
 */

import type { Region } from '../../region.js';
import type { Journal } from '../core/journal.js';
import type { Addends, Applied, Delivery, OpenContext, StateDefinition, StateObject } from '../core/object.js';
import { type CounterCells, type CounterCellsOptions, counterCells } from './counter-cells.js';

/** `parameters`: added to those of the cells. Equal at all members. */
export function overCells<T extends OverCells>(
  kind: string,
  parameters: Readonly<Record<string, unknown>>,
  options: CounterCellsOptions,
  open: (cells: CounterCells, context: OpenContext) => T,
): StateDefinition<T> {
  const cells = counterCells(options);
  return {
    ...cells,
    kind,
    parameters: { ...cells.parameters, ...parameters },
    open: (context) => open(cells.open(context), context),
  };
}

export class OverCells implements StateObject {
  readonly id: number;
  readonly delivery: Delivery;
  protected readonly counts: CounterCells;

  constructor(counts: CounterCells) {
    this.id = counts.id;
    this.delivery = counts.delivery;
    this.counts = counts;
  }

  apply(op: number, words: Int32Array, at: number, length: number, origin: number): Applied {
    return this.counts.apply(op, words, at, length, origin);
  }

  fillIn(op: number, words: Int32Array, at: number, length: number): boolean {
    return this.counts.fillIn(op, words, at, length);
  }

  nextUnreplicated(words: Int32Array, at: number): number {
    return this.counts.nextUnreplicated(words, at);
  }

  settle(sequence: number): void {
    this.counts.settle(sequence);
  }

  coalesceKey(op: number, words: Int32Array, at: number): number {
    return this.counts.coalesceKey(op, words, at);
  }

  coalesce(op: number, words: Int32Array, earlier: number, later: number): boolean {
    return this.counts.coalesce(op, words, earlier, later);
  }

  get addends(): Addends {
    return this.counts.addends;
  }

  adopt(): void {
    this.counts.adopt();
  }

  merge(from: Region): number {
    return this.counts.merge(from);
  }

  errorBound(sequence: number): number {
    return this.counts.errorBound(sequence);
  }

  digest(): string {
    return this.counts.digest();
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return this.counts.recover(writerId, journal, logPosition);
  }

  describe(_now: number): Record<string, number> {
    return this.counts.describe();
  }
}
