/**
 * A thread of the counters' hammer: a worker that counts, or the receiver that is told the other
 * member's counts.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { LogProducer } from '../../shm/log.js';
import { CELL_COUNT } from '../../shm/objects/counting/counter-cells.js';
import { CELLS, type CounterWork, openHammered, STEP } from './counter-hammer.js';

const work = workerData as CounterWork;
const control = new Int32Array(work.control);
const ledger = new Float64Array(work.ledger);
const log = work.ring === null ? null : new LogProducer(work.ring);
const cells = openHammered(work, log);
let applied = 0;
let torn = 0;

function count(producer: LogProducer): void {
  const at = 2 * (work.id - 1);
  for (let i = 0; i < 64; i++) {
    const cell = (i * 13 + work.id) % CELLS;
    ledger[at]++;
    cells.add(cell, STEP);
    ledger[at + 1]++;
  }
  // Every summand is a multiple of STEP below 2^53, and so is a sum of untorn ones.
  for (let cell = 0; cell < CELLS; cell++) if (cells.value(cell) % STEP !== 0) torn++;
  producer.publish();
}

function receive(): void {
  const record = new Int32Array(3);
  for (let cell = 0; cell < CELLS; cell++) {
    const total = (applied + 1) * STEP;
    const told = work.form === 'totals' ? total : STEP;
    record[0] = cell;
    record[1] = told | 0;
    record[2] = Math.trunc(told / 2 ** 32);
    cells.apply(CELL_COUNT, record, 0, 3, 1);
  }
  applied++;
}

parentPort?.postMessage('started');
while (Atomics.load(control, 0) === 0) {
  if (log === null) receive();
  else count(log);
}
parentPort?.postMessage({ applied, torn });
