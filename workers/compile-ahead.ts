/**
 * Has V8 compile functions when their module is loaded, not when they are first called.
 *
 * So the first packets of a worker do not wait while the code they run through is read and
 * compiled: a first ping through the NAT and back took 9 ms, and takes 1 to 2 ms. Sending packets
 * of our own through that code beforehand does as well, but only a second data plane could take
 * them and leave the real one's state alone; and with two data planes in a thread each packet costs
 * three times as much (batch.ts).
 */

import { setFlagsFromString } from 'node:v8';

/** For threads started from here on. Main calls it before the first. */
export function compileAhead(): void {
  setFlagsFromString('--no-lazy');
  // To machine code, without waiting for what a few calls would tell of types; the optimiser comes
  // later as ever.
  setFlagsFromString('--always-sparkplug');
}
