/**
 * What early replies (workers/plane/early-replies.ts) cost established flows in a flood of 100,000
 * unsolicited packets per second, each of which could be a first reply. Measured is the time of a
 * packet of an established flow with its share of the flood. The baseline is the same without
 * waiting packets. At full load the rest is lost, so a ratio of 0.99 means that 1 % more packets
 * are lost.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { EarlyRepliesTurn, EarlyRepliesWork } from './early-replies-work.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

const FLOWS = 10_000;
const ROUNDS = 40;
/** Warm-up, until the optimiser has seen waiting packets. */
const WARM_UP_MS = 3000;
const CHAINS = [['nat'], ['firewall'], ['firewall', 'nat']];

interface Turn {
  readonly ns: number;
  readonly counts: Readonly<Record<string, number>>;
}

async function work(thread: Worker, turn: EarlyRepliesTurn): Promise<Turn> {
  thread.postMessage(turn);
  const [result] = (await once(thread, 'message')) as [Turn];
  return result;
}

export async function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const names of CHAINS) {
    const workerData: EarlyRepliesWork = { names, flows: FLOWS };
    // One thread measures both: two threads differ by more than the measured difference.
    const thread = new Worker(new URL('./early-replies-work.js', import.meta.url), { workerData });
    await once(thread, 'message');
    await work(thread, { ms: WARM_UP_MS, waits: true });
    await work(thread, { ms: WARM_UP_MS, waits: false });
    const times: number[] = [];
    const baselines: number[] = [];
    const ratios: number[] = [];
    let counts: Turn['counts'] = {};
    for (let round = 0; round < ROUNDS; round++) {
      const ms = (seconds * 1000) / ROUNDS;
      const before = (await work(thread, { ms, waits: false })).ns;
      const waiting = await work(thread, { ms, waits: true });
      const after = (await work(thread, { ms, waits: false })).ns;
      counts = waiting.counts;
      times.push(waiting.ns);
      baselines.push(before, after);
      ratios.push((before + after) / 2 / waiting.ns);
    }
    await thread.terminate();
    if (!(counts['early_replies'] > 0)) throw new Error(`${names.join(' + ')}: nothing waited`);
    results.push({
      name: `early_replies/flood, ${names.join(' + ')}`,
      value: median(times),
      unit: 'ns/packet',
      baseline: median(baselines),
      ratio: median(ratios),
    });
  }
  return results;
}
