/**
 * The network of the demo and the end-to-end tests: clients that reach servers through two sites.
 *
 *                     10.0.1.0/30  ┌────────┐ 192.0.2.0/30
 *                  ┌───────────────┤ site-a ├───────────────┐
 *     ┌────────┐   │               └───┬────┘               │   ┌────────┐
 *     │ client ├───┤        10.255.0.0/24, the relay        ├───┤ server │
 *     └────────┘   │               ┌───┴────┐               │   └────────┘
 *    10.1.0.0/24   └───────────────┤ site-b ├───────────────┘   198.51.100.0/24
 *                     10.0.2.0/30  └────────┘ 192.0.2.4/30
 *
 * All addresses of 10.1.0.0/24 belong to the client, all of 198.51.100.0/24 to the server. Clients
 * in the lower half of 10.1.0.0/24 send by the first site, those in the upper half by the second.
 * Packets to the external address return as the routing says. With `servers`, a router, `internet`,
 * takes the server's place. Each server is then a separate node, at some distance through the
 * relay.
 */

import type { Impairment } from './relay.js';
import { Site, type SiteOptions } from './site.js';
import { Testbed } from './testbed.js';
import type { End, Link, Node, Topology } from './topology.js';

/** By which site requests leave and replies return. */
export type Routing =
  /**
   * Requests of the lower half of the clients pass site a, those of the upper half site b. Replies
   * pass b.
   */
  | 'asymmetric'
  /** Requests as above. Replies pass a. */
  | 'by-a'
  /** Requests and replies pass either site, by the flow's hash. */
  | 'spread';

export interface Server {
  readonly name: string;
  readonly delay_ms: number;
}

export interface TwoSitesOptions extends SiteOptions {
  readonly routing?: Routing;
  /** Impairment of the path between the sites, each way. */
  readonly wan?: Impairment;
  readonly servers?: readonly Server[];
  readonly seed?: number;
  /**
   * Whether neighbours on the sites' own links are found by ARP. By default, they are entered
   * statically.
   */
  readonly arp?: boolean;
  /** Data plane workers of each site, one per queue of its interfaces; default: 1. */
  readonly workers?: number;
  /** MTU of the sites' own links; 1500 by default. */
  readonly mtu?: { readonly inside?: number; readonly outside?: number };
  /** How the sites' configurations name their next hops; default: by IPv4 address. */
  readonly next_hop?: 'address' | 'mac';
}

export const EXTERNAL = '203.0.113.1';
export const SERVER = '198.51.100.1';
export const SERVICE_PORT = 80;

/** Clients that send by site a, and by site b, if the routing distinguishes clients. */
export const clientOfA = (n: number): string => `10.1.0.${1 + (n % 126)}`;
export const clientOfB = (n: number): string => `10.1.0.${129 + (n % 126)}`;
/** Address of a separate server, by its index in `servers`. */
export const serverAddress = (index: number): string => `198.51.100.${4 * index + 2}`;

const VIA_B_TABLE = 100;
const WAN_NETWORK = '10.255.0';

export function twoSitesTopology(options: TwoSitesOptions): Topology {
  const routing = options.routing ?? 'asymmetric';
  const servers = options.servers ?? [];
  const core = servers.length === 0 ? 'server' : 'internet';
  const more = { arp: options.arp === true, ...(options.workers === undefined ? {} : { queues: options.workers }) };
  const links: Link[] = ['a', 'b'].flatMap((site, i) => [
    wire(
      `inside-${site}`,
      end('client', site, `10.0.${i + 1}.2/30`),
      end(`site-${site}`, 'inside', `10.0.${i + 1}.1/30`),
      { ...more, mtu: options.mtu?.inside ?? 1500 },
    ),
    wire(
      `outside-${site}`,
      end(core, site, `192.0.2.${4 * i + 1}/30`),
      end(`site-${site}`, 'outside', `192.0.2.${4 * i + 2}/30`),
      { ...more, mtu: options.mtu?.outside ?? 1500 },
    ),
  ]);
  links.push({
    name: 'wan',
    relayed: options.wan ?? {},
    ends: [end('site-a', 'wan', `${WAN_NETWORK}.1/24`), end('site-b', 'wan', `${WAN_NETWORK}.2/24`)],
  });
  const nodes: Record<string, Node> = {
    client: client(routing),
    'site-a': {},
    'site-b': {},
    [core]: {
      forward: servers.length > 0,
      local: servers.length > 0 ? [] : ['198.51.100.0/24'],
      routes: [backRoute(routing)],
      sysctls: { 'ipv4/fib_multipath_hash_policy': 1 },
    },
  };
  for (const [i, server] of servers.entries()) {
    links.push({
      name: server.name,
      relayed: { delay_ms: server.delay_ms },
      ends: [end(core, server.name, `198.51.100.${4 * i + 1}/30`), end(server.name, 'eth0', `${serverAddress(i)}/30`)],
    });
    nodes[server.name] = { routes: [`default via 198.51.100.${4 * i + 1}`] };
  }
  return { nodes, links };
}

function end(node: string, name: string, address: string): End {
  return { node, interface: name, addresses: [address] };
}

function wire(name: string, a: End, b: End, more: Partial<Link>): Link {
  return { name, ends: [a, b], ...more };
}

function client(routing: Routing): Node {
  const spread = 'default src 10.1.0.1 nexthop via 10.0.1.1 nexthop via 10.0.2.1';
  return {
    local: ['10.1.0.0/24'],
    routes:
      routing === 'spread'
        ? [spread]
        : ['default via 10.0.1.1 src 10.1.0.1', `default via 10.0.2.1 table ${VIA_B_TABLE}`],
    rules: routing === 'spread' ? [] : [`from 10.1.0.128/25 lookup ${VIA_B_TABLE}`],
    sysctls: { 'ipv4/fib_multipath_hash_policy': 1 },
  };
}

/** Route of packets to the external address, in the syntax of `ip route`. */
export function backRoute(routing: Routing): string {
  const hops = {
    asymmetric: 'via 192.0.2.6',
    'by-a': 'via 192.0.2.2',
    spread: 'nexthop via 192.0.2.2 nexthop via 192.0.2.6',
  };
  return `${EXTERNAL}/32 ${hops[routing]}`;
}

/** The network, and an instance at each site. */
export class TwoSites {
  readonly testbed: Testbed;
  readonly a: Site;
  readonly b: Site;

  private constructor(testbed: Testbed, options: TwoSitesOptions) {
    this.testbed = testbed;
    const members = [1, 2].map((id) => ({ name: id === 1 ? 'a' : 'b', id, address: `${WAN_NETWORK}.${id}` }));
    const site = (name: 'a' | 'b', i: number): Site => {
      const core = options.servers === undefined ? 'server' : 'internet';
      const byMac = options.next_hop === 'mac';
      const ports = {
        inside: { interface: 'inside', next_hop: byMac ? testbed.mac('client', name) : `10.0.${i + 1}.2` },
        outside: { interface: 'outside', next_hop: byMac ? testbed.mac(core, name) : `192.0.2.${4 * i + 1}` },
      };
      const place = { self: name, members, ports, external: [EXTERNAL], core: i };
      const { workers } = options;
      const threads = workers === undefined ? {} : { workers: Array.from({ length: workers }, (_, core) => core) };
      return new Site(testbed, `site-${name}`, place, { ...options, threads: { ...threads, ...options.threads } });
    };
    this.a = site('a', 0);
    this.b = site('b', 1);
  }

  /** Builds the network, but does not start the instances. */
  static async build(options: TwoSitesOptions = {}): Promise<TwoSites> {
    const testbed = await Testbed.build(twoSitesTopology(options), options.seed);
    return new TwoSites(testbed, options);
  }

  get sites(): readonly [Site, Site] {
    return [this.a, this.b];
  }

  /** Starts both instances; returns when both are ready. */
  async start(): Promise<void> {
    await Promise.all(this.sites.map((site) => site.start()));
  }

  async down(): Promise<void> {
    await this.testbed.down();
  }
}
