/**
 * A thread of the hammer of sets and registers: a worker, or the receiver that is told another
 * member's changes.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { EPOCH_MS, unixMs } from '../../shm/clock.js';
import { LogProducer } from '../../shm/log.js';
import { REGISTER_SET } from '../../shm/objects/sets/register.js';
import { SET_ADD } from '../../shm/objects/sets/shared-set.js';
import { Draw } from './nat-hammer.js';
import {
  fits,
  fitting,
  hammeredRegisters,
  hammeredSet,
  KEYS,
  NOW,
  openShared,
  type SharedWork,
  VALUE_WORDS,
} from './shared-hammer.js';

const work = workerData as SharedWork;
const control = new Int32Array(work.control);
const log = work.ring === null ? null : new LogProducer(work.ring);
const set = openShared(hammeredSet, 0, work.set, work, log);
const registers = openShared(hammeredRegisters, 1, work.registers, work, log);
const draw = new Draw(work.id * 77);
const key = new Int32Array(2);
const value = new Int32Array(VALUE_WORDS);
let done = 0;
let torn = 0;

function change(): void {
  key[0] = draw.below(KEYS);
  key[1] = ~key[0];
  const hash = set.hash(key, 0);
  if (set.has(hash, key, 0, NOW) && draw.below(2) === 0) set.remove(hash, key, 0, NOW);
  else if (set.add(hash, key, 0, NOW, NOW + 100 + draw.below(100))) done++;
  const register = draw.below(4);
  if (draw.below(3) === 0) registers.set(register, fitting(draw.below(1 << 20), value), 0, unixMs(NOW));
  if (registers.read(register, value, 0) && !fits(value)) torn++;
}

/** As another member would tell it: adds of its own, with a stamp that grows, and writes. */
function receive(): void {
  done++;
  const n = draw.below(KEYS);
  set.apply(SET_ADD, Int32Array.of(n, ~n, NOW - 1000 + (done & 1023), NOW + 200), 0, 4, 1, NOW);
  fitting(draw.below(1 << 20), value);
  const stamp = unixMs(NOW) - EPOCH_MS + draw.below(1000);
  const record = Int32Array.of(draw.below(4), stamp | 0, Math.trunc(stamp / 2 ** 32), 1, ...value);
  registers.apply(REGISTER_SET, record, 0, record.length, 1, NOW);
}

parentPort?.postMessage('started');
while (Atomics.load(control, 0) === 0) {
  for (let i = 0; i < 50; i++) {
    if (log === null) receive();
    else change();
  }
  log?.publish();
}
parentPort?.postMessage({ done, torn });
