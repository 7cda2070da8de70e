/**
 * Orders: what an operator asks of a running middlebox, such as to lift a block. Main parses the
 * words and passes them through a ring (shm/record-ring.ts) to one worker, in slot 0. That worker
 * runs them between two batches. A handler may do anything that a middlebox may do, and its changes
 * are replicated as usual.
 */

import type { RecordReader } from '../../shm/record-ring.js';
import type { Timers } from './timers.js';

/** A kind of order, as a middlebox declares it. */
export interface OrderKind {
  /** One line. */
  readonly help: string;
  /**
   * Parses the text after the command into words. Called by main. Throws an error that says what is
   * wrong.
   */
  parse(text: string): Int32Array;
}

export type OrderKinds = Readonly<Record<string, OrderKind>>;

/** Carries out an order. `words` is reused after the call. `now` is in coarse seconds. */
export type OrderHandler = (words: Int32Array, now: number) => void;

const LOOK_S = 0.1;
const AT_ONCE = 16;

/** Starts to carry out orders, by their number in the declaration. Called once, by worker 0. */
export function takeOrders(reader: RecordReader, handlers: ReadonlyMap<number, OrderHandler>, timers: Timers): void {
  if (handlers.size === 0) return;
  let at = 0;
  const done = (kind: number, _unixMs: number, words: Int32Array): void => handlers.get(kind)?.(words, at);
  timers.every('orders', LOOK_S, (now) => {
    at = now;
    reader.read(AT_ONCE, done);
  });
}
