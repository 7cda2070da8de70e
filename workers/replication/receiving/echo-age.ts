/**
 * Which of our datagrams were sent so long ago that an echo of one measures no round trip. Stamps
 * are microseconds modulo 2³². After a pause of the process, the stamp of a datagram sent 72
 * minutes ago looks like one of some seconds ago.
 *
 *     markedAt − MARK_MS or earlier      markedAt           now
 *     ── old datagrams ──▶│ before        │ latest            │ board.datagram
 */

import type { AckBoard } from '../../../shm/ack-board.js';

/**
 * Time between two marks, in ms. An echo that is not old is of a datagram sent at most twice that
 * long ago.
 */
const MARK_MS = 60_000;

export class EchoAge {
  private readonly board: AckBoard;
  /** Per object: the highest number sent at the last mark, and at the one before. */
  private readonly latest: Float64Array;
  private readonly before: Float64Array;
  /** In ms; NaN: there was no mark yet. */
  private markedAt = Number.NaN;

  constructor(board: AckBoard) {
    this.board = board;
    this.latest = new Float64Array(board.objects);
    this.before = new Float64Array(board.objects);
  }

  /** Sets a mark if one is due. Call it several times a minute. */
  look(now: number): void {
    const passed = now - this.markedAt;
    if (passed < MARK_MS) return;
    const { latest, before, board } = this;
    for (let object = 0; object < latest.length; object++) {
      const sent = board.datagram(object);
      // After a pause, all datagrams may be old.
      before[object] = passed >= 2 * MARK_MS ? sent : latest[object];
      latest[object] = sent;
    }
    this.markedAt = now;
  }

  /** Whether this datagram of ours about `object` was sent at least `MARK_MS` ago. */
  isOld(object: number, datagram: number, now: number): boolean {
    this.look(now);
    return datagram <= this.before[object];
  }
}
