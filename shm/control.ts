/**
 * Control flags: how the main thread speaks to threads that never look at messages, and how they
 * answer.
 *
 *     header       phase, doorbell of the send thread (own line)
 *     per thread   state, heartbeat, restarts, core, OS thread id, worker id (own line each)
 *     barrier      see barrier.ts
 *
 * `phase` is written by main alone. A thread's line is written by that thread; after it has died,
 * and before its replacement starts, by main. The doorbell is a counter anyone adds to; the send
 * thread waits on it.
 */

import { Barrier, BarrierError, type Meeting } from './barrier.js';
import { Region } from './region.js';
import { LINE, struct } from './struct.js';

const HEADER = struct({ phase: LINE, doorbell: LINE });
const THREAD = struct({ state: LINE, heartbeat: 1, restarts: 1, core: 1, tid: 1, worker: 1 });

/**
 * What main asks of all threads; a phase only goes forward.
 *
 * RUN: everything. DRAIN: traffic that has state goes on, new state is not made. QUIET: the data
 * plane workers end, while replication goes on until it has nothing left to say. STOP: all threads
 * end.
 */
export const Phase = { RUN: 0, DRAIN: 1, QUIET: 2, STOP: 3 } as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

/** What a thread says of itself. */
export const ThreadState = { ABSENT: 0, STARTING: 1, READY: 2, STOPPED: 3, FAILED: 4 } as const;
export type ThreadState = (typeof ThreadState)[keyof typeof ThreadState];
export const THREAD_STATE_NAMES = ['absent', 'starting', 'ready', 'stopped', 'failed'] as const;

export interface Place {
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

  /** Main only. Wakes whoever waits on the doorbell. */
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
   * Waits, without blocking the event loop, until the bell has rung since `seen` was read, or the
   * time is up.
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
   * A thread shows that it is alive; once a round, plain: the reader only asks whether it changes.
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
   * The core a thread is pinned to, or -1; its OS thread id; its `worker_threads` id. Shown by
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
   * Main only: runs `action` while the threads stand at the barrier, `last` the send thread. Throws
   * a `BarrierError` where one is not there or does not come; what `action` returned, if it ran, is
   * then given to `discard`.
   */
  meet<T>(last: number, name: (thread: number) => string, action: () => T, discard: (result: T) => void): Meeting<T> {
    const others: number[] = [];
    for (let thread = 0; thread < this.threads; thread++) {
      const state = this.state(thread);
      // One that failed may have left locks, until it is recovered, and starts again in the midst
      // of things.
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
