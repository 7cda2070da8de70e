/** The thread of the hammer of visibility that applies records, and merges regions. */

import { parentPort, workerData } from 'node:worker_threads';
import { Region } from '../../shm/region.js';
import { applyVisible, ENTRIES, NOW, openVisible, VISIBLE, type VisibleWork } from './visible-hammer.js';

const { name, region, local, control: flags } = workerData as VisibleWork;
const control = new Int32Array(flags);
const object = openVisible(name, region, local, 2);
/** Records that are merged rather than applied: every so many times those about all entries. */
const MERGED_EVERY = 64;
const { bytes, localBytes } = VISIBLE[name].definition;
const theirs = new SharedArrayBuffer(bytes);
const other = openVisible(name, theirs, new SharedArrayBuffer(localBytes?.(1) ?? 0), 2);

parentPort?.postMessage('started');
for (let n = ENTRIES; Atomics.load(control, 1) === 0; n += ENTRIES) {
  const isMerged = (n / ENTRIES) % MERGED_EVERY === 0;
  for (let entry = 0; entry < ENTRIES; entry++) applyVisible(name, isMerged ? other : object, n + entry);
  if (isMerged) object.merge?.(new Region(theirs), NOW);
  Atomics.add(control, 0, ENTRIES);
}
parentPort?.postMessage('ended');
