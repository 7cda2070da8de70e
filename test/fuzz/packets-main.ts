/**
 * `npm run fuzz:packets -- --packets N [--chain NAME] [--seed S]`: wrong packets through every
 * middlebox, alone and chained.
 */

import { Command, InvalidArgumentError } from 'commander';
import { machineLine } from '../../daemon/lifecycle/machine.js';
import { fuzzedChains, fuzzPackets } from './packets.js';

function count(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 on is wanted.');
  return value;
}

const program = new Command('npm run fuzz:packets --')
  .description(
    'Sends real packets with any header field changed through every middlebox, in every mode, alone and chained.',
  )
  .option('--packets <n>', 'packets, through each chain', count, 1_000_000)
  .option('--seed <n>', 'where the sequence starts; the same seed draws the same', count, 1)
  .option('--chain <name>', 'only chains whose name begins so')
  .action(async ({ packets, seed, chain: only }: { packets: number; seed: number; chain?: string }) => {
    console.log(await machineLine());
    for (const chain of fuzzedChains().filter(({ name }) => name.startsWith(only ?? ''))) {
      const started = performance.now();
      const report = fuzzPackets(chain, packets, seed);
      const seconds = (performance.now() - started) / 1000;
      const { start, end } = report.heapMiB;
      console.log(
        `${chain.name}: ${report.packets} packets in ${seconds.toFixed(1)} s, ${report.out} out; heap and buffers ${start} → ${end} MiB`,
      );
      const reasons = Object.entries(report.byReason).sort(([, a], [, b]) => b - a);
      for (const [name, value] of reasons.slice(0, 12))
        console.log(`    ${name.padEnd(32)} ${String(value).padStart(9)}`);
      for (const problem of report.problems) console.log(`  PROBLEM ${problem}`);
      if (report.problems.length === 0) continue;
      console.log(`  again: npm run fuzz:packets -- --chain "${chain.name}" --packets ${packets} --seed ${seed}`);
      process.exitCode = 1;
    }
  });

await program.parseAsync();
