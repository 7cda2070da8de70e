/**
 * How many packets wait for their state at most (early-replies.ts): of one source, to one endpoint,
 * and in vain in a second. Sources and endpoints are told by a hash, so a few may share a bound.
 * All memory is fixed.
 *
 * The last bound is what makes a flood of unsolicited packets cheap: each packet that waits costs
 * two copies and a second way through the chain, so only so many a second do, beside those whose
 * state comes.
 */

import type { MetricCatalogue } from '../shm/metrics.js';
import { NONE } from '../shm/none.js';
import { columnsOf } from './counters.js';

export const BOUND_COUNTERS = {
  early_replies_source: 'packets that did not wait because too many of their source were waiting',
  early_replies_destination: 'packets that did not wait because too many to their destination were waiting',
  early_replies_rate: 'packets that did not wait because too many waited in vain of late',
} as const;

/** Of one source address, and to one endpoint (address, port and protocol). */
export const WAITING_PER_SOURCE = 1024;
export const WAITING_PER_DESTINATION = 64;
/** Packets that may wait in vain in a second, on average; of one source, this part of them. */
export const VAIN_PER_SECOND = 128;
export const VAIN_OF_SOURCE = 1 / 2;

const SOURCES = 1024;
const ENDPOINTS = 4096;

export interface EarlyBounds {
  /** Whether no packet may wait now, whatever its hashes. */
  isSpent(nowMs: number): boolean;
  /** Whether none of this source may. */
  isSpentBy(source: number): boolean;
  /**
   * The counter of the other bound that keeps a packet with these hashes from waiting, or `NONE`.
   */
  refusal(source: number, endpoint: number): number;
  /** A packet began to wait. */
  took(source: number, endpoint: number): void;
  /** One waits no longer; in vain, or not. */
  left(source: number, endpoint: number, isKnown: boolean): void;
  /** Some times a second: time allows for others. */
  earn(nowMs: number): void;
}

/** `burst`: packets that may wait in vain at once. Made once per data plane. */
export function createEarlyBounds(burst: number, catalogue: MetricCatalogue, nowMs: number): EarlyBounds {
  const columns = columnsOf(catalogue, BOUND_COUNTERS);
  const ofSource = new Int32Array(SOURCES);
  const atEndpoint = new Int32Array(ENDPOINTS);
  const burstOfSource = burst * VAIN_OF_SOURCE;
  /** What of its part a source has used. */
  const vainOfSource = new Float64Array(SOURCES);
  let vain = burst;
  let earnedAt = nowMs;
  let earnedBySourceAt = nowMs;

  function earnForAll(now: number): void {
    vain = Math.min(burst, vain + ((now - earnedAt) * VAIN_PER_SECOND) / 1000);
    earnedAt = now;
  }

  function earnBySource(now: number): void {
    const earned = ((now - earnedBySourceAt) * VAIN_PER_SECOND * VAIN_OF_SOURCE) / 1000;
    for (let n = 0; n < SOURCES; n++) vainOfSource[n] = Math.max(0, vainOfSource[n] - earned);
    earnedBySourceAt = now;
  }

  return {
    earn(now) {
      earnForAll(now);
      earnBySource(now);
    },
    isSpent(now) {
      if (vain < 1) earnForAll(now);
      return vain < 1;
    },
    isSpentBy: (source) => vainOfSource[source & (SOURCES - 1)] >= burstOfSource,
    refusal(source, endpoint) {
      if (ofSource[source & (SOURCES - 1)] >= WAITING_PER_SOURCE) return columns.early_replies_source;
      if (atEndpoint[endpoint & (ENDPOINTS - 1)] >= WAITING_PER_DESTINATION) return columns.early_replies_destination;
      return NONE;
    },
    took(source, endpoint) {
      ofSource[source & (SOURCES - 1)]++;
      atEndpoint[endpoint & (ENDPOINTS - 1)]++;
      vainOfSource[source & (SOURCES - 1)]++;
      vain--;
    },
    left(source, endpoint, isKnown) {
      ofSource[source & (SOURCES - 1)]--;
      atEndpoint[endpoint & (ENDPOINTS - 1)]--;
      if (!isKnown) return;
      if (vain < burst) vain++;
      if (vainOfSource[source & (SOURCES - 1)] >= 1) vainOfSource[source & (SOURCES - 1)]--;
    },
  };
}
