/**
 * The points at which a simulated thread may die: before and after each call that changes the
 * memory from which its successor continues. The methods are wrapped once, when the first run needs
 * it. A wrapper does nothing unless a fuse is lit.
 */

import { AckBoard } from '../../shm/ack-board.js';
import { LogConsumer } from '../../shm/log.js';
import { StagingArea } from '../../workers/replication/sending/staging.js';
import { ForeignLog } from '../../workers/replication/units/foreign-log.js';
import { UnitLog } from '../../workers/replication/units/unit-log.js';
import { Death } from './subjects.js';

const SEND_BOARD = ['setNumbered', 'setSequence', 'setDatagram', 'setServed', 'writeAttachment'] as const;
const RECEIVE_BOARD = [
  'writeReception',
  'writeFormer',
  'writeVector',
  'writePeer',
  'writeIncarnations',
  'setAckRequests',
] as const;

const POINTS: readonly (readonly [
  type: { readonly prototype: object; readonly name: string },
  names: readonly string[],
])[] = [
  [UnitLog, ['append', 'markSent', 'prune']],
  [StagingArea, ['add', 'clear']],
  [LogConsumer, ['release']],
  [ForeignLog, ['append', 'prune']],
  [AckBoard, [...SEND_BOARD, ...RECEIVE_BOARD]],
];

/** The lit fuse of the running thread; null if there is none. */
let burning: Fuse | null = null;
let isWrapped = false;

/** Kills one thread at a chosen call. */
export class Fuse {
  /** Points until the thread dies. Each call has two: before and after it. */
  left = Number.POSITIVE_INFINITY;
  /** Where the thread died. */
  diedAt = '';

  light(points: number): void {
    if (!isWrapped) wrap();
    this.left = points;
  }

  /** Runs code of the thread, which throws `Death` at the chosen point. */
  run<T>(act: () => T): T {
    if (this.left === Number.POSITIVE_INFINITY) return act();
    burning = this;
    try {
      return act();
    } finally {
      burning = null;
    }
  }

  spend(where: string): void {
    if (this.left-- > 0) return;
    this.left = Number.POSITIVE_INFINITY;
    this.diedAt = where;
    burning = null;
    throw new Death(where);
  }
}

function wrap(): void {
  isWrapped = true;
  for (const [{ prototype, name: type }, names] of POINTS)
    for (const name of names) {
      const methods = prototype as Record<string, (...args: unknown[]) => unknown>;
      const original = methods[name];
      const [before, after] = [`before ${type}.${name}`, `after ${type}.${name}`];
      methods[name] = function (...args) {
        burning?.spend(before);
        const result = original.apply(this, args);
        burning?.spend(after);
        return result;
      };
    }
}
