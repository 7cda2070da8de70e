/**
 * Runs tests in processes: `node dist/test/run/main.js [--jobs N] SUITE|FILE…`
 *
 * The suites are `test` (all but the long ones), `quick`, `long` and `portable` (suites.ts). Files
 * are compiled files. The last line is `N passed, N failed[, N skipped]`. The exit code is 0 if at
 * least one test passed and none failed.
 */

import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { FULL_SIZE } from '../support/scale.js';
import { Report } from './report.js';
import { Schedule } from './schedule.js';
import { filesOf, SUITES, type Suite, select } from './suites.js';

const program = new Command('node dist/test/run/main.js')
  .argument('[what...]', `suites (${SUITES.join(', ')}) or compiled test files`, ['test'])
  .option('-j, --jobs <n>', 'processes at the same time; by default one for each core', Number, availableParallelism())
  .parse();
const { jobs } = program.opts<{ jobs: number }>();
if (!Number.isInteger(jobs) || jobs < 1) program.error(`--jobs: at least 1 process is needed, not ${jobs}`);

const isSuite = (name: string): name is Suite => (SUITES as readonly string[]).includes(name);

/** Returns the files to run. The size of their tests is in the environment of all processes. */
function choose(words: readonly string[]): string[] {
  if (words.includes('long')) {
    if (words.length > 1) program.error('the long tests run by themselves: all tests of a run have one size');
    process.env[FULL_SIZE] = '1';
  }
  return words.flatMap((word) => (isSuite(word) ? filesOf(word) : [resolve(word)]));
}

const selection = select(choose(program.processedArgs[0]));
const report = new Report([selection.parallel, ...Object.values(selection.lanes)].flat().length);
const schedule = new Schedule(report);
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => schedule.interrupt());
if (process.env[FULL_SIZE] === undefined) await schedule.run(selection, jobs);
else {
  // Floods and soaks of real networks have the machine to themselves.
  await schedule.run({ ...selection, parallel: [] }, 1);
  await schedule.run({ ...selection, lanes: { network: [], daemons: [] } }, jobs);
}
report.close();
process.exitCode = report.failed === 0 && report.passed > 0 ? 0 : 1;
