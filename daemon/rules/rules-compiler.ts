/**
 * Reads rules and compiles them in a thread of its own (compile-task.ts), one text at a time. Each
 * text has a new thread that ends with it, so a running instance has no additional thread.
 *
 * A compiler belongs to a middlebox, which may be a user's own. It may throw, end its thread, or
 * never return. Each of these is an error that names the text and leaves nothing behind. The
 * exception is a thread that is blocked in a system call, which cannot be ended. Such a thread is
 * given up: nothing waits for it, and its text is not compiled again until the call returns.
 */

import { Piscina } from 'piscina';
import type { RuleEntry } from '../../workers/api/rules.js';
import { failure } from '../../workers/base/failure.js';
import { isUnanswered, settledWithin } from '../base/read-file.js';
import { compiledOrThrow, readRulesInTime } from '../config/rules-text.js';
import type { CompileTask } from './compile-task.js';

/** A thousand times the time for 100 rules, and far more than the largest board needs. */
const COMPILE_MS_MAX = 120_000;
/** Time that a thread may take to end. */
const END_MS_MAX = 2_000;

export interface Compiled {
  readonly words: Int32Array;
  readonly entries: readonly RuleEntry[];
}

export class RulesCompiler {
  private readonly msMax: number;
  private readonly closing = new AbortController();

  constructor(msMax = COMPILE_MS_MAX) {
    this.msMax = msMax;
  }

  /** Throws with all errors in the text, or with the reason why it could not be compiled. */
  async compile(task: CompileTask): Promise<Compiled> {
    const { source, option } = task;
    return compiledOrThrow(source, option, await this.run(task, await this.read(task)));
  }

  /** Ends the compilation in progress, which then rejects. Later ones reject at once. */
  close(): void {
    this.closing.abort(new Error('the instance stops'));
  }

  private read({ source, option }: CompileTask): Promise<string> {
    this.closing.signal.throwIfAborted();
    if (isUnanswered(compilerOf(source.file ?? option)))
      throw new Error(`${compilerOf(source.file ?? option)} still waits in a system call that does not return`);
    return readRulesInTime(source, this.closing.signal);
  }

  private async run(task: CompileTask, text: string) {
    const place = task.source.file ?? task.option;
    // `AbortSignal.any` is not used: if nothing else refers to its sources, its event may never
    // come.
    const ending = new AbortController();
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      ending.abort();
    }, this.msMax);
    const closed = (): void => ending.abort();
    this.closing.signal.addEventListener('abort', closed, { once: true });
    const pool = new Piscina({
      filename: new URL('./compile-task.js', import.meta.url).href,
      minThreads: 1,
      maxThreads: 1,
      atomics: 'disabled',
      recordTiming: false,
    });
    const ends = pool.threads.map((thread) => new Promise((resolve) => void thread.once('exit', resolve)));
    // A thread that dies reports here and through its task. Without a listener, that would end the
    // process.
    pool.on('error', () => {});
    try {
      return await pool.run({ ...task, text }, { signal: ending.signal });
    } catch (error) {
      this.closing.signal.throwIfAborted();
      if (isLate) throw new Error(`${place}: compiling took more than ${this.msMax / 1000} s, and was ended`);
      throw failure(`${place}: compiling failed`, error);
    } finally {
      clearTimeout(timer);
      this.closing.signal.removeEventListener('abort', closed);
      await settledWithin(END_MS_MAX, compilerOf(place), Promise.all([pool.destroy(), ...ends]));
    }
  }
}

/** Name of a compiling thread in messages about threads that do not end. */
function compilerOf(place: string): string {
  return `the compiler of ${place}`;
}
