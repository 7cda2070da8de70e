/** Packets of new bindings that wait for the other site: no reply comes there before the state. */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { assertAllFetched, CLIENTS_OF_A, connectTimes, ORIGIN, UdpFlows, withTwoSites } from './support.js';

const DOWNLOADS = 50;
/** Sockets that send two datagrams each, back to back, as a resolver asks for A and AAAA. */
const RESOLVERS = 15;
const LOAD = { origins: [ORIGIN], bytes: 10_000, count: DOWNLOADS, concurrency: DOWNLOADS, sources: CLIENTS_OF_A };

describe('end to end: held first packets', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  it('wait until the site that the replies come by has the binding', async () => {
    // The server is next to both sites, which are 50 ms from each other: unheld, all first replies
    // came too soon.
    const nat = { hold_members: 1, hold_ms: 10_000 };
    await withTwoSites({ routing: 'asymmetric', nat, wan: { delay_ms: 50 } }, async (sites) => {
      const { testbed, a, b } = sites;
      await startServer(testbed, 'server');
      const fetched = await fetchAll(testbed, 'client', LOAD);
      assertAllFetched(fetched, DOWNLOADS);
      const there = await a.counters();
      const back = await b.counters();
      assert.equal(there['nat_bound'], DOWNLOADS);
      // A SYN that its client sends again while the first one waits, waits too.
      assert.ok(there['hold_packets'] >= DOWNLOADS);
      assert.equal(there['hold_expired'], 0, 'all were acknowledged');
      assert.equal(there['held_packets'], 0);
      assert.ok(back['nat_inbound'] > 0, 'replies passed site b');
      assert.equal(back['nat_unsolicited'], 0, 'none came before the state');
      console.log(`      ${connectTimes(fetched)}`);

      await UdpFlows.serve(sites);
      const flows = await UdpFlows.open(sites, CLIENTS_OF_A[0], 20_000, RESOLVERS);
      await flows.send(2);
      await flows.replies(2 * RESOLVERS);
      assert.equal(flows.portsWith(2), RESOLVERS, 'both queries of every socket were answered');
      await flows.close();
      assert.equal((await a.counters())['hold_packets'], there['hold_packets'] + 2 * RESOLVERS);
      assert.equal((await b.counters())['nat_unsolicited'], 0);
      await converged([a, b]);
    });
  });

  it('wait no longer than they are told to, where nobody is left to acknowledge', async () => {
    const nat = { hold_members: 1, hold_ms: 50 };
    await withTwoSites({ routing: 'by-a', nat, wan: { delay_ms: 5 } }, async ({ testbed, a, b }) => {
      await startServer(testbed, 'server');
      await testbed.relay.cut('wan', 'site-a', 'site-b');
      const fetched = await fetchAll(testbed, 'client', LOAD);
      assertAllFetched(fetched, DOWNLOADS);
      const counters = await a.counters();
      assert.ok(counters['hold_packets'] >= DOWNLOADS);
      assert.equal(counters['hold_expired'], counters['hold_packets']);
      await testbed.relay.heal('wan', 'site-a', 'site-b');
      await converged([a, b]);
    });
  });
});
