/**
 * A router of both IP versions: IPv6 is taken because its middlebox handles it; the link's own
 * stays with the kernel. Next hops are MAC addresses, or what the kernel finds by ARP and neighbour
 * discovery: hosts on the link, and a gateway.
 */

import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';
import { needs } from '../support/require.js';
import { startServer } from '../testbed/http/fetch.js';
import { eventually } from '../testbed/instance.js';
import { startAlone } from '../testbed/site.js';
import { Testbed } from '../testbed/testbed.js';
import { type Topology, WITH_IPV6 } from '../testbed/topology.js';
import { withNetwork } from './support.js';

/** What curl exits with when the connection was refused, and when time was up. */
const REFUSED = 7;
const TIME_UP = 28;
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

/**
 * A client on the router's link, a server behind a gateway; the gateway's link-local address is the
 * next hop.
 */
const GATEWAY: Topology = {
  nodes: {
    client: { sysctls: WITH_IPV6, routes: ['default via 10.8.1.1', 'default via fd00:1::1'] },
    router: { sysctls: WITH_IPV6 },
    gateway: {
      forward: true,
      sysctls: { ...WITH_IPV6, 'ipv6/conf/all/forwarding': 1 },
      routes: ['10.8.1.0/24 via 10.8.2.1', 'fd00:1::/64 via fd00:2::1'],
    },
    server: { sysctls: WITH_IPV6, routes: ['default via 10.8.3.1', 'default via fd00:3::1'] },
  },
  links: [
    {
      name: 'left',
      arp: true,
      ends: [
        { node: 'client', interface: 'eth0', addresses: ['10.8.1.2/24', 'fd00:1::2/64', 'fd00:1::3/64'] },
        { node: 'router', interface: 'left', addresses: ['10.8.1.1/24', 'fd00:1::1/64'] },
      ],
    },
    {
      name: 'right',
      arp: true,
      ends: [
        { node: 'router', interface: 'right', addresses: ['10.8.2.1/24', 'fd00:2::1/64'] },
        { node: 'gateway', interface: 'near', addresses: ['10.8.2.2/24', 'fd00:2::2/64', 'fe80::2/64'] },
      ],
    },
    {
      name: 'far',
      arp: true,
      ends: [
        { node: 'gateway', interface: 'far', addresses: ['10.8.3.1/24', 'fd00:3::1/64'] },
        { node: 'server', interface: 'eth0', addresses: ['10.8.3.2/24', 'fd00:3::2/64'] },
      ],
    },
  ],
};
const GATEWAY_PORTS = {
  left: { interface: 'left' },
  right: { interface: 'right', next_hop: '10.8.2.2', next_hop6: 'fe80::2' },
};
const EXTERNAL = '203.0.113.1';
const RULES = `
zone lan = { port left }
policy drop
from lan accept
iif right ip6 daddr fd00:1::2 tcp dport 80 accept
`;
const NEW_MAC = '02:00:00:00:00:99';

describe('end to end: a router of IPv6', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'tool:ping', 'file:/proc/net/if_inet6');
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

  it('finds hosts on its links and a gateway by ARP and neighbour discovery, and follows one to another MAC address', async () => {
    const testbed = await Testbed.build(GATEWAY);
    await withNetwork({ testbed, down: () => testbed.down() }, async () => {
      const instance = await startAlone(testbed, 'router', {
        ports: GATEWAY_PORTS,
        middleboxes: [{ [WATCHER]: { mode: 'route' } }],
      });
      await startServer(testbed, 'server', 80, '::');
      const succeeds = async (...argv: string[]): Promise<void> => {
        const { code, stdout, stderr } = await testbed.run('client', argv, true);
        assert.equal(code, 0, `${argv.join(' ')}: ${stdout}${stderr}`);
      };
      // Until there are so many answers: the first to a host that nobody has asked for yet are
      // dropped.
      const ping = (from: string, count: number): Promise<void> =>
        succeeds('ping', '-6', '-I', from, '-c', `${count}`, '-i0.2', '-w20', 'fd00:3::2');
      const fetch = (url: string, ...options: string[]): Promise<void> =>
        succeeds('curl', '-sfg', '-o', '/dev/null', '--max-time', '20', ...options, url);
      const unresolved = async (): Promise<number> => (await instance.counters())['route_unresolved'] ?? 0;

      assert.equal(await unresolved(), 0);
      await ping('fd00:1::2', 1);
      const lost = await unresolved();
      assert.ok(lost <= 2, `${lost}: none but the first answers, until main has the client`);
      await ping('fd00:1::2', 5);
      assert.equal(await unresolved(), lost, 'none is dropped once it is known');
      await ping('fd00:1::3', 1);
      await fetch('http://[fd00:3::2]/2000000/1');
      await fetch('http://10.8.3.2/2000000/1');
      const counts = await instance.counters();
      assert.ok(counts['watcher_ipv6'] > 100 && counts['watcher_ipv4'] > 100, JSON.stringify(counts));
      assert.equal(counts['watcher_discovery'], 0);

      await testbed.configure('client', `link set eth0 address ${NEW_MAC}`, 'neigh flush dev eth0');
      await ping('fd00:1::2', 1);
      await fetch('http://[fd00:3::2]/2000000/1', '--interface', 'fd00:1::2');
      const table = (await testbed.run('router', ['ip', '-6', 'neigh', 'show', 'dev', 'left'])).stdout;
      assert.match(table, new RegExp(`^fd00:1::2 lladdr ${NEW_MAC}`, 'm'));
    });
  });

  it('is a gateway of both: IPv4 through firewall, NAT and IDPS, IPv6 through firewall and IDPS', async function () {
    needs(this, 'tool:nmap');
    const testbed = await Testbed.build(GATEWAY);
    await withNetwork({ testbed, down: () => testbed.down() }, async () => {
      const instance = await startAlone(testbed, 'router', {
        ports: GATEWAY_PORTS,
        middleboxes: [
          { firewall: { rules: RULES } },
          { nat: { inside: 'left', outside: 'right', external: [EXTERNAL] } },
          { idps: { answer_seconds: 2 } },
        ],
      });
      await testbed.configure('gateway', `route add ${EXTERNAL}/32 via 10.8.2.1`);
      await startServer(testbed, 'server', 80, '::');
      await startServer(testbed, 'client', 80, '::');
      const exit = async (node: string, ...argv: string[]): Promise<number> =>
        (await testbed.run(node, argv, true)).code;
      const curl = (node: string, url: string, seconds = 20): Promise<number> =>
        exit(node, 'curl', '-sfg', '-o', '/dev/null', '--max-time', String(seconds), url);
      // Until the client on the link is found: the first packets to it are dropped.
      assert.equal(await exit('client', 'ping', '-c1', '-i0.2', '-w20', '10.8.3.2'), 0);
      assert.equal(await exit('client', 'ping', '-6', '-c1', '-i0.2', '-w20', 'fd00:3::2'), 0);
      assert.equal(await curl('client', 'http://10.8.3.2/500000/1'), 0);
      assert.equal(await curl('client', 'http://[fd00:3::2]/500000/1'), 0);
      assert.equal(await curl('server', 'http://[fd00:1::2]/1000/1'), 0, 'a rule lets it in');
      assert.equal(await curl('server', 'http://[fd00:1::2]:81/', 1), TIME_UP);
      const counters = await instance.counters();
      assert.ok(counters['nat_outbound'] > 10 && counters['nat_inbound'] > 100, 'both ways');
      assert.equal(counters['nat_ipv6'], 0);
      const flows = await instance.flows('object=firewall.ipv6');
      assert.ok(flows.some(({ inside, remote }) => inside.address === 'fd00:3::2' && remote?.address === 'fd00:1::2'));
      await exit(
        'server',
        'nmap',
        '-6',
        '-n',
        '-Pn',
        '-sS',
        '--max-retries',
        '0',
        '--min-rate',
        '50',
        '-p',
        '1-60',
        'fd00:1::2',
      );
      await eventually('the scanner to be blocked', async () =>
        (await instance.counters())['idps_scanners'] > 0 ? true : null,
      );
      assert.equal(await curl('server', 'http://[fd00:1::2]/10/1', 1), TIME_UP);
    });
  });
});
