/**
 * Round-trip times to one member: a sliding window for minimum and average, and the smoothed time and its variation
 * after RFC 6298 §2 for the retransmission timeout. Samples come from echoes of datagram numbers, so there is none of a
 * retransmission to leave out.
 */

import RingBuffer from 'ringbufferjs';
import type { PeerRecord } from '../../shm/ack-board.js';

const WINDOW_SAMPLES = 64;
/** Samples closer together than this tell nothing new. */
const SPACING_MS = 1;
const ALPHA = 1 / 8;
const BETA = 1 / 4;

export class RoundTrip {
  private readonly window: RingBuffer<number>;
  private sum = 0;
  private minimum = Number.POSITIVE_INFINITY;
  private smoothed = 0;
  private variation = 0;
  private sampledAt = Number.NEGATIVE_INFINITY;
  private evicted = Number.NaN;

  constructor() {
    this.window = new RingBuffer<number>(WINDOW_SAMPLES, (sample) => {
      this.evicted = sample;
    });
  }

  /** Takes a sample of `ms` at `now` and notes the figures in `record`. Returns whether it was taken. */
  sample(ms: number, now: number, record: PeerRecord): boolean {
    if (now - this.sampledAt < SPACING_MS) return false;
    this.sampledAt = now;
    if (this.window.isEmpty()) {
      this.smoothed = ms;
      this.variation = ms / 2;
    } else {
      this.variation += BETA * (Math.abs(this.smoothed - ms) - this.variation);
      this.smoothed += ALPHA * (ms - this.smoothed);
    }
    this.slide(ms);
    record.setRoundTrip(ms, this.minimum, this.sum / this.window.size(), this.smoothed, this.variation);
    return true;
  }

  private slide(ms: number): void {
    const full = this.window.isFull();
    this.window.enq(ms);
    this.sum += ms;
    if (full) {
      this.sum -= this.evicted;
      if (this.evicted === this.minimum) {
        this.minimum = Number.POSITIVE_INFINITY;
        for (const sample of this.window.peekN(this.window.size())) this.minimum = Math.min(this.minimum, sample);
      }
    }
    this.minimum = Math.min(this.minimum, ms);
  }
}
