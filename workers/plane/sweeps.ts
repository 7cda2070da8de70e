/**
 * Removes expired entries from the tables of all middleboxes. Adding an entry removes some as well,
 * but without new entries nothing else would.
 */

import type { StateObject } from '../../shm/objects/core/object.js';
import type { Timers } from '../api/timers.js';

/**
 * Interval of the sweep, which covers each slot once a minute. It takes a fifth of a millisecond
 * for a table of the largest size.
 */
const SWEEP_S = 0.1;
const SWEPT_WITHIN_S = 60;

/** Call it in one worker. */
export function sweepTables(objects: readonly StateObject[], timers: Timers): void {
  const tables = objects.filter(({ sweep, tableSlots }) => sweep !== undefined && tableSlots !== undefined);
  const slots = tables.map(({ tableSlots = 0 }) => Math.ceil((tableSlots * SWEEP_S) / SWEPT_WITHIN_S));
  if (tables.length === 0) return;
  timers.every('the sweep of expired entries', SWEEP_S, (now) => {
    for (let n = 0; n < tables.length; n++) tables[n].sweep?.(now, slots[n]);
  });
}
