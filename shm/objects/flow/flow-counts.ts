/**
 * Counts of rare events of a flow table, at the beginning of its region. Threads add atomically. A
 * thread that is killed may miss one.
 */

import { LINE, struct } from '../../struct.js';
import { HALF_OPEN_COUNTS } from '../table/half-open.js';

export const COUNTS = struct({
  inserted: LINE,
  reclaimed: 1,
  tableFull: 1,
  logFull: 1,
  contended: 1,
  malformed: 1,
  halfOpen: HALF_OPEN_COUNTS.words,
});

/** For `show objects`. */
export function describeCounts(words: Int32Array): Record<string, number> {
  return {
    table_full: words[COUNTS.at.tableFull],
    log_full: words[COUNTS.at.logFull],
    contended: words[COUNTS.at.contended],
    malformed: words[COUNTS.at.malformed],
    reclaimed: words[COUNTS.at.reclaimed],
  };
}
