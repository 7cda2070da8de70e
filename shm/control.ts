/**
 * Control flags: how main controls threads that never read messages, and how those threads report
 * their state.
 *
 *     header       phase, doorbell of the send thread (own line)
 *     per thread   state, heartbeat, restarts, core, OS thread id, worker id (own line each)
 *     barrier      see barrier.ts
 *
 * Only main writes `phase`. A thread's line is written by that thread. After the thread has died,
 * and before its replacement starts, main writes it. Any thread may add to the doorbell, a counter;
 * the send thread waits on it.
 */

import { Barrier, BarrierError, type Meeting } from './barrier.js';
import { Region } from './region.js';
import { LINE, struct } from './struct.js';

const HEADER = struct({ phase: LINE, doorbell: LINE });
const THREAD = struct({ state: LINE, heartbeat: 1, restarts: 1, core: 1, tid: 1, worker: 1 });

/**
 * What main asks of all threads. A phase only goes forward.
 *
 * RUN: full operation. DRAIN: traffic that has state continues, and no new state is made. QUIET:
 * the data plane workers end, while replication continues until it has nothing left to send. STOP:
 * all threads end.
 */
export const Phase = { RUN: 0, DRAIN: 1, QUIET: 2, STOP: 3 } as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

/** The state that a thread reports. */
export const ThreadState = { ABSENT: 0, STARTING: 1, READY: 2, STOPPED: 3, FAILED: 4 } as const;
export type ThreadState = (typeof ThreadState)[keyof typeof ThreadState];
export const THREAD_STATE_NAMES = ['absent', 'starting', 'ready', 'stopped', 'failed'] as const;

interface Place {
  readonly core: number;
  readonly tid: number;
  readonly worker: number;
}

export function createControl(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(HEADER.bytes + threads * THREAD.bytes + Barrier.bytes(threads));
}

export class Control {
  readonly threads: number;
  readonly barrier: Barrier;
  private readonly words: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Region(buffer).i32();
    this.threads =
      (buffer.byteLength - HEADER.bytes - Barrier.bytes(0)) / (THREAD.bytes + Barrier.bytes(1) - Barrier.bytes(0));
    this.barrier = new Barrier(new Region(buffer, HEADER.bytes + this.threads * THREAD.bytes), this.threads);
  }

  get phase(): Phase {
    return Atomics.load(this.words, HEADER.at.phase) as Phase;
  }

  /** Main only. Wakes the thread that waits on the doorbell. */
  setPhase(phase: Phase): void {
    Atomics.store(this.words, HEADER.at.phase, phase);
    this.ring();
  }

  /** Wakes the send thread: there are records, or an acknowledgement to send. */
  ring(): void {
    Atomics.add(this.words, HEADER.at.doorbell, 1);
    Atomics.notify(this.words, HEADER.at.doorbell);
  }

  get bell(): number {
    return Atomics.load(this.words, HEADER.at.doorbell);
  }

  /**
   * Waits, without blocking the event loop, until the doorbell has rung since `seen` was read, or
   * the timeout has passed.
   */
  async waitBell(seen: number, timeoutMs: number): Promise<void> {
    const wait = Atomics.waitAsync(this.words, HEADER.at.doorbell, seen, timeoutMs);
    if (wait.async) await wait.value;
  }

  state(thread: number): ThreadState {
    return Atomics.load(this.words, this.at(thread) + THREAD.at.state) as ThreadState;
  }

  setState(thread: number, state: ThreadState): void {
    Atomics.store(this.words, this.at(thread) + THREAD.at.state, state);
  }

  /**
   * Shows that a thread is alive. Each thread calls this once a round. The store is plain, because
   * the reader only checks whether the value changes.
   */
  beat(thread: number): void {
    const at = this.at(thread) + THREAD.at.heartbeat;
    this.words[at] = (this.words[at] + 1) | 0;
  }

  heartbeat(thread: number): number {
    return this.words[this.at(thread) + THREAD.at.heartbeat];
  }

  restarts(thread: number): number {
    return this.words[this.at(thread) + THREAD.at.restarts];
  }

  countRestart(thread: number): void {
    this.words[this.at(thread) + THREAD.at.restarts]++;
  }

  /**
   * The core that a thread is pinned to, or -1; its OS thread id; its `worker_threads` id. For
   * `show threads`.
   */
  place(thread: number): Place {
    const at = this.at(thread);
    return {
      core: this.words[at + THREAD.at.core],
      tid: this.words[at + THREAD.at.tid],
      worker: this.words[at + THREAD.at.worker],
    };
  }

  setPlace(thread: number, place: Place): void {
    const at = this.at(thread);
    this.words[at + THREAD.at.core] = place.core;
    this.words[at + THREAD.at.tid] = place.tid;
    this.words[at + THREAD.at.worker] = place.worker;
  }

  /**
   * Main only: runs `action` while the threads stand at the barrier. `last` is the send thread.
   * Throws a `BarrierError` if a thread is not ready or does not come. If `action` ran anyway,
   * `discard` gets its result.
   */
  meet<T>(last: number, name: (thread: number) => string, action: () => T, discard: (result: T) => void): Meeting<T> {
    const others: number[] = [];
    for (let thread = 0; thread < this.threads; thread++) {
      const state = this.state(thread);
      // A failed thread may have left locks until it is recovered, and its replacement may start at
      // any time.
      if (state !== ThreadState.READY && (state !== ThreadState.STOPPED || thread === last))
        throw new BarrierError(`thread ${name(thread)} is ${THREAD_STATE_NAMES[state]}`);
      if (state === ThreadState.READY && thread !== last) others.push(thread);
    }
    return this.barrier.meet(others, name, () => this.ring(), action, discard);
  }

  private at(thread: number): number {
    if (thread < 0 || thread >= this.threads) throw new RangeError(`no thread ${thread}`);
    return HEADER.words + thread * THREAD.words;
  }
}
