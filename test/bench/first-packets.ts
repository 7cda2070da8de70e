/**
 * First packets over asymmetric routes: requests leave by site a, replies return by site b, which
 * may not have their state yet. Real programs open flows with 0 to 120 ms between the sites and
 * servers at round trips of 1 to 120 ms. Measured are how many first replies are lost, and how much
 * longer the others take than replies of established flows. The baseline is what is left of the
 * delay between the sites when the reply arrives: no remedy can be faster. Compared are dropping
 * such replies, letting them wait for the state (the default), and letting first requests wait
 * (`hold_members`). Needs root for the namespaces.
 */

import { availableParallelism } from 'node:os';
import type { Case } from '../testbed/first-packets/exchange.js';
import { FirstPackets } from '../testbed/first-packets/first-packets.js';
import { openNetwork, REMEDIES, type Remedy, type Setup, setWanDelay } from '../testbed/first-packets/networks.js';
import { added, type Cell, left, table, total } from '../testbed/first-packets/report.js';
import type { Bench, BenchOptions, BenchResult } from './result.js';

interface Plan {
  readonly setup: Omit<Setup, 'remedy'>;
  /** One-way delays between the sites. */
  readonly wansMs: readonly number[];
}

/** All delays with one worker, one of them with two. */
function plansOf({ quick }: BenchOptions): Plan[] {
  const roundTripsMs = quick ? [1, 50] : [1, 10, 50, 120];
  const plans = (workers: number, wansMs: readonly number[]): Plan[] =>
    (['nat', 'firewall'] as const).map((middlebox) => ({ setup: { middlebox, workers, roundTripsMs }, wansMs }));
  if (quick) return plans(1, [50]);
  return [...plans(1, [0, 5, 50, 120]), ...(availableParallelism() < 2 ? [] : plans(2, [50]))];
}

export const run: Bench = async (options) => {
  const results: BenchResult[] = [];
  for (const { setup, wansMs } of plansOf(options)) {
    const cells: Cell[] = [];
    for (const remedy of REMEDIES) cells.push(...(await measure({ ...setup, remedy }, wansMs)));
    const name = `${setup.middlebox}, ${setup.workers} worker${setup.workers > 1 ? 's' : ''}`;
    if (!options.json) console.log(`\n${[`first packets: ${name}`, ...table(cells)].join('\n')}`);
    results.push(...(options.json ? cells.flatMap((cell) => rows(name, cell)) : summary(name, cells)));
  }
  if (!options.json) console.log();
  return results;
};

async function measure(setup: Setup, wansMs: readonly number[]): Promise<Cell[]> {
  const network = await openNetwork(setup);
  try {
    const { testbed, place } = network;
    const first = await FirstPackets.open(testbed, place);
    // Warm-up: packets wait while code is compiled.
    await first.measure(0, { timed: false });
    const cells: Cell[] = [];
    for (const wanMs of wansMs) {
      await setWanDelay(network, setup, wanMs);
      for (const figures of await first.measure(wanMs)) cells.push({ wanMs, remedy: setup.remedy, figures });
    }
    await first.close();
    return cells;
  } finally {
    await network.down();
  }
}

/** One row for the losses, and one for how much longer the others took. */
function rows(name: string, { wanMs, remedy, figures }: Cell): BenchResult[] {
  const where = `first_packets/${name}, ${figures.what}, delay ${wanMs} ms, server ${figures.server.roundTripMs} ms, ${remedy}`;
  const value = added(figures);
  const baseline = left(figures);
  return [
    { name: `${where}, lost`, value: figures.lost, unit: 'packets', baseline: null, ratio: null },
    { name: `${where}, sent`, value: figures.sent, unit: 'packets', baseline: null, ratio: null },
    ...(Number.isNaN(value) ? [] : [{ name: `${where}, added`, value, unit: 'ms', baseline, ratio: baseline / value }]),
  ];
}

/**
 * First replies lost over all delays and servers. The baseline is the number lost if early replies
 * are dropped.
 */
function summary(name: string, cells: readonly Cell[]): BenchResult[] {
  const lost = (what: Case, remedy: Remedy): number =>
    total(
      cells.filter((cell) => cell.remedy === remedy && cell.figures.what === what),
      (figures) => figures.lost,
    );
  const cases = [...new Set(cells.map(({ figures }) => figures.what))];
  return cases.flatMap((what) =>
    REMEDIES.slice(1).map((remedy): BenchResult => {
      const [value, baseline] = [lost(what, remedy), lost(what, 'off')];
      const ratio = value === 0 ? null : baseline / value;
      return {
        name: `first_packets/${name}, ${what}, lost, ${remedy}`,
        value,
        unit: 'packets',
        baseline,
        ratio,
      };
    }),
  );
}
