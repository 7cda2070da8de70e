/** Several middleboxes in one instance: the NAT, and before it one of the user's own twice, under two names. */

import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';
import { needs } from '../support/require.js';
import { startServer } from '../testbed/http/fetch.js';
import { eventually } from '../testbed/instance.js';
import { SERVER } from '../testbed/two-sites.js';
import { withTwoSites } from './support.js';

const REFUSED = 7;
const WATCHER = fileURLToPath(new URL('../support/watcher.js', import.meta.url));

describe('end to end: a chain', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  it('runs in its order: what one answers, those after it do not see; what the NAT owns comes to all of them', async () => {
    const watcher = (name: string) => ({ [WATCHER]: { mode: 'route' }, name });
    const middleboxes = [watcher('outer'), watcher('inner')];
    await withTwoSites({ middleboxes, routing: 'by-a' }, async (sites) => {
      await startServer(sites.testbed, 'server');
      const curl = async (url: string): Promise<number> =>
        (await sites.testbed.run('client', ['curl', '-sf', '-o', '/dev/null', '--max-time', '20', url], true)).code;
      assert.equal(await curl(`http://${SERVER}/100000/1`), 0);
      assert.equal(await curl(`http://${SERVER}:81/`), REFUSED);
      // The last packets of a connection may still be under way.
      const counted = await eventually('every packet to be counted by all', async () => {
        const counters = await sites.a.counters();
        const translated = counters['nat_outbound'] + counters['nat_inbound'];
        return counters['outer_ipv4'] === counters['inner_ipv4'] + 1 && counters['inner_ipv4'] === translated
          ? counters
          : null;
      });
      assert.ok(counted['nat_outbound'] > 10 && counted['nat_inbound'] > 10, 'both directions');
      assert.deepEqual([counted['outer_refused'], counted['inner_refused']], [1, 0]);
      assert.equal(counted['nat_bound'], 1, 'what the first one answers the NAT never sees');
    });
  });
});
