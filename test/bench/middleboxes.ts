/**
 * What each middlebox costs per packet, beside passing the packet through. Measured is a whole
 * worker round over packets in memory: parse, route, middlebox, and draining of records. The
 * copying of frames is subtracted. Each case runs in its own thread, in turn, and is measured by
 * the thread's processor time.
 *
 *     at rest      10,000 UDP flows that are all established, both directions, in random order,
 *                  batches of both ports
 *     new flows    every packet starts a new flow, by a clock that says 25,000 a second: each is
 *                  added, and another is evicted for it
 *     flood        the same as fast as they come: flows beyond the quota of half-open flows are
 *                  refused
 *
 * **To add one**: an entry in test/support/shipped.ts, and a row here.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { MiddleboxWork } from './middleboxes-work.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

const FLOWS = 10_000;
const ROUNDS = 5;

interface Row {
  readonly label: string;
  /** The chain: names of shipped middleboxes. */
  readonly names: readonly string[];
}

/** The first row is the baseline of the others. */
const ROWS: readonly Row[] = [
  { label: 'pass-through', names: [] },
  ...[['nat'], ['firewall'], ['idps'], ['firewall', 'idps'], ['firewall', 'nat'], ['firewall', 'nat', 'idps']].map(
    (names) => ({ label: names.join(' + '), names }),
  ),
];

const LOADS = [
  ['at rest', 'rest'],
  ['new flows', 'new'],
  ['flood', 'flood'],
] as const;

class Loop {
  private readonly thread: Worker;

  private constructor(thread: Worker) {
    this.thread = thread;
  }

  static async open(work: MiddleboxWork): Promise<Loop> {
    const thread = new Worker(new URL('./middleboxes-work.js', import.meta.url), { workerData: work });
    await once(thread, 'message');
    return new Loop(thread);
  }

  /** Nanoseconds per packet. */
  async work(ms: number): Promise<number> {
    this.thread.postMessage(ms);
    const [{ ns }] = (await once(this.thread, 'message')) as [{ ns: number }];
    return ns;
  }

  async close(): Promise<void> {
    await this.thread.terminate();
  }
}

export async function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const [what, load] of LOADS) {
    const loops = await Promise.all(ROWS.map(({ names }) => Loop.open({ names, load, flows: FLOWS })));
    const times = loops.map((): number[] => []);
    for (const loop of loops) await loop.work(seconds * 150); // the optimiser's turn
    for (let round = 0; round < ROUNDS; round++)
      for (const [i, loop] of loops.entries()) times[i].push(await loop.work((seconds * 1000) / ROUNDS));
    for (const loop of loops) await loop.close();
    const [baseline, ...values] = times.map(median);
    const unit = 'ns/packet';
    results.push({ name: `middleboxes/${what}, ${ROWS[0].label}`, value: baseline, unit, baseline: null, ratio: null });
    for (const [i, value] of values.entries())
      results.push({
        name: `middleboxes/${what}, ${ROWS[i + 1].label}`,
        value,
        unit,
        baseline,
        ratio: baseline / value,
      });
  }
  return results;
}
