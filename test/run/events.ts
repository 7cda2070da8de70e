/**
 * What a test process reports to the runner, over the channel that Node opens between a process and
 * its child.
 */

export type Event =
  /**
   * A test or hook begins. The runner ends the process if nothing follows within `timeout_ms`, 0 if
   * unlimited.
   */
  | {
      readonly kind: 'begin';
      readonly file: string;
      readonly title: string;
      readonly timeout_ms: number;
      /** CPU time of the process so far, without those it started. */
      readonly cpu_ms: number;
    }
  | { readonly kind: 'passed' | 'skipped'; readonly file: string; readonly title: string; readonly ms: number }
  /** `text` is how mocha prints the failure. */
  | {
      readonly kind: 'failed';
      readonly file: string;
      readonly title: string;
      readonly ms: number;
      readonly text: string;
    }
  /** All tests are done. */
  | { readonly kind: 'end'; readonly cpu_ms: number }
  /** The process still runs some seconds after `end`; `resources` keep it alive. */
  | { readonly kind: 'lingers'; readonly resources: readonly string[] };

/**
 * How long a process may run on after its last test. It is longer than servers keep idle
 * connections open.
 */
export const LINGER_MS = 15_000;
