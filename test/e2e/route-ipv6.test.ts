/** A router of both IP versions: IPv6 is taken because its middlebox handles it; the link's own stays with the kernel. */

import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';
import { needs } from '../support/require.js';
import { startServer } from '../testbed/http/fetch.js';
import { startAlone } from '../testbed/site.js';
import { Testbed } from '../testbed/testbed.js';
import { type Topology, WITH_IPV6 } from '../testbed/topology.js';
import { withNetwork } from './support.js';

const REFUSED = 7;
const WATCHER = fileURLToPath(new URL('../support/watcher.js', import.meta.url));

const TOPOLOGY: Topology = {
  nodes: {
    client: { sysctls: WITH_IPV6, routes: ['default via 10.8.1.1', 'fd00:2::/64 via fd00:1::1'] },
    router: { sysctls: WITH_IPV6 },
    server: { sysctls: WITH_IPV6, routes: ['default via 10.8.2.1', 'fd00:1::/64 via fd00:2::1'] },
  },
  links: [
    {
      name: 'left',
      arp: true,
      ends: [
        { node: 'client', interface: 'eth0', addresses: ['10.8.1.2/24', 'fd00:1::2/64'] },
        { node: 'router', interface: 'left', addresses: ['10.8.1.1/24', 'fd00:1::1/64'] },
      ],
    },
    {
      name: 'right',
      arp: true,
      ends: [
        { node: 'router', interface: 'right', addresses: ['10.8.2.1/24', 'fd00:2::1/64'] },
        { node: 'server', interface: 'eth0', addresses: ['10.8.2.2/24', 'fd00:2::2/64'] },
      ],
    },
  ],
};

describe('end to end: a router of IPv6', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'file:/proc/net/if_inet6');
  });

  it('carries connections of both versions through its middleboxes, and is itself reachable', async () => {
    const testbed = await Testbed.build(TOPOLOGY);
    await withNetwork({ testbed, down: () => testbed.down() }, async () => {
      const instance = await startAlone(testbed, 'router', {
        ports: {
          left: { interface: 'left', next_hop: testbed.mac('client', 'eth0') },
          right: { interface: 'right', next_hop: testbed.mac('server', 'eth0') },
        },
        middleboxes: [{ [WATCHER]: { mode: 'route' } }],
      });
      await startServer(testbed, 'server', 80, '::');
      await startServer(testbed, 'router', 80, '::');
      const curl = async (url: string): Promise<number> =>
        (await testbed.run('client', ['curl', '-sfg', '-o', '/dev/null', '--max-time', '20', url], true)).code;
      assert.equal(await curl('http://10.8.2.2/2000000/1'), 0);
      assert.equal(await curl('http://[fd00:2::2]/2000000/1'), 0);
      assert.equal(await curl('http://[fd00:2::2]:81/'), REFUSED);
      const before = await instance.counters();
      assert.ok(before['watcher_ipv4'] > 100 && before['watcher_ipv6'] > 100, JSON.stringify(before));
      assert.equal(before['watcher_discovery'], 0);
      assert.equal(await curl('http://[fd00:1::1]/1000/1'), 0, 'the router itself');
      assert.equal((await instance.counters())['watcher_ipv6'], before['watcher_ipv6']);
    });
  });
});
