/**
 * Tests the runner with files that pass, fail, die, hang and so on. Each must be counted by name,
 * and the run must end.
 */

import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LIMITS, type TestResult } from './batch.js';
import { Report } from './report.js';
import { batches, Schedule } from './schedule.js';
import { filesOf, isLarge, named, select } from './suites.js';

const LIMITS_SHORT = { ...LIMITS, grace_ms: 500, linger_ms: 500 };

const NO_LANES = { network: [], daemons: [] };

const fixture = (name: string): string => fileURLToPath(new URL(`fixtures/${name}.js`, import.meta.url));

/** Whether a process runs. A killed process is a zombie until its parent reaps it. */
function isAlive(pid: string): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !stat.slice(stat.lastIndexOf(')')).startsWith(') Z');
  } catch {
    return false;
  }
}

interface Ran {
  readonly tests: Record<string, TestResult[]>;
  readonly printed: string;
}

describe('the test runner', function () {
  this.timeout(120_000);

  /** Runs fixtures in one batch, or with `apart` one process per file. */
  async function run(names: readonly string[], apart = false): Promise<Ran> {
    const lines: string[] = [];
    const tests: Record<string, TestResult[]> = {};
    const report = new Report(names.length, (line) => lines.push(line));
    const add = report.add.bind(report);
    report.add = (result) => {
      const name = basename(result.file, '.js');
      tests[name] = [...(tests[name] ?? []), ...result.tests];
      add(result);
    };
    const files = names.map(fixture);
    const selection = apart
      ? { parallel: [], lanes: { network: files, daemons: [] } }
      : { parallel: files, lanes: NO_LANES };
    await new Schedule(report, LIMITS_SHORT).run(selection, 1);
    report.close();
    return { tests, printed: lines.join('\n') };
  }

  const outcomes = (tests: readonly TestResult[]): string[] => tests.map(({ outcome }) => outcome);

  it('counts tests that pass, fail and skip, over all processes, in the last line', async () => {
    const { tests, printed } = await run(['passes', 'fails'], true);
    assert.deepEqual(outcomes(tests['passes']), ['passed', 'skipped']);
    assert.deepEqual(outcomes(tests['fails']), ['passed', 'failed', 'failed']);
    assert.equal(printed.split('\n').at(-1), '2 passed, 2 failed, 1 skipped');
    assert.match(printed, /^\s+a line of output$/m);
    // Each failure with its difference or message, before the last line.
    assert.match(
      printed,
      /\n {2}2 failing\n\n {2}1\) a file that fails\n\s+fails:[\s\S]*\+ {3}found: 1[\s\S]*- {3}found: 2/,
    );
    assert.match(printed, /\n {2}2\) a file that fails[\s\S]*thrown in the hook/);
  });

  it('counts a process that dies as a failure of the test in hand, and runs the files behind it', async () => {
    const { tests, printed } = await run(['dies', 'passes']);
    assert.deepEqual(outcomes(tests['dies']), ['passed', 'failed']);
    assert.equal(tests['dies'][1].title, 'a file that dies kills its process: the process was ended by SIGKILL');
    assert.deepEqual(outcomes(tests['passes']), ['passed', 'skipped']);
    assert.equal(printed.split('\n').at(-1), '2 passed, 1 failed, 1 skipped');
  });

  it('counts a process that exits with code 0 in the middle as failed', async () => {
    const { tests } = await run(['exits']);
    assert.deepEqual(
      tests['exits'].map(({ title }) => title),
      ['a file that exits calls process.exit: the process ended with exit code 0'],
    );
  });

  it('ends a test that blocks its thread, with all that its process started', async () => {
    const { tests, printed } = await run(['hangs', 'passes']);
    assert.deepEqual(outcomes(tests['hangs']), ['failed']);
    assert.match(tests['hangs'][0].title, /blocks its thread: the process hangs: nothing happened within 1 s/);
    assert.deepEqual(outcomes(tests['passes']), ['passed', 'skipped']);
    const pid = /started (\d+)/.exec(printed)?.[1];
    assert.ok(pid !== undefined, printed);
    while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 20));
  });

  it('counts a process that does not end as failed, beside the tests that passed', async () => {
    const { tests } = await run(['lingers']);
    assert.deepEqual(outcomes(tests['lingers']), ['passed', 'failed']);
    assert.match(tests['lingers'][1].title, /did not end within 1 s after its last test/);
  });

  it('counts a promise that is rejected after the last test as failed', async () => {
    const { tests, printed } = await run(['rejects']);
    assert.deepEqual(outcomes(tests['rejects']), ['passed', 'failed']);
    assert.match(printed, /too late/);
  });

  it('counts a file that has no tests, or cannot be loaded, as failed, and runs the others of its batch', async () => {
    const { tests, printed } = await run(['broken', 'empty', 'passes']);
    assert.deepEqual(outcomes(tests['broken']), ['failed']);
    assert.match(printed, /thrown while loading/);
    assert.deepEqual(
      tests['empty'].map(({ title }) => title),
      ['the process found no tests in it'],
    );
    assert.deepEqual(outcomes(tests['passes']), ['passed', 'skipped']);
  });

  it('selects every test file once, and knows every file that it names', () => {
    const tests = fileURLToPath(new URL('..', import.meta.url));
    const all = readdirSync(tests, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.test.js'));
    const { parallel, lanes } = select(filesOf('test'));
    const selected = [...parallel, ...lanes.network, ...lanes.daemons];
    assert.equal(new Set(selected).size, all.length);
    assert.equal(selected.length, all.length);
    assert.deepEqual(
      batches(parallel)
        .flat()
        .sort((a, b) => (a < b ? -1 : 1)),
      [...parallel].sort((a, b) => (a < b ? -1 : 1)),
    );
    assert.deepEqual(
      named().filter((file) => !existsSync(file)),
      [],
    );
  });

  it('repeats at full size, with the long tests, the files that have two sizes', () => {
    const long = filesOf('long').map((file) => basename(file));
    for (const name of ['floods.long.js', 'downloads.test.js', 'sketch.test.js']) assert.ok(long.includes(name), name);
    assert.ok(!long.includes('log.test.js'));
  });

  it('keeps to lanes what builds networks or clusters, and in a process of its own what is slow', () => {
    const { parallel, lanes } = select(filesOf('test'));
    const has = (files: readonly string[], ending: string): boolean => files.some((file) => file.endsWith(ending));
    assert.ok(has(lanes.network, '/e2e/idps.test.js') && has(lanes.network, '/drivers/af-xdp.test.js'));
    assert.ok(has(lanes.daemons, '/membership/join.test.js') && has(lanes.daemons, '/membership/etcd.test.js'));
    assert.ok(has(parallel, '/shm/log.test.js'));
    for (const batch of batches(parallel)) assert.ok(batch.length === 1 || !batch.some(isLarge), batch.join());
  });
});
