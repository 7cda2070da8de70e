/**
 * The other thread of the log ring's hammer: appends `records` records in batches of uneven size.
 */

import { workerData } from 'node:worker_threads';
import { LogProducer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';

const { buffer, records } = workerData as { buffer: SharedArrayBuffer; records: number };
const log = new LogProducer(buffer);
for (let n = 0; n < records; ) {
  const batch = (n % 61) + 1;
  for (let i = 0; i < batch && n < records; i++) {
    const words = (n % 7) + 1;
    const at = log.claim(n & 0xfff, n & 0xff, words);
    if (at === NONE) break;
    for (let w = 0; w < words; w++) log.words[at + w] = (n * 31 + w) | 0;
    log.commit();
    n++;
  }
  log.publish();
}
