/** What an instance without traffic costs, and what that costs the packet that ends the silence. */

import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { needs } from '../support/require.js';
import { findPing, ping } from '../testbed/ping.js';
import { clientOfA, SERVER } from '../testbed/two-sites.js';
import { withTwoSites } from './support.js';

const QUIET_S = 5;
/**
 * Meant is 3 % of a core; twice that is far from any busy loop, and far from what a busy machine
 * adds.
 */
const CORE_SHARE_MAX = 0.06;

describe('end to end: idle', function () {
  this.timeout(60_000);

  before(function () {
    needs(this, 'af_xdp');
  });

  it('sleeps when there is no traffic, and wakes at once', async function () {
    if (findPing() === null) needs(this, 'tool:ping');
    await withTwoSites({ routing: 'by-a', wan: { delay_ms: 50 } }, async ({ testbed, a, b }) => {
      await sleep(2000); // what starting left to do
      const before = [a, b].map((site) => site.program.processorSeconds());
      await sleep(QUIET_S * 1000);
      const shares = [a, b].map((site, i) => (site.program.processorSeconds() - before[i]) / QUIET_S);
      const cold = await ping(testbed, 'client', SERVER, 1, clientOfA(0));
      // Each of these comes after 200 ms of silence, when the worker has long been asleep.
      const warm = await ping(testbed, 'client', SERVER, 10, clientOfA(0));
      const kernel = await ping(testbed, 'client', '10.0.1.1', 10);
      const percent = shares.map((share) => `${(share * 100).toFixed(1)} %`).join(' and ');
      console.log(`      idle at ${percent} of a core; the very first packet was back after ${cold.rttMs} ms`);
      const kernelMs = `${kernel.rttMs} ms from the first hop’s kernel`;
      console.log(`      later ones, 200 ms apart, after ${warm.rttMs} ms on average (${kernelMs})`);
      assert.deepEqual([cold.received, warm.received], [1, 10]);
      for (const share of shares) assert.ok(share < CORE_SHARE_MAX, `${percent} of a core while idle`);
    });
  });
});
