/**
 * How far one member's wall clock is ahead of ours, from the wall clock in its messages.
 *
 * A message that took `d` to arrive shows a clock that is `d` behind, and queues only add to `d`.
 * So of all messages of an interval, the one that shows the clock furthest ahead is the most
 * accurate. Half the least round trip is added for its delay. The intervals' values are smoothed.
 * The error is at most half the difference between the delays of the two directions.
 *
 * State objects forget entries that have been expired for `CLOCK_SKEW_GUARD_S`. If clocks are
 * further apart, one member forgets what another still relies on. An alarm is raised at half of
 * that.
 */

import { CLOCK_SKEW_GUARD_S } from '../../../shm/clock.js';

const INTERVAL_MS = 1000;
const SMOOTHING = 1 / 4;

export const SKEW_ERROR_MS = CLOCK_SKEW_GUARD_S * 1000;
export const SKEW_WARNING_MS = SKEW_ERROR_MS / 2;
/** An episode ends when the difference falls below this part of the warning level. */
const OVER = 0.8;

/** 0: fine; 1: beyond half of the guard; 2: beyond all of it. */
export type SkewLevel = 0 | 1 | 2;

export class ClockSkew {
  /**
   * Milliseconds by which the member's clock is ahead of ours; NaN before the end of the first
   * interval.
   */
  ms = Number.NaN;
  /** The most severe level of the present episode. */
  level: SkewLevel = 0;
  private best = Number.NEGATIVE_INFINITY;
  private intervalEnd = Number.NEGATIVE_INFINITY;

  /**
   * Adds a sample: a message said `theirWallMs` and arrived when our wall clock said `ourWallMs`.
   * `now`: a clock that never steps, in ms. `leastRttMs`: the recent minimum round trip. Returns
   * whether `ms` is new.
   */
  sample(theirWallMs: number, ourWallMs: number, leastRttMs: number, now: number): boolean {
    if (this.intervalEnd === Number.NEGATIVE_INFINITY) this.intervalEnd = now + INTERVAL_MS;
    this.best = Math.max(this.best, theirWallMs - ourWallMs);
    if (now < this.intervalEnd) return false;
    const ahead = this.best + leastRttMs / 2;
    this.ms = Number.isNaN(this.ms) ? ahead : this.ms + SMOOTHING * (ahead - this.ms);
    this.best = Number.NEGATIVE_INFINITY;
    this.intervalEnd = now + INTERVAL_MS;
    return true;
  }

  /** Returns the level if it is more severe than all of its episode so far, else 0. */
  alarm(): SkewLevel {
    const apart = Math.abs(this.ms);
    const level: SkewLevel = apart > SKEW_ERROR_MS ? 2 : apart > SKEW_WARNING_MS ? 1 : 0;
    if (apart < OVER * SKEW_WARNING_MS) this.level = 0;
    if (level <= this.level) return 0;
    this.level = level;
    return level;
  }
}
