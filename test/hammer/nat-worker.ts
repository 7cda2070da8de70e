/** A thread of the NAT binding's hammers. */

import { parentPort, workerData } from 'node:worker_threads';
import { LogProducer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { Journal } from '../../shm/objects/core/journal.js';
import { Applied } from '../../shm/objects/core/object.js';
import { NAT_BIND } from '../../shm/objects/nat/nat-binding.js';
import { NAT_RECORD_WORDS } from '../../shm/objects/nat/nat-record.js';
import { Region } from '../../shm/region.js';
import {
  Draw,
  EXTERNAL,
  endpointOf,
  FIRST_PORT,
  flooded,
  HAMMER_ID,
  type HammerWork,
  HOSTS,
  hammered,
  LAST_PORT,
  UDP,
} from './nat-hammer.js';

const work = workerData as HammerWork;
const control = new Int32Array(work.control);
const log = work.role === 'worker' ? new LogProducer(work.ring) : null;
const object = (work.flood ? flooded : hammered).open({
  id: HAMMER_ID,
  region: new Region(work.region),
  secret: Int32Array.of(1, 2, 3, 4),
  writer: { id: work.id, journal: new Journal(work.journals, work.id), log },
  memberIndex: 0,
  memberCount: 1,
});
const draw = new Draw(work.seed);
const counts = { added: 0, refreshed: 0, applied: 0, refused: 0, torn: 0 };

/** One packet from inside: what the middlebox does. */
function outbound(now: number): void {
  // Every second some other hosts are busy, so that the rest may run out.
  const host = (now * 13 + draw.below(40)) % HOSTS;
  const key = endpointOf(host);
  const hash = object.hash(host, key);
  let slot = object.findOutbound(hash, host, key, now);
  if (slot === NONE) {
    slot = object.add(hash, host, key, now, now + work.lifetime);
    if (slot === NONE) counts.refused++;
    else counts.added++;
  } else if (draw.below(4) === 0) {
    object.refresh(slot, draw.below(4), now, work.lifetime + draw.below(work.lifetime));
    counts.refreshed++;
  } else if (draw.below(16) === 0) object.renew(slot, now, work.lifetime);
  if (slot !== NONE) check(slot);
}

/** One packet from outside. */
function inbound(now: number): void {
  const port = FIRST_PORT + draw.below(LAST_PORT - FIRST_PORT + 1);
  const slot = object.findInbound(object.place(EXTERNAL, ((port & 0xff) << 8) | (port >>> 8), UDP), now);
  if (slot !== NONE) check(slot);
}

/** Whoever it is, address and port belong together, and the external port is one of ours. */
function check(slot: number): void {
  const host = object.internalAddress(slot);
  const raw = object.externalPort(slot);
  const port = ((raw & 0xff) << 8) | (raw >>> 8);
  if (object.internalPort(slot) !== (endpointOf(host) & 0xffff) || port < FIRST_PORT || port > LAST_PORT) counts.torn++;
}

function apply(at: number, now: number): void {
  const applied = object.apply(NAT_BIND, work.records, at, NAT_RECORD_WORDS, 2, now);
  if (applied === Applied.CHANGED || applied === Applied.UNCHANGED) counts.applied++;
  else counts.refused++;
}

parentPort?.postMessage('started');
while (Atomics.load(control, 1) === 0) {
  for (let i = 0; i < 100; i++) {
    const now = Atomics.load(control, 0);
    if (log === null) apply(draw.below(work.records.length / NAT_RECORD_WORDS) * NAT_RECORD_WORDS, now);
    else {
      outbound(now);
      inbound(now);
    }
  }
  object.sweep(Atomics.load(control, 0), 64);
  log?.publish();
}
// The second instance gets every record; those that no draw met are applied here.
if (log === null)
  for (let at = 0; at < work.records.length; at += NAT_RECORD_WORDS) apply(at, Atomics.load(control, 0));
parentPort?.postMessage(counts);
