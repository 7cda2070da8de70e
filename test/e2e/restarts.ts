/** Downloads that are under way while sites are stopped in order and started again. */

import { startLoad, startServer } from '../testbed/http/fetch.js';
import type { Fetched } from '../testbed/http/load.js';
import { eventually } from '../testbed/instance.js';
import { clientsOf, ManySites, type ManySitesOptions, type SiteName } from '../testbed/many-sites.js';
import { assertAllFetched, ORIGIN, withNetwork } from './support.js';

/** For all downloads to begin. */
const START_MS_MAX = 120_000;

export interface Downloads {
  readonly count: number;
  readonly bytes: number;
  /** Bytes a second of each: so they last while sites restart. */
  readonly rate: number;
}

/**
 * Begins the downloads, lets them all get established, restarts sites, and sees that each brought
 * the right bytes.
 */
export async function whileDownloading(
  sites: ManySites,
  names: readonly SiteName[],
  { count, bytes, rate }: Downloads,
  restart: () => Promise<void>,
): Promise<void> {
  const fetched: Fetched[] = [];
  const sources = names.flatMap((name) => clientsOf(name));
  const load = { origins: [ORIGIN], sources, count, concurrency: count, bytes, rate, timeout_s: 500 };
  const { done } = startLoad(sites.testbed, 'client', load, (one) => fetched.push(one));
  await eventually(
    'the downloads to be under way',
    async () => {
      const flows = await Promise.all(names.map((name) => sites.site(name).flows('proto=tcp')));
      // Some may have ended already.
      return flows.every((each) => each.filter(({ state }) => state !== 'new').length >= count) ? true : null;
    },
    START_MS_MAX,
  );
  await restart();
  if (fetched.length === count) throw new Error('all downloads ended before the restarts did');
  await done;
  assertAllFetched(fetched, count);
}

/** Builds a network, starts its server and these sites, runs a test, and takes the network down. */
export async function withStarted(
  options: ManySitesOptions,
  names: readonly SiteName[],
  test: (sites: ManySites) => Promise<void>,
): Promise<void> {
  await withNetwork(await ManySites.build(options), async (sites) => {
    await startServer(sites.testbed, 'server');
    await sites.start(...names);
    await test(sites);
  });
}

/** One site alone; returns how many bindings its second start restored. */
export async function downloadsThroughOne(downloads: Downloads): Promise<{ restored: number }> {
  let restored = 0;
  // The state network needs two ends; nothing runs at the second.
  const options = { sites: ['a', 'b'], members: ['a'], savesState: true } as const;
  await withStarted(options, ['a'], async (sites) => {
    await whileDownloading(sites, ['a'], downloads, async () => {
      const a = sites.site('a');
      await a.stop();
      await a.start();
      restored = (await a.flows('proto=tcp')).length;
    });
  });
  return { restored };
}
