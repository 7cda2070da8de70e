/**
 * The thread of rule-board.test.ts: reads rules as fast as it can, and tells how often they were of
 * two versions.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { RuleReader } from '../../shm/rule-board.js';

const { buffer, stop, WORDS } = workerData as { buffer: SharedArrayBuffer; stop: Int32Array; WORDS: number };
const reader = new RuleReader(buffer, 1, 0);
let torn = 0;
let versions = 0;
let counted = 0;
while (stop[0] === 0 || counted === 0) {
  if (reader.refresh()) stop[1] = ++versions;
  const { words, base, version } = reader;
  for (let i = 0; i < WORDS; i++) if (words[base + i] !== version) torn++;
  reader.count(0, 1);
  counted++;
}
parentPort?.postMessage({ torn, versions, counted });
