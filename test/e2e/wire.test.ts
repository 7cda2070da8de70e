/**
 * A wire instance between two hosts of one link: real programs over IPv4 and IPv6, with ARP and
 * neighbour discovery.
 */

import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';
import { needs } from '../support/require.js';
import { UNREACHABLE_PORT } from '../support/watcher.js';
import { startServer } from '../testbed/http/fetch.js';
import type { Instance } from '../testbed/instance.js';
import { startAlone } from '../testbed/site.js';
import { Testbed } from '../testbed/testbed.js';
import { type Topology, WITH_IPV6 } from '../testbed/topology.js';
import { withNetwork } from './support.js';

/** What curl exits with when the connection was refused. */
const REFUSED = 7;
const WATCHER = fileURLToPath(new URL('../support/watcher.js', import.meta.url));

/** Client and server believe to be on one link; between them is the wire. */
const TOPOLOGY: Topology = {
  nodes: { client: { sysctls: WITH_IPV6 }, wire: {}, server: { sysctls: WITH_IPV6 } },
  links: [
    {
      name: 'left',
      arp: true,
      ends: [
        { node: 'client', interface: 'eth0', addresses: ['10.9.0.1/24', 'fd00:9::1/64'] },
        { node: 'wire', interface: 'left' },
      ],
    },
    {
      name: 'right',
      arp: true,
      ends: [
        { node: 'wire', interface: 'right' },
        { node: 'server', interface: 'eth0', addresses: ['10.9.0.2/24', 'fd00:9::2/64'] },
      ],
    },
  ],
};

describe('end to end: a wire', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'file:/proc/net/if_inet6');
  });

  it('passes ARP and neighbour discovery unseen, all else through its middleboxes, which can refuse', async () => {
    const testbed = await Testbed.build(TOPOLOGY);
    await withNetwork({ testbed, down: () => testbed.down() }, async () => {
      const instance = await startWire(testbed);
      await startServer(testbed, 'server', 80, '::');
      const curl = async (url: string): Promise<number> =>
        (await testbed.run('client', ['curl', '-sfg', '-o', '/dev/null', '--max-time', '20', url], true)).code;

      assert.equal(await curl('http://10.9.0.2/2000000/1'), 0);
      assert.equal(await curl('http://[fd00:9::2]/2000000/1'), 0);
      assert.equal(
        await curl('http://10.9.0.2:81/'),
        REFUSED,
        'by the middlebox: nobody listens, and nobody was asked',
      );
      assert.equal(await curl('http://[fd00:9::2]:81/'), REFUSED);
      const { stdout } = await testbed.run('client', [process.execPath, '-e', ASK_UDP], true);
      assert.match(stdout, /ECONNREFUSED/);

      const seen = await instance.counters();
      assert.ok(seen['watcher_ipv4'] > 100 && seen['watcher_ipv6'] > 100, JSON.stringify(seen));
      assert.equal(seen['watcher_discovery'], 0);
      assert.equal(seen['watcher_refused'], 3);
      // The server's link-layer address is what the client has for it: nothing was readdressed.
      const neighbours = (await testbed.run('client', ['ip', 'neigh', 'show', 'dev', 'eth0'])).stdout;
      for (const address of ['10.9.0.2', 'fd00:9::2'])
        assert.ok(neighbours.includes(`${address} lladdr ${testbed.mac('server', 'eth0')}`), neighbours);
      const { stdout: link } = await testbed.run('wire', ['ip', '-d', 'link', 'show', 'left']);
      assert.match(link, /promiscuity [1-9]/, 'frames to the other side’s stations come by a real interface, too');

      await instance.program.stop('SIGTERM');
      assert.match((await testbed.run('wire', ['ip', '-d', 'link', 'show', 'left'])).stdout, /promiscuity 0/);

      // A bridge over both ports, as docs/configure.md has it: it passes frames while no instance
      // does, and gets none while one does.
      const enslave = ['left', 'right'].map((port) => `link set dev ${port} master br0`);
      await testbed.configure('wire', 'link add br0 type bridge', ...enslave, 'link set dev br0 up');
      assert.equal(await curl('http://10.9.0.2/2000000/1'), 0);
      const again = await startWire(testbed);
      assert.equal(await curl('http://10.9.0.2/2000000/1'), 0);
      assert.equal(await curl('http://10.9.0.2:81/'), REFUSED);
      assert.ok((await again.counters())['watcher_ipv4'] > 100);
    });
  });
});

const ASK_UDP = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.on('error', ({ code }) => { console.log(code); socket.close(); });
  socket.connect(${UNREACHABLE_PORT}, '10.9.0.2', () => socket.send('?'));
  setTimeout(() => process.exit(1), 20_000).unref();`;

function startWire(testbed: Testbed): Promise<Instance> {
  return startAlone(testbed, 'wire', {
    mode: 'wire',
    ports: { left: { interface: 'left' }, right: { interface: 'right' } },
    middleboxes: [{ [WATCHER]: {} }],
  });
}
