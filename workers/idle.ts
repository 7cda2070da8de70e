/**
 * What a worker does when there is nothing to do: `spin` looks again at once and holds the core;
 * `sleep` looks again a while, for traffic comes in bursts, then waits in the driver until a packet
 * wakes it.
 */

import type { PacketDriver } from './drivers/driver.js';

export type IdleMode = 'sleep' | 'spin';

/**
 * Empty rounds before sleeping: some tens of microseconds, about what going to sleep and waking
 * costs.
 */
const ROUNDS_BEFORE_SLEEP = 128;
/**
 * No sleep is longer, so that a flag main has set and the heartbeat it watches wait no longer
 * either.
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

  /** After each round, told how much it did. Returns whether it slept. */
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
