/** The demo's options and outcome. */

import type { Remedy } from '../testbed/first-packets/networks.js';

export interface DemoOptions {
  /** Whether the demo ends by itself. */
  readonly once: boolean;
  /** Delay between the sites, each way. */
  readonly wan_ms: number;
  /** The remedy for replies that are faster than the state they need. */
  readonly remedy: Remedy;
}

export interface Outcome {
  /** What went wrong; empty if nothing did. */
  readonly problems: readonly string[];
  /** What happened, as text. */
  readonly lines: readonly string[];
}

/** This machine lacks something that real packets need. */
export class Unavailable extends Error {}
