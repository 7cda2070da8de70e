/** Whether all threads are alive. The result feeds the service manager's watchdog. */

import { type Control, ThreadState } from '../../shm/control.js';

export class Heartbeats {
  private readonly control: Control;
  /** Heartbeat of each thread at the last look; -1: it was not running. */
  private readonly beats: Float64Array;

  constructor(control: Control) {
    this.control = control;
    this.beats = new Float64Array(control.threads).fill(-1);
  }

  /**
   * Whether every thread that ran at the last look and still runs has shown a heartbeat since. A
   * dead thread does not count: the supervisor starts it again, and the instance is degraded
   * meanwhile.
   */
  look(): boolean {
    let isAlive = true;
    for (let thread = 0; thread < this.beats.length; thread++) {
      const isRunning = this.control.state(thread) === ThreadState.READY;
      const beat = isRunning ? this.control.heartbeat(thread) >>> 0 : -1;
      if (isRunning && beat === this.beats[thread]) isAlive = false;
      this.beats[thread] = beat;
    }
    return isAlive;
  }
}
