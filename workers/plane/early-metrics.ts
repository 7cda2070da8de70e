/** A worker's metrics of early replies (early-replies.ts). */

import type { Metric } from '../../shm/metrics.js';
import { counterMetrics } from '../base/counters.js';
import { BOUND_COUNTERS } from './early-bounds.js';

export const EARLY_COUNTERS = {
  early_replies:
    'packets that came before the state they belong to and waited for it, at one stage of the chain each time',
  early_replies_known: 'of those, the ones that went on because the state came',
  early_replies_expired: 'of those, the ones whose time was over: the middlebox decided with the state that was there',
  early_replies_full: 'packets that did not wait because as many packets or bytes as possible were waiting',
  ...BOUND_COUNTERS,
  early_replies_behind: 'dropped: a packet behind one that waited for its state, with no room to wait too',
  early_replies_lost: 'dropped: waited for its state when the worker ended',
} as const;

export const WAITING_REPLIES = 'waiting_replies';
export const WAIT_MS = 'early_replies_wait_ms';

export const EARLY_METRICS: Metric[] = [
  ...counterMetrics(EARLY_COUNTERS),
  { name: WAITING_REPLIES, help: 'packets that wait for the state they belong to', kind: 'gauge' },
  { name: WAIT_MS, help: 'milliseconds that such a packet waits at most, as measured now', kind: 'gauge' },
];
