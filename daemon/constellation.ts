#!/usr/bin/env node
/**
 * `constellation`: queries or controls a running instance through its admin socket.
 *
 * Exit codes: 0 done; 1 the command failed; 2 wrong usage; 3 and 4 the state of the instance
 * (lifecycle.ts); 69 the instance cannot be reached (EX_UNAVAILABLE); 77 this user has no
 * permission for the socket (EX_NOPERM); 78 the configuration given by -c is wrong (EX_CONFIG).
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { type Format, render } from './admin/answer.js';
import { ask, CommandError, UnreachableError } from './admin/client.js';
import type { Command as AdminCommand } from './admin/command.js';
import { help } from './admin/commands/help.js';
import { COMMANDS } from './admin/commands/index.js';
import { UsageError } from './base/command-errors.js';
import { versionText } from './base/version.js';
import { IMPORT_NFT, runImport } from './import-nft.js';
import { type LifecycleState, STATE_TRAITS, StateExit } from './lifecycle/lifecycle.js';

const Exit = { OK: 0, FAILED: 1, USAGE: 2, UNAVAILABLE: 69, NO_PERMISSION: 77, CONFIG: 78 } as const;

const LISTENING_LOOK_MS = 100;
/** Commands without a timeout: they always end, however long they take. */
const UNLIMITED: ReadonlySet<string> = new Set([
  'drain',
  'join',
  'join alone',
  'reload',
  'reload check',
  'reload rules',
  'save',
]);
const DEFAULT_SOCKET = '/run/constellation/constellation.sock';

interface Options {
  readonly socket?: string;
  readonly config?: string;
  readonly output: Format;
  readonly timeout: number;
  readonly watch?: number | true;
}

/** Ends the program with a message and an exit code. */
class Exited extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

function program(): Command {
  const command = new Command('constellation')
    .description('Queries or controls a running constellationd through its admin socket.')
    .argument('<command...>', 'command and what belongs to it, as listed below')
    .addOption(
      new Option('-s, --socket <path>', `admin socket (default: ${DEFAULT_SOCKET})`).env('CONSTELLATION_SOCKET'),
    )
    .option('-c, --config <file>', 'configuration of the instance, which names its admin socket')
    .addOption(
      new Option('-o, --output <format>', 'json gives one document a line').choices(['text', 'json']).default('text'),
    )
    .option('-w, --watch [seconds]', 'repeat the command every so many seconds (default: 2)', positive)
    .option(
      '-t, --timeout <seconds>',
      'how long the instance may be silent (drain, join, reload, reload rules, save: as long as it takes)',
      positive,
      10,
    )
    .version(versionText())
    .addHelpText('after', helpText())
    .helpCommand(false)
    .exitOverride()
    .action(run);
  return command;
}

function positive(text: string): number {
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= 86_400)) throw new InvalidArgumentError('expected a number of seconds.');
  return seconds;
}

/** The commands of an instance, and the commands that need none. */
const ALL: readonly AdminCommand[] = [...COMMANDS, { ...IMPORT_NFT, run: () => ({ kind: 'lines', lines: [] }) }];

function helpText(): string {
  const forms = ALL.map((command) => `${command.name} ${command.usage}`.trimEnd());
  const width = Math.max(...forms.map((form) => form.length));
  return [
    '',
    'Commands:',
    ...ALL.map((command, i) => `  ${forms[i].padEnd(width)}  ${command.summary}`),
    '',
    'Exit codes:',
    '  0 done, 1 the command failed, 2 wrong usage, 69 no instance can be reached,',
    '  77 no permission to speak to it, 78 the configuration given by -c is wrong;',
    `  status and join: ${StateExit.READY} the instance is ready, ${StateExit.DEGRADED} degraded, ${StateExit.NOT_READY} not ready`,
  ].join('\n');
}

async function run(words: string[], options: Options): Promise<void> {
  if (words[0] === 'help') {
    printHelp(words, options.output);
    return;
  }
  if (words[0] === IMPORT_NFT.name) {
    await importRules(words.slice(1));
    return;
  }
  const path = await socketPath(options);
  const line = [...words, '-o', options.output].join(' ');
  const silence_ms = UNLIMITED.has(words.slice(0, 2).join(' ')) ? undefined : options.timeout * 1000;
  if (words[0] === 'join') await untilListening(path, options.timeout * 1000);
  if (options.watch === undefined) {
    await print(path, line, silence_ms);
    return;
  }
  for (;;) {
    if (process.stdout.isTTY) process.stdout.write('\x1b[2J\x1b[H');
    await print(path, line, silence_ms);
    await sleep((options.watch === true ? 2 : options.watch) * 1000);
  }
}

/** Help needs no instance. */
function printHelp(words: string[], output: Format): void {
  try {
    const answer = help.run({ words: words.slice(1), commands: ALL });
    for (const line of render(answer, output)) console.log(line);
  } catch (error) {
    throw new Exited(Exit.USAGE, (error as Error).message);
  }
}

/** Translates a ruleset of nftables. It needs no instance. */
async function importRules(words: readonly string[]): Promise<void> {
  try {
    const { rules, report, isWhole } = await runImport(words);
    process.stdout.write(rules);
    for (const line of report) console.error(line);
    if (!isWhole) process.exitCode = Exit.FAILED;
  } catch (error) {
    throw new Exited(error instanceof UsageError ? Exit.USAGE : Exit.FAILED, (error as Error).message);
  }
}

async function socketPath(options: Options): Promise<string> {
  if (options.config === undefined) return options.socket ?? DEFAULT_SOCKET;
  // Loaded only when needed, because it loads every middlebox's declaration.
  const { loadConfig } = await import('./config/config.js');
  const { config, errors } = await loadConfig(options.config);
  if (errors !== undefined) throw new Exited(Exit.CONFIG, errors.join('\n'));
  return config.admin.socket;
}

/** Waits up to `wait_ms` for the socket of an instance that has just been started. */
async function untilListening(path: string, wait_ms: number): Promise<void> {
  const deadline = performance.now() + wait_ms;
  for (;;) {
    try {
      for await (const _ of ask(path, 'status', { silence_ms: wait_ms })) break;
      return;
    } catch (error) {
      const code = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code;
      if ((code !== 'ENOENT' && code !== 'ECONNREFUSED') || performance.now() > deadline) return;
      await sleep(LISTENING_LOOK_MS);
    }
  }
}

async function print(path: string, line: string, silence_ms: number | undefined): Promise<void> {
  try {
    const onState = (state: LifecycleState): void => {
      process.exitCode = STATE_TRAITS[state].exitCode;
    };
    for await (const text of ask(path, line, { silence_ms, onState })) {
      if (process.stdout.write(`${text}\n`)) continue;
      await new Promise((resolve) => process.stdout.once('drain', resolve));
    }
  } catch (error) {
    if (error instanceof CommandError) {
      throw new Exited(error.code === 'usage' ? Exit.USAGE : Exit.FAILED, error.message);
    }
    if (error instanceof UnreachableError) throw unreachable(path, error);
    throw error;
  }
}

function unreachable(path: string, error: UnreachableError): Exited {
  const code = (error.cause as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'EACCES' || code === 'EPERM') {
    return new Exited(
      Exit.NO_PERMISSION,
      `${path}: no permission; run this as root or as a member of the socket's group`,
    );
  }
  const why: Readonly<Record<string, string>> = {
    ENOENT:
      'no instance has its admin socket there; is it running (systemctl status constellation)? -s or -c says where',
    ECONNREFUSED: 'no instance is listening; it may have been killed (systemctl status constellation)',
    ENOTSOCK: 'this is no socket; -s or -c says where it is',
  };
  return new Exited(Exit.UNAVAILABLE, `${path}: ${why[code ?? ''] ?? error.message}`);
}

// A reader of our output may stop early (`| head`). That is not an error.
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? Exit.OK : Exit.FAILED),
);

try {
  await program().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has already printed it. Its code for help and --version is 0.
    process.exitCode = error.exitCode === 0 ? Exit.OK : Exit.USAGE;
  } else {
    console.error(`constellation: ${(error as Error).message}`);
    process.exitCode = error instanceof Exited ? error.exitCode : Exit.FAILED;
  }
}
