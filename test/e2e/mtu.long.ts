/**
 * Links with different MTUs on the two sides of two sites: what is too long for one of them arrives
 * all the same.
 */

import { strict as assert } from 'node:assert';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { needs } from '../support/require.js';
import { DAEMON, startAlone } from '../testbed/site.js';
import { Testbed } from '../testbed/testbed.js';
import type { Topology } from '../testbed/topology.js';
import { clientOfA, clientOfB, serverAddress, type TwoSitesOptions } from '../testbed/two-sites.js';
import { withNetwork, withTwoSites } from './support.js';

const TRANSFER = fileURLToPath(new URL('../testbed/transfer.js', import.meta.url));
const PORT = '81';
const UPLOAD_BYTES = '500000';
const DATAGRAM_BYTES = '4000';
const SERVER = serverAddress(0);
const PATHS: TwoSitesOptions = { servers: [{ name: 'far', delay_ms: 2 }], wan: { delay_ms: 2 } };
/** So that the packet that makes a binding has it at the site by which replies come. */
const HELD = { hold_members: 1, hold_ms: 1000 };

/** The hosts believe to be on one link of 1500 bytes. */
const WIRE: Topology = {
  nodes: { client: {}, wire: {}, server: {} },
  links: [
    {
      name: 'left',
      arp: true,
      ends: [
        { node: 'client', interface: 'eth0', addresses: ['10.9.0.1/24'] },
        { node: 'wire', interface: 'left' },
      ],
    },
    {
      name: 'right',
      arp: true,
      mtu: 1400,
      ends: [
        { node: 'wire', interface: 'right' },
        { node: 'server', interface: 'eth0', addresses: ['10.9.0.2/24'] },
      ],
    },
  ],
};

/** Sends with "don't fragment", as is usual, or without. */
async function discoverPathMtu(testbed: Testbed, node: string, does: boolean): Promise<void> {
  await testbed.run(node, ['sh', '-c', `echo ${does ? 0 : 1} > /proc/sys/net/ipv4/ip_no_pmtu_disc`]);
}

async function serve(testbed: Testbed, node: string): Promise<void> {
  await testbed.start(node, `transfer-${node}`, [process.execPath, TRANSFER, 'serve', PORT]).waitFor(/^ready$/m);
}

async function transfer(testbed: Testbed, what: 'upload' | 'echo', source: string): Promise<void> {
  const bytes = what === 'upload' ? UPLOAD_BYTES : DATAGRAM_BYTES;
  const argv = [process.execPath, TRANSFER, what, source, SERVER, PORT, bytes];
  const { code, stdout, stderr } = await testbed.run('client', argv, true);
  assert.equal(code, 0, `${what} from ${source}: ${stdout}${stderr}`);
}

describe('end to end: different MTUs', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp');
  });

  // The server's own link has 1500, so nobody's MSS says that there are 1400 on the way.
  for (const chain of ['NAT', 'firewall and NAT'] as const)
    it(`uploads and datagrams pass through an outside of 1400 bytes: ${chain}`, async () => {
      const middleboxes = chain === 'NAT' ? [] : [{ firewall: { rules: 'policy drop\niif inside accept\n' } }];
      const options = { ...PATHS, nat: HELD, middleboxes, mtu: { outside: 1400 } };
      await withTwoSites(options, async ({ testbed, a, b }) => {
        await serve(testbed, 'far');
        for (const node of ['client', 'far']) await discoverPathMtu(testbed, node, false);
        await transfer(testbed, 'upload', clientOfA(1));
        await transfer(testbed, 'upload', clientOfB(1));
        // Three fragments, of which two are fragmented once more.
        await transfer(testbed, 'echo', clientOfA(2));
        await transfer(testbed, 'echo', clientOfB(2));
        for (const site of [a, b]) {
          const { route_fragmented, route_fragments } = await site.counters();
          assert.ok(route_fragmented > 100, `site ${site.name} fragmented ${route_fragmented} packets`);
          assert.equal(route_fragments, route_fragmented, 'into two each');
        }

        // From now on the client keeps the path MTU that it learns, so this comes last.
        for (const node of ['client', 'far']) await discoverPathMtu(testbed, node, true);
        const before = await a.counters();
        await transfer(testbed, 'upload', clientOfA(0));
        const after = await a.counters();
        assert.equal(after['route_fragmented'], before['route_fragmented']);
        assert.ok(after['route_icmp_errors'] > 0, 'the client was told');
      });
    });

  it('replies pass through an inside of 1300 bytes, by the site that did not see the requests', async () => {
    await withTwoSites({ ...PATHS, nat: HELD, mtu: { inside: 1300 } }, async ({ testbed, a, b }) => {
      await serve(testbed, 'far');
      await discoverPathMtu(testbed, 'far', false);
      await transfer(testbed, 'echo', clientOfA(0));
      const [there, back] = [await a.counters(), await b.counters()];
      assert.equal(there['route_fragmented'], 0, 'the client fragments for its own link');
      // Of the server's fragments of 1500, 1500 and 1068 bytes.
      assert.equal(back['route_fragmented'], 2);
      assert.equal(back['route_fragments'], 2);
      assert.equal(back['nat_inbound'], 3);
    });
  });

  for (const clamp_mss of [false, true])
    it(`uploads pass a wire of which one side has 1400 bytes, which log and --check name: clamp_mss ${clamp_mss}`, async () => {
      const testbed = await Testbed.build(WIRE);
      await withNetwork({ testbed, down: () => testbed.down() }, async () => {
        const ports = { left: { interface: 'left' }, right: { interface: 'right' } };
        const instance = await startAlone(testbed, 'wire', {
          mode: 'wire',
          ports,
          middleboxes: [{ firewall: { rules: 'policy accept\niif left accept\n', clamp_mss } }],
        });
        const difference = /right has MTU 1400 and left has MTU 1500: in mode wire/;
        assert.match(instance.program.output, difference);
        const check = [process.execPath, DAEMON, '--check', '-c', join(testbed.folder, 'wire.yaml')];
        assert.match((await testbed.run('wire', check)).stdout, difference);

        // So that its MSS does not tell what the wire does not let through.
        await testbed.configure('server', 'route replace 10.9.0.0/24 dev eth0 advmss 1460');
        await serve(testbed, 'server');
        const sent = async (): Promise<number> =>
          Number((await testbed.run('wire', ['cat', '/sys/class/net/right/statistics/tx_packets'])).stdout);
        const [before, sentBefore] = [await instance.counters(), await sent()];
        const argv = [process.execPath, TRANSFER, 'upload', '10.9.0.1', '10.9.0.2', PORT, UPLOAD_BYTES];
        const { code, stdout } = await testbed.run('client', argv, true);
        assert.equal(code, 0, stdout);
        const [after, sentAfter] = [await instance.counters(), await sent()];
        const { wire_mtu, wire_icmp_errors, firewall_mss_clamped } = after;
        if (clamp_mss) assert.deepEqual([wire_mtu, wire_icmp_errors, firewall_mss_clamped], [0, 0, 2]);
        else assert.ok(wire_mtu > 0 && wire_icmp_errors > 0 && firewall_mss_clamped === 0, JSON.stringify(after));
        assert.equal(
          after['port1_tx_packets'] - before['port1_tx_packets'],
          sentAfter - sentBefore,
          'as the kernel counts',
        );
      });
    });
});
