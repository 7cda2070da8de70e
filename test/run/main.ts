/**
 * Runs tests in processes: `node dist/test/run/main.js [--jobs N] SUITE|FILE…`
 *
 * The suites are `test` (all but the long ones), `quick`, `long` and `portable` (suites.ts). Files
 * are compiled ones. The last line is `N passed, N failed[, N skipped]`; the exit code is 0 if at
 * least one test passed and none failed.
 */

import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Command } from 'commander';
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
const selection = select(
  (program.processedArgs[0] as string[]).flatMap((name) => (isSuite(name) ? filesOf(name) : [resolve(name)])),
);
const report = new Report(selection.parallel.length + selection.serial.length);
const schedule = new Schedule(report);
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => schedule.interrupt());
await schedule.run(selection, jobs);
report.close();
process.exitCode = report.failed === 0 && report.passed > 0 ? 0 : 1;
