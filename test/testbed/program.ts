/**
 * A program that the testbed runs. Its output goes to a log file and can be waited for. It dies
 * with this process.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, readFileSync, type WriteStream } from 'node:fs';

/**
 * Characters of a program's output that are kept in memory, for waiting and for error messages. The
 * log file has all of it.
 */
const TAIL_CHARACTERS = 64 * 1024;
const STOP_GRACE_MS = 10_000;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * Ticks per second in which Linux reports processor time (USER_HZ), whatever the kernel's own tick.
 */
const TICKS_PER_S = 100;

export class Program {
  readonly name: string;
  readonly logFile: string;
  readonly exited: Promise<Exit>;
  /** The end of its output, standard output and standard error together. */
  output = '';
  private readonly child: ChildProcess;
  private readonly log: WriteStream;
  private exit: Exit | null = null;
  private readonly waiters = new Set<() => void>();
  private readonly readers = new Set<(text: string) => void>();

  constructor(name: string, argv: readonly string[], logFile: string, env: Readonly<Record<string, string>> = {}) {
    this.name = name;
    this.logFile = logFile;
    this.log = createWriteStream(logFile, { flags: 'a' });
    // The program gets its own process group, so that Ctrl-C at a terminal reaches only this
    // process.
    this.child = spawn(argv[0], argv.slice(1), { stdio: 'pipe', detached: true, env: { ...process.env, ...env } });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output = (this.output + text).slice(-TAIL_CHARACTERS);
        this.log.write(text);
        for (const reader of this.readers) reader(text);
        this.notify();
      });
    }
    this.child.stdin?.on('error', () => {}); // it ended before it read all: `exited` says so
    this.exited = new Promise((resolve) => {
      const ended = (exit: Exit): void => {
        this.exit = exit;
        this.log.end();
        this.notify();
        resolve(exit);
      };
      this.child.on('error', (error) => {
        this.output += `${error.message}\n`;
        ended({ code: 127, signal: null });
      });
      this.child.on('close', (code, signal) => ended({ code, signal }));
    });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} was not started: ${this.output}`);
    return this.child.pid;
  }

  get running(): boolean {
    return this.exit === null;
  }

  /** Calls `reader` with all further output. */
  onOutput(reader: (text: string) => void): void {
    this.readers.add(reader);
  }

  write(text: string): void {
    this.child.stdin?.write(text);
  }

  endInput(): void {
    this.child.stdin?.end();
  }

  /** Waits until the output so far matches. Fails if the program ends first or the time is up. */
  async waitFor(pattern: RegExp, timeoutMs = 30_000): Promise<RegExpMatchArray> {
    return this.until(() => this.output.match(pattern), `to write ${pattern}`, timeoutMs);
  }

  /**
   * Waits until `probe` returns a value. It is called whenever the program has written something.
   */
  async until<T>(probe: () => T | null, what: string, timeoutMs: number): Promise<T> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const found = probe();
      if (found !== null) return found;
      if (this.exit !== null)
        throw new Error(`${this.name} ended (${describe(this.exit)}) instead of ${what}:\n${this.tail()}`);
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`waited ${timeoutMs} ms in vain for ${this.name} ${what}:\n${this.tail()}`);
      await this.change(left);
    }
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (this.exit === null) this.child.kill(signal);
  }

  /** Sends `signal`, and kills the program if it has not ended after `graceMs`. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = STOP_GRACE_MS): Promise<Exit> {
    this.kill(signal);
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }

  /** Processor time used so far by all its threads, in seconds (proc(5), fields 14 and 15). */
  processorSeconds(): number {
    const stat = readFileSync(`/proc/${this.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S;
  }

  /** The last lines of its output. */
  tail(lines = 20): string {
    return this.output.trimEnd().split('\n').slice(-lines).join('\n');
  }

  private notify(): void {
    for (const waiter of this.waiters) waiter();
  }

  private async change(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.waiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.waiters.add(done);
    });
  }
}

export function describe(exit: Exit): string {
  return exit.signal !== null ? `by ${exit.signal}` : `with code ${exit.code}`;
}
