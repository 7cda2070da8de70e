/**
 * A network of several sites, for tests that need more than two: members that die, are cut off,
 * join and leave.
 *
 *                     ┌──────────┐
 *                  ┌──┤ site-a   ├──┐
 *     ┌────────┐   │  └────┬─────┘  │   ┌────────┐
 *     │ client ├───┤  … the relay … ├───┤ server │
 *     └────────┘   │  ┌────┴─────┐  │   └────────┘
 *    10.1.0.0/24   └──┤ site-d   ├──┘   198.51.100.0/24
 *                     └──────────┘
 *
 * All addresses of 10.1.0.0/24 belong to the client node. Each site has a block of them, its
 * clients. `steer` decides by which site the packets of each block leave, and by which sites
 * packets to the external address return, as routing does when sites come and go.
 */

import type { Impairment } from './relay.js';
import { type Member, Site, type SiteOptions } from './site.js';
import { Testbed } from './testbed.js';
import type { Link, Node, Topology } from './topology.js';
import { EXTERNAL } from './two-sites.js';

export const SITE_NAMES = ['a', 'b', 'c', 'd'] as const;
export type SiteName = (typeof SITE_NAMES)[number];

const CLIENTS_PER_BLOCK = 64;
const FIRST_TABLE = 100;

const place = (name: SiteName): number => SITE_NAMES.indexOf(name);
const insideOf = (i: number): string => `10.0.${i + 1}.1`;
const outsideOf = (i: number): string => `192.0.2.${4 * i + 2}`;

/** Addresses of a site's clients. */
export function clientsOf(name: SiteName): string[] {
  const first = place(name) * CLIENTS_PER_BLOCK;
  return Array.from({ length: CLIENTS_PER_BLOCK - 2 }, (_, n) => `10.1.0.${first + n + 1}`);
}

export interface ManySitesOptions extends SiteOptions {
  /** Sites of the network. Not all need be started. */
  readonly sites: readonly SiteName[];
  /** Sites that each site's configuration lists as members; default: all. */
  readonly members?: readonly SiteName[];
  /** Impairment of the paths between the sites, each way. */
  readonly wan?: Impairment;
}

function topology({ sites, wan }: ManySitesOptions): Topology {
  const links: Link[] = sites.flatMap((name) => {
    const i = place(name);
    const site = `site-${name}`;
    return [
      {
        name: `inside-${name}`,
        ends: [
          { node: 'client', interface: name, addresses: [`10.0.${i + 1}.2/30`] },
          { node: site, interface: 'inside', addresses: [`${insideOf(i)}/30`] },
        ],
      },
      {
        name: `outside-${name}`,
        ends: [
          { node: 'server', interface: name, addresses: [`192.0.2.${4 * i + 1}/30`] },
          { node: site, interface: 'outside', addresses: [`${outsideOf(i)}/30`] },
        ],
      },
    ];
  });
  links.push({
    name: 'wan',
    relayed: wan ?? {},
    ends: sites.map((name) => ({ node: `site-${name}`, interface: 'wan', addresses: [`${stateAddress(name)}/24`] })),
  });
  const blocks = sites.map((name) => ({
    table: FIRST_TABLE + place(name),
    from: `10.1.0.${place(name) * CLIENTS_PER_BLOCK}/26`,
  }));
  const nodes: Record<string, Node> = {
    client: {
      local: ['10.1.0.0/24'],
      rules: blocks.map(({ table, from }) => `from ${from} lookup ${table}`),
      routes: ['default via 10.0.1.1 src 10.1.0.1'],
    },
    server: {
      local: ['198.51.100.0/24'],
      // A server that has written a whole download has closed its socket. The kernel abandons such
      // a socket after 8 probes.
      sysctls: { 'ipv4/fib_multipath_hash_policy': 1, 'ipv4/tcp_orphan_retries': 30 },
    },
  };
  for (const name of sites) nodes[`site-${name}`] = {};
  return { nodes, links };
}

/** Address for a site's state messages. */
export function stateAddress(name: SiteName): string {
  return `10.255.0.${place(name) + 1}`;
}

export function memberOf(name: SiteName): Member {
  return { name, id: place(name) + 1, address: stateAddress(name) };
}

export class ManySites {
  readonly testbed: Testbed;
  readonly sites: ReadonlyMap<SiteName, Site>;
  private readonly names: readonly SiteName[];

  private constructor(testbed: Testbed, options: ManySitesOptions) {
    this.testbed = testbed;
    this.names = options.sites;
    const listed = options.members ?? options.sites;
    this.sites = new Map(
      options.sites.map((name) => {
        const i = place(name);
        const members = [...new Set([...listed, name])].map(memberOf);
        const ports = {
          inside: { interface: 'inside', next_hop: `10.0.${i + 1}.2` },
          outside: { interface: 'outside', next_hop: `192.0.2.${4 * i + 1}` },
        };
        return [
          name,
          new Site(testbed, `site-${name}`, { self: name, members, ports, external: [EXTERNAL], core: i }, options),
        ];
      }),
    );
  }

  /**
   * Builds the network, but does not start the instances. The packets of each site's clients leave
   * by that site, and replies return by the next site.
   */
  static async build(options: ManySitesOptions): Promise<ManySites> {
    const testbed = await Testbed.build(topology(options));
    const built = new ManySites(testbed, options);
    try {
      await built.steer(options.members ?? options.sites);
      return built;
    } catch (error) {
      await testbed.down();
      throw error;
    }
  }

  site(name: SiteName): Site {
    const site = this.sites.get(name);
    if (site === undefined) throw new Error(`there is no site ${name}`);
    return site;
  }

  /**
   * Lets only these sites carry traffic. Each block leaves by its own site or, if that is not among
   * them, by another one. Replies are spread over them.
   */
  async steer(carrying: readonly SiteName[]): Promise<void> {
    const out = this.names.map((name, n) => {
      const by = carrying.includes(name) ? name : carrying[n % carrying.length];
      return `route replace default via ${insideOf(place(by))} table ${FIRST_TABLE + place(name)}`;
    });
    const hops = carrying.map((name) => `nexthop via ${outsideOf(place(name))}`);
    await this.testbed.configure('client', ...out);
    await this.testbed.configure('server', `route replace ${EXTERNAL}/32 ${hops.join(' ')}`);
  }

  /** Cuts a site's state messages off from all other sites, or restores them. */
  async cut(name: SiteName, down: boolean): Promise<void> {
    for (const other of this.names) {
      if (other === name) continue;
      await this.testbed.relay.set('wan', `site-${name}`, `site-${other}`, { down: down ? 1 : 0 });
      await this.testbed.relay.set('wan', `site-${other}`, `site-${name}`, { down: down ? 1 : 0 });
    }
  }

  async start(...names: readonly SiteName[]): Promise<void> {
    await Promise.all(names.map((name) => this.site(name).start()));
  }

  async down(): Promise<void> {
    await this.testbed.down();
  }
}
