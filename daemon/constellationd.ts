#!/usr/bin/env node
/** `constellationd`: runs one instance until it is stopped, or checks a configuration. */

import { Command } from 'commander';
import { exitNow } from '../workers/native/index.js';
import { createLog, type Log } from './base/log.js';
import { unanswered } from './base/read-file.js';
import { versionText } from './base/version.js';
import { checkCommand, EXIT_CONFIG } from './config/check.js';
import { loadConfig } from './config/config.js';
import { generateKey, KeyFileError } from './config/key-file.js';
import { schemaText } from './config/schema.js';
import { settingsText } from './config/settings-page.js';
import { Daemon } from './daemon.js';
import { machineLine } from './lifecycle/machine.js';
import { notifyStopping, startWatchdog } from './lifecycle/notify.js';
import { StoppedError } from './watch/starting-source.js';

/** sysexits.h: the instance could not start, or could not continue. */
const EXIT_SOFTWARE = 70;
const EXIT_USAGE = 2;
/** No key file was written. */
const EXIT_FAILED = 1;

interface Options {
  readonly config: string;
  readonly check?: boolean;
  readonly schema?: boolean;
  readonly settings?: boolean;
  readonly generateKey?: string;
}

const program = new Command('constellationd')
  .description('One instance of a Constellation cluster: middleboxes whose state all sites share.')
  .version(versionText(), '-V, --version')
  .option('-c, --config <file>', 'configuration', '/etc/constellation/constellation.yaml')
  .option(
    '--check',
    'check the file (not whether interfaces, addresses, keys and folders are there), print every error as file:line:col: path: message, and exit',
  )
  .option('--schema', 'print the JSON Schema of the configuration, for editors, and exit')
  .option('--settings', 'print the reference of all settings (Markdown: docs/settings.md), and exit')
  .option('--generate-key <file>', 'make a key file, or put a second key into it for a rotation, and exit')
  .addHelpText(
    'after',
    `
Signals: TERM and INT stop in order: traffic goes to the kernel again, what is logged is sent, then all ends.
         HUP does what \`constellation reload\` does: it reads the configuration, the key file and the rules again, applies
         what can change while the instance runs, and opens the file of records anew.
Exit codes: 0 stopped, or done, as asked · ${EXIT_FAILED} no key was made · ${EXIT_USAGE} wrong usage · ${EXIT_CONFIG} the configuration or the key file is wrong · ${EXIT_SOFTWARE} could not start, or could not go on
A running instance is asked with the command \`constellation\`.`,
  )
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : EXIT_USAGE))
  .action(main);

async function main(options: Options): Promise<void> {
  if (options.schema) {
    process.stdout.write(await schemaText());
    return;
  }
  if (options.settings) {
    process.stdout.write(await settingsText());
    return;
  }
  if (options.generateKey !== undefined) {
    try {
      console.log(generateKey(options.generateKey));
    } catch (error) {
      console.error((error as Error).message);
      process.exitCode = EXIT_FAILED;
    }
    return;
  }
  if (options.check) {
    process.exitCode = await checkCommand(options.config);
    return;
  }
  const { config, errors } = await loadConfig(options.config);
  if (config === undefined) {
    for (const error of errors) console.error(error);
    process.exitCode = EXIT_CONFIG;
    return;
  }
  await serve(config);
}

async function serve(config: Parameters<typeof Daemon.start>[0]): Promise<void> {
  const log = createLog(config.log.level);
  log.info(`constellationd ${versionText()} on ${await machineLine()}`);
  const waiting = new AbortController();
  const started = Daemon.start(config, log, waiting.signal);
  const stop = (signal: NodeJS.Signals): void => {
    log.info(`${signal}: stopping`);
    waiting.abort(new Error('stopped while waiting for a place in the cluster'));
    started.then((daemon) => daemon.stop()).catch(() => {}); // a failed start is reported below
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
  process.on('SIGHUP', () => {
    started.then((daemon) => daemon.hangUp()).catch((error: Error) => log.error(`SIGHUP: ${error.message}`));
  });
  let daemon: Daemon;
  try {
    daemon = await started;
  } catch (error) {
    if (waiting.signal.aborted || error instanceof StoppedError) {
      log.info('stopped before it had started');
      return leave(log);
    }
    log.error(error instanceof Error ? error.message : String(error));
    process.exitCode = error instanceof KeyFileError ? EXIT_CONFIG : EXIT_SOFTWARE;
    return leave(log);
  }
  log.info(`${config.cluster.self.name} of cluster ${config.cluster.id} runs; admin socket ${config.admin.socket}`);
  const watchdog = startWatchdog(() => daemon.isAlive());
  const error = await daemon.stopped;
  watchdog.stop();
  notifyStopping();
  log.info('stopped');
  if (error !== null) process.exitCode = EXIT_SOFTWARE;
  leave(log);
}

/**
 * Lets the process end by itself. If a thread is blocked in a system call, ends the process now,
 * because the runtime would wait for that thread.
 */
function leave(log: Log): void {
  const left = unanswered();
  if (left.length === 0) return;
  log.warn(`the process ends although this does not answer: ${left.join(', ')}`);
  exitNow(Number(process.exitCode ?? 0));
}

await program.parseAsync();
