/**
 * The slot supervisor: runs every thread but the main thread through piscina, one endless task per
 * slot.
 *
 * piscina replaces a worker that died but does not run its task again. A spinning worker receives
 * no messages. So the slot outlives its threads. Once the shared memory that a dead thread left has
 * been recovered, the slot's task runs again after a back-off. A thread that no longer shows a
 * heartbeat is ended and treated the same.
 *
 * | slot event                           | what happens                                                          |
 * | ------------------------------------ | --------------------------------------------------------------------- |
 * | task returned while stopping         | the slot is done                                                      |
 * | task failed or returned, restartable | `recover(slot)`, back-off, task runs again                            |
 * | heartbeat stands still               | the thread is ended: the task fails, as above                         |
 * | started again, not ready in time     | the same                                                              |
 * | task failed, not restartable         | `onFatal`: its state was in its own memory                            |
 * | due to start again, but hindered     | back-off; it starts once nothing hinders it                           |
 */

import type { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { type Control, ThreadState } from '../../shm/control.js';
import { compileAhead } from '../../workers/engine/compile-ahead.js';

export interface Slot {
  /** Index of the thread's line in the control flags and row in the metrics. */
  readonly thread: number;
  readonly name: string;
  /** Argument of the task, structured-cloned. */
  readonly task: unknown;
  /** Whether a replacement can continue from shared memory. */
  readonly restartable: boolean;
}

export interface SupervisorOptions {
  /** Module whose default export runs a slot's task until it is told to stop. */
  readonly file: URL;
  readonly slots: readonly Slot[];
  readonly control: Control;
  /** Recovers what a dead thread left behind. Called before its slot is started again. */
  readonly recover: (slot: Slot) => void;
  readonly onEvent: (level: 'info' | 'warn' | 'error', text: string) => void;
  readonly onFatal: (error: Error) => void;
  /** Why no thread can be started again now; `null`: one can. Called again after each back-off. */
  readonly hindrance?: () => string | null;
  readonly readyTimeoutMs?: number;
  /** Time that a heartbeat may stand still. The supervisor looks four times in that time. */
  readonly stuckMs?: number;
}

/**
 * Time for a thread to load its modules and open its ports. It is long, for slow or busy machines.
 */
const READY_MS_MAX = 120_000;
const BACKOFF_MIN_MS = 50;
const BACKOFF_MAX_MS = 5_000;
/** A slot that ran for this time restarts its back-off at the minimum. */
const STEADY_MS = 30_000;

/** Interval at which `replace` tries to end a thread that has just died or is just starting. */
const END_RETRY_MS = 20;

const AS_ASKED = 'was ended as asked';
const STUCK = 'showed no heartbeat and was ended';
const LATE = 'did not become ready in time and was ended';

interface Running {
  readonly slot: Slot;
  startedAt: number;
  backoffMs: number;
  beat: number;
  beatUnchanged: number;
  /** Why the supervisor ended the thread, if it did. `asked`: that was a request, not a failure. */
  ended: string | null;
  asked: boolean;
  /**
   * The slot is not started again before the gate opens. `onEnded` is called when the thread has
   * ended and its state was recovered.
   */
  gate: Promise<void> | null;
  /** Ends the back-off before a restart; `null`: the slot is not in a back-off. */
  wake: (() => void) | null;
  onEnded: () => void;
  done: Promise<void>;
  /** Whether the slot is done: no thread will run its task again. */
  isOver: boolean;
}

export class ThreadSupervisor {
  private readonly options: SupervisorOptions;
  private readonly pool: Piscina;
  private readonly running: Running[] = [];
  private watch: NodeJS.Timeout | null = null;
  private stopping = false;

  constructor(options: SupervisorOptions) {
    this.options = options;
    const count = options.slots.length;
    compileAhead();
    this.pool = new Piscina({
      filename: options.file.href,
      minThreads: count,
      maxThreads: count,
      concurrentTasksPerWorker: 1,
      idleTimeout: Number.POSITIVE_INFINITY,
      maxQueue: count,
      atomics: 'disabled',
      recordTiming: false,
    });
    // A worker that dies reports here and through its task. Without a listener, that would end the
    // process.
    this.pool.on('error', () => {});
  }

  /**
   * Starts every chosen slot that was not started before. Returns when these are ready. Throws with
   * the first reason if one fails.
   */
  async start(chosen: (slot: Slot) => boolean = () => true): Promise<void> {
    // A module that does not load rejects the first task and hangs the next one. So it is loaded
    // here first.
    await import(this.options.file.href);
    const slots = this.options.slots.filter((slot) => chosen(slot) && !this.running.some((one) => one.slot === slot));
    const firstFailure = new Promise<never>((_, reject) => {
      for (const slot of slots) {
        const running: Running = {
          slot,
          startedAt: 0,
          backoffMs: BACKOFF_MIN_MS,
          beat: 0,
          beatUnchanged: 0,
          ended: null,
          asked: false,
          gate: null,
          wake: null,
          onEnded: () => {},
          done: Promise.resolve(),
          isOver: false,
        };
        this.running.push(running);
        running.done = this.keepRunning(running, reject).finally(() => {
          running.isOver = true;
          running.onEnded();
        });
      }
    });
    await Promise.race([this.allReady(slots), firstFailure]);
    if (this.stopping) throw new Error('stopped while threads were starting');
    const lookMs = (this.options.stuckMs ?? 8_000) / 4;
    this.watch ??= setInterval(() => this.look(), lookMs);
  }

  /**
   * Ends the slot's thread, which is then recovered and started again. A slot in a back-off is
   * started at once. Returns false if the thread is not running, because it is being started.
   */
  async restart(thread: number, reason = AS_ASKED): Promise<boolean> {
    const running = this.running.find(({ slot }) => slot.thread === thread);
    if (running !== undefined && running.wake !== null) {
      running.backoffMs = BACKOFF_MIN_MS;
      running.wake();
      return true;
    }
    return running !== undefined && this.end(running, reason, true);
  }

  /** Ends the slot's thread. Returns false if no thread runs that has reported its worker id. */
  private async end(running: Running, reason: string, asked: boolean): Promise<boolean> {
    const target = this.workerOf(running.slot.thread);
    if (target === undefined) return false;
    running.ended = reason;
    running.asked = asked;
    await target.terminate();
    return true;
  }

  /**
   * Ends threads, calls `between` while none of them runs, and starts them again. Returns when they
   * are ready. If a thread cannot be ended in time, throws without calling `between`.
   */
  async replace(threads: readonly number[], reason: string, between: () => void | Promise<void>): Promise<void> {
    const held = this.running.filter(({ slot }) => threads.includes(slot.thread));
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    try {
      await Promise.all(held.map((running) => this.holdEnded(running, gate, reason)));
      if (this.stopping) throw new Error('stopped meanwhile');
      await between();
    } finally {
      for (const running of held) {
        running.gate = null;
        running.onEnded = () => {};
      }
      open();
    }
    await this.allReady(held.map(({ slot }) => slot));
  }

  /**
   * Ends the slot's thread, and does not let it start again before the gate opens. Returns when it
   * has ended and its state was recovered. A thread that has just died, or that is starting and has
   * not reported its worker id, cannot be ended at once. So this tries until it succeeds.
   */
  private async holdEnded(running: Running, gate: Promise<void>, reason: string): Promise<void> {
    const { name } = running.slot;
    const deadline = performance.now() + this.readyMsMax;
    let hasEnded = false;
    running.gate = gate;
    const ended = new Promise<void>((resolve) => {
      running.onEnded = () => {
        hasEnded = true;
        resolve();
      };
    });
    while (!hasEnded && !this.stopping) {
      if (running.isOver) throw new Error(`thread ${name} has ended for good`);
      if (performance.now() > deadline) throw new Error(`thread ${name} could not be ended in ${this.readyMsMax} ms`);
      await this.end(running, reason, true);
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, END_RETRY_MS))]);
    }
  }

  private workerOf(thread: number): Worker | undefined {
    const { worker } = this.options.control.place(thread);
    return this.pool.threads.find((candidate) => candidate.threadId === worker);
  }

  /**
   * Waits for every slot to end, after the phase was set to STOP. Ends those that do not end within
   * `graceMs`.
   */
  async stop(graceMs = 5_000): Promise<void> {
    this.stopping = true;
    if (this.watch !== null) clearInterval(this.watch);
    for (const { wake } of this.running) wake?.();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(resolve, graceMs, 'late');
    });
    const outcome = await Promise.race([Promise.allSettled(this.running.map((r) => r.done)), late]);
    clearTimeout(timer);
    if (outcome === 'late') {
      const names = this.running
        .filter(({ slot }) => this.options.control.state(slot.thread) !== ThreadState.STOPPED)
        .map(({ slot }) => slot.name);
      this.options.onEvent('warn', `ended without waiting longer: ${names.join(', ')}`);
    }
    await this.pool.destroy();
  }

  /**
   * Returns once the thread may be started again, or the supervisor stops. Logs each hindrance
   * once.
   */
  private async mayStart(running: Running): Promise<void> {
    let said: string | null = null;
    while (!this.stopping) {
      if (running.gate !== null) {
        running.onEnded();
        await running.gate;
      }
      const hindrance = this.options.hindrance?.() ?? null;
      if (hindrance === null) return;
      if (hindrance !== said)
        this.options.onEvent('error', `thread ${running.slot.name} cannot be started again: ${hindrance}`);
      said = hindrance;
      running.backoffMs = BACKOFF_MAX_MS;
      await this.backOff(running);
    }
  }

  private async keepRunning(running: Running, startFailed: (error: Error) => void): Promise<void> {
    const { slot } = running;
    const { control, onEvent, onFatal, recover } = this.options;
    for (let first = true; ; first = false) {
      control.setState(slot.thread, ThreadState.STARTING);
      running.startedAt = performance.now();
      running.beatUnchanged = 0;
      running.ended = null;
      running.asked = false;
      let reason: string;
      let message = '';
      try {
        await this.pool.run(slot.task);
        if (this.stopping) return;
        reason = 'returned although nobody asked it to';
      } catch (error) {
        if (this.stopping) return;
        message = error instanceof Error ? error.message : String(error);
        reason = running.ended ?? `died: ${error instanceof Error ? error.stack : message}`;
      }
      const wasReady = control.state(slot.thread) === ThreadState.READY;
      control.setState(slot.thread, ThreadState.FAILED);
      if (first && !wasReady) {
        startFailed(new Error(`thread ${slot.name} did not start: ${message || reason}`));
        return;
      }
      if (!slot.restartable) {
        onFatal(new Error(`thread ${slot.name} cannot be replaced; it ${reason}`));
        return;
      }
      // A requested replacement does not wait for the back-off of earlier failures.
      if (running.asked || performance.now() - running.startedAt > STEADY_MS) running.backoffMs = BACKOFF_MIN_MS;
      onEvent(
        running.asked ? 'info' : 'error',
        `starting thread ${slot.name} again in ${running.backoffMs} ms; it ${reason}`,
      );
      try {
        // A task that threw leaves its thread alive, with open files and its core pinned.
        await this.workerOf(slot.thread)?.terminate();
        recover(slot);
      } catch (broken) {
        onFatal(new Error(`what thread ${slot.name} left could not be recovered: ${String(broken)}`));
        return;
      }
      if (!running.asked || running.gate === null) control.countRestart(slot.thread);
      await this.backOff(running);
      if (!running.asked) running.backoffMs = Math.min(2 * running.backoffMs, BACKOFF_MAX_MS);
      await this.mayStart(running);
      if (this.stopping) return;
    }
  }

  private async backOff(running: Running): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, running.backoffMs);
      running.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    running.wake = null;
  }

  private async allReady(slots: readonly Slot[]): Promise<void> {
    const deadline = performance.now() + this.readyMsMax;
    const waiting = (): Slot[] => slots.filter((slot) => this.options.control.state(slot.thread) !== ThreadState.READY);
    while (waiting().length > 0 && !this.stopping) {
      if (performance.now() > deadline) {
        const names = waiting().map((slot) => slot.name);
        throw new Error(`not ready in time: ${names.join(', ')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  private get readyMsMax(): number {
    return this.options.readyTimeoutMs ?? READY_MS_MAX;
  }

  private look(): void {
    const { control } = this.options;
    for (const running of this.running) {
      const { slot } = running;
      const state = control.state(slot.thread);
      if (state === ThreadState.STARTING && performance.now() - running.startedAt > this.readyMsMax)
        void this.end(running, LATE, false);
      if (state !== ThreadState.READY) continue;
      const beat = control.heartbeat(slot.thread);
      running.beatUnchanged = beat === running.beat ? running.beatUnchanged + 1 : 0;
      running.beat = beat;
      if (running.beatUnchanged < 4) continue;
      running.beatUnchanged = 0;
      void this.end(running, STUCK, false);
    }
  }
}
