/**
 * Checks all messages that members send and what receivers make of them. It knows what is right:
 * every unit that was cut, when each datagram really left, and how far each vector had advanced.
 */

import { Attachment, AttachmentRecord, PeerRecord, VectorRecord } from '../../shm/board-records.js';
import type { Contents, Flight, SentUnit } from './flight.js';
import type { Instance } from './instance.js';
import { demand, Violation } from './violation.js';

const NOTE = 1;

/** Units in ascending order that do not overlap. */
class Units {
  readonly list: SentUnit[] = [];

  /** Index of the unit with this first number, or where it would be inserted. */
  find(first: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.list[middle].first < first) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The unit that overlaps this one without being the same; null if there is none. */
  clash(unit: SentUnit): SentUnit | null {
    const place = this.find(unit.first);
    const [before, at] = [this.list[place - 1], this.list[place]];
    if (at?.first === unit.first) return at.count === unit.count && at.hash === unit.hash ? null : at;
    if (before !== undefined && before.first + before.count > unit.first) return before;
    return at !== undefined && unit.first + unit.count > at.first ? at : null;
  }

  /**
   * Whether the number lies between the first and the last of these units. Folded units stand there
   * for other operations than the common ones.
   */
  reaches(sequence: number): boolean {
    const first = this.list[0];
    const last = this.list[this.list.length - 1];
    return first !== undefined && sequence >= first.first && sequence < last.first + last.count;
  }

  has(unit: SentUnit): boolean {
    return this.list[this.find(unit.first)]?.first === unit.first;
  }

  add(unit: SentUnit): void {
    const place = this.find(unit.first);
    if (this.list[place]?.first !== unit.first) this.list.splice(place, 0, unit);
  }
}

/**
 * Units cut from one incarnation's records on one object: for all members, and for single members,
 * by their incarnation numbers.
 */
class Cuts {
  readonly common = new Units();
  readonly single = new Map<number, Units>();
}

interface Seen {
  incarnation: number;
  contiguous: number;
  /** Through this number, the origin has announced that it no longer keeps its units. */
  passedOver: number;
}

/**
 * Tolerance of a measured round trip: an absolute part, ms, because stamps are whole microseconds,
 * and a relative part, because clocks drift.
 */
const ROUND_TRIP_MS_OFF = 0.01;
const DRIFT = 2e-3;

export class Witness {
  /** By author and object. */
  private readonly cuts: Cuts[][] = [];
  /** When each datagram left, by its sender's clock, ms: by author, object and datagram number. */
  private readonly left: number[][][] = [];
  private readonly seen = new Map<Instance, Seen[][]>();
  /**
   * Exact units that an instance took as units, not in a snapshot: by object and the origin's
   * incarnation number.
   */
  private readonly taken = new Map<Instance, Map<number, Units>[]>();
  /**
   * Pairs of members of which the second lacks what the first gave up: the authors of both, and the
   * object.
   */
  private readonly without = new Set<string>();
  private readonly objects: number;
  private readonly vector = new VectorRecord();
  private readonly peer = new PeerRecord();
  private readonly attachment = new AttachmentRecord();
  private samplesBefore = 0;

  constructor(objects: number) {
    this.objects = objects;
  }

  private of(author: number): Cuts[] {
    while (this.cuts.length <= author) {
      this.cuts.push(Array.from({ length: this.objects }, () => new Cuts()));
      this.left.push(Array.from({ length: this.objects }, () => []));
    }
    return this.cuts[author];
  }

  // ——— What is sent ———

  /** `to`: a member, or all members (-1). `origin`: the origin of the units. */
  sent(from: Instance, object: number, to: number, contents: Contents, origin: Instance): void {
    this.of(from.life.author);
    this.left[from.life.author][object][contents.datagram] = from.localMs;
    const { common, single } = this.of(origin.life.author)[object];
    for (const unit of contents.units) {
      for (let member = 0; member < from.board.members; member++) {
        if (member === from.member || (to !== -1 && member !== to) || contents.excluded.includes(member)) continue;
        // Repairs are not compared. A member that took a part of a backlog knows that repairs of
        // its numbers are different units.
        if (from.member !== origin.member) continue;
        const recipient = this.incarnationOf(from, member);
        const clash = single.get(recipient)?.clash(unit) ?? null;
        // A member that already has all of these numbers, by other units, drops the unit as known.
        if (clash !== null && !this.isKnownToHave(from, object, member, origin, unit))
          reportClash(from, object, clash, unit, member);
        demand(
          contents.folded ||
            single.get(recipient)?.has(unit) !== true ||
            this.isKnownToHave(from, object, member, origin, unit),
          'unit-cut-once',
          () => `${from.name}, object ${object}: sends ${describe(unit)}, folded for member ${member}, as exact`,
        );
        if (!contents.folded) continue;
        if (!single.has(recipient)) single.set(recipient, new Units());
        single.get(recipient)?.add(unit);
      }
      if (contents.folded) continue;
      const clash = common.clash(unit);
      if (clash !== null) reportClash(from, object, clash, unit, null);
      common.add(unit);
    }
  }

  /** The incarnation number of the member that `at` believes to be the present one. */
  private incarnationOf(at: Instance, member: number): number {
    this.peer.incarnation = 0;
    at.board.readPeer(member, this.peer);
    return this.peer.incarnation;
  }

  /**
   * Whether `other` took its state without what `at` has pruned. Either it did not hear `at`, or
   * `at` gave up what it retained for it while it joined, and `other` could not know that when it
   * loaded its snapshot. The snapshot has everything of `at` through `has`. `other` skips and
   * counts what it then lacks, and main takes snapshots for it.
   */
  private isWithout(other: Instance, at: Instance, object: number, has: number): boolean {
    if (other.hasBegunAlone || other.entry.unheard.has(at.member)) return true;
    const pair = `${at.life.author} ${other.life.author} ${object}`;
    this.peer.floats.fill(0);
    at.board.readPeer(other.member, this.peer);
    const isKnown = (other.entry.floors[object]?.[at.member] ?? 0) > has + 1;
    if (at.counts.value('state_tx_backlogs_lost') > 0 && this.peer.isJoining && !isKnown) this.without.add(pair);
    // This still holds after `at` hears that `other` has joined, until `other` learns the floor.
    return this.without.has(pair);
  }

  private isKnownToHave(from: Instance, object: number, member: number, origin: Instance, unit: SentUnit): boolean {
    const { vector } = this;
    vector.clear();
    from.board.readVector(object, member, origin.member, vector);
    return vector.incarnation === origin.life.incarnation && vector.contiguous >= unit.first + unit.count - 1;
  }

  // ——— What is received ———

  before(at: Instance, flight: Flight): void {
    at.board.readPeer(flight.sender, this.peer);
    this.samplesBefore = this.peer.samples;
  }

  after(at: Instance, flight: Flight, from: Instance, origin: Instance): void {
    const { contents, sender, object } = flight;
    if (contents === null || object >= this.objects) return;
    if (!contents.excluded.includes(at.member)) {
      this.checkVector(at, object, contents, origin);
      if (!contents.folded) this.noteTaken(at, object, contents);
    }
    this.checkAcknowledged(at, from, object);
    at.board.readPeer(sender, this.peer);
    if (this.peer.samples > this.samplesBefore) this.checkRoundTrip(at, flight, contents);
  }

  private noteTaken(at: Instance, object: number, { units, origin, originIncarnation }: Contents): void {
    if (units.length === 0) return;
    const { vector } = this;
    vector.clear();
    at.board.readReception(object, origin, vector);
    if (vector.incarnation !== originIncarnation) at.board.readFormer(object, origin, vector);
    if (vector.incarnation !== originIncarnation) return;
    let taken = this.taken.get(at);
    if (taken === undefined) {
      taken = Array.from({ length: this.objects }, () => new Map());
      this.taken.set(at, taken);
    }
    let all = taken[object].get(originIncarnation);
    if (all === undefined) {
      all = new Units();
      taken[object].set(originIncarnation, all);
    }
    // The instance drops a unit as known if its snapshot contained it.
    const { loaded, loadedFormer } = at.entry;
    const known = [loaded, loadedFormer].map((vectors) => vectors[object]?.[origin]);
    const isKnown = (number: number): boolean =>
      known.some(
        (one) => one?.incarnation === originIncarnation && (number <= one.contiguous || isWithin(one.ranges, number)),
      );
    for (const unit of units) if (vector.has(unit.first) && !isKnown(unit.first)) all.add(unit);
  }

  /**
   * Whether the instance took a unit with this number and never dropped a kept unit for lack of
   * room. Then it still keeps what others may lack.
   */
  hasTaken(at: Instance, object: number, incarnation: number, number: number): boolean {
    if (at.counts.value('state_foreign_units_dropped') > 0) return false;
    const list = this.taken.get(at)?.[object].get(incarnation)?.list ?? [];
    return list.some(({ first, count }) => first <= number && number < first + count);
  }

  /** Whether `at` knows this incarnation of the member. */
  hasHeard(at: Instance, member: number, incarnation: number): boolean {
    return this.incarnationOf(at, member) === incarnation;
  }

  private seenOf(at: Instance): Seen[][] {
    let seen = this.seen.get(at);
    if (seen === undefined) {
      seen = Array.from({ length: this.objects }, () =>
        Array.from({ length: at.board.members }, () => ({ incarnation: 0, contiguous: 0, passedOver: 0 })),
      );
      this.seen.set(at, seen);
    }
    return seen;
  }

  /**
   * The vector never goes back within an incarnation, never exceeds what was sent, and claims only
   * what has been applied.
   */
  private checkVector(at: Instance, object: number, contents: Contents, origin: Instance): void {
    const sender = origin.member;
    const { vector } = this;
    vector.clear();
    at.board.readReception(object, sender, vector);
    const seen = this.seenOf(at)[object][sender];
    const where = (): string => `${at.name}, object ${object}, of member ${sender}`;
    if (vector.incarnation !== seen.incarnation) {
      seen.incarnation = vector.incarnation;
      seen.contiguous = 0;
      seen.passedOver = 0;
    }
    demand(
      vector.contiguous >= seen.contiguous,
      'vector-forward',
      () => `${where()}: the vector went from ${seen.contiguous} back to ${vector.contiguous}`,
    );
    const { incarnation } = origin.life;
    if (vector.incarnation !== incarnation) return;
    const end = vector.ranges > 0 ? vector.end(vector.ranges - 1) : vector.contiguous;
    const sentThrough = origin.board.sequence(object);
    demand(end <= sentThrough, 'vector-delivered', () => `${where()}: claims ${end}, and ${sentThrough} was sent`);
    const { ledger } = at.subjects[object];
    if (ledger === null || ledger.isTorn(origin.life.author)) return;
    const { common, single } = this.of(origin.life.author)[object];
    const folded = single.get(at.life.incarnation) ?? null;
    // The origin no longer keeps these units. `checkPruned` checks whether it was allowed to prune
    // them.
    if (contents.floor > seen.contiguous + 1 && contents.incarnation === incarnation)
      seen.passedOver = contents.floor - 1;
    const from = Math.max(seen.contiguous, seen.passedOver) + 1;
    for (const units of folded === null ? [common] : [common, folded])
      for (let i = units.find(from); i < units.list.length; i++) {
        const unit = units.list[i];
        if (unit.first + unit.count - 1 > vector.contiguous) break;
        demand(
          (units === common && folded?.reaches(unit.first)) || isApplied(at, object, unit),
          'vector-delivered',
          () => `${where()}: claims unit ${describe(unit)}, which was not applied`,
        );
      }
    seen.contiguous = vector.contiguous;
    for (const unit of contents.units) {
      const claimed = ledger.delivery === 'any-order' ? vector.has(unit.first) : unit.first <= vector.contiguous;
      if (contents.originIncarnation !== incarnation || !claimed || unit.first <= seen.passedOver) continue;
      demand(
        isApplied(at, object, unit),
        'vector-delivered',
        () => `${where()}: claims unit ${describe(unit)}, which was not applied`,
      );
    }
  }

  /** What `at` believes to be acknowledged has really arrived. */
  private checkAcknowledged(at: Instance, other: Instance, object: number): void {
    if (at.isCondemned) return;
    const { vector } = this;
    vector.clear();
    at.board.readVector(object, other.member, at.member, vector);
    if (vector.incarnation !== at.life.incarnation || !this.hasHeard(at, other.member, other.life.incarnation)) return;
    const believed = vector.contiguous;
    vector.clear();
    other.board.readReception(object, at.member, vector);
    const has = vector.incarnation === at.life.incarnation ? vector.contiguous : 0;
    demand(
      believed <= has,
      'vector-delivered',
      () =>
        `${at.name}, object ${object}: believes that member ${other.member} has all through ${believed}; it has ${has}`,
    );
  }

  /** A sample of the round trip is the time since the acknowledged datagram itself left. */
  private checkRoundTrip(at: Instance, flight: Flight, contents: Contents): void {
    const entry = contents.entries.find(
      ({ origin, incarnation }) => origin === at.member && incarnation === at.life.incarnation,
    );
    if (entry === undefined || !entry.echoValid) return;
    const leftAt = this.left[at.life.author]?.[flight.object][entry.echoDatagram];
    demand(leftAt !== undefined, 'round-trip-true', () => `${at.name}: a round trip of a datagram that never left`);
    const truth = at.localMs - leftAt - entry.echoDelayUs / 1000;
    const off = Math.abs(this.peer.latest - truth);
    demand(
      off <= ROUND_TRIP_MS_OFF + DRIFT * (at.localMs - leftAt),
      'round-trip-true',
      () => `${at.name}: measured ${this.peer.latest} ms to member ${flight.sender}; it was ${truth.toFixed(3)} ms`,
    );
  }

  // ——— What is pruned ———

  /**
   * Nothing is pruned that an attached member lacks. What the other members lack is kept for them
   * elsewhere. `onWithout` is called for members whose state was taken without what `at` has
   * pruned.
   */
  checkPruned(at: Instance, others: Iterable<Instance>, onWithout: (other: Instance) => void): void {
    const { sender } = at;
    if (sender === null || at.isCondemned) return;
    for (const other of others)
      for (const { object, log } of sender.channels) {
        const { attachment, vector } = this;
        attachment.floats.fill(0);
        at.board.readAttachment(object, other.member, attachment);
        if (attachment.state !== Attachment.ATTACHED) continue;
        // An incarnation that `at` has not heard of may have started without state.
        if (!this.hasHeard(at, other.member, other.life.incarnation)) continue;
        vector.clear();
        other.board.readReception(object, at.member, vector);
        const has = vector.incarnation === at.life.incarnation ? vector.contiguous : 0;
        // Numbers may start far from 1.
        const earliest = this.of(at.life.author)[object].common.list[0]?.first ?? log.floor;
        if (log.floor - 1 > Math.max(has, earliest - 1) && this.isWithout(other, at, object, has)) {
          onWithout(other);
          continue;
        }
        demand(
          log.floor - 1 <= Math.max(has, earliest - 1),
          'vector-delivered',
          () => `${at.name}, object ${object}: pruned through ${log.floor - 1}; member ${other.member} has ${has}`,
        );
      }
  }
}

/** Whether the number lies in one of the ranges, given as pairs of first and last number. */
function isWithin(ranges: readonly number[], number: number): boolean {
  return ranges.some((first, i) => i % 2 === 0 && first <= number && number <= ranges[i + 1]);
}

/** Whether all notes of the unit were applied here. */
function isApplied(at: Instance, object: number, unit: SentUnit): boolean {
  const { ledger } = at.subjects[object];
  if (ledger === null) return true;
  const { words } = unit;
  for (let i = 0; i < words.length; i += 1 + (words[i] & 0xff)) {
    if (((words[i] >>> 8) & 0xff) !== NOTE) continue;
    if (!ledger.received.get(words[i + 1])?.notes.has(words[i + 2])) return false;
  }
  return true;
}

function reportClash(from: Instance, object: number, known: SentUnit, unit: SentUnit, member: number | null): never {
  const whom = member === null ? '' : ` to member ${member}`;
  throw new Violation(
    'unit-cut-once',
    `${from.name}, object ${object}: sends ${describe(unit)}${whom} where it had sent ${describe(known)}`,
  );
}

function describe(unit: SentUnit): string {
  return `${unit.first}…${unit.first + unit.count - 1} (${unit.words.length} words)`;
}
