/**
 * The events that a test process reports to the runner, over Node's channel between a process and
 * its child.
 */

export type Event =
  /**
   * A test or hook begins. If nothing follows within `timeout_ms` (0: unlimited), the runner ends
   * the process after a grace time.
   */
  | {
      readonly kind: 'begin';
      readonly file: string;
      readonly title: string;
      readonly timeout_ms: number;
      /** CPU time of the process so far, without its children. */
      readonly cpu_ms: number;
    }
  | { readonly kind: 'passed' | 'skipped'; readonly file: string; readonly title: string; readonly ms: number }
  /** `text` is the failure as mocha prints it. */
  | {
      readonly kind: 'failed';
      readonly file: string;
      readonly title: string;
      readonly ms: number;
      readonly text: string;
    }
  /** All tests are done. */
  | { readonly kind: 'end'; readonly cpu_ms: number }
  /** The process still runs `LINGER_MS` after `end`; `resources` keep it alive. */
  | { readonly kind: 'lingers'; readonly resources: readonly string[] };

/**
 * Time that a process may run after its last test. It is longer than servers keep idle connections
 * open.
 */
export const LINGER_MS = 15_000;
