/**
 * Compiles rules in a thread of its own (compile-task.ts), one text at a time. The thread is started for each text and ends with
 * it, so an instance that runs has no thread more.
 *
 * A compiler is a middlebox's, and may be a user's: it may throw, end its thread, or never return. Each is an error that names
 * the text, and leaves nothing behind.
 */

import { Piscina } from 'piscina';
import { failure } from '../workers/failure.js';
import type { RuleEntry } from '../workers/rules.js';
import type { CompileTask } from './compile-task.js';
import { compiledOrThrow } from './rules-text.js';

/** A thousand times what 100 rules take, and far beyond what the largest board can hold takes. */
const COMPILE_MS_MAX = 120_000;

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
    return compiledOrThrow(source, option, await this.run(task));
  }

  /** Ends the compilation under way; it rejects. Others reject at once. */
  close(): void {
    this.closing.abort();
  }

  private async run(task: CompileTask) {
    const place = task.source.file ?? task.option;
    const late = AbortSignal.timeout(this.msMax);
    const pool = new Piscina({
      filename: new URL('./compile-task.js', import.meta.url).href,
      minThreads: 1,
      maxThreads: 1,
      atomics: 'disabled',
      recordTiming: false,
    });
    // A thread that dies reports here as well as through its task; without a listener that would end the process.
    pool.on('error', () => {});
    try {
      return await pool.run(task, { signal: AbortSignal.any([late, this.closing.signal]) });
    } catch (error) {
      if (this.closing.signal.aborted) throw new Error(`${place}: the instance stops`);
      if (late.aborted) throw new Error(`${place}: compiling took more than ${this.msMax / 1000} s, and was ended`);
      throw failure(`${place}: compiling failed`, error);
    } finally {
      await pool.destroy();
    }
  }
}
