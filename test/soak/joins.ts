/**
 * `npm run soak:joins -- --joins N`: N fresh sites join a busy one, one after the other
 * (join-cycles.ts).
 *
 * Exit codes: 0 all became equal to the busy site; 1 one did not; 2 wrong use.
 */

import { Command } from 'commander';
import { joinCycles } from './join-cycles.js';
import { whole } from './whole.js';

await new Command('soak:joins')
  .description('Lets fresh sites join a busy one, and compares the digests of their state.')
  .option('--joins <number>', 'sites that join', whole, 1000)
  .option('--packets <number>', 'packets that the busy site counts in a second', whole, 5000)
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .action(async ({ joins, packets }: { joins: number; packets: number }) => {
    const say = (text: string): void => console.log(`${new Date().toISOString().slice(11, 19)} ${text}`);
    const result = await joinCycles({ joins, packetsPerSecond: packets, say });
    const { pausesUs, refused, mismatches } = result;
    const at = (part: number): string => (pausesUs[Math.floor(part * (pausesUs.length - 1))] / 1000).toFixed(2);
    console.log(`packets paused for a snapshot: median ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`);
    console.log(
      `${result.joins} joins, ${result.packets} packets, ${refused} snapshots asked for again: ${mismatches} mismatches`,
    );
    if (mismatches > 0) process.exitCode = 1;
  })
  .parseAsync();
