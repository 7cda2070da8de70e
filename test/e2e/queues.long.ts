/**
 * Interfaces with more receive queues than there are workers: every queue is served, and none lets
 * packets past the rules.
 */

import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { eventually, type Instance } from '../testbed/instance.js';
import { ping } from '../testbed/ping.js';
import { CLIENT, startAlone } from '../testbed/site.js';
import { Testbed } from '../testbed/testbed.js';
import type { Topology } from '../testbed/topology.js';
import { assertAllFetched, withNetwork } from './support.js';

const QUEUES = 4;
/** Addresses that ping, twice each. */
const PINGING = 12;
const CLIENTS = Array.from({ length: 40 }, (_, i) => `10.1.0.${i + 1}`);
const RULES = `
policy drop
iif left tcp dport 80 accept
`;

/** Client and server are on one link in mode wire, behind a router in mode route. */
function topology(mode: 'wire' | 'route'): Topology {
  const [hop, there] = mode === 'wire' ? ['10.9.0.2', '10.9.0.1'] : ['10.9.0.254', '10.9.1.254'];
  const box = (address: string): { addresses?: string[] } => (mode === 'wire' ? {} : { addresses: [address] });
  return {
    nodes: {
      client: { local: ['10.1.0.0/24'], routes: [`198.51.100.0/24 via ${hop}`] },
      // The kernel forwards: what it gets, it passes on.
      box: { forward: true },
      server: { local: ['198.51.100.0/24'], routes: [`10.1.0.0/24 via ${there}`, ...reply(mode)] },
    },
    links: [
      {
        name: 'left',
        arp: true,
        queues: QUEUES,
        ends: [
          { node: 'client', interface: 'eth0', addresses: ['10.9.0.1/24'] },
          { node: 'box', interface: 'left', ...box('10.9.0.254/24') },
        ],
      },
      {
        name: 'right',
        arp: true,
        queues: QUEUES,
        ends: [
          { node: 'box', interface: 'right', ...box('10.9.1.254/24') },
          { node: 'server', interface: 'eth0', addresses: [mode === 'wire' ? '10.9.0.2/24' : '10.9.1.2/24'] },
        ],
      },
    ],
  };
}

const reply = (mode: 'wire' | 'route'): string[] => (mode === 'wire' ? [] : ['203.0.113.1 via 10.9.1.254']);

function needsCores(context: Mocha.Context, count: number): void {
  if (availableParallelism() >= count) return;
  console.log(`      skipped: this machine has fewer than ${count} cores`);
  context.skip();
}

describe('end to end: more queues than workers', function () {
  this.timeout(180_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:ping', 'tool:ethtool');
  });

  async function withBox(
    mode: 'wire' | 'route',
    workers: number,
    test: (testbed: Testbed, start: () => Promise<Instance>) => Promise<void>,
  ): Promise<void> {
    const testbed = await Testbed.build(topology(mode));
    await withNetwork({ testbed, down: () => testbed.down() }, async () => {
      const rules = join(testbed.folder, 'rules');
      writeFileSync(rules, RULES);
      const hops = mode === 'wire' ? [{}, {}] : [{ next_hop: '10.9.0.1' }, { next_hop: '10.9.1.2' }];
      if (mode === 'wire') {
        const enslave = ['left', 'right'].map((port) => `link set dev ${port} master br0`);
        await testbed.configure('box', 'link add br0 type bridge', ...enslave, 'link set dev br0 up');
      }
      await startServer(testbed, 'server');
      await test(testbed, () =>
        startAlone(testbed, 'box', {
          mode,
          threads: { workers: Array.from({ length: workers }, (_, core) => core) },
          ports: { left: { interface: 'left', ...hops[0] }, right: { interface: 'right', ...hops[1] } },
          middleboxes: [
            { firewall: { rules } },
            ...(mode === 'wire' ? [] : [{ nat: { inside: 'left', outside: 'right', external: ['203.0.113.1'] } }]),
          ],
        }),
      );
    });
  }

  const download = async (testbed: Testbed): Promise<void> => {
    const load = { origins: ['http://198.51.100.1'], sources: CLIENTS, bytes: 20_000, concurrency: 8, count: 80 };
    assertAllFetched(await fetchAll(testbed, 'client', load), 80);
  };

  /** How many pings of many addresses, and so of all queues, come back. */
  const answered = async (testbed: Testbed): Promise<number> => {
    const all = await Promise.all(
      CLIENTS.slice(0, PINGING).map((client) => ping(testbed, 'client', '198.51.100.1', 2, client)),
    );
    return all.reduce((sum, { received }) => sum + received, 0);
  };

  /** Queues of an interface that brought packets since it was made. */
  const usedQueues = async (testbed: Testbed, name: string): Promise<number> => {
    const { stdout } = await testbed.run('box', ['ethtool', '-S', name]);
    return [...stdout.matchAll(/rx_queue_\d+_xdp_packets: [1-9]/g)].length;
  };

  for (const workers of [1, 2])
    it(`a wire of ${QUEUES} queues with ${workers} worker(s), in a bridge, as the rules say`, async function () {
      needsCores(this, workers);
      await withBox('wire', workers, async (testbed, start) => {
        assert.equal(await answered(testbed), 2 * PINGING, 'the bridge passes all while no instance runs');
        const instance = await start();
        assert.equal(await answered(testbed), 0);
        await download(testbed);
        assert.equal(await usedQueues(testbed, 'left'), QUEUES, 'the test reached every queue');
        const counters = await instance.counters();
        assert.ok(counters['firewall_denied'] >= 2 * PINGING, JSON.stringify(counters));
        await instance.program.stop('SIGTERM');
        assert.equal(await answered(testbed), 2 * PINGING, 'and again when it stopped');
      });
    });

  for (const workers of [1, 2])
    it(`a router of ${QUEUES} queues with ${workers} worker(s), whose kernel would forward`, async function () {
      needsCores(this, workers);
      await withBox('route', workers, async (testbed, start) => {
        await start();
        assert.equal(await answered(testbed), 0);
        await download(testbed);
        assert.equal(await usedQueues(testbed, 'left'), QUEUES);
      });
    });

  it('passes nothing while a worker starts again, and counts it', async () => {
    await withBox('wire', 1, async (testbed, start) => {
      const instance = await start();
      const flood = testbed.start('client', 'flood', ['ping', '-q', '-i', '0.002', '198.51.100.1']);
      for (let life = 0; life < 4; life++) {
        const before = (await instance.threads())[0].restarts;
        await testbed.run('box', [process.execPath, CLIENT, '-s', instance.socket, 'restart', 'worker-0']);
        await eventually('the worker to start again', async () => {
          const [worker] = await instance.threads();
          return worker.restarts > before && worker.state === 'ready' ? true : null;
        });
      }
      const dropped = await eventually('drops to be counted', async () => {
        const { xdp_no_socket } = await instance.counters();
        return xdp_no_socket > 0 ? xdp_no_socket : null;
      });
      assert.ok(dropped > 0);
      await flood.stop('SIGINT');
      assert.match(flood.tail(), / 0 received/);
      await download(testbed);
    });
  });

  it('serves queues that are added at run time, and passes nothing meanwhile', async () => {
    await withBox('wire', 1, async (testbed, start) => {
      const channels = async (count: number): Promise<void> => {
        for (const name of ['left', 'right'])
          await testbed.run('box', ['ethtool', '-L', name, 'rx', `${count}`, 'tx', `${count}`]);
      };
      for (const node of ['client', 'server']) await testbed.run(node, ['ethtool', '-L', 'eth0', 'rx', '2', 'tx', '2']);
      await channels(2);
      const instance = await start();
      const flood = testbed.start('client', 'flood', ['ping', '-q', '-i', '0.002', '198.51.100.1']);
      await channels(QUEUES);
      // The kernel gives added queues of a veth interface no program. The instance does, when it
      // sees them; until then, the peers have no queue that leads there.
      for (const name of ['left', 'right'])
        await instance.program.waitFor(new RegExp(`${name} has ${QUEUES} receive queues`));
      for (const node of ['client', 'server'])
        await testbed.run(node, ['ethtool', '-L', 'eth0', 'rx', `${QUEUES}`, 'tx', `${QUEUES}`]);
      await sleep(500);
      await eventually('the worker to be ready', async () => ((await instance.isReady()) ? true : null));
      await flood.stop('SIGINT');
      assert.match(flood.tail(), / 0 received/);
      await download(testbed);
      assert.equal(await usedQueues(testbed, 'left'), QUEUES);
    });
  });

  it('refuses to start with fewer queues than workers, and says what to change', async () => {
    await withBox('wire', 2, async (testbed, start) => {
      for (const node of ['client', 'box'])
        for (const name of node === 'box' ? ['left', 'right'] : ['eth0'])
          await testbed.run(node, ['ethtool', '-L', name, 'rx', '1', 'tx', '1']);
      await assert.rejects(
        start(),
        /left has 1 receive queue .* names 2 cores: .* Name one core, .* \(ethtool -L left combined 2\)/s,
      );
    });
  });
});
