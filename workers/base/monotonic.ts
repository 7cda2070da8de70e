/**
 * Monotonic milliseconds that all threads of the process agree on (CLOCK_MONOTONIC), with
 * microseconds as fractions.
 *
 * `performance.now()` counts from the start of each thread. Its offset from the common clock is
 * measured once.
 */

function offsetMs(): number {
  const before = performance.now();
  const [seconds, nanoseconds] = process.hrtime();
  const after = performance.now();
  return seconds * 1000 + nanoseconds / 1e6 - (before + after) / 2;
}

const OFFSET_MS = offsetMs();

export function monotonicMs(): number {
  return performance.now() + OFFSET_MS;
}
