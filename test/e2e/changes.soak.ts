/**
 * Real downloads through three sites whose configuration changes: a hot option by a reload, a
 * rolling one at one site after another, and one that all sites share by a restart of all. None
 * breaks.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { clientsOf, ManySites, type SiteName } from '../testbed/many-sites.js';
import type { Site } from '../testbed/site.js';
import { whileDownloading } from './restarts.js';
import { assertAllFetched } from './support.js';

const ALL: readonly SiteName[] = ['a', 'b', 'c'];
/** They take 100 s. */
const DOWNLOADS = { count: 30, bytes: 1_200_000, rate: 12_000 };
/** However slow the machine is, members that start together hear each other before they begin. */
const TOGETHER = { replication: { join_wait_ms: 30_000 } };
const WAIT_MS_MAX = 90_000;

/** Gives a command that has to succeed. */
async function told(site: Site, ...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await site.client(...words);
  assert.equal(code, 0, `${site.name}: ${words.join(' ')}: ${stderr}`);
  return stdout;
}

const others = (name: SiteName): SiteName[] => ALL.filter((other) => other !== name);

describe('end to end: downloads survive, through three sites,', function () {
  this.timeout(600_000);
  let sites: ManySites;

  before(async function () {
    needs(this, 'af_xdp', 'tool:curl');
    sites = await ManySites.build({ sites: ALL, savesState: true, ...TOGETHER });
    await startServer(sites.testbed, 'server');
    await sites.start(...ALL);
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') console.log(sites?.testbed.report());
  });

  after(() => sites?.down());

  /** Downloads that last while something happens. */
  const during = async (happens: () => Promise<void>): Promise<void> => {
    await whileDownloading(sites, ALL, DOWNLOADS, happens);
    await converged(
      ALL.map((name) => sites.site(name)),
      WAIT_MS_MAX,
    );
  };

  it('hot options: static forwards, timers, and what the XDP program takes', async () => {
    const { testbed } = sites;
    // What bypasses the NAT comes back to the clients' own addresses.
    await testbed.configure('server', 'route replace 10.1.0.0/24 via 192.0.2.2');
    const direct = { origins: ['http://198.51.100.9'], sources: clientsOf('a'), bytes: 20_000, concurrency: 10 };
    const passes = async (): Promise<void> =>
      assertAllFetched(await fetchAll(testbed, 'client', { ...direct, count: 20 }), 20);
    const bypassed = async (): Promise<number> => (await sites.site('a').counters())['nat_bypassed'];
    await during(async () => {
      for (const name of ALL)
        sites
          .site(name)
          .edit((text) =>
            text.replace(
              /( +)- nat:\n/,
              '$1- nat:\n$1    bypass: [198.51.100.9]\n$1    static: ["tcp 203.0.113.1:8080 -> 10.1.0.7:80"]\n$1    udp: 200s\n',
            ),
          );
      await passes();
      assert.equal(await bypassed(), 0);
      for (const name of ALL) assert.match(await told(sites.site(name), 'reload'), /applied/);
      await sites.steer(ALL);
      await passes();
      assert.ok((await bypassed()) > 0, 'the XDP program hands over packets to addresses inside');
      assert.match(await told(sites.site('b'), 'show', 'flows', 'state=static'), /203\.0\.113\.1:8080/);
      for (const name of ALL) {
        sites.site(name).edit((text) => text.replace(/ +bypass: .*\n +static: .*\n +udp: .*\n/, ''));
        assert.match(await told(sites.site(name), 'reload'), /applied/);
      }
      const before = await bypassed();
      await passes();
      assert.equal(await bypassed(), before);
    });
  });

  it('a rolling option that is changed at one site after another', () =>
    during(async () => {
      for (const name of ALL) {
        const site = sites.site(name);
        site.edit((text) => text.replace('driver: af_xdp', 'driver: af_xdp\n  ring_size: 1024'));
        assert.match(await told(site, 'reload'), /packet_io\.ring_size/);
        await sites.steer(others(name));
        assert.deepEqual(await site.stop(), { code: 0, signal: null });
        await site.start();
        await sites.steer(ALL);
      }
    }));

  it('an option that all sites share, which is changed by a restart of all at once', () =>
    during(async () => {
      for (const name of ALL)
        sites.site(name).edit((text) => text.replace('kind: multicast', 'kind: multicast\n  port: 7411'));
      await Promise.all(ALL.map((name) => sites.site(name).stop()));
      await sites.start(...ALL);
      assert.match((await sites.site('a').status()).transport, /7411/);
    }));
});
