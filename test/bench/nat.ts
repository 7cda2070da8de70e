/**
 * The in-memory NAT loop on one core, beside the same loop in C (nat-loop.c). It uses the real
 * parser, middlebox and binding on batches of 64 frames from the memory driver: half from inside,
 * half from outside, one frame per flow, in random order. Reported is the time to parse, look up,
 * rewrite and update checksums. The driver's copying of frames, which stands for the NIC, is
 * measured alone and subtracted. Processor time is used, so that other programs matter little.
 * Tables are on huge pages, as in the daemon.
 *
 * There are two baselines: the same loop, which fetches ahead by reading, as JavaScript must; and
 * the loop with prefetch instructions, which JavaScript lacks. At 20 k flows the tables are in the
 * cache, at 1 M they are not.
 *
 * Also measured are a new binding with its log record, and the application of such a record from
 * another instance.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { coarseSeconds } from '../../shm/clock.js';
import { NONE } from '../../shm/none.js';
import { NatBench } from './nat-bench.js';
import type { NatWork } from './nat-work.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

const SIZES = [
  ['20 k', 20_000],
  ['1 M', 1_000_000],
] as const;
const ROUNDS = 5;

/**
 * The C loop as a separate process. `work` lets it work for a while and returns nanoseconds per
 * packet.
 */
class CLoop {
  private readonly child;
  private readonly lines;

  constructor(program: string, flows: number) {
    this.child = spawn(program, [String(flows), '1'], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async work(ms: number): Promise<number> {
    this.child.stdin.write(`${Math.ceil(ms)}\n`);
    const { value, done } = await this.lines.next();
    if (done === true) throw new Error('nat-loop ended early: see its message above');
    return Number(value);
  }

  async close(): Promise<void> {
    this.child.stdin.end();
    await once(this.child, 'close');
  }
}

/**
 * Our loop, in its own thread. Processor time is that of the process, whose other threads wait
 * meanwhile.
 */
class OurLoop {
  private readonly thread: Worker;

  private constructor(thread: Worker) {
    this.thread = thread;
  }

  static async open(flows: number): Promise<OurLoop> {
    const thread = new Worker(new URL('./nat-work.js', import.meta.url), { workerData: { flows } satisfies NatWork });
    await once(thread, 'message');
    return new OurLoop(thread);
  }

  async work(ms: number): Promise<number> {
    this.thread.postMessage(ms);
    const [ns] = (await once(this.thread, 'message')) as [number];
    return ns;
  }

  async close(): Promise<void> {
    await this.thread.terminate();
  }
}

async function compile(folder: string, ...define: string[]): Promise<string> {
  const source = fileURLToPath(new URL('../../../test/bench/nat-loop.c', import.meta.url));
  const program = join(folder, `nat-loop${define.join('')}`);
  const cc = spawn('cc', ['-O2', ...define, '-o', program, source], { stdio: 'inherit' });
  const [code] = (await once(cc, 'close')) as [number];
  if (code !== 0) throw new Error(`cc could not compile ${source}`);
  return program;
}

async function compareLoops(seconds: number): Promise<BenchResult[]> {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-bench-'));
  const results: BenchResult[] = [];
  try {
    const programs = [await compile(folder), await compile(folder, '-DTOUCH')];
    for (const [label, flows] of SIZES) {
      const loops = programs.map((program) => new CLoop(program, flows));
      const ours = await OurLoop.open(flows);
      const times: number[][] = [[], [], []];
      const slice = (seconds * 1000) / ROUNDS;
      for (const loop of loops) await loop.work(200);
      await ours.work(1000); // the optimiser's turn
      for (let round = 0; round < ROUNDS; round++) {
        for (const [i, loop] of loops.entries()) times[i].push(await loop.work(slice));
        times[2].push(await ours.work(slice));
      }
      for (const loop of [...loops, ours]) await loop.close();
      const [prefetching, same, value] = times.map((ns) => 1000 / median(ns));
      const name = `nat/loop, ${label} flows`;
      const unit = 'Mpps';
      results.push({ name: `${name}, the same in C`, value: same, unit, baseline: null, ratio: null });
      results.push({ name, value, unit, baseline: same, ratio: value / same });
      const best = { value, unit, baseline: prefetching, ratio: value / prefetching };
      results.push({ name: `${name}, against C with prefetch instructions`, ...best });
    }
  } finally {
    await rm(folder, { recursive: true });
  }
  return results;
}

/**
 * Nanoseconds to add a binding with its log record, and to apply that record at another instance.
 * `flows` fills a quarter of the tables.
 */
function newBindings(flows: number): [number, number] {
  const here = new NatBench(4 * flows, 0);
  const there = new NatBench(4 * flows, 0);
  const now = coarseSeconds(Date.now());
  let add = 0;
  let apply = 0;
  for (let n = 0; n < flows; ) {
    const count = Math.min(1000, flows - n);
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      const address = here.address(n + i);
      const key = here.key(n + i);
      const slot = here.bindings.add(here.bindings.hash(address, key), address, key, now, now + 300);
      if (slot === NONE) throw new Error(`binding ${n + i} was refused: ${here.bindings.refusal}`);
    }
    here.log.publish();
    const between = performance.now();
    here.drain((words, at, op, length) => there.bindings.apply(op, words, at, length, 1, now));
    apply += performance.now() - between;
    add += between - start;
    n += count;
  }
  return [(add * 1e6) / flows, (apply * 1e6) / flows];
}

export async function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  const results = await compareLoops(seconds);
  newBindings(20_000);
  const [add, apply] = newBindings(200_000);
  const alone = { unit: 'ns', baseline: null, ratio: null };
  results.push({ name: 'nat/new binding with its log record', value: add, ...alone });
  results.push({ name: 'nat/applying a record', value: apply, ...alone });
  return results;
}
