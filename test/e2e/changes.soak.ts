/**
 * Real downloads through three sites whose configuration changes: a hot option by a reload, a
 * rolling one at one site after another, and one that all sites share by a restart of all. None
 * breaks.
 */

import { strict as assert } from 'node:assert';
import { fetchAll } from '../testbed/http/fetch.js';
import { clientsOf } from '../testbed/many-sites.js';
import { assertAllFetched } from './support.js';
import { ALL, others, ThreeSites } from './three-sites.js';

/** They take 100 s. */
const DOWNLOADS = { count: 30, bytes: 1_200_000, rate: 12_000 };

describe('end to end: downloads survive, through three sites,', function () {
  this.timeout(600_000);
  const three = ThreeSites.ofSuite(DOWNLOADS);

  it('hot options: static forwards, timers, and what the XDP program takes', async () => {
    const { testbed } = three.sites;
    // What bypasses the NAT comes back to the clients' own addresses.
    await testbed.configure('server', 'route replace 10.1.0.0/24 via 192.0.2.2');
    const direct = { origins: ['http://198.51.100.9'], sources: clientsOf('a'), bytes: 20_000, concurrency: 10 };
    const passes = async (): Promise<void> =>
      assertAllFetched(await fetchAll(testbed, 'client', { ...direct, count: 20 }), 20);
    const bypassed = async (): Promise<number> => (await three.sites.site('a').counters())['nat_bypassed'];
    await three.during(async () => {
      for (const name of ALL)
        three.sites
          .site(name)
          .edit((text) =>
            text.replace(
              /( +)- nat:\n/,
              '$1- nat:\n$1    bypass: [198.51.100.9]\n$1    static: ["tcp 203.0.113.1:8080 -> 10.1.0.7:80"]\n$1    udp: 200s\n',
            ),
          );
      await passes();
      assert.equal(await bypassed(), 0);
      for (const name of ALL) assert.match(await three.sites.site(name).clientOutput('reload'), /applied/);
      await three.sites.steer(ALL);
      await passes();
      assert.ok((await bypassed()) > 0, 'the XDP program hands over packets to addresses inside');
      assert.match(await three.sites.site('b').clientOutput('show', 'flows', 'state=static'), /203\.0\.113\.1:8080/);
      for (const name of ALL) {
        three.sites.site(name).edit((text) => text.replace(/ +bypass: .*\n +static: .*\n +udp: .*\n/, ''));
        assert.match(await three.sites.site(name).clientOutput('reload'), /applied/);
      }
      const before = await bypassed();
      await passes();
      assert.equal(await bypassed(), before);
    });
  });

  it('a rolling option that is changed at one site after another', () =>
    three.during(async () => {
      for (const name of ALL) {
        const site = three.sites.site(name);
        site.edit((text) => text.replace('driver: af_xdp', 'driver: af_xdp\n  ring_size: 1024'));
        assert.match(await site.clientOutput('reload'), /packet_io\.ring_size/);
        await three.sites.steer(others(name));
        assert.deepEqual(await site.stop(), { code: 0, signal: null });
        await site.start();
        await three.sites.steer(ALL);
      }
    }));

  it('an option that all sites share, which is changed by a restart of all at once', () =>
    three.during(async () => {
      for (const name of ALL)
        three.sites.site(name).edit((text) => text.replace('kind: multicast', 'kind: multicast\n  port: 7411'));
      await Promise.all(ALL.map((name) => three.sites.site(name).stop()));
      await three.sites.start(...ALL);
      assert.match((await three.sites.site('a').status()).transport, /7411/);
    }));
});
