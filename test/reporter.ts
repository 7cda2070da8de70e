/** mocha's spec reporter, closing with the one line that tools read: `N passed, N failed[, N skipped]`. */

import Mocha from 'mocha';

export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    runner.once('end', () => {
      const { passes, failures, pending } = this.stats;
      // Written behind the epilogue that the base class prints on the same event.
      setImmediate(() => {
        console.log(`${passes} passed, ${failures} failed${pending > 0 ? `, ${pending} skipped` : ''}`);
      });
    });
  }
}
