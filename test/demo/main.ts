/**
 * `npm run demo`: two sites joined by an emulated WAN, and a client that downloads through both.
 *
 * As root, it runs on real packets (live.ts). If that is not possible, it says why and shows the
 * same with capture files and loopback (files.ts).
 */

import { Command, InvalidArgumentError, Option } from 'commander';
import { REMEDIES, type Remedy } from '../testbed/first-packets/networks.js';
import { runFiles } from './files.js';
import { runLive } from './live.js';
import { type DemoOptions, type Outcome, Unavailable } from './outcome.js';

interface Options {
  readonly once?: boolean;
  readonly wan: number;
  readonly replies: Remedy;
  readonly packets: 'auto' | 'live' | 'files';
}

const EXIT_FAILED = 1;

const program = new Command('demo')
  .usage('[-- options]')
  .description('Two sites joined by an emulated WAN: requests leave through one, replies return through the other.')
  .option('--once', 'end by itself, with exit code 0 if all went well and 1 if not; else Ctrl-C ends it')
  .option('--wan <ms>', 'delay between the sites, each way', milliseconds, 50)
  .addOption(
    new Option(
      '--replies <remedy>',
      'that are faster than the state they need: early: they wait; held: requests waited (hold_members); off: they are dropped',
    )
      .choices(REMEDIES)
      .default('early'),
  )
  .addOption(
    new Option(
      '--packets <where>',
      'live: network namespaces and AF_XDP, which need root; files: capture files and loopback; auto: live where possible',
    )
      .choices(['auto', 'live', 'files'])
      .default('auto'),
  )
  .action(main);

function milliseconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 1000)) throw new InvalidArgumentError('expected 0 to 1000 milliseconds.');
  return value;
}

async function main({ once = false, wan, packets, replies }: Options): Promise<void> {
  const interrupted = new AbortController();
  let signals = 0;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      // A second signal ends the process at once. The testbed is removed at exit in any case.
      if (++signals > 1) process.exit(EXIT_FAILED);
      console.log('\nending …');
      interrupted.abort();
    });
  const outcome = await run({ once, wan_ms: wan, remedy: replies }, packets, interrupted.signal);
  console.log(`\n${outcome.lines.join('\n')}`);
  for (const problem of outcome.problems) console.error(`NOT AS IT SHOULD BE: ${problem}`);
  process.exitCode = outcome.problems.length === 0 ? 0 : EXIT_FAILED;
}

async function run(options: DemoOptions, packets: Options['packets'], interrupted: AbortSignal): Promise<Outcome> {
  if (packets === 'files') return runFiles(options, interrupted);
  try {
    return await runLive(options, interrupted);
  } catch (error) {
    if (!(error instanceof Unavailable) || packets === 'live' || interrupted.aborted) throw error;
    console.log(`${error.message}\n`);
    console.log('So this is the same without privileges, over capture files and loopback.');
    return runFiles(options, interrupted);
  }
}

try {
  await program.parseAsync();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = EXIT_FAILED;
}
