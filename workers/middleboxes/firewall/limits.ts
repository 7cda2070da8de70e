/**
 * Token buckets of `limit rate`. They are in shared memory beside the rules, so all workers of an
 * instance share them. Each site has its own. After a reload of rules, buckets start full.
 *
 * A bucket is one word, the *theoretical arrival time*: the time when it will be full again (the
 * generic cell rate algorithm). A packet moves it forward by the cost of one packet. The packet is
 * over the rate if that would empty the bucket. This is equivalent to the bucket of nftables. Time
 * is in ticks, modulo 2^32. The length of a tick is chosen per limit.
 */

import { monotonicMs } from '../../api/api.js';
import type { Limit } from './rule.js';

const WHEN_FULL = 0;
/**
 * Clock in seconds at the last packet. It tells an old time from one ahead of the clock, since
 * times are modulo 2^32.
 */
const HEARD = 1;
const COST = 2;
const DEPTH = 3;
const OVER = 4;
/** Ticks in a millisecond: a number, and the power of two that divides it. */
const TICKS_PER_MS = 5;
const TICKS_SHIFT = 6;
/** Seconds after which the bucket is certainly full. */
const FULL_S = 7;
const WORDS = 8;

/** Depth of a bucket in ticks: enough to keep rates exact, and far from 2^31. */
const DEPTH_TICKS = 1 << 28;
const TICKS_PER_MS_MAX = 16_000;
/** Largest value of a word, 68 years. No bucket is older. */
const SECONDS_MAX = 2 ** 31 - 1;
const MANTISSA_BITS = 30;

/** Returns the words of a bucket. */
export function limitWords({ rate, periodMs, burst, over }: Limit): number[] {
  const costMs = periodMs / rate;
  const ticksPerMs = Math.min(TICKS_PER_MS_MAX, DEPTH_TICKS / (costMs * burst));
  const words = Array<number>(WORDS).fill(0);
  words[COST] = Math.max(1, Math.round(costMs * ticksPerMs));
  words[DEPTH] = words[COST] * burst;
  words[OVER] = Number(over);
  const shift = MANTISSA_BITS - Math.ceil(Math.log2(ticksPerMs));
  words[TICKS_PER_MS] = Math.round(ticksPerMs * 2 ** shift);
  words[TICKS_SHIFT] = shift;
  words[FULL_S] = Math.min(SECONDS_MAX, Math.ceil((costMs * burst) / 1000) + 1);
  return words;
}

/**
 * How a limit is asked.
 *
 * - TAKE: for a packet that matches the rule.
 * - LOOK: the same, but nothing is used up.
 * - IGNORE: as if no packet had come before, for questions about other packets.
 */
export const Ask = { TAKE: 0, LOOK: 1, IGNORE: 2 } as const;

interface Limits {
  /**
   * Returns true if a packet that matches the rest of the rule also matches its limit, whose bucket
   * is at `words[at …]`.
   */
  matches(at: number, ask: number): boolean;
}

/** Made once per worker. `clock` returns monotonic milliseconds, the same for all threads. */
export function createLimits(words: Int32Array, clock: () => number = monotonicMs): Limits {
  function matches(at: number, ask: number): boolean {
    const over = words[at + OVER] !== 0;
    if (ask === Ask.IGNORE) return !over;
    const ms = clock();
    const seconds = Math.floor(ms / 1000) | 0;
    const perMs = words[at + TICKS_PER_MS] * 2 ** -words[at + TICKS_SHIFT];
    const now = Math.floor((ms * perMs) % 4_294_967_296) | 0;
    for (;;) {
      const isFull = seconds - Atomics.load(words, at + HEARD) > words[at + FULL_S];
      const whenFull = Atomics.load(words, at + WHEN_FULL);
      const used = isFull ? 0 : Math.max(0, (whenFull - now) | 0);
      const after = used + words[at + COST];
      if (after > words[at + DEPTH]) return over;
      if (ask === Ask.LOOK) return !over;
      // Store this first. A worker that sees the new `WHEN_FULL` then sees its age.
      Atomics.store(words, at + HEARD, seconds);
      if (Atomics.compareExchange(words, at + WHEN_FULL, whenFull, (now + after) | 0) === whenFull) return !over;
    }
  }

  return { matches };
}
