/** The thread of the hammer of held entries: it makes entries that are held. */

import { parentPort, workerData } from 'node:worker_threads';
import { LogProducer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { type HeldWork, HOLD, makeHeld, NOW, openHeld } from './held-hammer.js';

const { name, region, local, control: flags, ring } = workerData as HeldWork;
const control = new Int32Array(flags);
const log = new LogProducer(ring);
const object = openHeld(name, region, local, 1, log);

parentPort?.postMessage('started');
let made = 0;
while (Atomics.load(control, 1) === 0) {
  // Not before the reader looks for it.
  if (Atomics.load(control, 0) < made) continue;
  object.held.holdNext(HOLD.members, HOLD.deadline);
  if (makeHeld(name, object, made, NOW) === NONE) break;
  made++;
  log.publish();
}
parentPort?.postMessage(made);
