/** Three and four real sites: one is killed, one is cut off and comes back, while downloads go on. */

import { strict as assert } from 'node:assert';
import { askJson } from '../../daemon/admin/client.js';
import { needs } from '../support/require.js';
import { startLoad, startServer } from '../testbed/http/fetch.js';
import type { Fetched } from '../testbed/http/load.js';
import { converged, eventually } from '../testbed/instance.js';
import { clientsOf, ManySites, type ManySitesOptions, ORIGIN_OF_MANY, type SiteName } from '../testbed/many-sites.js';
import { assertAllFetched } from './support.js';

const ALL: readonly SiteName[] = ['a', 'b', 'c'];
/** How long the site is cut off: longer than members wait before they count each other as silent. */
const CUT_MS = 20_000;
const DOWNLOADS = { origins: [ORIGIN_OF_MANY], bytes: 200_000, concurrency: 200, gap_ms: 5 };

async function withSites(options: ManySitesOptions, test: (sites: ManySites) => Promise<void>): Promise<void> {
  const sites = await ManySites.build(options);
  try {
    await startServer(sites.testbed, 'server');
    await test(sites);
  } catch (error) {
    console.log(sites.testbed.report());
    throw error;
  } finally {
    await sites.down();
  }
}

/** Downloads by clients of these sites until `during` is over; each has to bring the right bytes. */
async function whileDownloading(
  sites: ManySites,
  names: readonly SiteName[],
  during: (more: (count: number) => Promise<void>) => Promise<void>,
): Promise<void> {
  const fetched: Fetched[] = [];
  const load = { ...DOWNLOADS, sources: names.flatMap((name) => clientsOf(name)) };
  const { program, done } = startLoad(sites.testbed, 'client', load, (one) => fetched.push(one));
  await during(async (count) => {
    const before = fetched.length;
    await eventually('downloads', async () => (fetched.length >= before + count ? true : null));
  });
  program.endInput();
  await done;
  assertAllFetched(fetched, fetched.length);
}

const running = (sites: ManySites, names: readonly SiteName[]) => names.map((name) => sites.site(name));

describe('end to end: several sites', function () {
  this.timeout(180_000);

  before(function () {
    needs(this, 'af_xdp');
  });

  it('a site that is cut off goes on, and when it is heard again all agree', async () => {
    await withSites({ sites: ALL, wan: { delay_ms: 5 } }, async (sites) => {
      await sites.start(...ALL);
      await whileDownloading(sites, ALL, async (more) => {
        await more(100);
        // Traffic of the site stays with it: its state cannot reach the others.
        await sites.steer(['a', 'b']);
        await sites.cut('c', true);
        await new Promise((resolve) => setTimeout(resolve, CUT_MS));
        await more(50);
        await sites.cut('c', false);
        await eventually('c to be heard again', async () =>
          (await sites.site('a').peers()).every((peer) => peer.state === 'reachable') ? true : null,
        );
        await sites.steer(ALL);
        await more(100);
      });
      await converged(running(sites, ALL), 60_000);
      assert.ok((await sites.site('c').counters())['nat_bound'] > 0);
    });
  });

  it('a fourth site joins under load and carries traffic; one leaves, and no download fails', async () => {
    const four: readonly SiteName[] = ['a', 'b', 'c', 'd'];
    await withSites({ sites: four, wan: { delay_ms: 5 } }, async (sites) => {
      await sites.steer(ALL);
      await sites.start(...ALL);
      await whileDownloading(sites, ALL, async (more) => {
        await more(100);
        await sites.start('d');
        const newcomer = sites.site('d');
        assert.match(newcomer.program.output, /joining: has the state of a member/);
        await sites.steer(four);
        await more(100);
        await sites.steer(['a', 'b', 'd']);
        await more(20);
        assert.deepEqual(await sites.site('c').program.stop(), { code: 0, signal: null });
        await more(100);
      });
      const rest = running(sites, ['a', 'b', 'd']);
      for (const site of rest) await askJson(site.socket, 'member remove c');
      await converged(rest, 60_000);
    });
  });
});
