/**
 * How far one member's wall clock is ahead of ours, from the wall clock in its messages.
 *
 * A message that was on its way for `d` shows a clock that is `d` behind, and what waits in queues
 * only makes it more. So of all messages of an interval the one that shows the clock furthest ahead
 * says most; half the least round trip is added for its way. What an interval says is smoothed. The
 * error is at most half the difference of the two ways' delays.
 *
 * State objects forget what has been expired for `CLOCK_SKEW_GUARD_S`: clocks further apart than
 * that make one member forget what another still counts on. Whoever runs the clocks is told at half
 * of it.
 */

import { CLOCK_SKEW_GUARD_S } from '../../shm/clock.js';

const INTERVAL_MS = 1000;
const SMOOTHING = 1 / 4;

export const SKEW_ERROR_MS = CLOCK_SKEW_GUARD_S * 1000;
export const SKEW_WARNING_MS = SKEW_ERROR_MS / 2;
/** An episode is over when the clocks are this part of the warning apart. */
const OVER = 0.8;

/** 0: fine; 1: half the guard is used up; 2: all of it. */
export type SkewLevel = 0 | 1 | 2;

export class ClockSkew {
  /** Milliseconds the member's clock is ahead of ours; NaN before the first interval is over. */
  ms = Number.NaN;
  /** The gravest level of the present episode. */
  level: SkewLevel = 0;
  private best = Number.NEGATIVE_INFINITY;
  private intervalEnd = Number.NEGATIVE_INFINITY;

  /**
   * A message said `theirWallMs` and came when our wall clock said `ourWallMs`, at `now` of a clock
   * that never steps. `leastRttMs`: the least round trip of late. Returns whether `ms` is new.
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

  /** Returns the level if it has just become graver than all of its episode so far, else 0. */
  alarm(): SkewLevel {
    const apart = Math.abs(this.ms);
    const level: SkewLevel = apart > SKEW_ERROR_MS ? 2 : apart > SKEW_WARNING_MS ? 1 : 0;
    if (apart < OVER * SKEW_WARNING_MS) this.level = 0;
    if (level <= this.level) return 0;
    this.level = level;
    return level;
  }
}
