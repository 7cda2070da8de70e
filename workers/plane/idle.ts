/**
 * What a worker does when no packets come. `spin` polls again at once and occupies the core.
 * `sleep` polls for a while, because traffic comes in bursts, and then waits in the driver until a
 * packet wakes it.
 */

import type { PacketDriver } from '../drivers/driver.js';

export type IdleMode = 'sleep' | 'spin';

/**
 * Empty rounds before sleeping: some tens of microseconds, about the cost of going to sleep and
 * waking.
 */
const ROUNDS_BEFORE_SLEEP = 128;
/**
 * Longest sleep, in milliseconds. It bounds the delay of a flag that main sets, and of the
 * heartbeat that main watches.
 */
const SLEEP_MS_MAX = 100;

export class Idle {
  private readonly driver: Pick<PacketDriver, 'wait'>;
  private readonly mode: IdleMode;
  private emptyRounds = 0;

  constructor(driver: Pick<PacketDriver, 'wait'>, mode: IdleMode) {
    this.driver = driver;
    this.mode = mode;
  }

  /** Called after each round with the amount of work done. Returns whether it slept. */
  after(done: number): boolean {
    if (done > 0) {
      this.emptyRounds = 0;
      return false;
    }
    if (this.mode === 'spin' || ++this.emptyRounds < ROUNDS_BEFORE_SLEEP) return false;
    this.driver.wait(SLEEP_MS_MAX);
    return true;
  }
}
