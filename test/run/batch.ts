/**
 * One test process: mocha over a batch of files. However the process ends, every file of the batch
 * has results or is returned as not begun. A process that dies, hangs or does not end counts as a
 * failed test.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type Event, LINGER_MS } from './events.js';

const MOCHA = fileURLToPath(new URL('../../../node_modules/mocha/bin/mocha.js', import.meta.url));
const REPORTER = fileURLToPath(new URL('child-reporter.js', import.meta.url));
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/**
 * Environment variable that marks a test process and its descendants, so that those left behind can
 * be found.
 */
const MARK = 'CONSTELLATION_TEST_PROCESS';
const OUTPUT_CHARACTERS_MAX = 20_000;

export interface Limits {
  /** From the start of the process to its first event. */
  readonly load_ms: number;
  /** Added to mocha's own timeout, because mocha cannot end a test that blocks its thread. */
  readonly grace_ms: number;
  /** For a test without a timeout. */
  readonly unlimited_ms: number;
  /** From the last test to the end of the process. */
  readonly linger_ms: number;
}

export const LIMITS: Limits = {
  load_ms: 120_000,
  grace_ms: 30_000,
  unlimited_ms: 900_000,
  linger_ms: LINGER_MS + 5000,
};

export interface TestResult {
  readonly outcome: 'passed' | 'failed' | 'skipped';
  readonly title: string;
  readonly ms: number;
  /** The printed text of a failure; otherwise empty. */
  readonly text: string;
}

export interface FileResult {
  /** Absolute path of the compiled file. */
  readonly file: string;
  readonly tests: readonly TestResult[];
  readonly ms: number;
  /**
   * CPU time of the test process, without its children. On a busy machine it says more than `ms`.
   */
  readonly cpu_ms: number;
  /** Output while its tests ran. */
  readonly output: string;
}

interface Running {
  readonly tests: TestResult[];
  readonly began: number;
  readonly beganCpu_ms: number;
  output: string;
}

let processes = 0;

export class Batch {
  /** The files whose process ended before they began. */
  readonly notBegun: Promise<readonly string[]>;
  private readonly files: readonly string[];
  private readonly limits: Limits;
  private readonly onFile: (result: FileResult) => void;
  private readonly mark = `${process.pid}-${processes++}`;
  private readonly child: ChildProcess;
  private readonly waiting: Set<string>;
  private current: { readonly file: string; readonly running: Running } | null = null;
  /** Output before the first test. */
  private early = '';
  /** The test or hook that runs now. */
  private inHand = '';
  private failures = 0;
  private cpu_ms = 0;
  private ended = false;
  private resources: readonly string[] = [];
  /** Why the process was killed. */
  private killed: string | null = null;
  private timer: NodeJS.Timeout | null = null;

  /** Starts the process. Calls `onFile` for each file as soon as all its tests are done. */
  constructor(files: readonly string[], onFile: (result: FileResult) => void, limits: Limits = LIMITS, niceness = 0) {
    this.files = files;
    this.onFile = onFile;
    this.limits = limits;
    this.waiting = new Set(files);
    this.child = fork(MOCHA, ['--reporter', REPORTER, ...files], {
      cwd: ROOT,
      env: { ...process.env, [MARK]: this.mark },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // So that Ctrl-C at a terminal reaches only the runner.
      detached: true,
    });
    if (niceness !== 0 && this.child.pid !== undefined) lowerPriority(this.child.pid, niceness);
    for (const stream of [this.child.stdout, this.child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => this.print(text));
    this.child.on('message', (event: Event) => this.take(event));
    this.expect(limits.load_ms, 'did not load its tests');
    this.notBegun = this.finish();
  }

  /** The file that runs now. */
  get file(): string {
    return this.current?.file ?? this.files[0];
  }

  /** The test or hook that runs now. */
  get test(): string {
    return this.inHand;
  }

  /** Ends the process, so that the present file counts as failed. */
  interrupt(): void {
    this.killed ??= 'was interrupted';
    // Mocha ends after the present test, and testbeds are removed at exit.
    this.child.kill('SIGINT');
    this.expect(3000, 'was interrupted');
  }

  private print(text: string): void {
    const target = this.current?.running;
    if (target === undefined) this.early = (this.early + text).slice(-OUTPUT_CHARACTERS_MAX);
    else target.output = (target.output + text).slice(-OUTPUT_CHARACTERS_MAX);
  }

  private expect(ms: number, otherwise: string): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.killed ??= `${otherwise} within ${Math.round(ms / 1000)} s`;
      endMarked(this.mark);
      this.child.kill('SIGKILL');
    }, ms);
  }

  private take(event: Event): void {
    if (event.kind === 'end') {
      this.ended = true;
      this.cpu_ms = event.cpu_ms;
      this.expect(this.limits.linger_ms, 'did not end');
    } else if (event.kind === 'lingers') this.resources = event.resources;
    else {
      // CPU time since the last test, or for loading, counts for the file that begins.
      const isFirst = this.current === null;
      if (event.kind === 'begin' && !isFirst) this.cpu_ms = event.cpu_ms;
      const running = this.enter(event.file);
      if (event.kind === 'begin') {
        this.inHand = event.title;
        const { grace_ms, unlimited_ms } = this.limits;
        this.expect(event.timeout_ms > 0 ? event.timeout_ms + grace_ms : unlimited_ms, 'hangs: nothing happened');
      } else {
        const text = event.kind === 'failed' ? event.text : '';
        if (event.kind === 'failed') this.failures++;
        running.tests.push({ outcome: event.kind, title: event.title, ms: event.ms, text });
      }
    }
  }

  private enter(file: string): Running {
    if (this.current?.file === file) return this.current.running;
    this.leave();
    this.waiting.delete(file);
    const running = { tests: [], began: performance.now(), beganCpu_ms: this.cpu_ms, output: this.early };
    this.early = '';
    this.current = { file, running };
    return running;
  }

  /** Reports the present file as done. */
  private leave(): void {
    if (this.current === null) return;
    const { file, running } = this.current;
    this.current = null;
    const { tests, began, beganCpu_ms, output } = running;
    this.onFile({ file, tests, ms: performance.now() - began, cpu_ms: this.cpu_ms - beganCpu_ms, output });
  }

  private async finish(): Promise<readonly string[]> {
    const { code, signal } = await ended(this.child);
    if (this.timer !== null) clearTimeout(this.timer);
    endMarked(this.mark);
    const how = this.killed ?? (signal !== null ? `was ended by ${signal}` : `ended with exit code ${code}`);
    if (this.ended) this.checkEnd(how, code);
    else if (this.current !== null) this.fail(how);
    else if (this.files.length === 1 || this.killed !== null) {
      // The process ended before its first test, usually because the file cannot be loaded.
      this.enter(this.files[0]);
      this.fail(`${how} before its first test`);
    }
    return [...this.waiting];
  }

  /**
   * Checks the end after all tests: the process must have ended by itself, and every file must have
   * had tests.
   */
  private checkEnd(how: string, code: number | null): void {
    const isRight = this.killed === null && code !== null && (code === 0) === (this.failures === 0);
    if (!isRight) {
      const open = this.resources.length === 0 ? '' : `, and has open: ${[...new Set(this.resources)].join(', ')}`;
      const others = this.files.filter((file) => file !== this.current?.file).map((file) => file.slice(ROOT.length));
      const beside = others.length === 0 ? '' : ` (before, it ran ${others.join(', ')})`;
      if (this.current === null) this.enter(this.files[0]);
      this.fail(`${how} after its last test${open}${beside}`);
    }
    this.leave();
    for (const file of [...this.waiting]) {
      this.enter(file);
      this.fail('found no tests in it');
    }
  }

  /** Counts the end of the process as a failed test of the present file. */
  private fail(how: string): void {
    if (this.current === null) throw new Error('no file is in hand');
    const { file, running } = this.current;
    const title = this.ended || this.inHand === '' ? `the process ${how}` : `${this.inHand}: the process ${how}`;
    const text = `${file.slice(ROOT.length)}: ${title}\n${running.output}`.trimEnd();
    running.tests.push({ outcome: 'failed', title, ms: 0, text });
    this.leave();
  }
}

interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * Waits for the end of a process and for its output. The wait for output is limited, because its
 * children may keep the outputs open.
 */
function ended(child: ChildProcess): Promise<End> {
  return new Promise((resolve) => {
    child.once('error', () => resolve({ code: 127, signal: null }));
    child.once('exit', (code, signal) => {
      const settle = (): void => {
        clearTimeout(timer);
        resolve({ code, signal });
      };
      const timer = setTimeout(settle, 2000);
      child.once('close', settle);
    });
  });
}

/**
 * Lowers the priority of a process and of its session. A process that leads a session has a
 * priority of its own and one of the session (sched(7), autogroup).
 */
function lowerPriority(pid: number, niceness: number): void {
  try {
    setPriority(pid, niceness);
    writeFileSync(`/proc/${pid}/autogroup`, String(niceness));
  } catch {
    // It has ended, or the kernel has no autogroups.
  }
}

/** Ends the processes that a test process left behind. */
function endMarked(mark: string): void {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (Number(pid) === process.pid) continue;
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      if (environment.includes(`${MARK}=${mark}`)) process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has ended, or belongs to another user.
    }
  }
}
