/**
 * The network of the tests and the benchmark of the IDPS: outside and hosts, joined by the wires of
 * two sites. Packets to the lower half of the hosts pass wire a, those to the upper half wire b.
 * All replies pass wire a.
 *
 *                    ┌────────┐
 *               ┌────┤ wire-a ├────┐
 *     ┌─────────┤    └───┬────┘    ├───────┐
 *     │ outside │      relay       │ hosts │
 *     └─────────┤    ┌───┴────┐    ├───────┘
 *   10.1.0.0/24 └────┤ wire-b ├────┘ 198.51.100.0/24
 *                    └────────┘
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Instance } from './instance.js';
import { DAEMON, makeKeyFile, writeConfig } from './site.js';
import type { Testbed } from './testbed.js';
import type { Topology } from './topology.js';

export const SITES = ['a', 'b'] as const;
const OUTSIDE = '10.1.0.0/24';
const HOSTS = '198.51.100.0/24';

/** `delay_ms`: delay between the sites, each way. */
export function twoWires(delay_ms: number): Topology {
  return {
    nodes: {
      outside: { local: [OUTSIDE], routes: ['198.51.100.0/25 via 10.9.1.2', '198.51.100.128/25 via 10.9.2.2'] },
      'wire-a': {},
      'wire-b': {},
      hosts: { local: [HOSTS], routes: [`${OUTSIDE} via 10.9.1.1`] },
    },
    links: [
      ...SITES.flatMap((site, i) => [
        {
          name: `border-${site}`,
          arp: true,
          ends: [
            { node: 'outside', interface: site, addresses: [`10.9.${i + 1}.1/24`] },
            { node: `wire-${site}`, interface: 'border' },
          ],
        },
        {
          name: `network-${site}`,
          arp: true,
          ends: [
            { node: `wire-${site}`, interface: 'network' },
            { node: 'hosts', interface: site, addresses: [`10.9.${i + 1}.2/24`] },
          ],
        },
      ]),
      {
        name: 'wan',
        relayed: { delay_ms },
        ends: SITES.map((site, i) => ({
          node: `wire-${site}`,
          interface: 'wan',
          addresses: [`10.255.0.${i + 1}/24`],
        })),
      },
    ],
  };
}

/**
 * Starts the instance of a site with these options of the IDPS. Returns when it is ready. Its
 * alerts are in `SITE.json`; the sources that it never suspects are in `SITE.allow`.
 */
export async function startWireSite(
  testbed: Testbed,
  site: (typeof SITES)[number],
  idps: Readonly<Record<string, unknown>>,
): Promise<Instance> {
  const at = (name: string): string => join(testbed.folder, `${site}.${name}`);
  const instance = new Instance(site, at('sock'));
  writeFileSync(at('allow'), '');
  writeConfig(at('yaml'), {
    cluster: {
      id: 'testbed',
      self: site,
      members: SITES.map((name, n) => ({ name, id: n + 1, address: `10.255.0.${n + 1}` })),
      key_file: makeKeyFile(testbed.folder),
    },
    transport: { kind: 'unicast' },
    replication: { join_wait_ms: 500 },
    state: { sketch_seed: 'the sketches of this test' },
    threads: { workers: [SITES.indexOf(site)] },
    mode: 'wire',
    ports: { network: { interface: 'network' }, border: { interface: 'border' } },
    middleboxes: [{ idps: { allow: at('allow'), ...idps } }],
    records: { file: at('json') },
    admin: { socket: instance.socket },
  });
  const argv = [process.execPath, DAEMON, '-c', at('yaml')];
  await instance.attach(testbed.start(`wire-${site}`, site, argv));
  return instance;
}
