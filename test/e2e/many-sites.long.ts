/**
 * Three and four real sites: one is cut off and comes back, one is killed, one joins, one leaves;
 * downloads go on.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { startLoad, startServer } from '../testbed/http/fetch.js';
import type { Fetched } from '../testbed/http/load.js';
import { converged, eventually } from '../testbed/instance.js';
import {
  clientsOf,
  ManySites,
  type ManySitesOptions,
  memberOf,
  SITE_NAMES,
  type SiteName,
} from '../testbed/many-sites.js';
import { assertAllFetched, ORIGIN, withNetwork } from './support.js';

const ALL: readonly SiteName[] = ['a', 'b', 'c'];
const CUT_MS = 60_000;
/** Downloads between two events. */
const SOME = 100;
/**
 * Routes change at once, and a flow that was bound a moment before goes on by a site that does not
 * know it yet, which would bind it anew: so its first packet waits for the two other sites to know.
 */
const HOLD = { hold_members: 2, hold_ms: 50 };
const DOWNLOADS = { origins: [ORIGIN], bytes: 200_000, concurrency: 200, gap_ms: 5 };

/** Builds the sites, of which none is started yet, and what clients download from. */
async function withSites(options: ManySitesOptions, test: (sites: ManySites) => Promise<void>): Promise<void> {
  await withNetwork(await ManySites.build(options), async (sites) => {
    await startServer(sites.testbed, 'server');
    await test(sites);
  });
}

/**
 * Downloads by clients of these sites until `during` is over; each has to bring the right bytes.
 */
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

/** Waits for a moment at which every other site has all that this one did. */
async function toldAll(sites: ManySites, name: SiteName): Promise<void> {
  await eventually(`${name} to have told all`, async () =>
    (await sites.site(name).objects()).every((object) => object.unacknowledged_records === 0) ? true : null,
  );
}

const running = (sites: ManySites, names: readonly SiteName[]) => names.map((name) => sites.site(name));

describe('end to end: several sites', function () {
  this.timeout(180_000);

  before(function () {
    needs(this, 'af_xdp');
  });

  it('a site that is cut off goes on, and when it is heard again all agree', async () => {
    await withSites({ sites: ALL, wan: { delay_ms: 5 }, nat: HOLD }, async (sites) => {
      await sites.start(...ALL);
      await whileDownloading(sites, ALL, async (more) => {
        await more(SOME);
        // Its traffic goes by the others, who know what it knew: what it had yet to tell would be
        // lost to them.
        await sites.steer(['a', 'b']);
        await toldAll(sites, 'c');
        await sites.cut('c', true);
        await new Promise((resolve) => setTimeout(resolve, CUT_MS));
        await more(SOME);
        await sites.cut('c', false);
        await eventually('c to be heard again', async () =>
          (await sites.site('a').peers()).every((peer) => peer.state === 'reachable') ? true : null,
        );
        // It has yet to hear what was bound meanwhile.
        for (const name of ALL) await toldAll(sites, name);
        await sites.steer(ALL);
        await more(SOME);
      });
      await converged(running(sites, ALL), 60_000);
      const counters = await sites.site('c').counters();
      assert.ok(counters['nat_bound'] > 0, JSON.stringify(counters));
    });
  });

  it('a site is killed in the middle of it all, and the others end with the same', async () => {
    await withSites({ sites: ALL, wan: { delay_ms: 20, jitter_ms: 10, loss: 0.02 } }, async (sites) => {
      await sites.start(...ALL);
      await whileDownloading(sites, ALL, async (more) => {
        await more(SOME);
        const victim = sites.site('c').program;
        victim.kill('SIGKILL');
        await victim.exited;
        await sites.steer(['a', 'b']);
        for (const name of ['a', 'b'] as const) await sites.site(name).clientOutput('member', 'evict', 'c', 'force');
        await more(SOME);
      });
      await converged(running(sites, ['a', 'b']), 60_000);

      // Its next life takes what the others have.
      await sites.start('c');
      await sites.steer(ALL);
      await whileDownloading(sites, ALL, (more) => more(SOME));
      await converged(running(sites, ALL), 60_000);
    });
  });

  it('a site joins and another leaves, and no download notices', async () => {
    const options = { sites: SITE_NAMES, members: ALL, wan: { delay_ms: 5 }, cluster: { slots: 4 }, nat: HOLD };
    await withSites(options, async (sites) => {
      await sites.start(...ALL);
      await whileDownloading(sites, SITE_NAMES, async (more) => {
        await more(SOME);
        const { name, id, address } = memberOf('d');
        for (const other of ALL) await sites.site(other).clientOutput('member', 'add', name, `${id}`, address);
        await sites.start('d');
        await sites.site('d').clientOutput('join');
        assert.match(sites.site('d').program.output, /joining: has the state of a member/);
        await sites.steer(SITE_NAMES);
        await more(SOME);

        await sites.steer(['b', 'c', 'd']);
        await sites.site('a').clientOutput('drain');
        assert.deepEqual(await sites.site('a').stop(), { code: 0, signal: null });
        for (const other of ['b', 'c', 'd'] as const) await sites.site(other).clientOutput('member', 'remove', 'a');
        await more(SOME);
      });
      await converged(running(sites, ['b', 'c', 'd']), 60_000);
      assert.ok((await sites.site('d').counters())['nat_outbound'] > 0);
    });
  });
});
