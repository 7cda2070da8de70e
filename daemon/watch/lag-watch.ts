/**
 * Measures how far behind the members are, in records and in time. For each origin, object and
 * member that must have the origin's records, it finds how many records the member lacks, and since
 * when it has lacked any. It reads the acknowledgement board several times a second. The interval
 * between reads is the accuracy of a time.
 */

import { type AckBoard, VectorRecord } from '../../shm/ack-board.js';

/** What a member lacks of an origin's records. One of the two is this instance. */
interface Lag {
  readonly object: number;
  readonly origin: number;
  readonly member: number;
  readonly records: number;
  /** Time since it last had everything; 0: it lacks nothing. */
  readonly ms: number;
  /** Sequence number up to which the member has everything of the origin. */
  readonly through: number;
}

export class LagWatch {
  private readonly board: AckBoard;
  private readonly self: number;
  private readonly vector = new VectorRecord();
  /**
   * By [(object * slots + slot) * 2 + direction]: when nothing was missing last; −1: not measured
   * yet. Direction 0: our lag behind the member; 1: its lag behind us.
   */
  private readonly completeAt: Float64Array;

  constructor(board: AckBoard, self: number) {
    this.board = board;
    this.self = self;
    this.completeAt = new Float64Array(board.objects * board.members * 2).fill(-1);
  }

  /** Measures the members in `slots`. `now` is in ms of a monotonic clock. */
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

  /** What we lack of the member's records. */
  private theirs(object: number, origin: number, now: number): Lag {
    const { vector } = this;
    vector.clear();
    this.board.readReception(object, origin, vector);
    const records = vector.missing(vector.highest);
    const ms = this.since((object * this.board.members + origin) * 2, records, now);
    return { object, origin, member: this.self, records, ms, through: vector.contiguous };
  }

  /** What the member lacks of our records. */
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
