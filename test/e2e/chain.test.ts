/**
 * Several middleboxes in one instance: the NAT, and before it one of the user's own twice, under
 * two names; and a gateway with all that there is, a firewall inside of its NAT and an IDPS outside
 * of it.
 */

import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';
import { needs } from '../support/require.js';
import { scaled } from '../support/scale.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { eventually } from '../testbed/instance.js';
import { EXTERNAL, SERVER, type TwoSites } from '../testbed/two-sites.js';
import { assertAllFetched, CLIENTS_OF_A, CLIENTS_OF_B, ORIGIN, withTwoSites } from './support.js';

/** What curl exits with when the connection was refused, and when time was up. */
const REFUSED = 7;
const TIME_UP = 28;
const DOWNLOADS = scaled(30, 100);
/** What each site of a gateway lets pass, by the addresses inside. */
const RULES = `
zone lan = { port inside }
policy drop
from lan tcp dport 113 reject with tcp reset
from lan accept
iif outside ip daddr 10.1.0.1 tcp dport 80 hold 1 within 2000 ms accept
iif outside tcp dport 81 reject with tcp reset
`;
const GATEWAY = {
  routing: 'asymmetric',
  wan: { delay_ms: 5 },
  middleboxes: [{ firewall: { rules: RULES } }],
  nat: {
    hold_members: 1,
    hold_ms: 2000,
    static: [`tcp ${EXTERNAL}:8080 -> 10.1.0.1:80`, `tcp ${EXTERNAL}:8081 -> 10.1.0.1:81`],
  },
  behind: [{ idps: { answer_seconds: 2 } }],
} as const;
const WATCHER = fileURLToPath(new URL('../support/watcher.js', import.meta.url));

describe('end to end: a chain', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'tool:nmap', 'tool:ping');
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

  async function curl({ testbed }: TwoSites, node: string, url: string, ...more: string[]): Promise<number> {
    const argv = ['curl', '-sf', '-o', '/dev/null', '--max-time', '20', ...more, url];
    return (await testbed.run(node, argv, true)).code;
  }

  it('is a gateway of firewall, NAT and IDPS, each of which sees both directions by the same addresses', async () => {
    await withTwoSites(GATEWAY, async (sites) => {
      const { testbed, a, b } = sites;
      await startServer(testbed, 'server');
      await startServer(testbed, 'client');
      // Requests of half of the clients go out by a, of the others by b; all replies come by b.
      const sources = [...CLIENTS_OF_A.slice(0, DOWNLOADS / 2), ...CLIENTS_OF_B.slice(0, DOWNLOADS / 2)];
      const load = { origins: [ORIGIN], bytes: 100_000, count: DOWNLOADS, concurrency: 20, sources };
      assertAllFetched(await fetchAll(testbed, 'client', load), DOWNLOADS);
      assert.equal((await testbed.run('client', ['ping', '-c2', '-i0.2', '-W5', SERVER], true)).code, 0);
      assert.equal(await curl(sites, 'client', `http://${SERVER}:113/`), REFUSED, 'refused inside of the NAT');
      // From outside, by b, to a server inside, which answers by a; what the firewall refuses gets
      // a reset from the NAT's address.
      assert.equal(await curl(sites, 'server', `http://${EXTERNAL}:8080/100000/1`), 0);
      assert.equal(await curl(sites, 'server', `http://${EXTERNAL}:8081/`), REFUSED);
      // Inside, by the address outside.
      const hairpin = ['--interface', '10.1.0.5'];
      assert.equal(await curl(sites, 'client', `http://${EXTERNAL}:8080/100000/1`, ...hairpin), 0);
      const counters = await Promise.all([a, b].map((site) => site.counters()));
      for (const seen of counters) {
        assert.equal(seen['firewall_invalid'], 0, 'no reply was faster than the state');
        assert.equal(seen['firewall_denied'], 0);
        assert.equal(seen['idps_scanners'], 0);
        assert.equal(seen['chain_turns'], 0);
      }
      assert.ok(counters[0]['nat_hairpinned'] > 10);
      // A connection is one by its inside address at the firewall, whichever site its packets come
      // by.
      const flows = await b.flows('object=firewall.ipv4');
      assert.ok(flows.length > DOWNLOADS);
      assert.ok(flows.some(({ inside }) => inside.address === '10.1.0.1'));
      // Who scans the external address is found behind the NAT, though the firewall sees none of
      // it.
      await testbed.run(
        'server',
        ['nmap', '-n', '-Pn', '-sS', '--max-retries', '0', '--min-rate', '100', '-p', '1-60', EXTERNAL],
        true,
      );
      await eventually('the scanner to be blocked', async () => {
        const found = await Promise.all([a, b].map(async (site) => (await site.counters())['idps_scanners']));
        return found[0] + found[1] > 0 ? found : null;
      });
      assert.equal(await curl(sites, 'server', `http://${EXTERNAL}:8080/10/1`, '--max-time', '2'), TIME_UP);
    });
  });
});
