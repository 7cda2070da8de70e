/**
 * `npm run nft -- --rulesets N --packets N [--seed S]`: our firewall beside the kernel's nftables.
 */

import { Command, InvalidArgumentError } from 'commander';
import { machineLine } from '../../daemon/lifecycle/machine.js';
import { compare, type Report } from './compare.js';

function count(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 on is wanted.');
  return value;
}

const program = new Command('npm run nft --')
  .description(
    'Sends the same packets through drawn rulesets in the kernel and in our firewall, and compares. Needs root.',
  )
  .option('--rulesets <n>', 'rulesets', count, 10_000)
  .option('--packets <n>', 'packets, altogether', count, 1_000_000)
  .option('--seed <n>', 'of the first ruleset; the next has the next one. Default: by the clock', count)
  .action(async ({ rulesets, packets, seed }: { rulesets: number; packets: number; seed?: number }) => {
    console.log(await machineLine());
    const first = seed ?? Math.floor(Date.now() / 10) % 1_000_000_000;
    console.log(`first seed ${first}`);
    const started = performance.now();
    const size = { rulesets, packets: Math.ceil(packets / rulesets), seed: first };
    const report = compare(size, `ct-nft-${process.pid}`, progress);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(
      `${report.rulesets} rulesets, ${report.rules} rules, ${report.packets} packets in ${seconds} s: ${report.accepted} accepted, ${report.matched} counted by rules`,
    );
    for (const [title, refused] of [
      ['drawn rules that we refuse', report.refused],
      ['drawn rules that nft refuses', report.refusedByNft],
    ] as const) {
      console.log(`${title}:`);
      for (const [why, times] of [...refused].sort(([, a], [, b]) => b - a))
        console.log(`  ${String(times).padStart(6)} ${why}`);
    }
    for (const difference of report.differences) console.log(`DIFFERENCE ${difference}`);
    console.log(`${report.differences.length} differences`);
    if (report.differences.length > 0) process.exitCode = 1;
  });

function progress({ rulesets, packets, differences }: Report): void {
  if (process.stderr.isTTY)
    process.stderr.write(`\r${rulesets} rulesets, ${packets} packets, ${differences.length} differences `);
}

await program.parseAsync();
