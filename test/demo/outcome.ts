/** What the demo is asked, and what came of it. */

import type { Remedy } from '../testbed/first-packets/networks.js';

export interface DemoOptions {
  /** End by itself. */
  readonly once: boolean;
  /** Between the sites, each way. */
  readonly wan_ms: number;
  /** What is done about replies that are faster than the state they need. */
  readonly remedy: Remedy;
}

export interface Outcome {
  /** What was not as it should be; empty when all went well. */
  readonly problems: readonly string[];
  /** What happened, for people. */
  readonly lines: readonly string[];
}

/** This machine does not have what real packets need. */
export class Unavailable extends Error {}
