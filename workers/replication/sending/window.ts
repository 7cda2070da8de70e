/**
 * The lookahead window: while a path is congested, at most one window is in flight. New records
 * wait in the log rings, where later records coalesce with them. So a sender with many changes
 * sends fewer records, and never more than the path carries.
 *
 * | reason      | detected by                                                                                          |
 * | ----------- | ---------------------------------------------------------------------------------------------------- |
 * | `DELAY`     | a member's smoothed round trip exceeds its minimum by a threshold: our messages wait in a queue       |
 * | `LOSS`      | a large part of an interval's units was lost; a timeout alone is no loss (send-channel.ts)            |
 * | `BANDWIDTH` | the configured limit (pacing.ts)                                                                      |
 * | `LAG`       | a member's lag nears `replication.max_lag_ms` (lag-bound.ts)                                          |
 *
 * The window is the best recent delivery rate times the minimum round trip: what the path carries
 * without a queue. It closes when that much is in flight to members that are attached and heard. It
 * opens when an acknowledgement reduces the amount or, if none comes, after two round trips. A
 * minimum of some messages keeps rare records from ever waiting.
 *
 * The minimum round trip covers the last `BASE_MS` to twice that, so that lasting congestion is not
 * taken for the path's length. While we send hardly anything, no queue is ours. Then the current
 * round trip is taken as the path's length at once, even if it became longer.
 */

import type { ReplicationSettings } from '../settings.js';
import type { PeerView } from './peer-view.js';

export const Reason = { NONE: 0, DELAY: 1, LOSS: 2, BANDWIDTH: 3, LAG: 4 } as const;
export type Reason = (typeof Reason)[keyof typeof Reason];

const THRESHOLD = 0.5;
const THRESHOLD_MS = 25;
const BASE_MS = 10_000;
/** This part of an interval's units lost: congestion. */
const LOSS_SHARE = 0.1;
const LOSS_UNITS_MIN = 4;
const INTERVAL_MS_MIN = 50;
/** The best of this many intervals counts; a loss is remembered for as long. */
const INTERVALS = 8;
const GAIN = 1.5;
const MESSAGES_MIN = 8;
/** A member that is heard again lacks what it missed: for this time, in ms, that is no loss. */
const REVIVAL_MS = 2000;

export class Window {
  reason: Reason = Reason.NONE;
  /** The most bytes that may be in flight; infinite while there is no congestion. */
  bytes = Number.POSITIVE_INFINITY;
  /** Bytes in flight to members that are attached and heard. */
  inFlight = 0;
  /** When it opens at the latest, in ms; infinite: it is open. */
  deadline = Number.POSITIVE_INFINITY;
  /** When it opens, or opened, after the last unit was sent, in ms. */
  private opensAt = Number.NEGATIVE_INFINITY;
  private patience = 0;
  private readonly peers: PeerView;
  private readonly settings: ReplicationSettings;
  private readonly bytesMin: number;
  /** At most this many bytes in flight, and sent in two intervals, make no queue. */
  private readonly bytesQuiet: number;
  /** Per member: minimum round trip in ms, of the current and of the last period of `BASE_MS`. */
  private readonly base: Float64Array;
  private readonly lastBase: Float64Array;
  private baseEnd = Number.NEGATIVE_INFINITY;
  /** Bytes delivered per ms in the last intervals. */
  private readonly rates = new Float64Array(INTERVALS);
  private interval = 0;
  private intervalStart = 0;
  private intervalEnd = Number.NEGATIVE_INFINITY;
  private delivered = 0;
  private sent = 0;
  private lost = 0;
  /** Bytes of units sent before this interval, and before the last one. */
  private bytesBefore = 0;
  private bytesBeforeLast = 0;
  private lossUntil = Number.NEGATIVE_INFINITY;

  /** `messageBytes`: the longest message, in bytes. */
  constructor(settings: ReplicationSettings, peers: PeerView, messageBytes: number) {
    this.settings = settings;
    this.peers = peers;
    this.bytesMin = MESSAGES_MIN * messageBytes;
    this.bytesQuiet = messageBytes;
    this.base = new Float64Array(settings.slots).fill(Number.POSITIVE_INFINITY);
    this.lastBase = this.base.slice();
  }

  noteSent(bytes: number, now: number): void {
    this.sent++;
    this.inFlight += bytes;
    this.opensAt = now + this.patience;
    this.noteDeadline(now);
  }

  /** This many units are sent again because they were lost. */
  noteLost(units: number): void {
    this.lost += units;
  }

  noteDelivered(bytes: number): void {
    this.delivered += bytes;
  }

  /** The member's recent minimum round trip, in ms; 0: not known. */
  leastMs(member: number): number {
    const least = Math.min(this.base[member], this.lastBase[member]);
    return least === Number.POSITIVE_INFINITY ? 0 : least;
  }

  /**
   * Determines whether the paths to the heard members in `attached` are congested, and how large
   * the window is. `bytesSent`: bytes of units of all kinds ever sent, because a backlog makes a
   * queue too.
   */
  update(attached: Uint8Array, bytesSent: number, now: number): void {
    const { peers } = this;
    if (now >= this.baseEnd) {
      this.lastBase.set(this.base);
      this.base.fill(Number.POSITIVE_INFINITY);
      this.baseEnd = now + BASE_MS;
    }
    const isQuiet = Math.max(this.inFlight, bytesSent - this.bytesBeforeLast) <= this.bytesQuiet;
    let slowest = 0;
    let least = 0;
    let delayed = false;
    let revivedAt = Number.NEGATIVE_INFINITY;
    for (let member = 0; member < attached.length; member++) {
      if (attached[member] === 0 || peers.silent[member] === 1 || peers.smoothedMs[member] === 0) continue;
      const smoothed = peers.smoothedMs[member];
      const latest = peers.latestMs[member];
      if (isQuiet) this.base[member] = this.lastBase[member] = Math.max(smoothed, latest);
      else this.base[member] = Math.min(this.base[member], latest);
      const base = Math.min(this.base[member], this.lastBase[member]);
      if (smoothed > base * (1 + THRESHOLD) + THRESHOLD_MS) delayed = true;
      slowest = Math.max(slowest, smoothed);
      least = Math.max(least, base);
      revivedAt = Math.max(revivedAt, peers.revivedAt[member]);
    }
    this.endInterval(slowest, bytesSent, now, now - revivedAt > REVIVAL_MS);
    this.reason = delayed ? Reason.DELAY : now < this.lossUntil ? Reason.LOSS : Reason.NONE;
    if (this.reason === Reason.NONE) {
      this.bytes = Number.POSITIVE_INFINITY;
      this.deadline = Number.POSITIVE_INFINITY;
      return;
    }
    let rate = 0;
    for (const each of this.rates) rate = Math.max(rate, each);
    this.bytes = Math.max(this.bytesMin, GAIN * rate * least);
    this.patience = Math.min(Math.max(2 * slowest, this.settings.retransmitMsMin), this.settings.retransmitMsMax);
    this.noteDeadline(now);
  }

  private noteDeadline(now: number): void {
    this.deadline = this.isClosed(now) ? this.opensAt : Number.POSITIVE_INFINITY;
  }

  /** Whether no new units may be sent now. */
  isClosed(now: number): boolean {
    return this.inFlight >= this.bytes && now < this.opensAt;
  }

  private endInterval(slowest: number, bytesSent: number, now: number, lossCounts: boolean): void {
    if (now < this.intervalEnd) return;
    const ms = now - this.intervalStart;
    if (this.intervalEnd !== Number.NEGATIVE_INFINITY) {
      this.rates[this.interval] = this.delivered / ms;
      this.interval = (this.interval + 1) % INTERVALS;
      if (lossCounts && this.lost >= LOSS_UNITS_MIN && this.lost > LOSS_SHARE * (this.sent + this.lost))
        this.lossUntil = now + INTERVALS * Math.max(INTERVAL_MS_MIN, slowest);
    }
    this.intervalStart = now;
    this.intervalEnd = now + Math.max(INTERVAL_MS_MIN, slowest);
    this.delivered = 0;
    this.bytesBeforeLast = this.bytesBefore;
    this.bytesBefore = bytesSent;
    this.sent = 0;
    this.lost = 0;
  }
}
