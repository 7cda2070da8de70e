/**
 * The log for middleboxes: a line with fields, for periodic export and alerts, through the thread's
 * event ring.
 *
 * It is not for every packet. Each middlebox of a worker may write `LINES_PER_SECOND` on average
 * and `LINES_IN_A_BURST` at once. Lines beyond that are counted and left out, so packets cannot
 * fill the disk.
 */

import type { EventFields, EventLevel, EventWriter } from '../../shm/events.js';
import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { columnsOf, counterMetrics } from '../base/counters.js';

const COUNTERS = {
  log_suppressed: 'lines of middleboxes that were not logged: too many at once, or too long',
} as const;

export const MIDDLEBOX_LOG_METRICS: Metric[] = counterMetrics(COUNTERS);

export const LINES_PER_SECOND = 10;
export const LINES_IN_A_BURST = 50;

/** Each method returns false if the line was left out. */
export interface MiddleboxLog {
  info(text: string, fields?: EventFields): boolean;
  warn(text: string, fields?: EventFields): boolean;
  error(text: string, fields?: EventFields): boolean;
}

export function createMiddleboxLog(
  name: string,
  events: EventWriter,
  row: Float64Array,
  catalogue: MetricCatalogue,
): MiddleboxLog {
  const { log_suppressed } = columnsOf(catalogue, COUNTERS);
  let tokens = LINES_IN_A_BURST;
  let refilledMs = 0;

  function write(level: EventLevel, text: string, fields?: EventFields): boolean {
    const nowMs = Date.now();
    const elapsedMs = Math.max(0, nowMs - refilledMs);
    tokens = Math.min(LINES_IN_A_BURST, tokens + (elapsedMs * LINES_PER_SECOND) / 1000);
    refilledMs = nowMs;
    const written = tokens >= 1 && events.write(level, `${name}: ${text}`, fields && { [name]: fields });
    if (written) tokens--;
    else row[log_suppressed]++;
    return written;
  }

  return {
    info: (text, fields) => write('info', text, fields),
    warn: (text, fields) => write('warn', text, fields),
    error: (text, fields) => write('error', text, fields),
  };
}
