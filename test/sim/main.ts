/**
 * `npm run sim -- --seeds N [--from S] [--members M] [--profile P]`: simulates runs of a cluster,
 * each drawn from a seed, and reports the runs that broke an invariant. `--fresh` draws the first
 * seed and prints it. `--replay FILE` repeats a saved run. Messages and identifiers call a run a
 * *life*.
 *
 * Exit codes: 0 all invariants held; 1 a run broke one, or too many runs needed a remedy; 2 wrong
 * use.
 */

import { randomInt } from 'node:crypto';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { drawPlan } from './draw.js';
import { describeStep, type Plan, readPlan, writePlan } from './plan.js';
import { liveAll } from './pool.js';
import { PROFILES } from './profiles.js';
import { shrink } from './shrink.js';
import { Tally } from './tally.js';
import { type Outcome, World } from './world.js';

interface Options {
  readonly seeds: number;
  readonly from: number;
  readonly fresh?: boolean;
  readonly remedied: number;
  readonly jobs: number;
  readonly members?: number;
  readonly profile?: string;
  readonly replay?: string;
  readonly save?: string;
  readonly failures: number;
  readonly shrinkSeconds: number;
  readonly quiet?: boolean;
}

/**
 * Percentage of runs that may need a remedy. A run needs one if units of an ended incarnation were
 * lost with all members that kept them. What an object cannot merge from snapshots then differs
 * until members restart.
 */
const REMEDIED_PERCENT_MAX = 4;
const TRACE_STEPS = 40;
const PROGRESS_MS = 5000;
const SEED_MAX = 2 ** 31;
/** This many runs of all profiles reach every counter that can be reached. */
const ALL_REACHED_LIVES = 3000;
/** This many remedied runs are always allowed: in few runs, a percentage means little. */
const REMEDIED_MIN = 3;

function whole(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`a whole number from ${least} to ${most} is wanted.`);
    return value;
  };
}

function profileName(text: string): string {
  if (PROFILES[text] === undefined)
    throw new InvalidArgumentError(`there is no such profile; there are ${Object.keys(PROFILES).join(', ')}.`);
  return text;
}

function command(plan: Plan, members: number | undefined): string {
  return `npm run sim -- --seeds 1 --from ${plan.seed} --profile ${plan.profile}${members === undefined ? '' : ` --members ${members}`}`;
}

function explain(outcome: Outcome): string {
  const { violation } = outcome;
  return `${violation?.invariant} at ${outcome.endMs.toFixed(1)} ms: ${violation?.message}`;
}

/** Finds a shorter plan that breaks the same invariant, saves it and prints it. */
function reportFailure(plan: Plan, outcome: Outcome, options: Options): void {
  const { violation } = outcome;
  if (violation === null) return;
  console.error(`\nFAILED seed ${plan.seed}, profile ${plan.profile}, ${plan.members} members`);
  console.error(`  ${explain(outcome)}`);
  console.error(`  again: ${command(plan, options.members)}`);
  const end = performance.now() + options.shrinkSeconds * 1000;
  const small = shrink(plan, violation.invariant, { tries: 2000, outOfTime: () => performance.now() > end });
  const again = new World(small).run();
  const path = options.save ?? join(tmpdir(), `sim-${plan.profile}-${plan.seed}.json`);
  writePlan(path, small);
  const { network } = small;
  console.error(
    `  shortest trace found: ${small.steps.length} of ${plan.steps.length} steps, loss ${network.loss.toFixed(2)}, objects ${small.objects.join(' ')}`,
  );
  for (const step of small.steps.slice(0, TRACE_STEPS)) console.error(`    ${describeStep(step)}`);
  if (small.steps.length > TRACE_STEPS) console.error(`    … and ${small.steps.length - TRACE_STEPS} more`);
  console.error(`    ${explain(again)}`);
  console.error(`  again: npm run sim -- --replay ${path}`);
}

function replay(path: string): number {
  const plan = readPlan(path);
  const outcome = new World(plan).run();
  for (const step of plan.steps) console.log(describeStep(step));
  console.log(outcome.violation === null ? 'all promises were kept' : explain(outcome));
  return outcome.violation === null ? 0 : 1;
}

async function sweep(options: Options): Promise<number> {
  const { seeds, jobs, profile, members } = options;
  const from = options.fresh ? randomInt(1, SEED_MAX - seeds) : options.from;
  const again = `npm run sim -- --seeds ${seeds} --from ${from}${profile ? ` --profile ${profile}` : ''}`;
  if (options.fresh) console.log(`first seed ${from}; again: ${again}`);
  const tally = new Tally();
  const started = performance.now();
  let told = started;
  await liveAll({
    ...{ seeds, from, jobs, profile, members },
    lived: ({ seed, profile, outcome }) => {
      tally.add(profile, outcome);
      if (outcome.violation !== null) {
        reportFailure(drawPlan(seed, profile, members), outcome, options);
        if (tally.failed >= options.failures) return false;
      }
      if (outcome.remedy !== null)
        console.error(`equal only after ${outcome.remedy}: seed ${seed}, profile ${profile}`);
      if (performance.now() - told > PROGRESS_MS) {
        told = performance.now();
        console.error(`${tally.summary}, of ${seeds}`);
      }
      return true;
    },
  });
  console.log(options.quiet ? tally.summary : tally.report(performance.now() - started, options.jobs));
  const { snapshots, restarts } = tally.remedied;
  const remediedMax = Math.max(REMEDIED_MIN, (options.remedied * tally.lives) / 100);
  const isTooMany = snapshots + restarts > remediedMax;
  if (isTooMany)
    console.error(
      `${snapshots + restarts} lives needed snapshots or restarts; at most ${options.remedied} % of them, or ${REMEDIED_MIN}, may`,
    );
  // In fewer runs, some counters may be missed by chance.
  const misjudged = profile === undefined && tally.lives >= ALL_REACHED_LIVES ? tally.misjudged : [];
  for (const what of misjudged) console.error(what);
  return tally.failed === 0 && !isTooMany && misjudged.length === 0 ? 0 : 1;
}

const profiles = Object.entries(PROFILES)
  .map(([name, { help }]) => `  ${name.padEnd(10)} ${help}`)
  .join('\n');

const program = new Command('npm run sim --')
  .description('Lives of a cluster in simulated time, on the real replication core, with faults drawn from seeds.')
  .option('--seeds <n>', 'lives to live', whole(1, 1e7), 300)
  .option('--from <seed>', 'first seed', whole(0, SEED_MAX), 1)
  .option('--fresh', 'draw the first seed at random, and print it')
  .option('--jobs <n>', 'threads to live them on', whole(1, 1024), availableParallelism())
  .option('--members <n>', 'members of each cluster; default: drawn', whole(2, 64))
  .option('--profile <name>', 'only lives of this kind; default: all in turn', profileName)
  .option('--replay <file>', 'live the plan in this file again, and print it')
  .option('--save <file>', 'where to write the shortest failing plan; default: in the temporary folder')
  .option('--failures <n>', 'stop after so many divergent lives', whole(1, 1e6), 3)
  .option('--shrink-seconds <s>', 'longest search for a shorter trace', whole(0, 3600), 20)
  .option(
    '--remedied <percent>',
    'percent of the lives that may need snapshots or restarts',
    whole(0, 100),
    REMEDIED_PERCENT_MAX,
  )
  .option('--quiet', 'print the closing line only')
  .addHelpText(
    'after',
    `\nProfiles:\n${profiles}\n\nExit codes: 0 all promises held, 1 some life broke one or too many needed a remedy, 2 wrong use.`,
  )
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));

const options = program.parse().opts<Options>();
try {
  process.exitCode = options.replay === undefined ? await sweep(options) : replay(options.replay);
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 2;
}
