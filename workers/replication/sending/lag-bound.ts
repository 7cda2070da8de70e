/**
 * A bound on how far a member may be behind us in time: `replication.max_lag_ms`.
 *
 * The lag of a member is the age of the oldest record that it has not acknowledged. It is measured
 * per object, from samples of the numbers that records had at known times. So the measured lag is
 * too small by at most the spacing of samples.
 *
 * Records also wait in the log rings before they are numbered. That time counts only for the member
 * that was the furthest behind meanwhile, because they waited for it. If they waited for
 * `replication.bandwidth`, it counts for no member. With that limit, the lag begins when a record
 * is first sent.
 *
 * | lag of a member                    | what happens                                                        |
 * | ---------------------------------- | ------------------------------------------------------------------- |
 * | below half of the bound            | nothing                                                             |
 * | from there to the bound            | records wait in the log rings for `windowMs`, so more of them coalesce; the window grows with the lag |
 * | beyond the bound                   | the member is reported                                              |
 * | still beyond it after a while      | the member is detached from the object: its backlog is folded       |
 *
 * The bound applies to members that are attached and heard. A silent member is left to the bound on
 * the unit log: detaching would not help it, and when it restarts it needs a snapshot.
 *
 * If a member's shortest round trip is longer than the bound, it is only reported: neither waiting
 * nor detaching helps. The same holds for a member that speaks version 1, for which no backlog can
 * be kept. After the death of a send thread, ages are measured from the start of the next one.
 */

import type { Counts } from '../metrics.js';
import type { ReplicationSettings } from '../settings.js';
import type { PeerView } from './peer-view.js';
import type { Window } from './window.js';

/**
 * The number of samples, and their spacing as a part of the bound: together they reach back twice
 * the bound.
 */
const SAMPLES = 128;
const SPACING_SHARE = 1 / 64;
/**
 * Records begin to wait at `NEAR_SHARE` of the bound. At the bound they wait for `WINDOW_SHARE` of
 * it.
 */
const NEAR_SHARE = 1 / 2;
const WINDOW_SHARE = 1 / 4;
/**
 * A member is detached if it was beyond the bound for this part of the bound, or for `detachMs` if
 * that is shorter.
 */
const PATIENCE_SHARE = 1 / 2;
/** A member that was not beyond the bound for this time, in ms, is reported again. */
const QUIET_MS = 60_000;

/** No member. */
const NOBODY = -1;

/**
 * The sequence numbers of an object's records over time, and the member for which they waited
 * before.
 */
export class LagTrack {
  /**
   * For the record that `age` was last asked about: the longest time it waited, in ms, and the
   * member for which it waited.
   */
  waitedMs = 0;
  waitedFor = NOBODY;
  private readonly times = new Float64Array(SAMPLES).fill(Number.NEGATIVE_INFINITY);
  private readonly numbers = new Float64Array(SAMPLES);
  private readonly waits = new Float64Array(SAMPLES);
  private readonly causes = new Int32Array(SAMPLES);
  private readonly spacingMs: number;
  private count = 0;
  private newest = SAMPLES - 1;
  /** The member that is the furthest behind, and since when (ms). */
  private furthest = NOBODY;
  private furthestSince = 0;

  /** `last`: the highest number assigned so far. */
  constructor(spacingMs: number, last: number) {
    this.spacingMs = spacingMs;
    this.numbers[this.newest] = last;
  }

  /**
   * Notes that records through `last` are numbered at `now`; the new ones waited for at most
   * `waitedMs`.
   */
  note(last: number, now: number, waitedMs: number): void {
    const { times, numbers, newest } = this;
    if (last <= numbers[newest] || now - times[newest] < this.spacingMs) return;
    this.newest = (newest + 1) % SAMPLES;
    times[this.newest] = now;
    numbers[this.newest] = last;
    this.waits[this.newest] = Math.min(waitedMs, now - this.furthestSince);
    this.causes[this.newest] = this.furthest;
    if (this.count < SAMPLES) this.count++;
  }

  /**
   * Notes that this member is the furthest behind at `now`: records that wait from now on wait for
   * it.
   */
  noteFurthest(member: number, now: number): void {
    if (member === this.furthest) return;
    this.furthest = member;
    this.furthestSince = now;
  }

  /**
   * How long ago, in ms, the oldest record after number `through` was numbered; 0: none is known.
   */
  age(through: number, now: number): number {
    let age = 0;
    this.waitedFor = NOBODY;
    for (let i = 0; i < this.count; i++) {
      const at = (this.newest - i + SAMPLES) % SAMPLES;
      if (this.numbers[at] <= through) break;
      age = now - this.times[at];
      this.waitedMs = this.waits[at];
      this.waitedFor = this.causes[at];
    }
    return age;
  }
}

/** The part of an object's channel that the bound needs. */
interface LaggingChannel {
  readonly object: number;
  /** The highest number assigned to a record, and the highest number that was sent from the log. */
  readonly numbered: number;
  readonly sent: number;
  /**
   * The number through which the member has every unit; infinite: it is not attached, silent, or
   * not present.
   */
  attachedThrough(member: number): number;
  detach(member: number): void;
}

interface LagBoundOptions {
  readonly settings: ReplicationSettings;
  readonly peers: PeerView;
  readonly window: Window;
  readonly channels: readonly LaggingChannel[];
  readonly counts: Counts;
  readonly onAlarm: (problem: string, object: number) => void;
}

export class LagBound {
  /** How long records wait now, in ms, so that more of them coalesce. */
  windowMs = 0;
  /** The largest lag of a heard member, in ms. */
  worstMs = 0;
  /** When `poll` must be called at the latest, in ms. */
  nextLook = Number.POSITIVE_INFINITY;
  private readonly options: LagBoundOptions;
  private readonly boundMs: number;
  private readonly spacingMs: number;
  private readonly patienceMs: number;
  private readonly isPaced: boolean;
  private readonly tracks: readonly LagTrack[];
  /**
   * [object * slots + member]: since when it has been beyond the bound, in ms; infinite: it is not.
   */
  private readonly since: Float64Array;
  /** Per member: when it was last beyond the bound, in ms. */
  private readonly beyondAt: Float64Array;
  private lookAt = Number.NEGATIVE_INFINITY;

  constructor(options: LagBoundOptions) {
    const { settings, channels } = options;
    this.options = options;
    this.boundMs = settings.maxLagMs;
    this.spacingMs = Math.max(1, SPACING_SHARE * settings.maxLagMs);
    this.patienceMs = Math.min(settings.detachMs, PATIENCE_SHARE * settings.maxLagMs);
    this.isPaced = settings.bandwidth > 0;
    this.tracks = channels.map(({ numbered }) => new LagTrack(this.spacingMs, numbered));
    this.since = new Float64Array(channels.length * settings.slots).fill(Number.POSITIVE_INFINITY);
    this.beyondAt = new Float64Array(settings.slots).fill(Number.NEGATIVE_INFINITY);
  }

  /**
   * Call it after records were numbered that had waited for at most `waitedMs` for the sake of a
   * member.
   */
  poll(now: number, waitedMs: number): void {
    const { channels } = this.options;
    for (let i = 0; i < channels.length; i++)
      this.tracks[i].note(this.isPaced ? channels[i].sent : channels[i].numbered, now, waitedMs);
    if (now < this.lookAt) return;
    this.lookAt = now + this.spacingMs;
    this.worstMs = 0;
    for (let i = 0; i < channels.length; i++) this.look(i, now);
    this.nextLook = this.worstMs > 0 ? this.lookAt : Number.POSITIVE_INFINITY;
    const near = NEAR_SHARE * this.boundMs;
    const share = Math.min(1, Math.max(0, (this.worstMs - near) / (this.boundMs - near)));
    this.windowMs = share * WINDOW_SHARE * this.boundMs;
  }

  private look(index: number, now: number): void {
    const { channels, peers, settings, window } = this.options;
    const channel = channels[index];
    const track = this.tracks[index];
    let furthest = NOBODY;
    let oldest = 0;
    for (let member = 0; member < settings.slots; member++) {
      const place = index * settings.slots + member;
      const through = channel.attachedThrough(member);
      const age = through === Number.POSITIVE_INFINITY ? 0 : track.age(through, now);
      if (age > oldest) {
        oldest = age;
        furthest = member;
      }
      const lag = age > 0 && track.waitedFor === member ? age + track.waitedMs : age;
      const isFar = window.leastMs(member) >= this.boundMs;
      if (!isFar) this.worstMs = Math.max(this.worstMs, lag);
      if (lag <= this.boundMs) {
        this.since[place] = Number.POSITIVE_INFINITY;
        continue;
      }
      if (this.since[place] === Number.POSITIVE_INFINITY) {
        this.since[place] = now;
        this.report(channel, member, lag, isFar, now);
      }
      this.beyondAt[member] = now;
      if (isFar || peers.speaks[member] === 1 || now - this.since[place] < this.patienceMs) continue;
      this.since[place] = Number.POSITIVE_INFINITY;
      channel.detach(member);
    }
    track.noteFurthest(furthest, now);
  }

  private report({ object }: LaggingChannel, member: number, age: number, isFar: boolean, now: number): void {
    const { counts, onAlarm, peers, window } = this.options;
    counts.add('state_tx_lag_exceeded', 1);
    if (now - this.beyondAt[member] < QUIET_MS) return;
    const name = peers.members.name(member);
    const what = `${name} is ${Math.round(age)} ms behind, more than replication.max_lag_ms (${this.boundMs})`;
    const then = isFar
      ? `its shortest round trip takes ${Math.round(window.leastMs(member))} ms: raise max_lag_ms`
      : 'if it stays so, it is detached, and what it misses is kept for it coalesced';
    onAlarm(`${what}; ${then}`, object);
  }
}
