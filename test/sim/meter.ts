/**
 * Checks that an instance does not exceed its bandwidth limit: a leaky bucket that fills with what
 * is sent and empties at the limit.
 */

import { messageBytes, type ReplicationSettings, wireOverheadBytes } from '../../workers/replication/settings.js';

/**
 * The bucket's size: two messages to all members, and the message that fills it, or this share of
 * what the limit carries in a second, whichever is larger.
 */
const MESSAGES = 3;
const SHARE = 0.01;

export class Meter {
  private readonly bytesPerMs: number;
  private readonly overhead: number;
  private readonly capacity: number;
  private level = 0;
  private at = 0;

  /** `copies`: datagrams of a message to all members. */
  constructor(settings: ReplicationSettings, copies: number) {
    this.bytesPerMs = settings.bandwidth / 8000;
    this.overhead = wireOverheadBytes(settings);
    this.capacity = Math.max(
      MESSAGES * copies * (messageBytes(settings) + this.overhead),
      SHARE * 1000 * this.bytesPerMs,
    );
  }

  /** A datagram leaves at `now`, ms. Returns false if that exceeds the limit. */
  pass(bytes: number, now: number): boolean {
    if (this.bytesPerMs === 0) return true;
    this.level = Math.max(0, this.level - (now - this.at) * this.bytesPerMs) + bytes + this.overhead;
    this.at = now;
    return this.level <= this.capacity;
  }
}
