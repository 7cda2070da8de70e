/**
 * The order of a run. One process at a time runs the files of a lane, at normal priority. The other
 * processes run the parallel files. Their priority is so low that a lane has the machine nearly to
 * itself: they use the time in which the lane waits.
 */

import { dirname } from 'node:path';
import { Batch, type FileResult, LIMITS, type Limits } from './batch.js';
import type { Report } from './report.js';
import { isLarge, LANES, type Selection } from './suites.js';

const BATCH_FILES_MAX = 8;
/** Nice values (setpriority(2)). */
const NORMAL = 0;
const LOWER = 10;
const SILENCE_MS = 30_000;

export class Schedule {
  private readonly report: Report;
  private readonly limits: Limits;
  private readonly running = new Map<Batch, number>();
  private lastEnd = performance.now();
  private interrupted = false;

  constructor(report: Report, limits: Limits = LIMITS) {
    this.report = report;
    this.limits = limits;
  }

  async run({ parallel, lanes }: Selection, jobs: number): Promise<void> {
    const watch = setInterval(() => this.tellProgress(), SILENCE_MS / 3);
    const queue = batches(parallel);
    const lanesLeft = LANES.map((lane) => lanes[lane].map((file) => [file])).filter((files) => files.length > 0);
    const niceness = jobs > 1 && lanesLeft.length > 0 ? LOWER : NORMAL;
    const work = async (): Promise<void> => {
      for (let lane = lanesLeft.shift(); lane !== undefined; lane = lanesLeft.shift()) await this.work(lane, NORMAL);
      await this.work(queue, niceness);
    };
    try {
      await Promise.all(Array.from({ length: jobs }, work));
    } finally {
      clearInterval(watch);
    }
  }

  /** Ends all processes and starts no more. */
  interrupt(): void {
    this.interrupted = true;
    for (const batch of this.running.keys()) batch.interrupt();
  }

  /** Runs the queue, one process at a time. */
  private async work(queue: string[][], niceness: number): Promise<void> {
    for (;;) {
      const files = queue.shift();
      if (files === undefined || this.interrupted) return;
      const batch = new Batch(files, (result) => this.add(result), this.limits, niceness);
      this.running.set(batch, performance.now());
      const left = await batch.notBegun;
      this.running.delete(batch);
      queue.push(...left.map((file) => [file]));
    }
  }

  private add(result: FileResult): void {
    this.lastEnd = performance.now();
    this.report.add(result);
  }

  private tellProgress(): void {
    const now = performance.now();
    if (now - this.lastEnd < SILENCE_MS) return;
    this.lastEnd = now;
    const running = [...this.running].map(([{ file, test }, began]) => ({ file, test, ms: now - began }));
    this.report.stillRunning(running);
  }
}

/** Groups small files of a folder. A large file is alone in its process. */
export function batches(files: readonly string[]): string[][] {
  const groups: string[][] = [];
  for (const file of files) {
    const last = groups.at(-1);
    const fits =
      last !== undefined &&
      last.length < BATCH_FILES_MAX &&
      !isLarge(file) &&
      !isLarge(last[0]) &&
      dirname(last[0]) === dirname(file);
    if (fits) last.push(file);
    else groups.push([file]);
  }
  return groups;
}
