/**
 * Timers of a worker: periodic work of middleboxes, such as expiry and export, whether or not
 * packets come.
 *
 * Timers run between batches, one per round, so packets wait for one callback at most. A callback
 * must bound its own work. A timer is due at start + n · period on the monotonic clock, so it
 * neither drifts nor follows the wall clock. If a timer is due again before it ran, the missed run
 * is counted and not repeated. A worker without packets runs all that are due before it sleeps. It
 * sleeps a tenth of a second at most (idle.ts), and delays timers by up to that.
 *
 * An exception in a callback ends the worker, as one in a packet function does. The worker is then
 * started again.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import { failure } from '../base/failure.js';
import { monotonicMs } from '../base/monotonic.js';

const COUNTERS = {
  timer_runs: 'times a timer was run',
  timer_missed: 'times a timer was due again before it was run',
} as const;

export const TIMER_METRICS: Metric[] = counterMetrics(COUNTERS);

/** Shortest period, in seconds: the longest sleep of a worker. */
const TIMER_SECONDS_MIN = 0.1;
const TIMER_SECONDS_MAX = 86_400;
/**
 * Shortest time between two reads of the monotonic clock, in milliseconds of the wall clock, which
 * the round has read already.
 */
const LOOK_MS = 10;

/** `now` is in coarse seconds (shm/clock.ts). */
export type TimerCallback = (now: number) => void;

interface Timer {
  readonly owner: string;
  readonly periodMs: number;
  readonly callback: TimerCallback;
  dueMs: number;
}

export class Timers {
  private readonly timers: Timer[] = [];
  private readonly row: Float64Array;
  private readonly columns: { readonly [Name in keyof typeof COUNTERS]: number };
  private readonly clock: () => number;
  private nextMs = Number.POSITIVE_INFINITY;
  private lookedMs = 0;

  /** `clock`: monotonic milliseconds. Tests pass their own. */
  constructor(row: Float64Array, catalogue: MetricCatalogue, clock: () => number = monotonicMs) {
    this.row = row;
    this.columns = columnsOf(catalogue, COUNTERS);
    this.clock = clock;
  }

  /**
   * Runs `callback` every `seconds` from now on. If it throws, the error names `owner`. Throws a
   * `RangeError` if `seconds` is below `TIMER_SECONDS_MIN` or above a day.
   */
  every(owner: string, seconds: number, callback: TimerCallback): void {
    if (!(seconds >= TIMER_SECONDS_MIN && seconds <= TIMER_SECONDS_MAX))
      throw new RangeError(`every ${seconds} seconds: from ${TIMER_SECONDS_MIN} to ${TIMER_SECONDS_MAX} are possible`);
    const periodMs = seconds * 1000;
    const dueMs = this.clock() + periodMs;
    this.timers.push({ owner, periodMs, callback, dueMs });
    this.nextMs = Math.min(this.nextMs, dueMs);
  }

  /** Runs the timer that is overdue longest, if any is due. Returns whether one ran. */
  run(unixMs: number, now: number): boolean {
    if (this.timers.length === 0) return false;
    const since = unixMs - this.lookedMs;
    if (since >= 0 && since < LOOK_MS) return false;
    const clockMs = this.clock();
    if (clockMs < this.nextMs) {
      this.lookedMs = unixMs;
      return false;
    }
    // Another may be due: the next round checks again.
    this.runOne(clockMs, now);
    return true;
  }

  private runOne(clockMs: number, now: number): void {
    const timer = this.timers.reduce((first, other) => (other.dueMs < first.dueMs ? other : first));
    const turns = Math.floor((clockMs - timer.dueMs) / timer.periodMs) + 1;
    timer.dueMs += turns * timer.periodMs;
    this.nextMs = Math.min(...this.timers.map(({ dueMs }) => dueMs));
    this.row[this.columns.timer_runs]++;
    this.row[this.columns.timer_missed] += turns - 1;
    try {
      timer.callback(now);
    } catch (error) {
      throw failure(`${timer.owner}: a timer failed`, error);
    }
  }
}
