/** Real downloads while options of kind rolling change at one site after another: none breaks. */

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { needs } from '../support/require.js';
import { converged, eventually } from '../testbed/instance.js';
import type { ManySites, SiteName } from '../testbed/many-sites.js';
import { writeConfig } from '../testbed/site.js';
import { EXTERNAL } from '../testbed/two-sites.js';
import { whileDownloading, withStarted } from './restarts.js';

const ALL: readonly SiteName[] = ['a', 'b'];
const ADDED = '203.0.113.2';
/**
 * Bindings that are made in this time after a stricter level came into force are not filtered by
 * it; see filter-level.ts.
 */
const UNFILTERED_MS = 6_000;
const DOWNLOADS = { count: 30, bytes: 2_000_000, rate: 14_000 };

describe('end to end: downloads survive, at two sites one after another,', function () {
  this.timeout(600_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  /** Gives the NAT of a site other options, and restarts it while the other carries its traffic. */
  async function restartWith(sites: ManySites, name: SiteName, options: Record<string, unknown>): Promise<string> {
    const site = sites.site(name);
    const config = parse(readFileSync(site.configFile, 'utf8')) as { middleboxes: { nat: object }[] };
    Object.assign(config.middleboxes[0].nat, options);
    writeConfig(site.configFile, config as unknown as Record<string, unknown>);
    await sites.steer(ALL.filter((other) => other !== name));
    await site.stop();
    await site.start();
    await sites.steer(ALL);
    return site.program.output;
  }

  const withTwo = (test: (sites: ManySites) => Promise<void>): Promise<void> =>
    withStarted({ sites: ALL, nat: { flows: 4096 } }, ALL, async (sites) => {
      await test(sites);
      await converged(ALL.map((name) => sites.site(name)));
    });

  const outside = async (sites: ManySites, name: SiteName): Promise<Set<string>> =>
    new Set((await sites.site(name).flows('proto=tcp')).flatMap(({ external }) => external?.address ?? []));

  it('an external address that is added, and a capacity that is doubled', () =>
    withTwo(async (sites) => {
      await whileDownloading(sites, ALL, DOWNLOADS, async () => {
        const output = await restartWith(sites, 'a', { external: [EXTERNAL, ADDED] });
        assert.match(output, /new bindings do not use 203\.0\.113\.2/);
        assert.deepEqual([...(await outside(sites, 'a'))], [EXTERNAL]);
        await restartWith(sites, 'b', { external: [EXTERNAL, ADDED] });
        await restartWith(sites, 'b', { flows: 8192 });
      });
      await eventually('a to use both', async () =>
        (await sites.site('a').status()).state_reason.includes('do not use') ? null : true,
      );
      const hops = ['192.0.2.2', '192.0.2.6'].map((hop) => `nexthop via ${hop}`).join(' ');
      await sites.testbed.configure('server', `route replace ${ADDED}/32 ${hops}`);
      await whileDownloading(sites, ALL, { ...DOWNLOADS, bytes: 400_000 }, async () => {
        for (const name of ALL)
          await eventually(`${name} to use both`, async () => ((await outside(sites, name)).size === 2 ? true : null));
      });
      for (const name of ALL) {
        const [{ figures }] = await sites.site(name).objects();
        assert.deepEqual([figures['foreign_address'], figures['table_full']], [0, 0]);
      }
    }));

  it('a stricter filtering, which drops afterwards what nobody inside has asked for', () =>
    withTwo(async (sites) => {
      const { testbed } = sites;
      const STRICT = 'address-and-port-dependent';
      const ports = async (): Promise<Set<number>> =>
        new Set(
          (await sites.site('a').flows('proto=tcp state=established')).flatMap((row) => row.external?.port ?? []),
        );
      const counted = async (name: string): Promise<number> =>
        (await Promise.all(ALL.map((site) => sites.site(site).byThread(name)))).flat().reduce((sum, n) => sum + n, 0);
      /** A remote that nobody inside has sent to connects to external ports. */
      const intrude = async (to: Iterable<number>): Promise<void> => {
        for (const port of to) {
          const url = `http://${EXTERNAL}:${port}/`;
          await testbed.run('server', ['curl', '-s', '--interface', '198.51.100.77', '--max-time', '0.3', url], true);
        }
      };
      const pending = /filtering is endpoint-independent and not yet address-and-port-dependent/;
      await whileDownloading(sites, ALL, DOWNLOADS, async () => {
        assert.match(await restartWith(sites, 'b', { filtering: STRICT }), pending);
        assert.match((await sites.site('b').status()).state_reason, pending);
        const sessions = async () => (await sites.site('b').objects()).find(({ name }) => name === 'nat.sessions');
        // The clients are those of a.
        await sites.steer(['b']);
        await eventually('b to make sessions of what passes it', async () =>
          ((await sessions())?.figures['used'] ?? 0) > 0 ? true : null,
        );
        await sites.steer(ALL);
        await intrude([...(await ports())].slice(0, 3));
        assert.equal(await counted('nat_filtered'), 0, 'it drops nothing yet');
        await restartWith(sites, 'a', { filtering: STRICT });
        for (const name of ALL)
          await eventually(`${name} to filter`, async () => {
            const object = (await sites.site(name).objects()).find((row) => row.name === 'nat.sessions');
            const { state_reason } = await sites.site(name).status();
            return object?.figures['filtering'] === 2 && !pending.test(state_reason) ? true : null;
          });
      });
      const old = await ports();
      await sleep(UNFILTERED_MS);
      await whileDownloading(sites, ALL, { ...DOWNLOADS, bytes: 300_000 }, async () => {
        const fresh = await eventually('new bindings', async () => {
          const found = [...(await ports())].filter((port) => !old.has(port)).slice(0, 5);
          return found.length === 5 ? found : null;
        });
        const before = await counted('nat_filtered');
        const passed = await counted('nat_unfiltered');
        await intrude(fresh);
        assert.ok((await counted('nat_filtered')) >= before + 5);
        assert.equal(await counted('nat_unfiltered'), passed);
      });
    }));
});
