/**
 * Coarse absolute time, as state carries it: whole seconds since 2024-01-01T00:00:00Z, a positive
 * 31-bit number until
 * 2092. It is compared between instances, so it is wall-clock time; `CLOCK_SKEW_GUARD_S` is how far
 *       two instances' clocks
 * may be apart before an entry could be reclaimed at one while another still counts on it.
 */
export const EPOCH_MS = Date.UTC(2024, 0, 1);
export const CLOCK_SKEW_GUARD_S = 2;

/**
 * A record, each repetition of it too, is to reach every member within this. It bounds how far
 * apart in time two records of one entry can be, when a later one, which ends the entry sooner, has
 * overtaken an earlier one: whoever said the earlier one had yet to hear the later, and whoever
 * hears the earlier hears it that long after.
 */
export const DELIVERY_S_MAX = 28;
/**
 * So long past its expiry an entry whose expiry can move back is remembered, that a late record
 * does not revive it.
 */
export const REMEMBERED_S = 2 * (DELIVERY_S_MAX + CLOCK_SKEW_GUARD_S);

/**
 * An expiry or generation further ahead than this (two years) is no honest record's: timers are a
 * year at most, and promise more.
 */
export const FUTURE_S_MAX = 2 * 366 * 86_400;

/**
 * The expiry of what is to last `seconds` from an instant in the coarse second `now`: the first
 * coarse second that begins no earlier than that. (`now + seconds` would be up to a second early,
 * since `now` is truncated.)
 */
export function expiryAfter(now: number, seconds: number): number {
  return now + seconds + 1;
}

export function coarseSeconds(unixMs: number): number {
  return Math.trunc((unixMs - EPOCH_MS) / 1000) | 0;
}

export function unixMs(coarse: number): number {
  return coarse * 1000 + EPOCH_MS;
}
