/** The configuration as the daemon reads it: checked, with names resolved and absolute paths. */

import { dirname, resolve } from 'node:path';
import type { SharedState } from '../options/middlebox.js';
import { type MiddleboxDeclaration, type ResolvedMiddlebox, resolveMiddleboxes } from './middleboxes.js';
import type { WrittenConfig } from './schema.js';

export interface MemberConfig {
  readonly name: string;
  readonly id: number;
  readonly address: string;
  /** Its index in every vector. */
  readonly slot: number;
}

type MembershipConfig = Readonly<WrittenConfig['cluster']['membership']>;

interface ClusterConfig {
  readonly id: string;
  readonly membership: MembershipConfig;
  /**
   * All members in the order of their ids. With etcd: only ourselves, with id 0 and slot 0 until we
   * have taken them.
   */
  readonly members: readonly MemberConfig[];
  readonly self: MemberConfig;
  /** Number of slots for members, taken or free. */
  readonly slots: number;
  /** Absolute path of the key file. `null`: state messages are not sealed. */
  readonly keyFile: string | null;
}

/** A port of the data plane. Its index in `packet_io.ports` is the port's index. */
export interface AfXdpPortConfig {
  readonly name: string;
  readonly interface: string;
  /** IPv4 address, dotted, or MAC address in lower case. Absent: destinations are on the link. */
  readonly next_hop?: string | undefined;
  /**
   * IPv6 address or MAC address, for IPv6. If none was written, the MAC address of `next_hop`, if
   * that is one.
   */
  readonly next_hop6?: string | undefined;
}

interface PcapPortConfig {
  readonly name: string;
  readonly in?: string | undefined;
  readonly out?: string | undefined;
  /** MAC addresses in lower case. Only in mode route. */
  readonly mac?: string | undefined;
  readonly next_hop?: string | undefined;
}

type WrittenIo = WrittenConfig['packet_io'];
export type AfXdpConfig = Readonly<Extract<WrittenIo, { driver: 'af_xdp' }>> & {
  readonly ports: readonly AfXdpPortConfig[];
};
export type PcapConfig = Readonly<Extract<WrittenIo, { driver: 'pcap' }>> & {
  readonly ports: readonly PcapPortConfig[];
};
type PacketIoConfig = AfXdpConfig | PcapConfig;

export interface Config {
  /** Absolute path of the file. */
  readonly file: string;
  /** The content of the file, to compare it with the file later. */
  readonly written: WrittenConfig;
  readonly cluster: ClusterConfig;
  readonly transport: Readonly<WrittenConfig['transport']>;
  readonly replication: Readonly<WrittenConfig['replication']>;
  readonly threads: Readonly<WrittenConfig['threads']>;
  readonly mode: WrittenConfig['mode'];
  readonly vlans: WrittenConfig['vlans'];
  readonly unknown_ethertypes: WrittenConfig['unknown_ethertypes'];
  readonly source_routes: WrittenConfig['source_routes'];
  readonly early_replies: Readonly<WrittenConfig['early_replies']>;
  /** The driver with its settings, and the ports in the form of this driver. */
  readonly packet_io: PacketIoConfig;
  readonly middleboxes: readonly ResolvedMiddlebox[];
  readonly shared: SharedState;
  /** `file`: absolute. `null`: state is not saved. */
  readonly stateFile: { readonly file: string | null; readonly restoreWithinS: number };
  readonly hooks: Readonly<WrittenConfig['hooks']>;
  readonly admin: Readonly<WrittenConfig['admin']>;
  readonly log: Readonly<WrittenConfig['log']>;
  /** `file`: absolute. `null`: records are not written. */
  readonly records: { readonly file: string | null; readonly keep: number };
}

/**
 * Resolves a configuration that `validate` accepted. `file` is absolute. Relative paths start from
 * its folder.
 */
export function resolveConfig(
  file: string,
  written: WrittenConfig,
  declarations: readonly MiddleboxDeclaration[],
): Config {
  const folder = dirname(file);
  const cluster = resolveCluster(written.cluster, folder);
  const { counting, sketch_seed } = written.state;
  return {
    file,
    written,
    cluster,
    transport: written.transport,
    replication: written.replication,
    threads: written.threads,
    mode: written.mode,
    vlans: written.vlans,
    unknown_ethertypes: written.unknown_ethertypes,
    source_routes: written.source_routes,
    early_replies: written.early_replies,
    packet_io: resolvePacketIo(written, folder),
    middleboxes: resolveMiddleboxes(written.middleboxes, declarations, {
      ports: Object.keys(written.ports),
      others: (cluster.membership.kind === 'static' ? cluster.members.length : cluster.slots) - 1,
      folder,
    }),
    shared: { form: counting, members: cluster.slots, seed: sketch_seed },
    stateFile: {
      file: written.state.file === undefined ? null : resolve(folder, written.state.file),
      restoreWithinS: written.state.restore_within_s,
    },
    hooks: written.hooks,
    admin: { socket: resolve(folder, written.admin.socket) },
    log: written.log,
    records: {
      file: written.records.file === undefined ? null : resolve(folder, written.records.file),
      keep: written.records.keep,
    },
  };
}

function resolveCluster(written: WrittenConfig['cluster'], folder: string): ClusterConfig {
  const { id, self: name, membership, address } = written;
  const members =
    membership.kind === 'static'
      ? placeMembers(written.members ?? [])
      : [{ name, id: 0, slot: 0, address: address as string }];
  const self = members.find((member) => member.name === name);
  if (self === undefined) throw new Error(`no member is called ${name}`);
  const keyFile = written.key_file === undefined ? null : resolve(folder, written.key_file);
  return { id, membership, members, self, slots: slotsOf(written), keyFile };
}

/**
 * The members in the order of their ids. A member without a given slot gets the slot after that of
 * the member before it.
 */
export function placeMembers<M extends { readonly id: number; readonly slot?: number | undefined }>(
  members: readonly M[],
): (M & { readonly slot: number })[] {
  let next = 0;
  return members
    .toSorted((a, b) => a.id - b.id)
    .map((member) => {
      const slot = member.slot ?? next;
      next = slot + 1;
      return { ...member, slot };
    });
}

const SLOTS_MIN = 2;
/** With etcd the number of members is not known in advance. */
const SLOTS_ETCD = 8;

function slotsOf({ members = [], membership, slots }: WrittenConfig['cluster']): number {
  const needed = membership.kind === 'etcd' ? SLOTS_ETCD : SLOTS_MIN;
  return slots ?? Math.max(needed, ...placeMembers(members).map(({ slot }) => slot + 1));
}

function resolvePacketIo(written: WrittenConfig, folder: string): PacketIoConfig {
  const io = written.packet_io;
  const ports = Object.entries(written.ports);
  if (io.driver === 'af_xdp') {
    return {
      ...io,
      ports: ports.map(([name, port]) => {
        if (!('interface' in port)) throw new Error(`port ${name} is not an interface`);
        const next_hop = port.next_hop?.toLowerCase();
        const next_hop6 = port.next_hop6?.toLowerCase() ?? (next_hop?.includes(':') ? next_hop : undefined);
        return { name, interface: port.interface, next_hop, next_hop6 };
      }),
    };
  }
  return {
    ...io,
    ports: ports.map(([name, port]) => {
      if ('interface' in port) throw new Error(`port ${name} is not a capture file`);
      return {
        name,
        in: port.in === undefined ? undefined : resolve(folder, port.in),
        out: port.out === undefined ? undefined : resolve(folder, port.out),
        mac: port.mac?.toLowerCase(),
        next_hop: port.next_hop?.toLowerCase(),
      };
    }),
  };
}
