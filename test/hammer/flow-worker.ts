/** A thread of the flow table's hammer. */

import { parentPort, workerData } from 'node:worker_threads';
import { LogProducer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { Journal } from '../../shm/objects/core/journal.js';
import { FLOW_PUT } from '../../shm/objects/flow/flow-table.js';
import { Region } from '../../shm/region.js';
import {
  ENDLESS,
  type FlowWork,
  fitting,
  flooded,
  HAMMER_ID,
  hammered,
  KEY_WORDS,
  KEYS,
  keyOf,
  spinning,
  VALUE_WORDS,
} from './flow-hammer.js';
import { Draw } from './nat-hammer.js';

const { id, role, region, journals, control: flags, ring, now } = workerData as FlowWork;
const control = new Int32Array(flags);
const log = role === 'worker' || role === 'flood' ? new LogProducer(ring) : null;
const table = (role === 'flood' ? flooded : hammered).open({
  id: HAMMER_ID,
  region: new Region(region),
  secret: Int32Array.of(1, 2, 3, 4),
  writer: { id, journal: new Journal(journals, id), log },
  memberIndex: 0,
  memberCount: 1,
});
const draw = new Draw(id * 77);
const value = new Int32Array(VALUE_WORDS);
const seen = new Int32Array(VALUE_WORDS);
let torn = 0;
let read = 0;

function work(): void {
  const key = keyOf(draw.below(KEYS));
  const hash = table.hash(key, 0);
  let slot = table.find(hash, key, 0, now);
  if (slot === NONE) slot = table.add(hash, key, 0, fitting(draw.below(1 << 20), value), 0, 0, now, now + 100);
  else if (draw.below(8) === 0) table.renew(slot, fitting(draw.below(1 << 20), value), 0, draw.below(4), now, 100);
  else if (draw.below(2) === 0) table.refresh(slot, draw.below(4), now, 100 + draw.below(100));
  if (slot === NONE || !table.read(slot, seen, 0)) return;
  read++;
  const n = seen[0];
  if (seen[1] !== (n ^ 0x5555) || seen[2] !== ~n || seen[3] !== Math.imul(n, 31)) torn++;
}

/**
 * A new key, and the last ones again, which another thread may put out at any moment; some rise.
 */
function flood(): void {
  const time = now + Atomics.load(control, 0);
  const n = (id << 24) + 1000 + read + torn;
  read++;
  table.add(table.hash(keyOf(n), 0), keyOf(n), 0, fitting(n, value), 0, 0, time, time + 100);
  for (let back = 0; back < 4; back++) {
    const key = keyOf(n - back);
    const found = table.find(table.hash(key, 0), key, 0, time);
    if (found === NONE) continue;
    if (draw.below(64) === 0 && time < now + 2) table.refresh(found, 1, time, 3);
    // Found just now: whatever becomes of it, the slot is no other key's yet.
    if (table.value(found, 0) !== n - back || (table.read(found, seen, 0) && seen[0] !== n - back)) torn++;
  }
}

function receive(): void {
  const record = recordOf(draw.below(KEYS), draw.below(1 << 20), now + draw.below(50), draw.below(4));
  table.apply(FLOW_PUT, record, 0, record.length, 9, now);
  parentPort?.postMessage(record);
}

function recordOf(key: number, n: number, generation: number, rank: number): Int32Array {
  return Int32Array.from([...keyOf(key), generation, rank, generation + 100, ...fitting(n, value)]);
}

parentPort?.postMessage('started');
if (role === 'spinner') {
  spinning.flag = control;
  const key = keyOf(0);
  const slot = table.find(table.hash(key, 0), key, 0, now);
  const record = recordOf(0, ENDLESS, table.generation(slot), table.rank(slot));
  table.apply(FLOW_PUT, record, 0, KEY_WORDS + 3 + VALUE_WORDS, 9, now);
} else {
  while (Atomics.load(control, 1) === 0) {
    for (let i = 0; i < (log === null ? 2 : 100); i++) {
      if (log === null) receive();
      else if (role === 'flood') flood();
      else work();
    }
    if (log === null) Atomics.wait(control, 1, 0, 1);
    else log.publish();
  }
  parentPort?.postMessage({ torn, read });
}
