/**
 * What a snapshot costs the running threads: data plane workers with packets at a fixed rate, each
 * packet two counts in cells all over the state, and the send and receive threads. Snapshots are
 * forked and read one after the other. The baseline is the same load without snapshots.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { BarrierError } from '../../shm/barrier.js';
import { forkState } from '../../workers/snapshot/fork.js';
import { BusySite } from '../workers/snapshot/busy-site.js';
import { type Bench, type BenchResult, median } from './result.js';

const SIZES_MIB = [1, 64, 256];
const WORKERS = 1;
const PACKETS_PER_SECOND = 50_000;
/** Bytes of a cell in the arena: two members' totals, and a sum of increments. */
const BYTES_PER_CELL = 24;
const SNAPSHOTS_MIN = 5;

interface Figures {
  readonly pauseUs: number[];
  readonly forkUs: number[];
  readonly copyMs: number[];
  /** Barriers that were not reached in time and were tried again. */
  missed: number;
  /** Packets lost per thousand. */
  lost: number;
}

async function snapshots(site: BusySite, ms: number): Promise<Figures> {
  const figures: Figures = { pauseUs: [], forkUs: [], copyMs: [], missed: 0, lost: 0 };
  const before = site.packets;
  const until = performance.now() + ms;
  while (performance.now() < until || figures.pauseUs.length < SNAPSHOTS_MIN) {
    try {
      const { copy, pauseUs, forkUs, done } = forkState(site.instance, site.objects);
      const forkedAt = performance.now();
      for await (const piece of copy.pieces()) void piece;
      figures.pauseUs.push(pauseUs);
      figures.forkUs.push(forkUs);
      figures.copyMs.push(performance.now() - forkedAt);
      await done();
    } catch (error) {
      if (!(error instanceof BarrierError)) throw error;
      figures.missed++;
    }
    await sleep(50);
  }
  figures.lost = lostSince(site, before);
  return figures;
}

function lostSince(site: BusySite, before: { taken: number; lost: number }): number {
  const { taken, lost } = site.packets;
  return (1000 * (lost - before.lost)) / Math.max(1, taken - before.taken + lost - before.lost);
}

async function ofSize(mib: number, ms: number): Promise<BenchResult[]> {
  const cells = Math.trunc((mib * 2 ** 20) / BYTES_PER_CELL);
  const site = await BusySite.create({ workers: WORKERS, cells, packetsPerSecond: PACKETS_PER_SECOND });
  try {
    await site.start();
    await sleep(1000); // code is compiled, pages are touched
    const before = site.packets;
    await sleep(ms);
    const baseline = lostSince(site, before);
    const { pauseUs, forkUs, copyMs, missed, lost } = await snapshots(site, ms);
    const name = (what: string): string => `snapshot/${mib}MiB/${what}`;
    const alone = { baseline: null, ratio: null };
    return [
      { name: name('pause_median'), value: median(pauseUs), unit: 'µs', ...alone },
      { name: name('pause_max'), value: Math.max(...pauseUs), unit: 'µs', ...alone },
      { name: name('fork_median'), value: median(forkUs), unit: 'µs', ...alone },
      { name: name('copy_median'), value: median(copyMs), unit: 'ms', ...alone },
      { name: name('snapshots'), value: pauseUs.length, unit: '', ...alone },
      { name: name('missed'), value: missed, unit: '', ...alone },
      { name: name('lost'), value: lost, unit: '‰ of packets', baseline, ratio: lost === 0 ? null : baseline / lost },
    ];
  } finally {
    await site.stop();
  }
}

export const run: Bench = async ({ seconds }) => {
  const results: BenchResult[] = [];
  for (const mib of SIZES_MIB) results.push(...(await ofSize(mib, (seconds * 1000) / 2)));
  return results;
};
