/**
 * How far behind the members are, in records and in time: for each origin, object and member that
 * has to have the origin's records, how many it lacks, and since when it has not had everything
 * there was. Read from the acknowledgement board, some times a second; so a time is that exact.
 */

import { type AckBoard, VectorRecord } from '../shm/ack-board.js';

/** Who lacks what of whom; one of the two is this instance. */
export interface Lag {
  readonly object: number;
  readonly origin: number;
  readonly member: number;
  readonly records: number;
  /** 0: it lacks nothing. */
  readonly ms: number;
  /** What the member has of the origin without a gap. */
  readonly through: number;
}

export class LagWatch {
  private readonly board: AckBoard;
  private readonly self: number;
  private readonly vector = new VectorRecord();
  /**
   * [(object * slots + slot) * 2 + direction]: when there was nothing lacking; −1: not looked at
   * yet.
   */
  private readonly completeAt: Float64Array;

  constructor(board: AckBoard, self: number) {
    this.board = board;
    this.self = self;
    this.completeAt = new Float64Array(board.objects * board.members * 2).fill(-1);
  }

  /** Looks at the members in `slots`; `now` in ms of a clock that only goes forward. */
  look(slots: Iterable<number>, now: number): Lag[] {
    const lags: Lag[] = [];
    for (const slot of slots) {
      if (slot === this.self) continue;
      for (let object = 0; object < this.board.objects; object++) {
        lags.push(this.theirs(object, slot, now), this.ours(object, slot, now));
      }
    }
    return lags;
  }

  /** What we lack of the member's. */
  private theirs(object: number, origin: number, now: number): Lag {
    const { vector } = this;
    vector.clear();
    this.board.readReception(object, origin, vector);
    const records = vector.missing(vector.highest);
    const ms = this.since((object * this.board.members + origin) * 2, records, now);
    return { object, origin, member: this.self, records, ms, through: vector.contiguous };
  }

  /** What the member lacks of ours. */
  private ours(object: number, member: number, now: number): Lag {
    const { vector, board, self } = this;
    vector.clear();
    board.readVector(object, member, self, vector);
    const known = vector.incarnation === board.incarnation;
    if (!known) vector.clear();
    const records = vector.missing(board.numbered(object));
    const ms = this.since((object * board.members + member) * 2 + 1, records, now);
    return { object, origin: self, member, records, ms, through: vector.contiguous };
  }

  private since(place: number, records: number, now: number): number {
    if (records === 0 || this.completeAt[place] < 0) this.completeAt[place] = now;
    return now - this.completeAt[place];
  }
}
