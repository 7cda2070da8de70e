/**
 * Finds the units of a log that must be sent again.
 *
 * A unit's timeout is that of the slowest member that lacks it, doubled each time the unit was
 * sent. Silent members do not count, except for the oldest unit, which is their probe. If more is
 * due than one scan may send, the next scan resumes there: the units already passed wait for it.
 * Units that all heard members have are skipped: while one member is silent, that is nearly the
 * whole log.
 */

import type { ReplicationSettings } from '../settings.js';
import type { UnitLog } from '../units/unit-log.js';
import { UNIT_WORDS } from '../wire/message.js';
import type { PeerView } from './peer-view.js';

/** The members that a log's units are for. */
export interface Audience {
  /**
   * The number through which every heard member has everything; `MAX_SAFE_INTEGER` if none is
   * heard.
   */
  heardThrough(): number;
  /**
   * Timeout, in ms, of the slowest heard member that lacks the unit beginning at `first`; 0 if none
   * does.
   */
  slowestLacking(first: number): number;
  /** Whether any member, including silent ones, lacks it. */
  isLacking(first: number): boolean;
}

/**
 * The most units that one scan finds, and the most messages (to each member that lacks units):
 * these bound a poll.
 */
const SCAN_UNITS_MAX = 2048;
const SCAN_MESSAGES_MAX = 16;
/** Time between two scans, in ms. */
const SCAN_SPACING_MS = 2;
/** Time between two resets of the back-off of all units, in ms: a reset walks the whole log. */
const FORGET_SPACING_MS = 250;
/** The log is scanned at least this often while something is not acknowledged, in ms. */
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
  /** All heard members have the units before this position, which end at or below this number. */
  private settled: number;
  private settledThrough = 0;
  private delivered = 0;
  /** The back-off of all units must be reset, but not before `forgetAt`. */
  private mustForget = false;
  private forgetAt = Number.NEGATIVE_INFINITY;
  /**
   * Where the current scan resumes, and the earliest due time among the units that it has passed.
   * Between scans: `settled`, and infinite.
   */
  private scanAt: number;
  private scanNext = Number.POSITIVE_INFINITY;

  /** `unitWords`: the longest unit, in words. */
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

  /** Words of the log that were sent and that some heard member lacks. */
  inFlightWords(): number {
    this.passSettled();
    return (this.log.unsent - this.settled) | 0;
  }

  /** Words delivered to all heard members since the last call. */
  takeDelivered(): number {
    const words = this.delivered;
    this.delivered = 0;
    return words;
  }

  /** Notes that units were sent at `now`. */
  noteSent(now: number): void {
    this.nextScan = Math.min(this.nextScan, now + this.settings.retransmitMsMin);
  }

  /**
   * Notes that units were pruned. If one of them had been sent more than twice, the units after it
   * are sent again without back-off: the path, or the member, accepts units now (RFC 6298 §5.7 ends
   * the back-off likewise). A member whose buffer was full lacks many units, and otherwise each
   * would wait for the longest back-off in turn.
   */
  notePruned(): void {
    if (this.log.head === this.log.unsent) this.nextScan = Number.POSITIVE_INFINITY;
    else if (this.log.prunedAttempts > 2) {
      this.mustForget = true;
      this.nextScan = Math.min(this.nextScan, this.forgetAt);
    }
  }

  /**
   * A silent member is heard again: its timeouts while it was silent say nothing about the path.
   */
  restart(): void {
    this.log.forgetAttempts();
    if (this.log.head !== this.log.unsent) this.nextScan = 0;
  }

  /** Makes the next scan begin at the oldest lacking unit. */
  resendAll(): void {
    this.scanAt = this.settled;
    this.scanNext = Number.POSITIVE_INFINITY;
    this.nextScan = 0;
  }

  /**
   * Writes the overdue units, up to `messages` messages, to `due`, and sets `nextScan`. Returns
   * their number. They count as sent once the caller has marked them sent.
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
   * Moves `settled` past the units that all heard members have. Moves it back to the head if a
   * member is heard again, or has restarted.
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
    // No further than the last number: a silent member that was the only one may lack what comes
    // later.
    if (this.settled === log.unsent) this.settledThrough = Math.min(through, log.nextSequence - 1);
    if (isBefore(this.scanAt, this.settled)) this.scanAt = this.settled;
  }

  /** Puts the oldest unit first in `due` if only silent members lack it and it is overdue. */
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

/** Compares two positions in a log. */
export function isBefore(position: number, other: number): boolean {
  return ((position - other) | 0) < 0;
}
