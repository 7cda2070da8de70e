/**
 * Watches that an instance sends no more than its limit: what leaves fills a bucket, which the
 * limit empties.
 */

import { messageBytes, type ReplicationSettings, wireOverheadBytes } from '../../workers/replication/settings.js';

/**
 * What may leave at once: two messages to everybody, or this part of a second's limit; and the
 * message that fills it.
 */
const MESSAGES = 3;
const SHARE = 0.01;

export class Meter {
  private readonly bytesPerMs: number;
  private readonly overhead: number;
  private readonly capacity: number;
  private level = 0;
  private at = 0;

  /** `copies`: datagrams that a message to everybody is. */
  constructor(settings: ReplicationSettings, copies: number) {
    this.bytesPerMs = settings.bandwidth / 8000;
    this.overhead = wireOverheadBytes(settings);
    this.capacity = Math.max(
      MESSAGES * copies * (messageBytes(settings) + this.overhead),
      SHARE * 1000 * this.bytesPerMs,
    );
  }

  /** A datagram leaves at `now`, ms. False: that is more than the limit. */
  pass(bytes: number, now: number): boolean {
    if (this.bytesPerMs === 0) return true;
    this.level = Math.max(0, this.level - (now - this.at) * this.bytesPerMs) + bytes + this.overhead;
    this.at = now;
    return this.level <= this.capacity;
  }
}
