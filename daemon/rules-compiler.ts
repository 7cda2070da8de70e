/**
 * Reads rules, and compiles them in a thread of its own (compile-task.ts), one text at a time. The
 * thread is started for each text and ends with it, so an instance that runs has no thread more.
 *
 * A compiler is a middlebox's, and may be a user's: it may throw, end its thread, or never return.
 * Each is an error that names the text, and leaves nothing behind. Only a thread that waits in a
 * system call cannot be ended. It is given up: nothing waits for it, and that text is not compiled
 * again until the call returns.
 */

import { Piscina } from 'piscina';
import { failure } from '../workers/failure.js';
import type { RuleEntry } from '../workers/rules.js';
import type { CompileTask } from './compile-task.js';
import { isUnanswered, settledWithin } from './read-file.js';
import { compiledOrThrow, readRulesInTime } from './rules-text.js';

/** A thousand times what 100 rules take, and far beyond what the largest board can hold takes. */
const COMPILE_MS_MAX = 120_000;
/** How long a thread may take to end. */
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

  /** Throws with all that is wrong with the text, or with why it could not be compiled. */
  async compile(task: CompileTask): Promise<Compiled> {
    const { source, option } = task;
    return compiledOrThrow(source, option, await this.run(task, await this.read(task)));
  }

  /** Ends the compilation under way; it rejects. Others reject at once. */
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
    // Not `AbortSignal.any`: of signals that nothing else refers to, it may never come.
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
    // A thread that dies reports here as well as through its task; without a listener that would
    // end the process.
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

/** What the thread that compiles a text is called where it does not end. */
function compilerOf(place: string): string {
  return `the compiler of ${place}`;
}
