/**
 * A thread of the sketches' hammers: a worker, or the receiver that applies what another instance
 * does.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { LogProducer } from '../../shm/log.js';
import { Journal } from '../../shm/objects/core/journal.js';
import { Region } from '../../shm/region.js';
import { Site } from '../shm/objects/site.js';
import { drawing } from '../shm/objects/sketch/sketch-streams.js';
import {
  HAMMER_ID,
  hammered,
  isTorn,
  MEMBERS,
  operate,
  type SketchEnd,
  type SketchWork,
  WORKERS,
} from './sketch-hammer.js';

const work = workerData as SketchWork;
const { kind } = work;
const control = new Int32Array(work.control);
const log = work.ring === null ? null : new LogProducer(work.ring);
const object = hammered[kind].open({
  id: HAMMER_ID,
  region: new Region(work.region),
  secret: Int32Array.of(1, 2, 3, 4),
  writer: { id: work.id, journal: new Journal(work.journals, work.id), log },
  memberIndex: 0,
  memberCount: MEMBERS,
  local: new Region(work.local),
  stripes: WORKERS,
});
const peer = log === null ? new Site(hammered[kind], 1, MEMBERS, 1, 1 << 14) : null;
const draw = drawing(work.seed);
let done = 0;
let refused = 0;
let torn = 0;

parentPort?.postMessage('started');
while (Atomics.load(control, 1) === 0) {
  const now = Atomics.load(control, 0);
  for (let i = 0; i < 100; i++) {
    const n = Math.trunc(draw() * 2 ** 31);
    if (operate(kind, peer?.workers[0] ?? object, n, now)) done++;
    else refused++;
    if (isTorn(kind, object, n, now)) torn++;
  }
  log?.publish();
  for (const message of peer?.flush() ?? [])
    for (let at = 0; at < message.length; at += 1 + (message[at] & 0xff))
      object.apply((message[at] >>> 8) & 0xff, message, at + 1, message[at] & 0xff, 1, now);
}
const region = (peer?.snapshot().buffer as SharedArrayBuffer | undefined) ?? null;
parentPort?.postMessage({ done, refused, torn, peer: region } satisfies SketchEnd);
