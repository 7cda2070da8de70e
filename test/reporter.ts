/**
 * mocha's spec reporter, closing with the one line that tools read: `N passed, N failed[, N
 * skipped]`.
 */

import Mocha from 'mocha';

/** The last line of every run of tests. */
export function closingLine(passed: number, failed: number, skipped: number): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

/**
 * Has the test that runs fail if a promise is rejected and nobody handles it. Mocha on its own
 * ignores such rejections: it listens for them, so that Node does not end the process, and passes
 * them on only to other listeners.
 */
export function failOnUnhandledRejections(): void {
  process.on('unhandledRejection', (reason) => {
    throw reason;
  });
}

export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    failOnUnhandledRejections();
    runner.once('end', () => {
      const { passes, failures, pending } = this.stats;
      // Written after the summary that the base class prints on the same event.
      setImmediate(() => console.log(closingLine(passes, failures, pending)));
    });
  }
}
