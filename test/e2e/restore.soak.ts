/**
 * 200 real downloads while sites are stopped in order and started again: one alone, three in turn,
 * three at once.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { converged } from '../testbed/instance.js';
import type { ManySites } from '../testbed/many-sites.js';
import { downloadsThroughOne, whileDownloading, withStarted } from './restarts.js';
import { ALL, others, TOGETHER } from './three-sites.js';

const DOWNLOADS = { count: 200, bytes: 1_000_000, rate: 12_000 };

describe('end to end: 200 downloads survive', function () {
  this.timeout(600_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  it('a restart of the only instance', async () => {
    const { restored } = await downloadsThroughOne(DOWNLOADS);
    assert.ok(restored >= DOWNLOADS.count);
  });

  const withThree = async (test: (sites: ManySites) => Promise<void>): Promise<void> =>
    withStarted({ sites: ALL, savesState: true, ...TOGETHER }, ALL, async (sites) => {
      await test(sites);
      await converged(ALL.map((name) => sites.site(name)));
    });

  it('restarts of three sites, one after another', () =>
    withThree(async (sites) => {
      for (const name of ALL)
        await whileDownloading(sites, ALL, DOWNLOADS, async () => {
          await sites.steer(others(name));
          await sites.site(name).stop();
          await sites.site(name).start();
          await sites.steer(ALL);
        });
    }));

  it('a restart of all three at once', () =>
    withThree(async (sites) => {
      await whileDownloading(sites, ALL, DOWNLOADS, async () => {
        await Promise.all(ALL.map((name) => sites.site(name).stop()));
        await sites.start(...ALL);
        const reasons = await Promise.all(ALL.map(async (name) => (await sites.site(name).status()).state_reason));
        assert.equal(reasons.filter((reason) => reason.startsWith('has restored its state file')).length, 1);
        assert.equal(reasons.filter((reason) => reason.startsWith('has the state of a member')).length, 2);
      });
    }));
});
