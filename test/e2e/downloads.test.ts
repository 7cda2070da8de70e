/** Real programs through two real instances: whatever way packets take, the right bytes come. */

import { strict as assert } from 'node:assert';
import { availableParallelism } from 'node:os';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { findPing, ping } from '../testbed/ping.js';
import { clientOfA, SERVER } from '../testbed/two-sites.js';
import { assertAllFetched, CLIENTS_OF_A, CLIENTS_OF_B, connectTimes, ORIGIN, withTwoSites } from './support.js';

const DOWNLOADS = 200;
const LOAD = { origins: [ORIGIN], bytes: 100_000, count: DOWNLOADS, concurrency: DOWNLOADS };

describe('end to end: downloads', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  it('200 at once, requests through site a, replies through site b', async () => {
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 } }, async ({ testbed, a, b }) => {
      await startServer(testbed, 'server');
      const fetched = await fetchAll(testbed, 'client', { ...LOAD, sources: CLIENTS_OF_A });
      assertAllFetched(fetched, DOWNLOADS);
      const there = await a.counters();
      const back = await b.counters();
      assert.ok(there['nat_outbound'] > 0 && there['nat_inbound'] === 0, 'requests passed site a, and only they');
      assert.ok(back['nat_inbound'] > 0 && back['nat_outbound'] === 0, 'replies passed site b, and only they');
      // The server is nearer than site a is to site b: first replies come before the state, and wait for it.
      assert.ok(back['early_replies_known'] > 0);
      assert.equal(back['nat_unsolicited'], 0);
      console.log(
        `      ${back['early_replies_known']} replies came to site b before the state; ${connectTimes(fetched)}`,
      );
      await converged([a, b]);
    });
  });

  it('200 at once, there and back through one site, neighbours found by ARP', async () => {
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

  for (const mode of ['native', 'generic'] as const)
    it(`200 at once, each way through either site, XDP in ${mode} mode, unicast between the sites`, async () => {
      const options = { routing: 'spread', packet_io: { mode }, transport: { kind: 'unicast' } } as const;
      await withTwoSites({ ...options, wan: { delay_ms: 2 } }, async ({ testbed, a, b }) => {
        await startServer(testbed, 'server');
        const fetched = await fetchAll(testbed, 'client', { ...LOAD, sources: [...CLIENTS_OF_A, ...CLIENTS_OF_B] });
        assertAllFetched(fetched, DOWNLOADS);
        for (const site of [a, b]) {
          const counters = await site.counters();
          assert.ok(counters['nat_outbound'] > 0 && counters['nat_inbound'] > 0, `both ways passed site ${site.name}`);
        }
        assert.ok((await a.status()).ports.every((port) => port.includes(mode)));
        await converged([a, b]);
      });
    });

  it('200 at once, two workers at each site, each way through either worker of either site', async function () {
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

  it('ping, out through site a and back through site b', async function () {
    if (findPing() === null) needs(this, 'tool:ping');
    await withTwoSites({ wan: { delay_ms: 5 } }, async ({ testbed }) => {
      const { sent, received } = await ping(testbed, 'client', SERVER, 6, clientOfA(0));
      // The first reply may have come before the state.
      assert.ok(sent === 6 && received >= 5, `${received} of ${sent} came back`);
      // In three fragments each way.
      const large = await ping(testbed, 'client', SERVER, 6, clientOfA(1), 4000);
      assert.ok(large.sent === 6 && large.received >= 5, `${large.received} of ${large.sent} large ones came back`);
    });
  });
});
