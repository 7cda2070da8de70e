/** The downloads of downloads.test.ts in other layouts: one site, generic XDP, two workers. */

import { strict as assert } from 'node:assert';
import { availableParallelism } from 'node:os';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { DOWNLOADS, downloadByEither, LOAD } from './many-downloads.js';
import { assertAllFetched, CLIENTS_OF_A, CLIENTS_OF_B, connectTimes, withTwoSites } from './support.js';

describe('end to end: downloads in other layouts', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  it(`${DOWNLOADS} at once, there and back through one site, neighbours found by ARP`, async () => {
    await withTwoSites({ routing: 'by-a', arp: true, wan: { delay_ms: 50 } }, async ({ testbed, a, b }) => {
      await startServer(testbed, 'server');
      const fetched = await fetchAll(testbed, 'client', { ...LOAD, sources: CLIENTS_OF_A });
      assertAllFetched(fetched, DOWNLOADS);
      assert.equal((await a.counters())['nat_unsolicited'], 0);
      assert.equal((await b.counters())['nat_outbound'], 0);
      console.log(`      ${connectTimes(fetched)}`);
      await converged([a, b]);
    });
  });

  it(`${DOWNLOADS} at once, each way through either site, XDP in generic mode, unicast between the sites`, () =>
    downloadByEither('generic'));

  it(`${DOWNLOADS} at once, two workers at each site, each way through either worker of either site`, async function () {
    if (availableParallelism() < 2) this.skip();
    await withTwoSites({ routing: 'spread', workers: 2, wan: { delay_ms: 2 } }, async ({ testbed, a, b }) => {
      await startServer(testbed, 'server');
      const fetched = await fetchAll(testbed, 'client', { ...LOAD, sources: [...CLIENTS_OF_A, ...CLIENTS_OF_B] });
      assertAllFetched(fetched, DOWNLOADS);
      for (const site of [a, b]) {
        assert.equal((await site.threads()).length, 4);
        const [first, second] = await site.byThread('batches');
        assert.ok(
          first > 0 && second > 0,
          `both workers of site ${site.name} had packets: ${first}, ${second} batches`,
        );
      }
      await converged([a, b]);
    });
  });
});
