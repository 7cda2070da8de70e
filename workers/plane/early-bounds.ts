/**
 * Bounds on early replies (early-replies.ts): packets that wait from one source, packets that wait
 * for one endpoint, and packets per second that wait in vain. Sources and endpoints are identified
 * by a hash, so a few can share a bound. All memory is fixed.
 *
 * The last bound keeps a flood of unsolicited packets cheap. Each packet that waits costs two
 * copies and a second pass through the chain, so the number per second is limited. Packets whose
 * state arrives do not count.
 */

import type { MetricCatalogue } from '../../shm/metrics.js';
import { NONE } from '../../shm/none.js';
import { columnsOf } from '../base/counters.js';

export const BOUND_COUNTERS = {
  early_replies_source: 'packets that did not wait because too many of their source were waiting',
  early_replies_destination: 'packets that did not wait because too many to their destination were waiting',
  early_replies_rate: 'packets that did not wait because too many waited in vain of late',
} as const;

/** Most waiting packets of one source address, and to one endpoint (address, port and protocol). */
export const WAITING_PER_SOURCE = 1024;
export const WAITING_PER_DESTINATION = 64;
/** Packets per second that may wait in vain, on average, and the share of one source. */
export const VAIN_PER_SECOND = 128;
export const VAIN_OF_SOURCE = 1 / 2;

const SOURCES = 1024;
const ENDPOINTS = 4096;

interface EarlyBounds {
  /** Whether no packet may wait now, whatever its hashes. */
  isSpent(nowMs: number): boolean;
  /** Whether no packet of this source may wait now. */
  isSpentBy(source: number): boolean;
  /**
   * The counter of the other bound that keeps a packet with these hashes from waiting, or `NONE`.
   */
  refusal(source: number, endpoint: number): number;
  /** A packet began to wait. */
  took(source: number, endpoint: number): void;
  /** A packet no longer waits. `isKnown`: its state arrived, so it did not wait in vain. */
  left(source: number, endpoint: number, isKnown: boolean): void;
  /** Called some times a second. Refills the allowance by the time that passed. */
  earn(nowMs: number): void;
}

/** `burst`: packets that may wait in vain at once. Made once per data plane. */
export function createEarlyBounds(burst: number, catalogue: MetricCatalogue, nowMs: number): EarlyBounds {
  const columns = columnsOf(catalogue, BOUND_COUNTERS);
  const ofSource = new Int32Array(SOURCES);
  const atEndpoint = new Int32Array(ENDPOINTS);
  const burstOfSource = burst * VAIN_OF_SOURCE;
  /** The part of its share that a source has used. */
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
