/**
 * What we have of one origin on one channel: the arithmetic of a reception vector.
 *
 * A unit is received whole or not at all, and once sent it is never cut differently. So a new unit
 * never partly overlaps known numbers. A unit that does was not made by this protocol.
 */

import { MAX_RANGES, VectorRecord } from '../../../shm/ack-board.js';

export const Arrival = {
  /** The next in order. */
  NEXT: 0,
  /** New, beyond a gap, and it can be remembered. */
  BEYOND: 1,
  /** Already known. */
  DUPLICATE: 2,
  /** New, but it cannot be remembered, so it must not be accepted. */
  NO_ROOM: 3,
  /** Partly overlaps known numbers. */
  OVERLAP: 4,
} as const;
export type Arrival = (typeof Arrival)[keyof typeof Arrival];

/** A number beyond this distance cannot be acknowledged (the distance is one word in a message). */
const DISTANCE_MAX = 2 ** 32 - 1;

export class Reception extends VectorRecord {
  /** Classifies the unit `first … last`. Changes nothing. */
  classify(first: number, last: number): Arrival {
    const { contiguous, ranges } = this;
    if (last <= contiguous) return Arrival.DUPLICATE;
    if (first <= contiguous) return Arrival.OVERLAP;
    let i = 0;
    while (i < ranges && this.end(i) < first) i++;
    if (i < ranges && this.start(i) <= last)
      return this.start(i) <= first && last <= this.end(i) ? Arrival.DUPLICATE : Arrival.OVERLAP;
    if (first === contiguous + 1) return Arrival.NEXT;
    if (last - contiguous > DISTANCE_MAX) return Arrival.NO_ROOM;
    const touches = (i > 0 && this.end(i - 1) === first - 1) || (i < ranges && this.start(i) === last + 1);
    return touches || ranges < MAX_RANGES ? Arrival.BEYOND : Arrival.NO_ROOM;
  }

  /** Adds a unit that `classify` found to be `NEXT` or `BEYOND`. */
  add(first: number, last: number): void {
    if (first === this.contiguous + 1) {
      this.advance(last);
      return;
    }
    let i = 0;
    while (i < this.ranges && this.end(i) < first - 1) i++;
    if (i === this.ranges || this.start(i) > last + 1) {
      this.insert(i, first, last);
      return;
    }
    this.setRange(i, Math.min(first, this.start(i)), Math.max(last, this.end(i)));
    if (i + 1 < this.ranges && this.start(i + 1) === this.end(i) + 1) {
      this.setRange(i, this.start(i), this.end(i + 1));
      this.remove(i + 1);
    }
  }

  /**
   * Marks everything through `sequence` as received or lost for good. Returns how many of these
   * numbers were not known before.
   */
  advance(sequence: number): number {
    let gained = sequence - this.contiguous;
    let contiguous = sequence;
    while (this.ranges > 0 && this.start(0) <= contiguous + 1) {
      gained -= Math.max(0, Math.min(this.end(0), sequence) - this.start(0) + 1);
      contiguous = Math.max(contiguous, this.end(0));
      this.remove(0);
    }
    this.contiguous = contiguous;
    return gained;
  }

  /** Forgets all numbers beyond the first gap. */
  forgetRanges(): void {
    this.ranges = 0;
  }

  /** Adds the numbers of another vector. Returns whether any was new. */
  join(other: VectorRecord): boolean {
    let grew = other.contiguous > this.contiguous;
    if (grew) this.advance(other.contiguous);
    for (let i = 0; i < other.ranges; i++) grew = this.cover(other.start(i), other.end(i)) || grew;
    return grew;
  }

  private cover(from: number, through: number): boolean {
    if (through <= this.contiguous) return false;
    if (from <= this.contiguous + 1) {
      this.advance(through);
      return true;
    }
    let first = from;
    let last = through;
    for (let i = this.ranges - 1; i >= 0; i--) {
      if (this.end(i) < first - 1 || this.start(i) > last + 1) continue;
      if (this.start(i) <= first && last <= this.end(i)) return false;
      first = Math.min(first, this.start(i));
      last = Math.max(last, this.end(i));
      this.remove(i);
    }
    if (this.ranges === MAX_RANGES) return false;
    let at = 0;
    while (at < this.ranges && this.end(at) < first) at++;
    this.insert(at, first, last);
    return true;
  }

  /** Forgets every number from `sequence` on. */
  retreat(sequence: number): void {
    this.contiguous = Math.min(this.contiguous, sequence - 1);
    while (this.ranges > 0 && this.start(this.ranges - 1) >= sequence) this.ranges--;
    const last = this.ranges - 1;
    if (last >= 0 && this.end(last) >= sequence) this.setRange(last, this.start(last), sequence - 1);
  }

  private insert(at: number, start: number, end: number): void {
    for (let i = this.ranges; i > at; i--) this.setRange(i, this.start(i - 1), this.end(i - 1));
    this.setRange(at, start, end);
    this.ranges++;
  }

  private remove(at: number): void {
    this.ranges--;
    for (let i = at; i < this.ranges; i++) this.setRange(i, this.start(i + 1), this.end(i + 1));
  }
}
