/** Real programs through two real instances: whatever way packets take, the right bytes come. */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { findPing, ping } from '../testbed/ping.js';
import { clientOfA, SERVER } from '../testbed/two-sites.js';
import { DOWNLOADS, downloadByEither, LOAD } from './many-downloads.js';
import { assertAllFetched, CLIENTS_OF_A, connectTimes, withTwoSites } from './support.js';

describe('end to end: downloads', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  it(`${DOWNLOADS} at once, requests through site a, replies through site b`, async () => {
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 } }, async ({ testbed, a, b }) => {
      await startServer(testbed, 'server');
      const fetched = await fetchAll(testbed, 'client', { ...LOAD, sources: CLIENTS_OF_A });
      assertAllFetched(fetched, DOWNLOADS);
      const there = await a.counters();
      const back = await b.counters();
      assert.ok(there['nat_outbound'] > 0 && there['nat_inbound'] === 0, 'requests passed site a, and only they');
      assert.ok(back['nat_inbound'] > 0 && back['nat_outbound'] === 0, 'replies passed site b, and only they');
      // The server is nearer than site a is to site b: first replies come before the state, and
      // wait for it.
      assert.ok(back['early_replies_known'] > 0);
      // On a busy machine, a record may take longer than its reply waits.
      assert.ok(back['nat_unsolicited'] <= back['early_replies_expired']);
      assert.ok(back['early_replies_expired'] < DOWNLOADS / 2);
      console.log(
        `      ${back['early_replies_known']} replies came to site b before the state; ${connectTimes(fetched)}`,
      );
      await converged([a, b]);
    });
  });

  it(`${DOWNLOADS} at once, each way through either site, XDP in native mode, unicast between the sites`, () =>
    downloadByEither('native'));

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
