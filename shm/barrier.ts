/**
 * The barrier: all threads stop changing shared state, so that main can copy all of it.
 *
 *     header      asked, arrivals, deserters (own lines)
 *     per thread  away (own line)
 *
 * Main asks in stages, and waits a bounded time in each. Packets stand still only from HOLD to RUN:
 *
 * | stage  | who acts                       | what they do                                                                |
 * | ------ | ------------------------------ | --------------------------------------------------------------------------- |
 * | RUN    |                                | all threads work                                                            |
 * | POST   | the last thread (send)         | comes to its post: from here on it is awake and only waits for the next stage |
 * | HOLD   | the others, as soon as they are between two steps | stand still                                              |
 * | SETTLE | the last thread                | numbers what the others have logged, reports it, and stands still           |
 *
 * **Away.** Between two steps a thread is *away* while it sleeps: a worker in `poll`, the receive
 * thread in its event loop. Main neither wakes it nor waits for it, because it touches nothing
 * before it has read `asked` again.
 *
 *     thread                                main
 *     away := 0 (comes back)                asked := HOLD
 *     reads asked                           reads away
 *
 * Each stores before it reads, with sequentially consistent `Atomics`. So either the thread sees
 * HOLD, marks itself away again and waits, or main sees that it is back, and waits for it.
 *
 * **No thread waits for ever.** If main is stuck and a thread was paused longer than
 * `PAUSE_MS_MAX`, the thread counts itself in `deserters` and continues. It does so before it
 * touches anything. Main compares that count after its copy, so it never takes a torn copy for a
 * whole one. Main gives up if a stage takes too long, and lets all threads continue. That covers a
 * thread that dies on the way. A thread that died while away has touched nothing.
 */

import type { Region } from './region.js';
import { LINE, struct } from './struct.js';

const HEADER = struct({ asked: LINE, arrivals: LINE, deserters: 1, settled: 1 });
const THREAD = struct({ away: LINE });

/**
 * The low bits of `asked`. The bits above them are the number of the meeting, so that a wait never
 * mistakes one meeting for the next.
 */
const Stage = { RUN: 0, POST: 1, PAUSE: 2, SETTLE: 3 } as const;
const STAGE_BITS = 2;
const STAGE_MASK = 3;
/**
 * A paused thread continues after this time. It is far longer than main needs, and far shorter than
 * what makes a thread count as stuck.
 */
const PAUSE_MS_MAX = 2_000;
/**
 * How long main waits for the last thread to come to its post. No other thread is paused meanwhile.
 */
const POST_MS_MAX = 100;
/** How long all others may be paused before the action, in total. */
const GATHER_MS_MAX = 20;

export interface Meeting<T> {
  readonly result: T;
  /** From the first thread asked to pause until all may continue, in microseconds. */
  readonly pauseUs: number;
  /** The parts of `pauseUs`: until all threads stood still, and the action. */
  readonly gatherUs: number;
  readonly actionUs: number;
}

/** Why there was no meeting, or why its result is invalid. A later attempt may succeed. */
export class BarrierError extends Error {}

export class Barrier {
  private readonly words: Int32Array;
  private readonly threads: number;

  static bytes(threads: number): number {
    return HEADER.bytes + threads * THREAD.bytes;
  }

  constructor(region: Region, threads: number) {
    this.words = region.i32(0, Barrier.bytes(threads) >>> 2);
    this.threads = threads;
  }

  // ——— Every thread but the last ———

  /** Whether threads must pause. A worker reads it between two batches. */
  get pausing(): boolean {
    return (Atomics.load(this.words, HEADER.at.asked) & STAGE_MASK) >= Stage.PAUSE;
  }

  /** Between two steps: from here until `enter` this thread touches no shared state. */
  leave(thread: number): void {
    Atomics.store(this.words, this.at(thread), 1);
    if (this.pausing) this.notifyMain();
  }

  /** Comes back to work. First waits while threads must pause. */
  enter(thread: number): void {
    const { words } = this;
    const away = this.at(thread);
    for (;;) {
      Atomics.store(words, away, 0);
      const asked = Atomics.load(words, HEADER.at.asked);
      if ((asked & STAGE_MASK) < Stage.PAUSE) return;
      Atomics.store(words, away, 1);
      this.notifyMain();
      if (this.waitForRun(asked)) continue;
      Atomics.store(words, away, 0);
      return;
    }
  }

  // ——— The last thread ———

  /** Whether the last thread is wanted at its post. */
  get wanted(): boolean {
    return (Atomics.load(this.words, HEADER.at.asked) & STAGE_MASK) !== Stage.RUN;
  }

  /**
   * The last thread calls this between two rounds. It stays at its post until the meeting is over.
   * `settle` numbers all that the others have logged, and returns whether it could number
   * everything.
   */
  attend(settle: () => boolean): void {
    const { words } = this;
    const post = Atomics.load(words, HEADER.at.asked);
    if ((post & STAGE_MASK) === Stage.RUN) return;
    this.notifyMain();
    let asked = post;
    const until = performance.now() + PAUSE_MS_MAX;
    while ((asked & STAGE_MASK) !== Stage.SETTLE) {
      if (asked >>> STAGE_BITS !== post >>> STAGE_BITS || (asked & STAGE_MASK) === Stage.RUN) return;
      if (performance.now() > until) return; // main has not seen it settle, so it takes no copy
      Atomics.wait(words, HEADER.at.asked, asked, PAUSE_MS_MAX);
      asked = Atomics.load(words, HEADER.at.asked);
    }
    Atomics.store(words, HEADER.at.settled, settle() ? asked : -asked);
    this.notifyMain();
    this.waitForRun(asked);
  }

  // ——— Main ———

  /**
   * Runs `action` while no thread changes shared state. `others` pause first, then the last thread
   * settles. `call` wakes the last thread. Blocks main for some 100 ms at most. Throws a
   * `BarrierError` if a thread did not come, or left before the action was over. In the latter case
   * `discard` gets the result.
   */
  meet<T>(
    others: readonly number[],
    names: (thread: number) => string,
    call: () => void,
    action: () => T,
    discard: (result: T) => void,
  ): Meeting<T> {
    const { words } = this;
    const meeting = ((Atomics.load(words, HEADER.at.asked) >>> STAGE_BITS) + 1) & 0xff_ffff;
    const ask = (stage: number): number => {
      const asked = (meeting << STAGE_BITS) | stage;
      Atomics.store(words, HEADER.at.asked, asked);
      Atomics.notify(words, HEADER.at.asked);
      return asked;
    };
    const deserters = Atomics.load(words, HEADER.at.deserters);
    let pausedAt = 0;
    try {
      const posted = Atomics.load(words, HEADER.at.arrivals);
      ask(Stage.POST);
      call();
      this.waitUntil(
        performance.now() + POST_MS_MAX,
        'the send thread did not come',
        () => Atomics.load(words, HEADER.at.arrivals) !== posted,
      );
      pausedAt = performance.now();
      ask(Stage.PAUSE);
      const deadline = pausedAt + GATHER_MS_MAX;
      const working = (): number | undefined => others.find((thread) => Atomics.load(words, this.at(thread)) === 0);
      this.waitUntil(
        deadline,
        () => `thread ${names(working() as number)} did not come to rest`,
        () => working() === undefined,
      );
      const asked = ask(Stage.SETTLE);
      this.waitUntil(
        deadline,
        'the send thread did not settle',
        () => Math.abs(Atomics.load(words, HEADER.at.settled)) === asked,
      );
      if (Atomics.load(words, HEADER.at.settled) < 0)
        throw new BarrierError('the unit log is full: what is in the log rings could not be numbered');
      const gatheredAt = performance.now();
      const result = action();
      const doneAt = performance.now();
      if (Atomics.load(words, HEADER.at.deserters) !== deserters) {
        discard(result);
        throw new BarrierError('a thread went on before the copy was taken');
      }
      ask(Stage.RUN);
      return {
        result,
        pauseUs: (doneAt - pausedAt) * 1000,
        gatherUs: (gatheredAt - pausedAt) * 1000,
        actionUs: (doneAt - gatheredAt) * 1000,
      };
    } finally {
      ask(Stage.RUN);
    }
  }

  private waitUntil(deadline: number, problem: string | (() => string), done: () => boolean): void {
    const { words } = this;
    for (;;) {
      const seen = Atomics.load(words, HEADER.at.arrivals);
      if (done()) return;
      const left = deadline - performance.now();
      if (left <= 0) throw new BarrierError(typeof problem === 'string' ? problem : problem());
      Atomics.wait(words, HEADER.at.arrivals, seen, left);
    }
  }

  private notifyMain(): void {
    Atomics.add(this.words, HEADER.at.arrivals, 1);
    Atomics.notify(this.words, HEADER.at.arrivals);
  }

  /**
   * Waits until the meeting of `asked` is over. Returns false if that took too long: the thread
   * counts itself as a deserter and continues.
   */
  private waitForRun(asked: number): boolean {
    const { words } = this;
    const until = performance.now() + PAUSE_MS_MAX;
    for (;;) {
      const now = Atomics.load(words, HEADER.at.asked);
      if ((now & STAGE_MASK) === Stage.RUN || now >>> STAGE_BITS !== asked >>> STAGE_BITS) return true;
      const left = until - performance.now();
      if (left <= 0) break;
      Atomics.wait(words, HEADER.at.asked, now, left);
    }
    Atomics.add(words, HEADER.at.deserters, 1);
    return false;
  }

  private at(thread: number): number {
    if (thread < 0 || thread >= this.threads) throw new RangeError(`no thread ${thread}`);
    return HEADER.words + thread * THREAD.words + THREAD.at.away;
  }
}
