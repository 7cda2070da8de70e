/**
 * `npm run soak:kills -- --cycles N --minutes M`: kills sites under load until one of both is
 * reached, or a download hangs.
 *
 * Exit codes: 0 no download hung (with `--holds`: none failed); 1 one did; 2 wrong use.
 */

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { killCycles } from './kill-cycles.js';
import { whole } from './whole.js';

interface Options {
  readonly cycles: number;
  readonly minutes: number;
  readonly seed: number;
  readonly downloads: number;
  readonly holds?: boolean;
  readonly keep: string;
}

await new Command('soak:kills')
  .description('Kills one of three sites again and again while downloads of 5 to 60 s go on. Needs root.')
  .option('--cycles <number>', 'kills at most', whole, 300)
  .option('--minutes <number>', 'begins no cycle later than after so many minutes', whole, 60)
  .option('--seed <number>', 'of which site is killed, and when', whole, 1)
  .option('--downloads <number>', 'downloads under way at any time', whole, 80)
  .option('--holds', 'the first packet of a flow waits until all sites know of it, so no download may fail')
  .option('--keep <folder>', 'where captures and logs go if a download hangs', join(tmpdir(), 'constellation-soak'))
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .action(async ({ holds = false, ...options }: Options) => {
    const say = (text: string): void => console.log(`${new Date().toISOString().slice(11, 19)} ${text}`);
    const { cycles, downloads, hung, broken } = await killCycles({ ...options, holds, say });
    console.log(`${cycles} cycles, ${downloads} downloads: ${hung.length} hung, ${broken.length} were reset`);
    if (hung.length > 0 || (holds && broken.length > 0)) process.exitCode = 1;
  })
  .parseAsync();
