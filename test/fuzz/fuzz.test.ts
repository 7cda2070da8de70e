import { strict as assert } from 'node:assert';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { fuzz, MODES } from './run.js';

const MESSAGES = 200_000;
/**
 * Memory that is the same at the end may still be some pages more; what grew with the messages
 * would be far more.
 */
const GROWTH_MIB_MAX = 8;

describe('the receive thread', () => {
  before(() => {
    setFlagsFromString('--expose-gc');
    (globalThis as { gc?: () => void }).gc = runInNewContext('gc') as () => void;
  });

  for (const mode of MODES)
    it(`goes on, with nothing changed, through a flood of wrong datagrams: ${mode}`, async () => {
      const report = await fuzz({ mode, messages: MESSAGES, seed: 7 });
      assert.deepEqual(report.problems, []);
      const { accepted } = report.byReason;
      if (mode === 'sealed') assert.equal(accepted, 0);
      // Replays, in which nothing is new; and where a change happened to make one recorded message
      // of another.
      else if (mode === 'unsealed') assert.ok(accepted - report.byKind['replayed'] < 10);
      else assert.ok(accepted > MESSAGES / 10, 'enough are believed to be worth it');
      const growth = report.heapMiB.end - report.heapMiB.start;
      assert.ok(growth < GROWTH_MIB_MAX, `the heap grew by ${growth} MiB`);
    });
});
