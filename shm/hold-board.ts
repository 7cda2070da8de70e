/**
 * The hold board: how much of each worker's log the other members have. A worker reads it before it
 * releases a packet that waits for them.
 *
 *     header       asked                                 1 once a worker holds packets; written by the workers, never reset
 *     per worker   logged                                position that its log ring (shm/log.ts) had at least reached when it
 *                                                        last held an entry; written by the worker
 *                  one word per k = 1 … members − 1      position up to which k members, the same k, have acknowledged
 *                                                        every record; written by the send thread
 *
 * Positions are word counts modulo 2^32, as in the ring. What was published stays true. It is
 * partly taken back only if a member that had more is no longer heard. If a worker has logged more
 * than 2^31 words since a position was published, that position would look as if it were ahead. So
 * a reader believes only positions that are not past `logged`.
 */

import { Region } from './region.js';
import { BYTES_PER_LINE, LINE, roundUp, struct } from './struct.js';

const HEADER = struct({ asked: LINE, workers: 1, members: 1 });

const LOGGED = 0;

function lineBytes(members: number): number {
  return roundUp(members * 4, BYTES_PER_LINE);
}

/** Memory for a board. `members`: slots of the cluster, including our own. Main calls it once. */
export function createHoldBoard(workers: number, members: number): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(HEADER.bytes + workers * lineBytes(members));
  const header = new Region(buffer).i32(0, HEADER.words);
  header[HEADER.at.workers] = workers;
  header[HEADER.at.members] = members;
  return buffer;
}

export class HoldBoard {
  readonly workers: number;
  /** The largest number of members that a packet can wait for: all but us. */
  readonly others: number;
  private readonly header: Int32Array;
  private readonly positions: Int32Array;
  private readonly wordsPerWorker: number;

  constructor(buffer: SharedArrayBuffer) {
    const region = new Region(buffer);
    this.header = region.i32(0, HEADER.words);
    this.workers = this.header[HEADER.at.workers];
    const members = this.header[HEADER.at.members];
    this.others = members - 1;
    this.wordsPerWorker = lineBytes(members) / 4;
    this.positions = region.i32(HEADER.bytes, this.workers * this.wordsPerWorker);
  }

  /**
   * A worker calls this when it is about to hold packets. It does so before their records are
   * published, so that a send thread that sees the records also sees this.
   */
  ask(): void {
    Atomics.store(this.header, HEADER.at.asked, 1);
  }

  /** Whether positions are wanted. Read it after taking the records; see `ask`. */
  get isAsked(): boolean {
    return Atomics.load(this.header, HEADER.at.asked) !== 0;
  }

  /** The worker reports that its log has reached this position. */
  setLogged(worker: number, position: number): void {
    Atomics.store(this.positions, worker * this.wordsPerWorker + LOGGED, position);
  }

  /**
   * A position that the worker's log has reached. It is at least the end of the record of any entry
   * that the worker holds, or just before that.
   */
  logged(worker: number): number {
    return Atomics.load(this.positions, worker * this.wordsPerWorker + LOGGED);
  }

  /** Position of the worker's log up to which `count` members have every record. */
  position(worker: number, count: number): number {
    return Atomics.load(this.positions, worker * this.wordsPerWorker + count);
  }

  /** Only the send thread calls this. */
  publish(worker: number, count: number, position: number): void {
    const at = worker * this.wordsPerWorker + count;
    if (this.positions[at] !== position) Atomics.store(this.positions, at, position);
  }
}
