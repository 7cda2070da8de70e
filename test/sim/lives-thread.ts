/** A thread of the pool (pool.ts): runs the seeds that it is given, one after the other. */

import { parentPort, workerData } from 'node:worker_threads';
import { drawPlan } from './draw.js';
import type { Lived, LivesOptions } from './pool.js';
import { profileOf } from './profiles.js';
import { World } from './world.js';

const { profile, members } = workerData as LivesOptions;

parentPort?.on('message', (seed: number) => {
  const plan = drawPlan(seed, profile ?? profileOf(seed), members);
  const lived: Lived = { seed, profile: plan.profile, outcome: new World(plan).run() };
  parentPort?.postMessage(lived);
});
