/**
 * Packets that arrive at a fixed rate, whether or not the receiver takes them: the memory driver
 * behind a simulated receive ring. Packets that arrive while the ring is full are lost and counted.
 */

import type { PacketDriver } from '../../workers/drivers/driver.js';
import { MemoryDriver, type MemoryFrame } from '../../workers/drivers/memory.js';
import type { Batch } from '../../workers/packet/batch.js';

/** Number of packets taken at a time. */
const BURST = 32;
/** Frames that the ring holds: the daemon's default. */
export const RING_FRAMES = 2048;
/** Numbers of a tally. */
export const TALLY_WORDS = 3;

export class PacedDriver implements PacketDriver {
  readonly memory: MemoryDriver['memory'];
  private readonly inner: MemoryDriver;
  private readonly perMs: number;
  private readonly startedAt = performance.now();
  private readonly sleeper = new Int32Array(new SharedArrayBuffer(4));
  private taken = 0;
  private lost = 0;
  private readonly tally: Float64Array;

  /**
   * `tally`: receives the number of packets taken [0] and lost [1]. While [2] is not 0, no packet
   * is taken.
   */
  constructor(frames: readonly MemoryFrame[], perSecond: number, tally: Float64Array) {
    this.tally = tally;
    this.inner = new MemoryDriver({ ports: 2, frames, loop: true, capture: false, burst: BURST });
    this.memory = this.inner.memory;
    this.perMs = perSecond / 1000;
  }

  receive(batch: Batch): number {
    const waiting = Math.trunc((performance.now() - this.startedAt) * this.perMs) - this.taken - this.lost;
    if (waiting > RING_FRAMES) this.lost += waiting - RING_FRAMES;
    if (waiting < BURST || this.tally[2] !== 0) {
      batch.count = 0;
      return 0;
    }
    this.taken += BURST;
    this.tally[0] = this.taken;
    this.tally[1] = this.lost;
    return this.inner.receive(batch);
  }

  transmit(batch: Batch): void {
    this.inner.transmit(batch);
  }

  transmitBefore(batch: Batch, end: number): void {
    this.inner.transmitBefore(batch, end);
  }

  hasRoom(): boolean {
    return true;
  }

  send(port: number, frames: Uint8Array, at: number, length: number): boolean {
    return this.inner.send(port, frames, at, length);
  }

  insert(batch: Batch, port: number, frames: Uint8Array, at: number, length: number): boolean {
    return this.inner.insert(batch, port, frames, at, length);
  }

  wait(timeoutMs: number): void {
    const next = (this.taken + this.lost + BURST) / this.perMs - (performance.now() - this.startedAt);
    const waitMs = this.tally[2] === 0 ? Math.min(next, timeoutMs) : timeoutMs;
    if (waitMs > 0) Atomics.wait(this.sleeper, 0, 0, waitMs);
  }

  readonly exhausted = false;

  close(): void {}
}
