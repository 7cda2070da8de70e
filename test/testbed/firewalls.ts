/**
 * Clients and servers that are joined by two links. Each link has a firewall, and the two firewalls
 * share connections. Packets from the client pass site a, packets from the server pass site b. IPv4
 * and IPv6.
 *
 *                  10.0.1.0/24      ┌────────┐
 *                ┌──────── left ────┤ site-a ├─ right ─────────┐
 *     ┌────────┐ │                  └───┬────┘                 │ ┌────────┐
 *     │ client ├─┤       10.255.0.0/24, the relay              ├─┤ server │
 *     └────────┘ │                  ┌───┴────┐                 │ └────────┘
 *   10.1.0.0/24  └──────── left ────┤ site-b ├─ right ─────────┘ 198.51.100.0/24
 *   fd01::1        10.0.2.0/24      └────────┘                   fd02::1
 *
 * In wire mode the sites have no addresses on these links. In route mode they are the next hops:
 * .254 on the left, and on the right, where the networks are 10.0.3.0/24 and 10.0.4.0/24.
 *
 * With `servers`, a router takes the server's place. Each server is then a separate node, at some
 * distance through the relay. Their addresses are those of two-sites.ts.
 */

import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Instance } from './instance.js';
import type { Impairment } from './relay.js';
import { CLIENT, DAEMON, makeKeyFile, type SiteOptions, writeConfig } from './site.js';
import { type Output, Testbed } from './testbed.js';
import type { Link, Node, Topology } from './topology.js';
import { type Server, serverAddress } from './two-sites.js';

export const CLIENT_IPV6 = 'fd01::1';
export const SERVER_IPV6 = 'fd02::1';

const WITH_IPV6 = {
  'ipv6/conf/all/disable_ipv6': 0,
  'ipv6/conf/default/disable_ipv6': 0,
  'ipv6/conf/default/accept_dad': 0,
};

export interface FirewallsOptions {
  readonly mode: 'wire' | 'route';
  readonly wan: Impairment;
  readonly rules: string;
  /** Options of the firewall, without its rules. */
  readonly firewall?: Readonly<Record<string, unknown>>;
  /** The configuration section `early_replies`. */
  readonly early_replies?: SiteOptions['early_replies'];
  readonly servers?: readonly Server[];
  /**
   * Data plane workers of each site, one per queue of its ports. Absent: one worker, which runs on
   * the first core at both sites.
   */
  readonly workers?: number;
}

function topology({ mode, wan, servers = [], workers }: FirewallsOptions): Topology {
  const routes = mode === 'route';
  /** Number of the network on the right, and the next hop of the hosts on a network. */
  const right = (n: number): number => (routes ? n + 2 : n);
  const hop = (n: number, host: number): { v4: string; v6: string } => ({
    v4: `10.0.${n}.${routes ? 254 : host}`,
    v6: `fd00:${n}::${routes ? 'fe' : host}`,
  });
  const queues = workers === undefined ? {} : { queues: workers };
  const sides = [1, 2].flatMap((n): Link[] => {
    const site = `site-${n === 1 ? 'a' : 'b'}`;
    const port = (network: number): string[] => (routes ? [`10.0.${network}.254/24`, `fd00:${network}::fe/64`] : []);
    const own = (address: string): string[] => (n === 1 ? [address] : []);
    return [
      {
        name: `left-${n}`,
        arp: true,
        ...queues,
        ends: [
          {
            node: 'client',
            interface: `eth${n}`,
            addresses: [`10.0.${n}.1/24`, `fd00:${n}::1/64`, ...own(`${CLIENT_IPV6}/128`)],
          },
          { node: site, interface: 'left', addresses: port(n) },
        ],
      },
      {
        name: `right-${n}`,
        arp: true,
        ...queues,
        ends: [
          { node: site, interface: 'right', addresses: port(right(n)) },
          {
            node: 'server',
            interface: `eth${n}`,
            addresses: [`10.0.${right(n)}.2/24`, `fd00:${right(n)}::2/64`, ...own(`${SERVER_IPV6}/128`)],
          },
        ],
      },
    ];
  });
  const there = hop(1, 2);
  const back = routes ? hop(4, 1) : hop(2, 1);
  return {
    nodes: {
      client: {
        local: ['10.1.0.0/24'],
        routes: [`198.51.100.0/24 via ${there.v4} src 10.1.0.1`, `fd02::/64 via ${there.v6}`],
        sysctls: WITH_IPV6,
      },
      'site-a': { sysctls: routes ? WITH_IPV6 : {} },
      'site-b': { sysctls: routes ? WITH_IPV6 : {} },
      server: {
        forward: servers.length > 0,
        local: servers.length > 0 ? [] : ['198.51.100.0/24'],
        routes: [
          `10.1.0.0/16 via ${back.v4}${servers.length > 0 ? '' : ' src 198.51.100.1'}`,
          `fd01::/64 via ${back.v6}`,
        ],
        sysctls: WITH_IPV6,
      },
      ...Object.fromEntries(
        servers.map(({ name }, i): [string, Node] => [name, { routes: [`default via 198.51.100.${4 * i + 1}`] }]),
      ),
    },
    links: [
      ...sides,
      ...servers.map(
        ({ name, delay_ms }, i): Link => ({
          name,
          relayed: { delay_ms },
          ends: [
            { node: 'server', interface: name, addresses: [`198.51.100.${4 * i + 1}/30`] },
            { node: name, interface: 'eth0', addresses: [`${serverAddress(i)}/30`] },
          ],
        }),
      ),
      {
        name: 'wan',
        relayed: wan,
        ends: [1, 2].map((n) => ({
          node: `site-${n === 1 ? 'a' : 'b'}`,
          interface: 'wan',
          addresses: [`10.255.0.${n}/24`],
        })),
      },
    ],
  };
}

/** Cores of the workers of site n. A single worker has its own core if the machine has two. */
function cores(n: number, workers: number): number[] {
  return Array.from({ length: workers }, (_, i) => (workers === 1 ? n - 1 : i) % availableParallelism());
}

export class FirewallAt extends Instance {
  private readonly testbed: Testbed;
  private readonly node: string;
  private readonly rulesFile: string;

  constructor(
    testbed: Testbed,
    name: 'a' | 'b',
    { mode, rules, workers, early_replies, firewall = {} }: FirewallsOptions,
  ) {
    super(name, join(testbed.folder, `${name}.sock`));
    this.testbed = testbed;
    this.node = `site-${name}`;
    this.rulesFile = join(testbed.folder, `${name}.rules`);
    this.write(rules);
    const n = name === 'a' ? 1 : 2;
    // IPv6 is routed to next hops by their MAC addresses.
    const hops =
      mode === 'wire' ? [{}, {}] : ['client', 'server'].map((node) => ({ next_hop: testbed.mac(node, `eth${n}`) }));
    writeConfig(join(testbed.folder, `${name}.yaml`), {
      cluster: {
        id: 'testbed',
        self: name,
        members: [1, 2].map((id) => ({ name: id === 1 ? 'a' : 'b', id, address: `10.255.0.${id}` })),
        key_file: makeKeyFile(testbed.folder),
      },
      transport: { kind: 'multicast' },
      replication: { join_wait_ms: 500 },
      ...(workers === undefined ? {} : { threads: { workers: cores(n, workers) } }),
      mode,
      ...(early_replies === undefined ? {} : { early_replies }),
      ports: { left: { interface: 'left', ...hops[0] }, right: { interface: 'right', ...hops[1] } },
      middleboxes: [{ firewall: { rules: `./${name}.rules`, ...firewall } }],
      admin: { socket: this.socket },
    });
  }

  /** Writes the rules. They take effect when they are loaded. */
  write(rules: string): void {
    writeFileSync(this.rulesFile, rules);
  }

  async start(): Promise<void> {
    const config = join(this.testbed.folder, `${this.name}.yaml`);
    await this.attach(this.testbed.start(this.node, this.name, [process.execPath, DAEMON, '-c', config]));
  }

  async client(...words: string[]): Promise<Output> {
    return this.testbed.run(this.node, [process.execPath, CLIENT, '-s', this.socket, ...words], true);
  }
}

export class Firewalls {
  readonly testbed: Testbed;
  readonly a: FirewallAt;
  readonly b: FirewallAt;

  private constructor(testbed: Testbed, options: FirewallsOptions) {
    this.testbed = testbed;
    this.a = new FirewallAt(testbed, 'a', options);
    this.b = new FirewallAt(testbed, 'b', options);
  }

  static async build(options: FirewallsOptions): Promise<Firewalls> {
    return new Firewalls(await Testbed.build(topology(options)), options);
  }

  async start(): Promise<void> {
    await Promise.all([this.a.start(), this.b.start()]);
  }

  async down(): Promise<void> {
    await this.testbed.down();
  }
}
