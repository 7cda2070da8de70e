/**
 * Replies that come to a site before the record about their request: none is lost, and none waits
 * for longer than the record.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { findPing, ping } from '../testbed/ping.js';
import { SERVER } from '../testbed/two-sites.js';
import { assertAllFetched, CLIENTS_OF_A, connectTimes, ORIGIN, UdpFlows, withTwoSites } from './support.js';

const DOWNLOADS = 50;
/** Sockets that send two datagrams each, back to back, as a resolver asks for A and AAAA. */
const RESOLVERS = 15;
const PINGS = 10;
const LOAD = { origins: [ORIGIN], bytes: 10_000, count: DOWNLOADS, concurrency: DOWNLOADS, sources: CLIENTS_OF_A };

describe('end to end: replies that come before their state', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  it('wait for it, so none is lost', async () => {
    // The server is next to both sites, which are 50 ms from each other: every first reply is
    // early.
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 50 } }, async (sites) => {
      const { testbed, a, b } = sites;
      await startServer(testbed, 'server');
      const fetched = await fetchAll(testbed, 'client', LOAD);
      assertAllFetched(fetched, DOWNLOADS);
      console.log(`      ${connectTimes(fetched)}`);
      const after = await b.counters();
      // On a busy machine some records are there first.
      assert.ok(after['early_replies_known'] > 0);
      // Of so many at once on a busy machine, the record of one may take longer than its reply
      // waits.
      assert.ok(after['nat_unsolicited'] <= after['early_replies_expired']);
      assert.ok(after['early_replies_expired'] < DOWNLOADS / 2);

      await UdpFlows.serve(sites);
      const flows = await UdpFlows.open(sites, CLIENTS_OF_A[0], 20_000, RESOLVERS);
      await flows.send(2);
      await flows.replies(2 * RESOLVERS);
      assert.equal(flows.portsWith(2), RESOLVERS, 'both queries of every socket were answered');
      await flows.close();
      if (findPing() !== null) {
        // One each: the first is the one whose reply can be early.
        const clients = CLIENTS_OF_A.slice(0, PINGS);
        const pings = await Promise.all(clients.map((source) => ping(testbed, 'client', SERVER, 1, source)));
        assert.deepEqual(
          pings.map(({ received }) => received),
          clients.map(() => 1),
        );
      }
      const { nat_unsolicited, waiting_replies } = await b.counters();
      assert.equal(nat_unsolicited, after['nat_unsolicited'], 'no reply was lost but those of the burst');
      assert.equal(waiting_replies, 0);
      await converged([a, b]);
    });
  });
});
