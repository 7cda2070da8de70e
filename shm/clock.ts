/**
 * Coarse absolute time, as state carries it: whole seconds since 2024-01-01T00:00:00Z, a positive
 * 31-bit number until 2092. Instances compare it, so it is wall-clock time. `CLOCK_SKEW_GUARD_S` is
 * how far the clocks of two instances may be apart: beyond that, one could reclaim an entry that
 * another still uses.
 */
export const EPOCH_MS = Date.UTC(2024, 0, 1);
export const CLOCK_SKEW_GUARD_S = 2;

/**
 * A record, and each repetition of it, must reach every member within this time. It bounds how far
 * apart in time two records of one entry can be if a later record, which ends the entry sooner, has
 * overtaken an earlier one. The origin of the earlier record had not yet received the later one,
 * and the earlier record itself takes at most this time to arrive.
 */
export const DELIVERY_S_MAX = 28;
/**
 * An entry whose expiry can move back is remembered for this long past its expiry, so that a late
 * record does not revive it.
 */
export const REMEMBERED_S = 2 * (DELIVERY_S_MAX + CLOCK_SKEW_GUARD_S);

/**
 * No correct record has an expiry or generation further ahead than this (two years). Timers are at
 * most one year; promises are longer.
 */
export const FUTURE_S_MAX = 2 * 366 * 86_400;

/**
 * The expiry of an entry that lasts `seconds` from an instant in the coarse second `now`: the first
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
