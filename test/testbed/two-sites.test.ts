/**
 * The network of the demo and the end-to-end tests, without instances: its links and routes are as
 * drawn in two-sites.ts.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { findPing, ping } from './ping.js';
import { siteConfig } from './site.js';
import { EXTERNAL, serverAddress, TwoSites, twoSitesTopology } from './two-sites.js';

describe('testbed/two-sites', function () {
  this.timeout(60_000);
  let sites: TwoSites | undefined;

  afterEach(async () => {
    await sites?.down();
    sites = undefined;
  });

  it('joins client, sites and server; packets find the way the routing says', async function () {
    needs(this, 'netns');
    if (findPing() === null) needs(this, 'tool:ping');
    sites = await TwoSites.build({ wan: { delay_ms: 10 }, arp: true });
    const { testbed } = sites;
    for (const [node, address] of [
      ['client', '10.0.1.1'],
      ['client', '10.0.2.1'],
      ['server', '192.0.2.2'],
      ['server', '192.0.2.6'],
      ['site-a', '10.255.0.2'],
    ])
      assert.equal((await ping(testbed, node, address, 1)).received, 1, `${node} to ${address}`);
    const route = async (node: string, ...words: string[]) =>
      (await testbed.run(node, ['ip', 'route', 'get', ...words])).stdout;
    assert.match(await route('client', '198.51.100.1', 'from', '10.1.0.5'), /via 10\.0\.1\.1 dev a/);
    assert.match(await route('client', '198.51.100.1', 'from', '10.1.0.200'), /via 10\.0\.2\.1 dev b/);
    assert.match(await route('server', EXTERNAL), /via 192\.0\.2\.6 dev b/);
  });

  it('puts servers some way off', async function () {
    needs(this, 'netns');
    if (findPing() === null) needs(this, 'tool:ping');
    sites = await TwoSites.build({
      servers: [
        { name: 'near', delay_ms: 0 },
        { name: 'far', delay_ms: 20 },
      ],
    });
    const { testbed } = sites;
    const near = await ping(testbed, 'internet', serverAddress(0), 2);
    const far = await ping(testbed, 'internet', serverAddress(1), 2);
    assert.deepEqual([near.received, far.received], [2, 2]);
    assert.ok(far.rttMs >= 40);
  });

  it('has routings that differ in who comes back where', () => {
    const back = (routing: 'asymmetric' | 'by-a' | 'spread') =>
      twoSitesTopology({ routing }).nodes['server'].routes?.[0];
    assert.equal(back('asymmetric'), '203.0.113.1/32 via 192.0.2.6');
    assert.equal(back('by-a'), '203.0.113.1/32 via 192.0.2.2');
    assert.equal(back('spread'), '203.0.113.1/32 nexthop via 192.0.2.2 nexthop via 192.0.2.6');
  });

  it('writes a configuration that differs from its own where it is told to', () => {
    const place = {
      self: 'a',
      members: [],
      ports: { inside: {}, outside: {} },
      external: [EXTERNAL],
      keyFile: '/k',
      core: 0,
    };
    const config = siteConfig(place, '/s', { transport: { kind: 'unicast' }, nat: { flows: 1024 } });
    assert.deepEqual(config['transport'], { kind: 'unicast' });
    assert.deepEqual(config['middleboxes'], [
      { nat: { inside: 'inside', outside: 'outside', external: [EXTERNAL], flows: 1024 } },
    ]);
    assert.deepEqual(config['replication'], { join_wait_ms: 500 });
  });
});
