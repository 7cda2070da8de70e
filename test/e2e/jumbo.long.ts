/**
 * Ports of every MTU: packets at the limit and downloads pass both ways, or the instance refuses to
 * start.
 */

import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { xskMultiBuffer } from '../../workers/native/index.js';
import { needs } from '../support/require.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { eventually, type Instance } from '../testbed/instance.js';
import { startAlone } from '../testbed/site.js';
import { Testbed } from '../testbed/testbed.js';
import type { Topology } from '../testbed/topology.js';
import { assertAllFetched, withNetwork } from './support.js';

type Mode = 'wire' | 'route';

const SERVER = '10.9.1.2';
const EXTERNAL = '203.0.113.1';
const CLIENTS = ['10.1.0.1', '10.1.0.2'];
/** What kernels before 6.6 take. */
const ONE_CHUNK_MTU = 3808;

/**
 * A wire joins one link, a router two subnets; each end has a route to the other by its own link
 * alone.
 */
function topology(mode: Mode, mtu: number): Topology {
  const box = (address: string): { addresses?: string[] } => (mode === 'wire' ? {} : { addresses: [address] });
  const via = (hop: string): string => (mode === 'wire' ? 'scope link' : `via ${hop}`);
  const back = mode === 'wire' ? ['10.1.0.0/24', '10.9.0.0/24'] : [EXTERNAL];
  return {
    nodes: {
      client: { local: ['10.1.0.0/24'], routes: [`${SERVER}/32 ${via('10.9.0.254')} dev eth0`] },
      box: {},
      server: { routes: back.map((network) => `${network} ${via('10.9.1.254')} dev eth0`) },
    },
    links: [
      {
        name: 'left',
        arp: true,
        mtu,
        ends: [
          { node: 'client', interface: 'eth0', addresses: ['10.9.0.1/24'] },
          { node: 'box', interface: 'left', ...box('10.9.0.254/24') },
        ],
      },
      {
        name: 'right',
        arp: true,
        mtu,
        ends: [
          { node: 'box', interface: 'right', ...box('10.9.1.254/24') },
          { node: 'server', interface: 'eth0', addresses: [`${SERVER}/24`] },
        ],
      },
    ],
  };
}

describe('end to end: ports of every MTU', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:ping');
  });

  function start(testbed: Testbed, mode: Mode, xdp: 'native' | 'generic'): Promise<Instance> {
    const rules = join(testbed.folder, 'rules');
    writeFileSync(rules, 'policy drop\niif left accept\n');
    const hops = mode === 'wire' ? [{}, {}] : [{ next_hop: '10.9.0.1' }, { next_hop: SERVER }];
    return startAlone(testbed, 'box', {
      mode,
      packet_io: { driver: 'af_xdp', mode: xdp },
      ports: { left: { interface: 'left', ...hops[0] }, right: { interface: 'right', ...hops[1] } },
      middleboxes: [
        mode === 'wire' ? { firewall: { rules } } : { nat: { inside: 'left', outside: 'right', external: [EXTERNAL] } },
      ],
    });
  }

  for (const mode of ['route', 'wire'] as const)
    for (const xdp of ['native', 'generic'] as const)
      for (const mtu of [1500, 3000, 4000, 9000])
        it(`MTU ${mtu}, mode ${mode}, ${xdp} XDP`, async () => {
          const testbed = await Testbed.build(topology(mode, mtu));
          await withNetwork({ testbed, down: () => testbed.down() }, async () => {
            if (mtu > ONE_CHUNK_MTU && !xskMultiBuffer()) {
              await assert.rejects(start(testbed, mode, xdp), new RegExp(`MTU ${mtu}.*Linux 6\\.6`));
              return;
            }
            const instance = await start(testbed, mode, xdp);
            await startServer(testbed, 'server');
            // Not to be fragmented: 20 bytes of IP, 8 of ICMP. The first may come before the next
            // hop is known.
            const argv = ['ping', '-n', '-M', 'do', '-s', `${mtu - 28}`, '-c', '1', '-W', '2', SERVER];
            await eventually('an answer at the limit', async () =>
              (await testbed.run('client', argv, true)).code === 0 ? true : null,
            );
            const load = { origins: [`http://${SERVER}`], sources: CLIENTS, bytes: 1_000_000, concurrency: 2 };
            assertAllFetched(await fetchAll(testbed, 'client', { ...load, count: 4 }), 4);
            const counters = await instance.counters();
            for (const name of ['xdp_rx_dropped', 'xdp_rx_jumbo', 'xdp_tx_ring_full', 'xdp_tx_invalid'])
              assert.equal(counters[name], 0, name);
            // Full packets came whole, and did not shrink to what would fit otherwise.
            const { stdout } = await testbed.run('client', ['cat', '/sys/class/net/eth0/statistics/rx_bytes']);
            const packets = (await testbed.run('client', ['cat', '/sys/class/net/eth0/statistics/rx_packets'])).stdout;
            if (mtu > 1500) assert.ok(Number(stdout) / Number(packets) > 1000, `${stdout} bytes in ${packets} packets`);
          });
        });

  it('an MTU that nothing holds is refused, with the port and what to change', async () => {
    const testbed = await Testbed.build(topology('wire', 20_000));
    await withNetwork({ testbed, down: () => testbed.down() }, async () => {
      await assert.rejects(
        start(testbed, 'wire', 'generic'),
        /(left|right) has MTU 20000.*ip link set (left|right) mtu/,
      );
    });
  });
});
