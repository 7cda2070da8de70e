/**
 * The reporter of a test process that the runner (main.ts) started. It sends every event to the
 * runner.
 */

import Mocha from 'mocha';
import { failOnUnhandledRejections } from '../reporter.js';
import { type Event, LINGER_MS } from './events.js';

/** A failure as mocha prints it, with message, difference and stack. */
function failureText(test: Mocha.Test, error: Error): string {
  const { Base } = Mocha.reporters;
  const print = Base.consoleLog;
  const lines: string[] = [];
  Base.consoleLog = (format = '', ...values: unknown[]) => {
    let i = 0;
    lines.push(String(format).replace(/%s/g, () => String(values[i++])));
  };
  try {
    test.err = error;
    Base.list([test]);
  } finally {
    Base.consoleLog = print;
  }
  return lines
    .join('\n')
    .replace(/^\s*1\) /, '')
    .trimEnd();
}

export default class ChildReporter extends Mocha.reporters.Base {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    if (process.send === undefined) throw new Error('this reporter is for processes that test/run/main.ts starts');
    failOnUnhandledRejections();
    // The channel must not keep the process alive. Without the runner, nobody waits for the
    // results.
    process.once('disconnect', () => process.exit(1));
    process.channel?.unref();
    const send = (event: Event): void => {
      process.send?.(event);
    };
    const begin = (runnable: Mocha.Runnable): void => {
      send({
        kind: 'begin',
        file: fileOf(runnable),
        title: runnable.fullTitle(),
        timeout_ms: runnable.timeout(),
        cpu_ms: cpuTime(),
      });
    };
    const done = (runnable: Mocha.Runnable) => ({
      file: fileOf(runnable),
      title: runnable.fullTitle(),
      ms: runnable.duration ?? 0,
    });
    runner.on('test', begin);
    runner.on('hook', begin);
    runner.on('pass', (test) => send({ kind: 'passed', ...done(test) }));
    runner.on('pending', (test) => send({ kind: 'skipped', ...done(test) }));
    runner.on('fail', (test, error: Error) => send({ kind: 'failed', ...done(test), text: failureText(test, error) }));
    runner.once('end', () => {
      send({ kind: 'end', cpu_ms: cpuTime() });
      setTimeout(() => send({ kind: 'lingers', resources: process.getActiveResourcesInfo() }), LINGER_MS).unref();
    });
  }
}

function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function fileOf(runnable: Mocha.Runnable): string {
  for (
    let at: { file?: string | undefined; parent?: Mocha.Suite | undefined } | undefined = runnable;
    at;
    at = at.parent
  )
    if (at.file !== undefined) return at.file;
  return '';
}
