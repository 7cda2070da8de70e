/**
 * A network of namespaces as data, and the iproute2 commands that build it. Pure.
 *
 * A *link* joins two interfaces of two nodes by a veth pair. A *relayed* link joins two or more
 * interfaces through the relay. The relay runs in its own namespace and delays, loses and reorders
 * frames. Each end of a relayed link is a veth pair to the relay.
 */

import type { Impairment } from './relay.js';

export interface End {
  readonly node: string;
  /** Interface name inside the node. */
  readonly interface: string;
  /** With prefix length: `10.0.0.1/24`. */
  readonly addresses?: readonly string[];
}

export interface Link {
  readonly name: string;
  readonly ends: readonly End[];
  /** Bytes; default: 1500. */
  readonly mtu?: number;
  /** Transmit and receive queues of both ends; default: 1. */
  readonly queues?: number;
  /** If given, the link passes the relay, with this initial impairment in every direction. */
  readonly relayed?: Impairment;
  /** Whether neighbours are found by ARP. By default, they are entered statically. */
  readonly arp?: boolean;
}

export interface Node {
  /** Whether the kernel routes packets between its interfaces. */
  readonly forward?: boolean;
  /** Prefixes whose addresses all belong to the node. */
  readonly local?: readonly string[];
  /** Arguments of `ip route add`. */
  readonly routes?: readonly string[];
  /** Arguments of `ip rule add`. */
  readonly rules?: readonly string[];
  /** Below /proc/sys/net, with slashes: `ipv4/tcp_ecn`. */
  readonly sysctls?: Readonly<Record<string, string | number>>;
}

export interface Topology {
  readonly nodes: Readonly<Record<string, Node>>;
  readonly links: readonly Link[];
}

/** The node in whose namespace the relay runs. */
export const RELAY_NODE = 'relay';

export interface Plan {
  readonly nodes: readonly string[];
  /** Input of `ip -batch` outside the namespaces: all veth pairs. */
  readonly links: readonly string[];
  /** Input of `ip -batch` inside each namespace. */
  readonly configure: ReadonlyMap<string, readonly string[]>;
  readonly sysctls: ReadonlyMap<string, Readonly<Record<string, string | number>>>;
  readonly interfaces: ReadonlyMap<string, readonly string[]>;
  /** MAC address of each end, `node/interface`. */
  readonly macs: ReadonlyMap<string, string>;
  /** Arguments of the relay: `wan=wan.site-a,wan.site-b`. */
  readonly segments: readonly string[];
}

const QUIET: Readonly<Record<string, number>> = {
  'ipv6/conf/all/disable_ipv6': 1,
  'ipv6/conf/default/disable_ipv6': 1,
  'ipv4/conf/all/rp_filter': 0,
  'ipv4/conf/default/rp_filter': 0,
};

/** Kernel settings of a node that also uses IPv6. */
export const WITH_IPV6: Readonly<Record<string, number>> = {
  'ipv6/conf/all/disable_ipv6': 0,
  'ipv6/conf/default/disable_ipv6': 0,
};

/** The relay's name for the port that leads to a node. */
export function relayPort(link: string, node: string): string {
  return `${link}.${node}`;
}

interface Pair {
  readonly a: { node: string; interface: string; mac: string };
  readonly b: { node: string; interface: string; mac: string };
  readonly link: Link;
}

/** `namespace` returns a node's namespace. Throws if the topology cannot be built. */
export function plan(topology: Topology, namespace: (node: string) => string): Plan {
  const relayed = topology.links.some((link) => link.relayed !== undefined);
  const nodes = new Map(Object.entries(topology.nodes));
  if (relayed) {
    if (nodes.has(RELAY_NODE)) throw new Error(`the node name ${RELAY_NODE} is taken by the relay`);
    nodes.set(RELAY_NODE, {});
  }
  const pairs = topology.links.flatMap((link, index) => pairsOf(link, index));
  checkNames(nodes, pairs);
  const macs = new Map<string, string>();
  const interfaces = new Map<string, string[]>([...nodes.keys()].map((node) => [node, []]));
  for (const end of pairs.flatMap((pair) => [pair.a, pair.b])) {
    macs.set(`${end.node}/${end.interface}`, end.mac);
    interfaces.get(end.node)?.push(end.interface);
  }
  const configure = new Map<string, string[]>();
  const sysctls = new Map<string, Readonly<Record<string, string | number>>>();
  for (const [name, node] of nodes) {
    configure.set(name, nodeCommands(name, node, topology, interfaces.get(name) ?? [], macs));
    sysctls.set(name, { ...QUIET, 'ipv4/ip_forward': node.forward ? 1 : 0, ...node.sysctls });
  }
  return {
    nodes: [...nodes.keys()],
    links: pairs.map((pair) => linkCommand(pair, namespace)),
    configure,
    sysctls,
    interfaces,
    macs,
    segments: topology.links
      .filter((link) => link.relayed !== undefined)
      .map((link) => `${link.name}=${link.ends.map((end) => relayPort(link.name, end.node)).join(',')}`),
  };
}

function pairsOf(link: Link, index: number): Pair[] {
  const mac = (end: number, side: number): string => `02:00:00:${hex(index)}:${hex(end)}:${hex(side)}`;
  const ends = link.ends.map((end, i) => ({ node: end.node, interface: end.interface, mac: mac(i, 1) }));
  if (link.relayed !== undefined)
    return ends.map((end, i) => ({
      a: end,
      b: { node: RELAY_NODE, interface: relayPort(link.name, end.node), mac: mac(i, 2) },
      link,
    }));
  if (ends.length !== 2)
    throw new Error(`link ${link.name} has ${ends.length} ends: only a relayed one has other than two`);
  return [{ a: ends[0], b: ends[1], link }];
}

const hex = (value: number): string => value.toString(16).padStart(2, '0');

function checkNames(nodes: ReadonlyMap<string, Node>, pairs: readonly Pair[]): void {
  const seen = new Set<string>();
  for (const end of pairs.flatMap((pair) => [pair.a, pair.b])) {
    if (!nodes.has(end.node)) throw new Error(`interface ${end.interface}: there is no node ${end.node}`);
    if (end.interface.length > 15) throw new Error(`interface name ${end.interface} is longer than 15 characters`);
    const key = `${end.node}/${end.interface}`;
    if (seen.has(key)) throw new Error(`interface ${key} is there twice`);
    seen.add(key);
  }
}

function linkCommand({ a, b, link }: Pair, namespace: (node: string) => string): string {
  const queues = link.queues === undefined ? '' : ` numtxqueues ${link.queues} numrxqueues ${link.queues}`;
  const side = (end: Pair['a']): string =>
    `name ${end.interface} netns ${namespace(end.node)} address ${end.mac} mtu ${link.mtu ?? 1500}${queues}`;
  return `link add ${side(a)} type veth peer ${side(b)}`;
}

/** The address is unique, so duplicate address detection is turned off for IPv6. */
function addAddress(address: string, name: string): string {
  return `addr add ${address}${address.includes(':') ? ' nodad' : ''} dev ${name}`;
}

function nodeCommands(
  name: string,
  node: Node,
  topology: Topology,
  interfaces: readonly string[],
  macs: ReadonlyMap<string, string>,
): string[] {
  const commands = ['link set dev lo up', ...interfaces.map((end) => `link set dev ${end} up`)];
  for (const link of topology.links) {
    const here = link.ends.find((end) => end.node === name);
    if (here === undefined) continue;
    for (const address of here.addresses ?? []) commands.push(addAddress(address, here.interface));
    if (link.arp) continue;
    for (const there of link.ends.filter((end) => end !== here)) {
      const mac = macs.get(`${there.node}/${there.interface}`);
      for (const address of there.addresses ?? [])
        commands.push(`neigh replace ${address.split('/')[0]} lladdr ${mac} dev ${here.interface} nud permanent`);
    }
  }
  for (const prefix of node.local ?? []) commands.push(`route add local ${prefix} dev lo`);
  for (const route of node.routes ?? []) commands.push(`route add ${route}`);
  for (const rule of node.rules ?? []) commands.push(`rule add ${rule}`);
  return commands;
}
