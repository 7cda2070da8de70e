/**
 * Finding a flow, beside the same structure in C (flow-find.c): rows of the benchmark `objects`.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NONE } from '../../shm/none.js';
import { flowTable } from '../../shm/objects/flow/flow-table.js';
import { CProgram, compile } from './c-program.js';
import { checkAllocation, NOW, nothing, Opened, pass, repeat, SIZES, spread } from './objects-frame.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

const ROUNDS = 5;
/** Packets per batch of the data plane. */
const BATCH = 64;

/** Nanoseconds for ours one by one, ours in batches, and theirs. */
async function compare(program: string, flows: number, ms: number): Promise<[number, number, number]> {
  const { object, drain } = new Opened(flowTable({ capacity: flows, keyWords: 4, valueWords: 2 }));
  const key = new Int32Array(4);
  const value = Int32Array.of(1, 2);
  const load = (n: number): void => {
    key[0] = spread(n);
    key[1] = n;
    key[2] = n >>> 8;
    key[3] = 6;
  };
  const add = (from: number, count: number): number => {
    for (let n = from; n < from + count; n++) {
      load(n);
      if (object.add(object.hash(key, 0), key, 0, value, 0, 1, NOW, NOW + 300) === NONE)
        throw new Error(`flow ${n} was refused: ${object.refusal}`);
    }
    return count;
  };
  const find = (from: number, count: number): number => {
    let found = 0;
    for (let n = from; n < from + count; n++) {
      load(n);
      const slot = object.find(object.hash(key, 0), key, 0, NOW);
      if (slot !== NONE) found += object.value(slot, 0);
    }
    if (found !== count) throw new Error(`${found} of ${count} flows were found`);
    return found;
  };
  const { keys, values, slots, find: lookUp } = object.lookup(BATCH);
  const findMany = (from: number, count: number): number => {
    let found = 0;
    for (let n = from; n < from + count; n += BATCH) {
      const batch = Math.min(BATCH, from + count - n);
      for (let i = 0; i < batch; i++) {
        keys[4 * i] = spread(n + i);
        keys[4 * i + 1] = n + i;
        keys[4 * i + 2] = (n + i) >>> 8;
        keys[4 * i + 3] = 6;
      }
      lookUp(batch, NOW);
      for (let i = 0; i < batch; i++) if (slots[i] >= 0) found += values[i];
    }
    if (found !== count) throw new Error(`${found} of ${count} flows were found`);
    return found;
  };
  pass(add, drain, flows);
  const c = new CProgram(program, flows);
  try {
    await c.work(ms);
    for (const work of [find, findMany]) repeat(work, nothing, flows, 2 * ms);
    checkAllocation('flow lookup', findMany, nothing, flows);
    const [ours, many, theirs]: [number[], number[], number[]] = [[], [], []];
    for (let round = 0; round < ROUNDS; round++) {
      theirs.push(await c.work(ms));
      ours.push(repeat(find, nothing, flows, ms));
      many.push(repeat(findMany, nothing, flows, ms));
    }
    return [median(ours), median(many), median(theirs)];
  } finally {
    await c.close();
  }
}

export async function flowsBesideC({ seconds }: BenchOptions): Promise<BenchResult[]> {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-bench-'));
  const results: BenchResult[] = [];
  try {
    const program = await compile('flow-find', folder);
    for (const [label, flows] of SIZES) {
      const [one, many, baseline] = await compare(program, flows, (seconds * 1000) / 20);
      for (const [how, value] of [
        ['one by one', one],
        [`${BATCH} at once`, many],
      ] as const) {
        const name = `objects/flow table beside C, hit, ${how}, ${label}`;
        results.push({ name, value, unit: 'ns', baseline, ratio: baseline / value });
      }
    }
  } finally {
    await rm(folder, { recursive: true });
  }
  return results;
}
