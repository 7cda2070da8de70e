/**
 * Orders: what an operator wants of a middlebox while it runs, such as to lift a block. Main parses
 * the words and hands them on through a ring (shm/record-ring.ts) to one worker, that of slot 0,
 * which has them done between two batches, with all that a middlebox may do: what it changes is
 * replicated like anything else.
 */

import type { RecordReader } from '../shm/record-ring.js';
import type { Timers } from './timers.js';

/** A kind of order, as a middlebox declares it. */
export interface OrderKind {
  /** One line. */
  readonly help: string;
  /**
   * What was written after the command, as words; called by main. Throws an error that says what is
   * wrong.
   */
  parse(text: string): Int32Array;
}

export type OrderKinds = Readonly<Record<string, OrderKind>>;

/** Does what was ordered. `words` is used again; `now` is in coarse seconds. */
export type OrderHandler = (words: Int32Array, now: number) => void;

const LOOK_S = 0.1;
const AT_ONCE = 16;

/** Has orders done, by their number in the declaration. Worker 0, once. */
export function takeOrders(reader: RecordReader, handlers: ReadonlyMap<number, OrderHandler>, timers: Timers): void {
  if (handlers.size === 0) return;
  let at = 0;
  const done = (kind: number, _unixMs: number, words: Int32Array): void => handlers.get(kind)?.(words, at);
  timers.every('orders', LOOK_S, (now) => {
    at = now;
    reader.read(AT_ONCE, done);
  });
}
