/** Whether all threads are alive: what the watchdog of the service manager is fed by. */

import { type Control, ThreadState } from '../shm/control.js';

export class Heartbeats {
  private readonly control: Control;
  /** Of each thread, as of the last look; -1: it was not running. */
  private readonly beats: Float64Array;

  constructor(control: Control) {
    this.control = control;
    this.beats = new Float64Array(control.threads).fill(-1);
  }

  /**
   * Whether every thread that ran at the last look, and still does, has shown a heartbeat since.
   * One that has died does not count: it is started again, and the instance is degraded meanwhile.
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
