/**
 * How many members have which part of the workers' logs: the send thread's side of held packets
 * (shm/hold-board.ts).
 *
 *     cut ─ note ─▶ marks, oldest first ─ publish ─▶ hold board
 *                          ▲ what each member has of ours (send-channel.ts)
 *
 * A *mark* says that the records before these positions of the log rings have the sequence numbers
 * up to these, one for each object. Both only grow. So a member that has everything of a mark has
 * everything of the marks before it. Hence any mark can be left out: the next one says the same,
 * later. If there are too many, every second mark is deleted. So the memory is bounded whichever
 * members are silent, and the latest marks are the closest together.
 *
 * A member counts while it is heard and takes part. What it has beyond a gap does not count until
 * the gap is closed.
 */

import { HoldBoard } from '../../../shm/hold-board.js';

export const MARKS_MAX = 256;

/** What a mark is compared with. */
interface Acknowledged {
  /** Whether the member counts. */
  isLive(member: number): boolean;
  /** The number through which the member has every unit of ours for the object. */
  through(object: number, member: number): number;
}

export class HoldMarks {
  /** The number of marks. */
  count = 0;
  private readonly board: HoldBoard;
  private readonly objects: number;
  private readonly slots: number;
  private readonly acknowledged: Acknowledged;
  /** Per mark: a position for each ring, and a number for each object. */
  private readonly positions: Int32Array;
  private readonly numbers: Float64Array;
  /** How many of the marks each live member has, in descending order. */
  private readonly reach: Int32Array;

  constructor(board: SharedArrayBuffer, objects: number, slots: number, acknowledged: Acknowledged) {
    this.board = new HoldBoard(board);
    this.objects = objects;
    this.slots = slots;
    this.acknowledged = acknowledged;
    this.positions = new Int32Array(MARKS_MAX * this.board.workers);
    this.numbers = new Float64Array(MARKS_MAX * objects);
    this.reach = new Int32Array(slots);
  }

  /** Whether some worker has asked for marks. */
  get isAsked(): boolean {
    return this.board.isAsked;
  }

  /**
   * Adds a mark: everything before `positions` of the rings is numbered, and `numbers` are the last
   * numbers of each object.
   */
  note(positions: Int32Array, numbers: Float64Array): void {
    if (this.count === MARKS_MAX) this.thin();
    const { count, board, objects } = this;
    for (let worker = 0; worker < board.workers; worker++)
      this.positions[count * board.workers + worker] = positions[worker];
    for (let object = 0; object < objects; object++) this.numbers[count * objects + object] = numbers[object];
    this.count++;
  }

  /** Publishes what the members have by now, and deletes the marks that all live members have. */
  publish(): void {
    if (this.count === 0) return;
    const { board, reach } = this;
    const live = this.readReaches();
    for (let k = 1; k <= live; k++) {
      const mark = reach[k - 1] - 1;
      if (mark < 0) break;
      for (let worker = 0; worker < board.workers; worker++)
        board.publish(worker, k, this.positions[mark * board.workers + worker]);
    }
    if (live > 0) this.forget(reach[live - 1]);
  }

  /** Fills in `reach`. Returns the number of live members. */
  private readReaches(): number {
    const { reach, slots } = this;
    let live = 0;
    for (let member = 0; member < slots; member++) {
      if (!this.acknowledged.isLive(member)) continue;
      const marks = this.marksOf(member);
      let at = live++;
      for (; at > 0 && reach[at - 1] < marks; at--) reach[at] = reach[at - 1];
      reach[at] = marks;
    }
    return live;
  }

  /** How many marks the member has, counted from the oldest. */
  private marksOf(member: number): number {
    let least = this.count;
    for (let object = 0; object < this.objects && least > 0; object++) {
      const through = this.acknowledged.through(object, member);
      let low = 0;
      while (low < least) {
        const middle = (low + least) >>> 1;
        if (this.numbers[middle * this.objects + object] <= through) low = middle + 1;
        else least = middle;
      }
    }
    return least;
  }

  /** Deletes the first mark, the third, and so on. The latest stays. */
  private thin(): void {
    const kept = this.count >>> 1;
    for (let mark = 0; mark < kept; mark++) this.move(2 * mark + 1, mark);
    this.count = kept;
  }

  private forget(marks: number): void {
    if (marks === 0) return;
    for (let mark = marks; mark < this.count; mark++) this.move(mark, mark - marks);
    this.count -= marks;
  }

  private move(from: number, to: number): void {
    const { positions, numbers, objects } = this;
    const { workers } = this.board;
    for (let i = 0; i < workers; i++) positions[to * workers + i] = positions[from * workers + i];
    for (let i = 0; i < objects; i++) numbers[to * objects + i] = numbers[from * objects + i];
  }
}
