/**
 * Makes V8 compile functions when their module is loaded, not at their first call.
 *
 * So the first packets of a worker do not wait for compilation: a first ping through the NAT and
 * back took 9 ms, and now takes 1 to 2 ms. Sending packets of our own through the code beforehand
 * would work as well. But only a second data plane could take them without touching the real one's
 * state, and with two data planes in a thread each packet costs up to three times as much
 * (batch.ts).
 */

import { setFlagsFromString } from 'node:v8';

/** Affects threads that start after the call. Main calls it before the first. */
export function compileAhead(): void {
  setFlagsFromString('--no-lazy');
  // Compiles to machine code at once, without type feedback from a few calls. The optimiser runs
  // later as usual.
  setFlagsFromString('--always-sparkplug');
}
