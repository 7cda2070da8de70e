/**
 * Coarse absolute time, as state carries it: whole seconds since 2024-01-01T00:00:00Z, a positive 31-bit number until
 * 2092. It is compared between instances, so it is wall-clock time; `CLOCK_SKEW_GUARD_S` is how far two instances' clocks
 * may be apart before an entry could be reclaimed at one while another still counts on it.
 */
export const EPOCH_MS = Date.UTC(2024, 0, 1);
export const CLOCK_SKEW_GUARD_S = 2;

export function coarseSeconds(unixMs: number): number {
  return Math.trunc((unixMs - EPOCH_MS) / 1000) | 0;
}

export function unixMs(coarse: number): number {
  return coarse * 1000 + EPOCH_MS;
}
