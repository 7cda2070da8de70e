/**
 * One instance between a client and a server on veth links: a wire with a firewall, or a router
 * with a NAT. Its interfaces may be deleted and created again.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startServer } from '../testbed/http/fetch.js';
import { eventually, type Instance } from '../testbed/instance.js';
import { ping } from '../testbed/ping.js';
import { startAlone } from '../testbed/site.js';
import { Testbed } from '../testbed/testbed.js';
import type { Topology } from '../testbed/topology.js';
import { withNetwork } from './support.js';

/** Beyond the box. */
export const SERVER = '198.51.100.1';

/** On a wire client and server are on one link; else the box is a router between them. */
function topology(mode: 'wire' | 'route'): Topology {
  const isWire = mode === 'wire';
  const box = (address: string): { addresses?: string[] } => (isWire ? {} : { addresses: [address] });
  return {
    nodes: {
      client: { routes: isWire ? [] : ['default via 10.9.0.254'] },
      box: {},
      server: isWire ? {} : { local: ['198.51.100.0/24'], routes: ['default via 10.9.1.254'] },
    },
    links: [
      {
        name: 'left',
        arp: true,
        ends: [
          { node: 'client', interface: 'eth0', addresses: ['10.9.0.1/24'] },
          { node: 'box', interface: 'left', ...box('10.9.0.254/24') },
        ],
      },
      {
        name: 'right',
        arp: true,
        ends: [
          { node: 'box', interface: 'right', ...box('10.9.1.254/24') },
          { node: 'server', interface: 'eth0', addresses: [isWire ? '10.9.0.2/24' : '10.9.1.2/24'] },
        ],
      },
    ],
  };
}

function startBox(
  testbed: Testbed,
  mode: 'wire' | 'route',
  sections: Readonly<Record<string, unknown>>,
): Promise<Instance> {
  const rules = join(testbed.folder, 'rules');
  writeFileSync(rules, 'policy accept\n');
  const hops = mode === 'wire' ? [{}, {}] : [{ next_hop: '10.9.0.1' }, { next_hop: '10.9.1.2' }];
  return startAlone(testbed, 'box', {
    mode,
    ports: { left: { interface: 'left', ...hops[0] }, right: { interface: 'right', ...hops[1] } },
    middleboxes: [
      mode === 'wire'
        ? { firewall: { rules } }
        : { nat: { inside: 'left', outside: 'right', external: ['203.0.113.1'] } },
    ],
    ...sections,
  });
}

/** `sections`: of the configuration, in the place of the usual ones. */
export async function withBox(
  mode: 'wire' | 'route',
  test: (testbed: Testbed, instance: Instance) => Promise<void>,
  sections: (testbed: Testbed) => Readonly<Record<string, unknown>> = () => ({}),
): Promise<void> {
  const testbed = await Testbed.build(topology(mode));
  await withNetwork({ testbed, down: () => testbed.down() }, async () => {
    await startServer(testbed, 'server');
    await test(testbed, await startBox(testbed, mode, sections(testbed)));
  });
}

/** Waits until `status` says of a port what it should. */
export async function portIs(instance: Instance, port: string, pattern: RegExp): Promise<string> {
  return eventually(`port ${port} to be ${pattern}`, async () => {
    const { ports } = await instance.status();
    return ports.find((text) => text.startsWith(`${port} = `) && pattern.test(text)) ?? null;
  });
}

/** What it says of a usable port. */
export const USABLE = /^[^:]*$/;

export async function reaches(testbed: Testbed, node: string, address: string): Promise<void> {
  await eventually(`${node} to reach ${address}`, async () =>
    (await ping(testbed, node, address, 2)).received > 0 ? true : null,
  );
}
