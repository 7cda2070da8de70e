/**
 * Checks across settings, which no schema of a single value can make. Each check runs on all parts
 * that are valid by themselves.
 */

import { isIPv4, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { expandAddresses, numericIpv4 } from '../options/addresses.js';
import { MEMBERS_MAX } from '../options/cluster.js';
import { placeMembers } from './config.js';
import { oneOf } from './messages.js';
import { findMiddlebox, givenName, keyOf, type MiddleboxDeclaration, middleboxKeys } from './middleboxes.js';
import type { Path, Problem } from './problem.js';
import type { WrittenConfig } from './schema.js';
import { suggestion } from './suggest.js';

/** Where the configuration applies. */
export interface Host {
  /** The cores of this machine that are online. */
  readonly cores: readonly number[];
  /** The folder that relative paths start from. */
  readonly folder: string;
}

type Partially<T> = T extends (infer E)[] | readonly (infer E)[]
  ? readonly (Partially<E> | undefined)[]
  : T extends object
    ? { readonly [K in keyof T]?: Partially<T[K]> | undefined }
    : T;

/** A configuration in which any part may be missing. The parts present are valid by themselves. */
export type Draft = Partially<WrittenConfig>;

type Check = (draft: Draft, declarations: readonly MiddleboxDeclaration[], host: Host) => Problem[];

export function crossChecks(draft: Draft, declarations: readonly MiddleboxDeclaration[], host: Host): Problem[] {
  return CHECKS.flatMap((check) => check(draft, declarations, host));
}

/** The size of `sun_path` without the final NUL. A longer path would be cut off silently. */
const SOCKET_PATH_BYTES_MAX = 107;

/**
 * Maximum number of state objects of a cluster. Each takes one multicast group after the first.
 */
const OBJECTS_MAX = 256;

function problem(path: Path, message: string): Problem {
  return { path, at: 'value', message };
}

/**
 * A value that must differ from all others. `place` names it in the message about a later equal
 * value.
 */
interface Candidate {
  readonly value: string | number | undefined;
  readonly path: Path;
  readonly place: string;
}

function duplicates(candidates: readonly Candidate[], message: (value: string, place: string) => string): Problem[] {
  const first = new Map<string | number, string>();
  const problems: Problem[] = [];
  for (const { value, path, place } of candidates) {
    if (value === undefined) continue;
    const earlier = first.get(value);
    if (earlier === undefined) first.set(value, place);
    else problems.push(problem(path, message(String(value), earlier)));
  }
  return problems;
}

const membersDiffer: Check = ({ cluster }) => {
  const members = cluster?.members ?? [];
  return (['name', 'id', 'address'] as const).flatMap((key) =>
    duplicates(
      members.map((member, i) => ({
        value: member?.[key],
        path: ['cluster', 'members', i, key],
        place: member?.name === undefined || key === 'name' ? `cluster.members[${i}]` : `member ${member.name}`,
      })),
      (value, place) => `${key} ${value} is already taken by ${place}; every member needs its own`,
    ),
  );
};

const slotsHoldMembers: Check = ({ cluster }) => {
  const members = (cluster?.members ?? []).map((member, i) => ({ ...member, i }));
  const known = members.filter((member) => member.id !== undefined);
  // Slots depend on the ids of all members.
  if (known.length < members.length) return [];
  const placed = placeMembers(known as { id: number; slot?: number; i: number }[]);
  const path = (i: number): Path => ['cluster', 'members', i, members[i].slot === undefined ? 'id' : 'slot'];
  const slots = cluster?.slots ?? MEMBERS_MAX;
  return [
    ...duplicates(
      placed.map(({ i, slot }) => ({ value: slot, path: path(i), place: `cluster.members[${i}]` })),
      (slot, place) => `slot ${slot} is already that of ${place}; every member needs its own`,
    ),
    ...placed
      .filter(({ slot }) => slot >= slots)
      .map(({ i, slot }) => problem(path(i), `there is no slot ${slot}: cluster.slots is ${slots}, counted from 0`)),
  ];
};

const membersComeFromOnePlace: Check = ({ cluster }) => {
  const kind = cluster?.membership?.kind;
  if (kind === 'static' && cluster?.members === undefined)
    return [problem(['cluster', 'members'], 'is required: a list of all members')];
  if (kind !== 'etcd') return [];
  return [
    ...(cluster?.members === undefined
      ? []
      : [problem(['cluster', 'members'], 'with membership by etcd the members come from there: leave the list out')]),
    ...(cluster?.address === undefined
      ? [problem(['cluster', 'address'], 'is required with membership by etcd: the IPv4 address of this member')]
      : []),
  ];
};

const ownAddressIsHost: Check = ({ cluster }) => {
  if (cluster?.address === undefined) return [];
  const path = ['cluster', 'address'];
  if (cluster.membership?.kind === 'static')
    return [problem(path, 'is for membership by etcd; the address of each member is in cluster.members')];
  const wrong = notAHost(cluster.address);
  return wrong === undefined ? [] : [problem(path, wrong)];
};

const selfIsMember: Check = ({ cluster }) => {
  const names = cluster?.members?.map((member) => member?.name);
  // The member whose name is invalid may be the one that is meant.
  if (cluster?.self === undefined || names === undefined || names.includes(undefined)) return [];
  if (names.includes(cluster.self)) return [];
  const hint = suggestion(cluster.self, names as string[]) || `; there are ${names.join(', ') || 'none'}`;
  return [problem(['cluster', 'self'], `no member is called ${cluster.self}${hint}`)];
};

const memberAddressesAreHosts: Check = ({ cluster }) =>
  (cluster?.members ?? []).flatMap((member, i) => {
    const wrong = member?.address === undefined ? undefined : notAHost(member.address);
    return wrong === undefined ? [] : [problem(['cluster', 'members', i, 'address'], wrong)];
  });

const messagesAreSealed: Check = ({ cluster }) => {
  if (cluster === undefined) return [];
  // A wrong key file is an error of its own.
  if (Object.hasOwn(cluster, 'key_file')) {
    const message = 'has no meaning beside key_file, which secures the messages; take one of the two out';
    return cluster.insecure === true ? [problem(['cluster', 'insecure'], message)] : [];
  }
  if (Object.hasOwn(cluster, 'insecure') && cluster.insecure !== false) return [];
  const addresses = [cluster.address, ...(cluster.members ?? []).map((member) => member?.address)];
  const open = addresses.find((address) => address !== undefined && !notAHost(address) && !isLoopback(address));
  if (open === undefined) return [];
  return [
    problem(
      ['cluster'],
      `names no key_file, so whoever can reach ${open} could change or read the shared state; make one with constellationd --generate-key FILE, or write insecure: true if nobody else is on that network`,
    ),
  ];
};

const groupIsMulticast: Check = ({ transport }) => {
  if (transport?.group === undefined || transport.kind === 'unicast') return [];
  const first = numericIpv4(transport.group);
  const path = ['transport', 'group'];
  if (!isMulticast(first)) {
    return [problem(path, `${transport.group} is not a multicast address; take one in 239.0.0.0/8, for private use`)];
  }
  if (first < 0xe000_0100) {
    return [
      problem(
        path,
        `${transport.group} is in 224.0.0.0/24, which is kept for routing protocols; take one in 239.0.0.0/8`,
      ),
    ];
  }
  if (isMulticast(first + OBJECTS_MAX)) return [];
  return [problem(path, `the ${OBJECTS_MAX} groups after ${transport.group} must be multicast addresses too`)];
};

const timesFitTogether: Check = ({ replication }) => {
  const { ack_delay_ms: ack, keepalive_ms: keepalive } = replication ?? {};
  // If something else in the section is wrong, the values may still be text with a unit.
  if (typeof ack !== 'number' || typeof keepalive !== 'number' || ack < keepalive) return [];
  return [problem(['replication', 'ack_delay_ms'], `must be below keepalive_ms (${keepalive}), not ${ack}`)];
};

const coresExist: Check = ({ threads }, _declarations, host) => {
  const uses: [Path, number | undefined][] = [
    ...(threads?.workers ?? []).map((core, i): [Path, number | undefined] => [['threads', 'workers', i], core]),
    [['threads', 'send'], threads?.send],
    [['threads', 'receive'], threads?.receive],
  ];
  return uses
    .filter(([, core]) => core !== undefined && !host.cores.includes(core))
    .map(([path, core]) => problem(path, `this machine has no core ${core}; it has ${ranges(host.cores)}`));
};

const workersDiffer: Check = ({ threads }) =>
  duplicates(
    (threads?.workers ?? []).map((value, i) => ({ value, path: ['threads', 'workers', i], place: `worker ${i}` })),
    (core, place) => `core ${core} is already taken by ${place}; every worker needs its own`,
  );

const portsDiffer: Check = ({ ports }, _declarations, host) => {
  const values = (key: PortKey, form: (written: string) => string) =>
    portValues(ports, key).map(({ name, value }) => ({
      value: form(value),
      path: ['ports', name, key],
      place: `port ${name}`,
    }));
  const inFolder = (written: string) => resolve(host.folder, written);
  const inputs = new Set(portValues(ports, 'in').map(({ value }) => inFolder(value)));
  const outputs = values('out', inFolder);
  return [
    ...duplicates(values('interface', String), (value, place) => `interface ${value} is already taken by ${place}`),
    ...duplicates(values('mac', lowerCase), (value, place) => `MAC address ${value} is already taken by ${place}`),
    ...duplicates(outputs, (value, place) => `${value} is already written by ${place}`),
    ...outputs
      .filter(({ value }) => inputs.has(value))
      .map(({ value, path }) => problem(path, `${value} is also read; writing would destroy it`)),
  ];
};

type PortKey = 'interface' | 'in' | 'out' | 'mac' | 'next_hop' | 'next_hop6';

/** The values of one setting, for all ports that have it. */
function portValues(ports: Draft['ports'], key: PortKey): { name: string; value: string }[] {
  return Object.entries(ports ?? {}).flatMap(([name, port]) => {
    const value = (port as Readonly<Record<string, string | undefined>> | undefined)?.[key];
    return value === undefined ? [] : [{ name, value }];
  });
}

function lowerCase(text: string): string {
  return text.toLowerCase();
}

const socketPathFits: Check = ({ admin }, _declarations, host) => {
  if (admin?.socket === undefined) return [];
  const bytes = Buffer.byteLength(resolve(host.folder, admin.socket));
  if (bytes <= SOCKET_PATH_BYTES_MAX) return [];
  return [
    problem(
      ['admin', 'socket'],
      `the path of a Unix socket has at most ${SOCKET_PATH_BYTES_MAX} bytes, and this one, from the root, has ${bytes}`,
    ),
  ];
};

const twoPorts: Check = ({ ports }) => {
  if (ports === undefined) return [];
  const count = Object.keys(ports).length;
  return count === 2 ? [] : [problem(['ports'], `expected two ports, not ${count}`)];
};

/**
 * A wire has no link-layer addresses and no next hop. A router over capture files needs both in the
 * configuration, because it has no neighbour table.
 */
const portsFitMode: Check = ({ mode, ports, packet_io: io }) => {
  if (mode === 'wire')
    return (['mac', 'next_hop', 'next_hop6'] as const).flatMap((key) =>
      portValues(ports, key).map(({ name }) =>
        problem(['ports', name, key], 'in mode wire frames keep their link-layer addresses: leave it out'),
      ),
    );
  if (mode !== 'route' || io?.driver !== 'pcap') return [];
  return Object.entries(ports ?? {}).flatMap(([name, port]) =>
    (['mac', 'next_hop'] as const)
      .filter((key) => port !== undefined && !Object.hasOwn(port, key))
      .map((key) => problem(['ports', name, key], 'is required: a MAC address such as 02:00:00:00:00:01')),
  );
};

const vlansFitMode: Check = ({ mode, vlans }) =>
  mode === 'route' && vlans === 'together'
    ? [problem(['vlans'], 'has no meaning in mode route, where VLAN tags are never looked at: leave it out')]
    : [];

const unknownEthertypesFitMode: Check = ({ mode, unknown_ethertypes: unknown }) =>
  mode === 'route' && unknown === 'pass'
    ? [problem(['unknown_ethertypes'], 'has no meaning in mode route, where only IP is forwarded: leave it out')]
    : [];

const nextHopsAreHosts: Check = ({ ports }) =>
  (['next_hop', 'next_hop6'] as const).flatMap((key) =>
    portValues(ports, key).flatMap(({ name, value }) => {
      const wrong = isIPv4(value) ? notOnALink(value) : isIPv6(value) ? notAHostIpv6(value) : undefined;
      return wrong === undefined ? [] : [problem(['ports', name, key], wrong)];
    }),
  );

const nobodyRewritesWhatOthersWatch: Check = ({ middleboxes }, declarations) => {
  const all = (middleboxes ?? []).flatMap((entry, i) =>
    middleboxKeys(entry).map((key) => ({ i, key, declaration: findMiddlebox(declarations, key) })),
  );
  const rewriting = all.find(({ declaration }) => declaration?.addresses === 'rewrites' && !declaration.sides);
  if (rewriting === undefined) return [];
  return all
    .filter(({ declaration }) => declaration?.addresses === 'watches')
    .map(({ i, key }) => ({
      path: ['middleboxes', i, key],
      at: 'key' as const,
      message: `${key} has to see both directions of a connection by the same addresses, and ${rewriting.key} rewrites them without saying which ports are on which side of it: give it an instance of its own`,
    }));
};

const middleboxesFitMode: Check = ({ mode, middleboxes }, declarations) =>
  (middleboxes ?? []).flatMap((entry, i) =>
    middleboxKeys(entry).flatMap((key) => {
      const modes = findMiddlebox(declarations, key)?.modes;
      if (mode === undefined || modes === undefined || modes.includes(mode)) return [];
      const message = `${key} works in mode ${modes.join(' or ')}, and this instance's is ${mode}`;
      return [{ path: ['middleboxes', i, key], at: 'key' as const, message }];
    }),
  );

const framesFillRings: Check = ({ packet_io: io, ports }) => {
  if (io?.driver !== 'af_xdp' || io.frames === undefined || io.ring_size === undefined) return [];
  const count = Math.max(2, Object.keys(ports ?? {}).length);
  const needed = count * io.ring_size;
  if (io.frames >= needed) return [];
  return [
    problem(
      ['packet_io', 'frames'],
      `${count} ports with rings of ${io.ring_size} need at least ${needed} frames, not ${io.frames}; ask for more, or for smaller rings`,
    ),
  ];
};

const pcapHasOneQueue: Check = ({ packet_io: io, threads }) => {
  const workers = threads?.workers?.length ?? 1;
  if (io?.driver !== 'pcap' || workers === 1) return [];
  return [
    problem(['threads', 'workers'], `a capture file has one queue, so the pcap driver runs one worker, not ${workers}`),
  ];
};

const middleboxesDiffer: Check = ({ middleboxes }, declarations) =>
  duplicates(
    (middleboxes ?? []).map((entry, i) => {
      const [key] = middleboxKeys(entry);
      return {
        value: givenName(entry) ?? findMiddlebox(declarations, key)?.name ?? key,
        path: ['middleboxes', i],
        place: `middleboxes[${i}]`,
      };
    }),
    (name, place) =>
      `${name} is already run by ${place}; its state and counters carry its name: give this one another, by name: beside it`,
  );

const oneMiddleboxPerEntry: Check = ({ middleboxes }, declarations) =>
  (middleboxes ?? []).flatMap((entry, i) => {
    if (entry === undefined || middleboxKeys(entry).length === 1) return [];
    const names = oneOf(declarations.map(keyOf));
    return [problem(['middleboxes', i], `expected one middlebox per entry of the list: ${names}`)];
  });

const middleboxOptions: Check = (draft, declarations) => {
  const ports = draft.ports === undefined ? undefined : Object.keys(draft.ports);
  return (draft.middleboxes ?? []).flatMap((entry, i) =>
    Object.entries(entry ?? {}).flatMap(([name, options]) => {
      const declaration = findMiddlebox(declarations, name);
      if (declaration === undefined || typeof options !== 'object' || options === null) return [];
      const path = ['middleboxes', i, name];
      return [...portOptions(declaration, options, path, ports), ...addressOptions(declaration, options, path)];
    }),
  );
};

type Written = Readonly<Record<string, unknown>>;

function ofKind(declaration: MiddleboxDeclaration, kind: string): string[] {
  return Object.keys(declaration.options).filter((key) => declaration.options[key].kind === kind);
}

function portOptions(
  declaration: MiddleboxDeclaration,
  options: Written,
  path: Path,
  ports: readonly string[] | undefined,
): Problem[] {
  const given = ofKind(declaration, 'port')
    .map((key) => ({ key, value: options[key] as string | undefined, path: [...path, key], place: key }))
    .filter(({ value }) => value !== undefined);
  const unknown = given
    .filter(({ value }) => ports !== undefined && !ports.includes(value as string))
    .map(({ value, path }) => {
      const hint = suggestion(value as string, ports ?? []) || `; there are ${ports?.join(', ') || 'none'}`;
      return problem(path, `no port is called ${value}${hint}`);
    });
  const same = duplicates(
    given,
    (value, place) => `${place} is already port ${value}; they have to be different ports`,
  );
  return [...unknown, ...same];
}

function addressOptions(declaration: MiddleboxDeclaration, options: Written, path: Path): Problem[] {
  return ofKind(declaration, 'addresses').flatMap((key) => {
    const written = options[key];
    if (!Array.isArray(written)) return [];
    const addresses = written.flatMap((entry: string | undefined, i) =>
      addressesOf(entry).map((value) => ({ value, path: [...path, key, i], place: `${key}[${i}]` })),
    );
    const hosts = addresses.flatMap(({ value, path }) => {
      const wrong = notOnALink(value);
      return wrong === undefined ? [] : [problem(path, wrong)];
    });
    return [...hosts, ...duplicates(addresses, (value, place) => `${value} is already given as ${place}`)];
  });
}

/** All addresses of one entry of a list. Empty if the entry is invalid. */
function addressesOf(entry: string | undefined): string[] {
  try {
    return entry === undefined ? [] : expandAddresses([entry]);
  } catch {
    return [];
  }
}

const CHECKS: readonly Check[] = [
  membersDiffer,
  slotsHoldMembers,
  membersComeFromOnePlace,
  ownAddressIsHost,
  selfIsMember,
  memberAddressesAreHosts,
  messagesAreSealed,
  groupIsMulticast,
  timesFitTogether,
  coresExist,
  workersDiffer,
  twoPorts,
  portsDiffer,
  portsFitMode,
  vlansFitMode,
  unknownEthertypesFitMode,
  nextHopsAreHosts,
  framesFillRings,
  pcapHasOneQueue,
  oneMiddleboxPerEntry,
  middleboxesDiffer,
  middleboxesFitMode,
  nobodyRewritesWhatOthersWatch,
  middleboxOptions,
  socketPathFits,
];

function isLoopback(address: string): boolean {
  return numericIpv4(address) >>> 24 === 127;
}

function isMulticast(address: number): boolean {
  return address >= 0xe000_0000 && address < 0xf000_0000;
}

/** Why an address cannot be that of a host. `undefined`: it can. */
function notAHost(text: string): string | undefined {
  const address = numericIpv4(text);
  if (isMulticast(address)) return `${text} is a multicast address; expected the address of a host`;
  if (address < 0x0100_0000 || address >= 0xf000_0000) return `${text} cannot be the address of a host`;
  return undefined;
}

/** Why an address cannot be that of a host beyond an interface. `undefined`: it can. */
function notOnALink(text: string): string | undefined {
  return isLoopback(text) ? `${text} is a loopback address; expected one that packets can be sent to` : notAHost(text);
}

function notAHostIpv6(text: string): string | undefined {
  if (/^ff/i.test(text)) return `${text} is a multicast address; expected the address of a host`;
  if (/^[0:]+1?$/.test(text)) return `${text} cannot be the address of a host on a link`;
  return undefined;
}

/** Core numbers as text: `0-3, 6`. */
function ranges(cores: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < cores.length; ) {
    let end = i;
    while (cores[end + 1] === cores[end] + 1) end++;
    parts.push(end === i ? `${cores[i]}` : `${cores[i]}-${cores[end]}`);
    i = end + 1;
  }
  return parts.join(', ');
}
