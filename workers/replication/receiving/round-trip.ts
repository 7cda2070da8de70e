/**
 * Round-trip times to one member: minimum and average over a sliding window, and the smoothed time
 * and its variation after RFC 6298 §2, for the retransmission timeout. Samples come from echoes of
 * datagram numbers. Each datagram has its own number, so no sample is ambiguous because of a
 * retransmission.
 *
 * RFC 6298 assumes one sample per round trip. Here there are many, so the variation of the last few
 * says little. The largest deviation in a round trip counts instead. The variation rises at once,
 * and falls by a quarter of the difference with each round trip.
 */

import RingBuffer from 'ringbufferjs';
import type { PeerRecord } from '../../../shm/ack-board.js';

const WINDOW_SAMPLES = 64;
/** Samples closer together than this, in ms, are ignored. */
const SPACING_MS = 1;
const ALPHA = 1 / 8;
const BETA = 1 / 4;

export class RoundTrip {
  private readonly window: RingBuffer<number>;
  private sum = 0;
  private minimum = Number.POSITIVE_INFINITY;
  private smoothed = 0;
  /**
   * The deviation of the last samples, its maximum in this round trip, and the variation that
   * results.
   */
  private deviation = 0;
  private largestDeviation = 0;
  private variation = 0;
  private roundTripEnd = Number.NEGATIVE_INFINITY;
  private sampledAt = Number.NEGATIVE_INFINITY;
  private evicted = Number.NaN;

  constructor() {
    this.window = new RingBuffer<number>(WINDOW_SAMPLES, (sample) => {
      this.evicted = sample;
    });
  }

  /**
   * Adds a sample of `ms` at `now` and writes the figures to `record`. Returns whether it was used.
   */
  sample(ms: number, now: number, record: PeerRecord): boolean {
    if (now - this.sampledAt < SPACING_MS) return false;
    this.sampledAt = now;
    if (this.window.isEmpty()) {
      this.smoothed = ms;
      this.deviation = ms / 2;
    } else {
      this.deviation += BETA * (Math.abs(this.smoothed - ms) - this.deviation);
      this.smoothed += ALPHA * (ms - this.smoothed);
    }
    this.vary(now);
    this.slide(ms);
    record.setRoundTrip(ms, this.minimum, this.sum / this.window.size(), this.smoothed, this.variation);
    return true;
  }

  private vary(now: number): void {
    this.largestDeviation = Math.max(this.largestDeviation, this.deviation);
    this.variation = Math.max(this.variation, this.largestDeviation);
    if (now < this.roundTripEnd) return;
    this.variation += BETA * (this.largestDeviation - this.variation);
    this.largestDeviation = this.deviation;
    this.roundTripEnd = now + this.smoothed;
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
