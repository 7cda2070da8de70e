/** What the demo is asked, and what came of it. */

export interface DemoOptions {
  /** End by itself. */
  readonly once: boolean;
  /** Between the sites, each way. */
  readonly wan_ms: number;
}

export interface Outcome {
  /** What was not as it should be; empty when all went well. */
  readonly problems: readonly string[];
  /** What happened, for people. */
  readonly lines: readonly string[];
}

/** This machine does not have what real packets need. */
export class Unavailable extends Error {}
