/**
 * A program run by the testbed: its output goes to a log file and can be waited for; it dies with
 * this process.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, readFileSync, type WriteStream } from 'node:fs';

/**
 * As much of a program's output as is kept in memory, for waiting and for error messages; the log
 * file has it all.
 */
const TAIL_CHARACTERS = 64 * 1024;
const STOP_GRACE_MS = 10_000;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * Linux counts processor time in these (USER_HZ) for every program, whatever the kernel's own tick.
 */
const TICKS_PER_S = 100;

export class Program {
  readonly name: string;
  readonly logFile: string;
  readonly exited: Promise<Exit>;
  /** The end of what it wrote, both outputs. */
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
    // A process group of its own: Ctrl-C at a terminal is for this process to handle, not for all
    // at once.
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

  /** Calls `reader` with all it writes from now on. */
  onOutput(reader: (text: string) => void): void {
    this.readers.add(reader);
  }

  write(text: string): void {
    this.child.stdin?.write(text);
  }

  endInput(): void {
    this.child.stdin?.end();
  }

  /** Waits until what it wrote so far matches. Fails when it ends first or time is up. */
  async waitFor(pattern: RegExp, timeoutMs = 30_000): Promise<RegExpMatchArray> {
    return this.until(() => this.output.match(pattern), `to write ${pattern}`, timeoutMs);
  }

  /** Waits until `probe` returns something, asked whenever the program has written something. */
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

  /** Asks it to end, and ends it when it does not. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = STOP_GRACE_MS): Promise<Exit> {
    this.kill(signal);
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }

  /** Processor time used so far by all of its threads, in seconds (proc(5), fields 14 and 15). */
  processorSeconds(): number {
    const stat = readFileSync(`/proc/${this.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S;
  }

  /** The last lines it wrote. */
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
