/**
 * Finds the units of a log that are to be sent again.
 *
 * A unit's time is that of the slowest member that lacks it, doubled each time it was sent. Members
 * that are silent do not count, but for the oldest unit, which is the probe they get. Where more is
 * due than one scan may send, the next one goes on there: what it passed waits for it. What all
 * members that are heard have is not looked at: while one is silent, that is nearly the whole log.
 */

import { UNIT_WORDS } from './message.js';
import type { PeerView } from './peer-view.js';
import type { ReplicationSettings } from './settings.js';
import type { UnitLog } from './unit-log.js';

/** The members that a log's units are for. */
export interface Audience {
  /**
   * Every member that is heard has everything through this number; `MAX_SAFE_INTEGER` when none is
   * heard.
   */
  heardThrough(): number;
  /**
   * Timeout of the slowest member, not silent, that lacks the unit that begins at `first`; 0 if
   * there is none.
   */
  slowestLacking(first: number): number;
  /** Whether any member, silent ones too, lacks it. */
  isLacking(first: number): boolean;
}

/**
 * Units, and words of messages (to each member that lacks them), that one scan finds: so a poll is
 * bounded.
 */
const SCAN_UNITS_MAX = 2048;
const SCAN_MESSAGES_MAX = 16;
/** Between two scans. */
const SCAN_SPACING_MS = 2;
/** Between two times that the back-off of all units is ended: that goes through the whole log. */
const FORGET_SPACING_MS = 250;
/** The log is scanned at least so often while something is not acknowledged. */
const SCAN_IDLE_MS = 1000;

export class Retransmission {
  /** When to scan next, in ms. */
  nextScan = Number.POSITIVE_INFINITY;
  /** Positions that the last scan found, oldest first. */
  readonly due = new Int32Array(SCAN_UNITS_MAX);
  private readonly log: UnitLog;
  private readonly audience: Audience;
  private readonly peers: PeerView;
  private readonly settings: ReplicationSettings;
  private readonly unitWords: number;
  /** All members that are heard have what lies before this position and up to this number. */
  private settled: number;
  private settledThrough = 0;
  private delivered = 0;
  /** The back-off of all units is to be ended, not before `forgetAt`. */
  private mustForget = false;
  private forgetAt = Number.NEGATIVE_INFINITY;
  /**
   * Where the scan under way goes on, and the earliest time of what it has passed; `settled` and
   * none between scans.
   */
  private scanAt: number;
  private scanNext = Number.POSITIVE_INFINITY;

  /** `unitWords`: longest unit. */
  constructor(log: UnitLog, audience: Audience, peers: PeerView, settings: ReplicationSettings, unitWords: number) {
    this.log = log;
    this.audience = audience;
    this.peers = peers;
    this.settings = settings;
    this.unitWords = unitWords;
    this.settled = log.head;
    this.scanAt = log.head;
    if (log.unsent !== log.head) this.nextScan = 0;
  }

  /** Words of the log that a member lacks, not silent, to which they were sent. */
  inFlightWords(): number {
    this.passSettled();
    return (this.log.unsent - this.settled) | 0;
  }

  /** Words that all members that are heard have got since this was last asked. */
  takeDelivered(): number {
    const words = this.delivered;
    this.delivered = 0;
    return words;
  }

  /** Units were sent at `now`. */
  noteSent(now: number): void {
    this.nextScan = Math.min(this.nextScan, now + this.settings.retransmitMsMin);
  }

  /**
   * Units were pruned. If one of them had been sent again twice, what comes after it is sent again
   * without back-off: the path, or the member, takes units now (RFC 6298 §5.7 ends the back-off
   * likewise). A member whose buffer was full lacks many, and each would else wait for the longest
   * back-off in turn.
   */
  notePruned(): void {
    if (this.log.head === this.log.unsent) this.nextScan = Number.POSITIVE_INFINITY;
    else if (this.log.prunedAttempts > 2) {
      this.mustForget = true;
      this.nextScan = Math.min(this.nextScan, this.forgetAt);
    }
  }

  /**
   * A silent member is heard again: how often a unit was sent into silence says nothing about it.
   */
  startAnew(): void {
    this.log.forgetAttempts();
    if (this.log.head !== this.log.unsent) this.nextScan = 0;
  }

  /** The next scan begins at the oldest unit that is lacking. */
  startOver(): void {
    this.scanAt = this.settled;
    this.scanNext = Number.POSITIVE_INFINITY;
    this.nextScan = 0;
  }

  /**
   * Notes in `due` the units whose time is over, of so many messages, and when to look again;
   * returns how many. They count as sent from now on once the caller has marked them so.
   */
  scan(now: number, messages: number): number {
    const { audience, log, peers } = this;
    if (this.mustForget && now >= this.forgetAt) {
      log.forgetAttempts();
      this.mustForget = false;
      this.forgetAt = now + FORGET_SPACING_MS;
    }
    this.passSettled();
    let found = this.findProbe(now);
    let room = Math.min(SCAN_MESSAGES_MAX, messages) * (this.unitWords + UNIT_WORDS);
    let position = this.scanAt;
    while (position !== log.unsent && found < SCAN_UNITS_MAX) {
      const after = log.load(position);
      const timeout = audience.slowestLacking(log.first);
      if (timeout > 0) {
        let at = log.sentAt + peers.backedOff(timeout, log.attempts);
        if (at <= now) {
          room -= log.recordWords + UNIT_WORDS;
          if (room < 0) break;
          this.due[found++] = position;
          at = now + peers.backedOff(timeout, log.attempts + 1);
        }
        this.scanNext = Math.min(this.scanNext, at);
      }
      position = after;
    }
    this.scanAt = position;
    let next = now;
    if (position === log.unsent) {
      next = Math.min(this.scanNext, now + SCAN_IDLE_MS);
      this.scanAt = this.settled;
      this.scanNext = Number.POSITIVE_INFINITY;
    }
    this.nextScan = log.head === log.unsent ? Number.POSITIVE_INFINITY : Math.max(next, now + SCAN_SPACING_MS);
    return found;
  }

  /**
   * Moves `settled` on over what all members that are heard have. It goes back to the start when
   * one is heard again, or has started again.
   */
  private passSettled(): void {
    const { log } = this;
    const through = this.audience.heardThrough();
    if (through < this.settledThrough) {
      this.settled = log.head;
      this.scanAt = log.head;
      this.scanNext = Number.POSITIVE_INFINITY;
    } else if (isBefore(this.settled, log.head)) {
      this.delivered += (log.head - this.settled) | 0;
      this.settled = log.head;
    }
    this.settledThrough = through;
    while (this.settled !== log.unsent) {
      const after = log.load(this.settled);
      if (log.first + log.count - 1 > through) break;
      this.delivered += (after - this.settled) | 0;
      this.settled = after;
    }
    // Not further than what there is: who is silent, and was all there is, may lack what comes
    // after.
    if (this.settled === log.unsent) this.settledThrough = Math.min(through, log.nextSequence - 1);
    if (isBefore(this.scanAt, this.settled)) this.scanAt = this.settled;
  }

  /**
   * The oldest unit, as the first that is due, if only silent members lack it and its time is over.
   */
  private findProbe(now: number): number {
    const { audience, log, peers, settings } = this;
    if (log.head === log.unsent) return 0;
    log.load(log.head);
    if (audience.slowestLacking(log.first) > 0 || !audience.isLacking(log.first)) return 0;
    const at = log.sentAt + peers.backedOff(settings.keepaliveMs, log.attempts);
    if (at > now) {
      this.scanNext = Math.min(this.scanNext, at);
      return 0;
    }
    this.due[0] = log.head;
    this.scanNext = Math.min(this.scanNext, now + peers.backedOff(settings.keepaliveMs, log.attempts + 1));
    return 1;
  }
}

/** Of two positions in a log. */
export function isBefore(position: number, other: number): boolean {
  return ((position - other) | 0) < 0;
}
