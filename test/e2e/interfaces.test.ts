/**
 * Interfaces that change while an instance runs: deleted and created again, moved away, down, with
 * other addresses. The instance follows, says so, and keeps its state.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { converged, eventually } from '../testbed/instance.js';
import { ping } from '../testbed/ping.js';
import type { Testbed } from '../testbed/testbed.js';
import type { End } from '../testbed/topology.js';
import { portIs, reaches, SERVER, USABLE, withBox } from './one-box.js';
import { assertAllFetched, CLIENTS_OF_A, CLIENTS_OF_B, ORIGIN, withTwoSites } from './support.js';

function endsOf(testbed: Testbed, name: string): readonly End[] {
  const link = testbed.topology.links.find((candidate) => candidate.name === name);
  if (link === undefined) throw new Error(`there is no link ${name}`);
  return link.ends;
}

/** Creates a link that was deleted, as it was, or with other MAC addresses. */
async function createLink(testbed: Testbed, name: string, routes: readonly string[] = []): Promise<void> {
  const [a, b] = endsOf(testbed, name);
  const side = (end: End): string => `name ${end.interface} netns ${testbed.namespace(end.node)}`;
  await testbed.configure(a.node, `link add ${side(a)} type veth peer ${side(b)}`);
  for (const { node, interface: link, addresses = [] } of [a, b])
    await testbed.configure(
      node,
      `link set dev ${link} up`,
      ...addresses.map((address) => `addr add ${address} dev ${link}`),
    );
  for (const route of routes) await testbed.configure(a.node, `route add ${route}`);
  for (const { node, interface: link } of [a, b])
    await testbed.run(node, ['ethtool', '-K', link, 'tx', 'off', 'tso', 'off', 'gso', 'off'], true);
}

function times(text: string, pattern: RegExp): number {
  return [...text.matchAll(new RegExp(pattern, 'g'))].length;
}

describe('end to end: interfaces that change', function () {
  this.timeout(300_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:ping', 'tool:ethtool', 'tool:curl');
  });

  it('a wire goes on when an interface is created again, comes back, or is up again', async () => {
    await withBox('wire', async (testbed, instance) => {
      const { program } = instance;
      await reaches(testbed, 'client', '10.9.0.2');

      await testbed.configure('box', 'link del left');
      // Workers may find their sockets dead before main hears that the interface is gone.
      await portIs(instance, 'left', /^left = left: unusable, there is no such interface$/);
      assert.match((await instance.status()).state_reason, /port left is unusable: there is no such interface/);
      // The server looks for the client, whose side is gone.
      await ping(testbed, 'server', '10.9.0.1', 2);
      const counters = await instance.counters();
      assert.ok(counters['port0_tx_unusable'] > 0, JSON.stringify(counters));
      assert.equal(counters['port_unusable{port="left",interface="left"}'], 1);
      await createLink(testbed, 'left');
      await portIs(instance, 'left', USABLE);
      await reaches(testbed, 'client', '10.9.0.2');
      assert.equal((await instance.counters())['port_unusable{port="left",interface="left"}'], 0);

      // Away and back by the same index, which only a message tells of.
      const away = testbed.namespace('server');
      await testbed.configure('box', `link set dev left netns ${away} name elsewhere`);
      await testbed.configure('server', `link set dev elsewhere netns ${testbed.namespace('box')} name left`);
      await testbed.configure('box', 'link set dev left up');
      await portIs(instance, 'left', USABLE);
      await reaches(testbed, 'client', '10.9.0.2');

      await testbed.configure('box', 'link set dev right down');
      await portIs(instance, 'right', /unusable, the interface is down/);
      await portIs(instance, 'left', USABLE);
      await testbed.configure('box', 'link set dev right up');
      await portIs(instance, 'right', USABLE);
      await testbed.configure('server', 'link set dev eth0 down');
      await portIs(instance, 'right', /unusable, the interface has no carrier/);
      await testbed.configure('server', 'link set dev eth0 up');
      await portIs(instance, 'right', USABLE);
      await reaches(testbed, 'client', '10.9.0.2');

      // Both at once: no socket is left that packet memory could be shared with.
      await testbed.configure('box', 'link del left', 'link del right');
      await portIs(instance, 'left', /unusable/);
      await portIs(instance, 'right', /unusable/);
      await createLink(testbed, 'right');
      await createLink(testbed, 'left');
      for (const port of ['left', 'right']) await portIs(instance, port, USABLE);
      await reaches(testbed, 'client', '10.9.0.2');

      await testbed.configure('box', 'link set dev right mtu 1400');
      await program.waitFor(/right has MTU 1400 and left has MTU 1500/);

      for (const thread of await instance.threads()) assert.deepEqual([thread.restarts, thread.state], [0, 'ready']);
      assert.ok(times(program.output, /port left \(left\) is unusable: there is no such interface/) <= 3);
      assert.ok(times(program.output, /port left \(left\) is usable again/) >= 2);
    });
  });

  it('a NAT follows addresses and MTUs, and loses no connection when an interface is created again', async () => {
    await withBox('route', async (testbed, instance) => {
      await reaches(testbed, 'client', SERVER);
      const inClient = async (...argv: string[]): Promise<string> => (await testbed.run('client', argv, true)).stdout;

      // The port's own address: errors come from it.
      assert.match(await inClient('ping', '-n', '-c', '1', '-t', '1', SERVER), /From 10\.9\.0\.254 .*Time to live/);
      await testbed.configure('box', 'addr add 10.9.0.253/24 dev left', 'addr del 10.9.0.254/24 dev left');
      // The address that is left is added as a second one of its subnet, and is removed with the
      // first.
      await testbed.configure('box', 'addr flush dev left', 'addr add 10.9.0.253/24 dev left');
      await testbed.configure('client', 'route replace default via 10.9.0.253');
      await eventually('errors from the new address', async () =>
        /From 10\.9\.0\.253 .*Time to live/.test(await inClient('ping', '-n', '-c', '1', '-t', '1', SERVER))
          ? true
          : null,
      );

      // The host's own addresses: what is for them is not the data plane's.
      await testbed.configure('box', 'addr add 10.77.0.1/32 dev lo');
      await reaches(testbed, 'client', '10.77.0.1');
      assert.equal((await instance.flows()).filter(({ remote }) => remote?.address.startsWith('10.77.')).length, 0);
      await testbed.configure('box', 'addr del 10.77.0.1/32 dev lo');
      await testbed.configure('server', 'addr add 10.77.0.1/32 dev lo');
      await reaches(testbed, 'client', '10.77.0.1');

      // The MTU of the way on.
      await testbed.configure('box', 'link set dev right mtu 1300');
      await eventually('the smaller MTU to be told', async () =>
        /mtu ?= ?1300/.test(await inClient('ping', '-n', '-c', '1', '-M', 'do', '-s', '1372', SERVER)) ? true : null,
      );
      await testbed.configure('box', 'link set dev right mtu 1500');

      // The MAC address: what is addressed to the new one is taken, and it is the source of what is
      // sent.
      await testbed.configure('box', 'link set dev left address 02:00:00:00:99:01');
      await testbed.configure('client', 'neigh flush dev eth0');
      await reaches(testbed, 'client', SERVER);

      const download = ['curl', '-sf', '--limit-rate', '400K', '--max-time', '120', `http://${SERVER}/2000000/1`];
      const done = testbed.run('client', [...download, '-o', '/dev/null', '-w', '%{size_download}'], true);
      await eventually('the download to begin', async () =>
        (await instance.flows()).some(({ protocol }) => protocol === 6) ? true : null,
      );
      await testbed.configure('box', 'link del left');
      await portIs(instance, 'left', /unusable/);
      await createLink(testbed, 'left', ['default via 10.9.0.254']);
      await portIs(instance, 'left', USABLE);
      assert.deepEqual(await done, { code: 0, stdout: '2000000', stderr: '' });

      for (const thread of await instance.threads()) assert.deepEqual([thread.restarts, thread.state], [0, 'ready']);
    });
  });

  it('two sites go on replicating while interfaces of one are created again', async () => {
    await withTwoSites({ arp: true, wan: { delay_ms: 5 } }, async (sites) => {
      const { testbed, a, b } = sites;
      await startServer(testbed, 'server');
      const load = { origins: [ORIGIN], bytes: 20_000, concurrency: 8, count: 40 };
      assertAllFetched(await fetchAll(testbed, 'client', { ...load, sources: CLIENTS_OF_A }), 40);
      for (let life = 0; life < 2; life++) {
        await testbed.configure('site-a', 'link del inside');
        await portIs(a, 'inside', /unusable/);
        // Through the other site, meanwhile.
        assertAllFetched(await fetchAll(testbed, 'client', { ...load, sources: CLIENTS_OF_B }), 40);
        await createLink(testbed, 'inside-a', ['default via 10.0.1.1 src 10.1.0.1']);
        await portIs(a, 'inside', USABLE);
        assertAllFetched(await fetchAll(testbed, 'client', { ...load, sources: CLIENTS_OF_A }), 40);
      }
      await converged([a, b]);
      for (const site of [a, b]) {
        for (const thread of await site.threads()) assert.deepEqual([thread.restarts, thread.state], [0, 'ready']);
        const [peer] = await site.peers();
        assert.deepEqual([peer.state, peer.attachment], ['reachable', 'attached']);
        assert.equal((await site.counters())['state_rx_restarts'], 0);
      }
    });
  });
});
