/**
 * `npm run fuzz:state -- --messages N [--mode M] [--seed S]`: floods the receive thread, tells what
 * came of it.
 */

import { Command, InvalidArgumentError, Option } from 'commander';
import { machineLine } from '../../daemon/lifecycle/machine.js';
import { type FuzzReport, fuzz, MODES, type Mode } from './run.js';

function count(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 on is wanted.');
  return value;
}

function table(counts: Readonly<Record<string, number>>): string {
  const rows = Object.entries(counts).sort(([, a], [, b]) => b - a);
  return rows.map(([name, value]) => `    ${name.padEnd(14)} ${String(value).padStart(10)}`).join('\n');
}

function print(report: FuzzReport): void {
  const { mode, messages, seconds, rssMiB, heapMiB } = report;
  console.log(`${mode}: ${messages} datagrams in ${seconds.toFixed(1)} s`);
  console.log(`  by kind\n${table(report.byKind)}`);
  console.log(`  by outcome\n${table(report.byReason)}`);
  console.log(`  resident ${rssMiB.start} → ${rssMiB.end} MiB, heap and buffers ${heapMiB.start} → ${heapMiB.end} MiB`);
  console.log(`  digests ${report.digests.join(' ')}`);
  if (report.problems.length === 0) console.log('  nothing changed that must not, and the thread goes on');
  for (const problem of report.problems) console.log(`  PROBLEM ${problem}`);
}

const program = new Command('npm run fuzz:state --')
  .description('Sends random, mutated, replayed and forged datagrams to a receive thread that has state.')
  .option('--messages <n>', 'datagrams, in each mode', count, 1_000_000)
  .option('--seed <n>', 'where the sequence starts; the same seed draws the same', count, 1)
  .addOption(
    new Option('--mode <mode>', 'with a key, without, or without and of right checksum')
      .choices([...MODES, 'all'])
      .default('all'),
  )
  .action(async ({ messages, seed, mode }: { messages: number; seed: number; mode: Mode | 'all' }) => {
    console.log(await machineLine());
    for (const each of mode === 'all' ? MODES : [mode]) {
      const started = performance.now();
      const report = await fuzz({
        mode: each,
        messages,
        seed,
        onProgress: (done, rss) => {
          if (!process.stderr.isTTY && done % 1_000_000 !== 0) return;
          const rate = Math.round(done / (performance.now() - started));
          process.stderr.write(`\r${each}: ${done} of ${messages}, ${rate} k/s, ${rss} MiB  `);
          if (!process.stderr.isTTY) process.stderr.write('\n');
        },
      });
      if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
      print(report);
      if (report.problems.length > 0) {
        console.log(`  again: npm run fuzz:state -- --mode ${each} --messages ${messages} --seed ${seed}`);
        process.exitCode = 1;
      }
    }
  });

await program.parseAsync();
