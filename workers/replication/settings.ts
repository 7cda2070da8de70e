/** The settings of replication, and what is derived from them. */

import { createHash, randomInt } from 'node:crypto';
import { isIP } from 'node:net';
import { REPLICATION, TRANSPORT } from '../../options/cluster.js';
import { EPOCH_MS } from '../../shm/clock.js';
import {
  createMemberTable,
  EMPTY_SLOT,
  MemberTableWriter,
  Role,
  SLOTS_MAX,
  type SlotEntry,
} from '../../shm/members.js';
import { SEAL_BYTES } from './wire/seal.js';

export interface Member {
  /** 1 … 65535, unique in the cluster. */
  readonly id: number;
  readonly name: string;
  /**
   * Numeric IP address at which it receives unicast state messages: all messages, or, with
   * multicast, those to it alone.
   */
  readonly address: string;
  readonly port: number;
  /**
   * Its slot, the index in every vector; absent: its position among all members in the order of
   * their ids.
   */
  readonly slot?: number;
}

interface PlacedMember extends Member {
  readonly slot: number;
}

interface UnicastSettings {
  readonly kind: 'unicast';
}

export interface MulticastSettings {
  readonly kind: 'multicast';
  /** Address of object 0's group. Object n uses the address n above it. */
  readonly group: string;
  readonly port: number;
  /** Address of the interface to send and listen on (IPv6: `::%eth0`). */
  readonly interface: string;
  /** The number of routers that a message may pass. */
  readonly ttl: number;
  /** Whether other members on this host hear us. */
  readonly loopback: boolean;
}

export interface ReplicationSettings {
  /** `clusterIdOf(name)`; messages of other clusters are dropped. */
  readonly clusterId: number;
  /** Our own member id. */
  readonly self: number;
  /**
   * The members at the start, including this one. Later the member table applies (shm/members.ts).
   */
  readonly members: readonly PlacedMember[];
  /**
   * The number of slots, taken or free. It is fixed while the instance runs, and the same at every
   * member.
   */
  readonly slots: number;
  readonly transport: UnicastSettings | MulticastSettings;
  /** Version of the member list. Members of different views refuse each other's messages. */
  readonly view: number;
  /** Path MTU: the largest IP packet, 1280 … 9216 bytes. */
  readonly mtu: number;
  /**
   * How long an acknowledgement may wait for a message with units, in ms, for each other member.
   */
  readonly ackDelayMs: number;
  /** The upper limit of that wait, in ms. */
  readonly ackDelayMsMax: number;
  /** A message with the whole vector is sent on every channel at least this often, in ms. */
  readonly keepaliveMs: number;
  /**
   * A fresh instance that has heard no member with state for this time, in ms, begins without
   * state.
   */
  readonly joinWaitMs: number;
  /**
   * A member not heard for this time, in ms, is silent: it gets probes instead of every unit it
   * lacks.
   */
  readonly silentMs: number;
  readonly retransmitMsMin: number;
  readonly retransmitMsMax: number;
  /** Retransmission timeout before the first round trip is measured (RFC 6298: 1 s). */
  readonly retransmitMsInitial: number;
  /**
   * Size of the log of units not yet acknowledged by all, per object; rounded up to a power of two.
   */
  readonly unitLogBytes: number;
  /**
   * Units of other members kept in case their origin dies, in bytes over all objects and slots; at
   * least 64 KB for each pair.
   */
  readonly foreignLogBytes: number;
  /** How long a full unit log waits for a heard member before it detaches that member, in ms. */
  readonly detachMs: number;
  /** A member that lags further behind, in ms, is reported and then detached; 0: no bound. */
  readonly maxLagMs: number;
  /**
   * The most bytes of memory for backlogs: of all objects and members together, and for the folded
   * part of one object's backlog for one member.
   */
  readonly backlogBytes: number;
  readonly backlogBytesEach: number;
  /** The most that may be sent, in bits per second of IP packets; 0: no limit. */
  readonly bandwidth: number;
  /** Out-of-order units kept per in-order object and origin, in bytes. */
  readonly reorderBytes: number;
  /** Socket buffers requested from the kernel. */
  readonly sendBufferBytes: number;
  readonly receiveBufferBytes: number;
  /** How long a stopping instance waits until its last units are acknowledged, in ms. */
  readonly flushMs: number;
}

const REPLICATION_DEFAULTS = {
  transport: { kind: 'unicast' },
  view: 0,
  mtu: TRANSPORT.mtu_bytes.default,
  ackDelayMs: REPLICATION.ack_delay_ms.default,
  ackDelayMsMax: 40,
  keepaliveMs: REPLICATION.keepalive_ms.default,
  joinWaitMs: REPLICATION.join_wait_ms.default,
  silentMs: 5000,
  retransmitMsMin: REPLICATION.retransmit_min_ms.default,
  retransmitMsMax: 5000,
  retransmitMsInitial: 1000,
  unitLogBytes: REPLICATION.unit_log_bytes.default,
  foreignLogBytes: 64 << 20,
  detachMs: 500,
  maxLagMs: REPLICATION.max_lag_ms.default,
  bandwidth: REPLICATION.bandwidth.default,
  backlogBytes: REPLICATION.backlog_bytes.default,
  backlogBytesEach: 128 << 20,
  reorderBytes: 1 << 20,
  sendBufferBytes: 4 << 20,
  receiveBufferBytes: 4 << 20,
  flushMs: 1000,
} as const satisfies Omit<ReplicationSettings, 'clusterId' | 'self' | 'members' | 'slots'>;

export type ReplicationOptions = Partial<Omit<ReplicationSettings, 'members'>> &
  Pick<ReplicationSettings, 'clusterId' | 'self'> & { readonly members: readonly Member[] };

/**
 * Fills in defaults, assigns slots to the members, and checks everything. Throws a `RangeError`
 * that names the field.
 */
export function replicationSettings(options: ReplicationOptions): ReplicationSettings {
  const members = [...options.members]
    .sort((a, b) => a.id - b.id)
    .map((member, index) => ({ ...member, slot: member.slot ?? index }));
  const slots = options.slots ?? 1 + members.reduce((last, { slot }) => Math.max(last, slot), 0);
  const settings: ReplicationSettings = { ...REPLICATION_DEFAULTS, ...options, members, slots };
  const ids = new Set<number>();
  for (const member of members) {
    between(`members.${member.name}.id`, member.id, 1, 0xffff);
    if (ids.has(member.id)) throw new RangeError(`members.${member.name}.id: ${member.id} is given twice`);
    if (isIP(member.address.split('%')[0]) === 0)
      throw new RangeError(`members.${member.name}.address: ${member.address} is not an IP address`);
    between(`members.${member.name}.port`, member.port, 0, 0xffff);
    ids.add(member.id);
    between(`members.${member.name}.slot`, member.slot, 0, slots - 1);
    if (members.some((other) => other !== member && other.slot === member.slot))
      throw new RangeError(`members.${member.name}.slot: ${member.slot} is given twice`);
  }
  between('members', members.length, 1, SLOTS_MAX);
  between('slots', slots, 1, SLOTS_MAX);
  if (!ids.has(settings.self)) throw new RangeError(`self: there is no member with the id ${settings.self}`);
  between('mtu', settings.mtu, 1280, 9216);
  between('view', settings.view, 0, 0xffffffff);
  between('unitLogBytes', settings.unitLogBytes, 64 << 10, 1 << 30);
  between('foreignLogBytes', settings.foreignLogBytes, 64 << 10, 2 ** 32);
  between('backlogBytes', settings.backlogBytes, 0, 2 ** 40);
  between('backlogBytesEach', settings.backlogBytesEach, 0, 2 ** 31);
  between('bandwidth', settings.bandwidth, 0, 1e12);
  between('reorderBytes', settings.reorderBytes, 4096, 1 << 30);
  for (const name of ['ackDelayMs', 'ackDelayMsMax', 'joinWaitMs', 'flushMs', 'detachMs', 'maxLagMs'] as const)
    between(name, settings[name], 0, 600_000);
  for (const name of ['keepaliveMs', 'silentMs', 'retransmitMsMin', 'retransmitMsMax', 'retransmitMsInitial'] as const)
    between(name, settings[name], 1, 600_000);
  if (settings.retransmitMsMin > settings.retransmitMsMax)
    throw new RangeError('retransmitMsMin is more than retransmitMsMax');
  if (settings.transport.kind === 'multicast') between('transport.ttl', settings.transport.ttl, 0, 255);
  return settings;
}

/** Creates the member table that these settings describe. */
export function memberTableOf(settings: ReplicationSettings): SharedArrayBuffer {
  const buffer = createMemberTable(settings.slots);
  const entries: SlotEntry[] = new Array<SlotEntry>(settings.slots).fill(EMPTY_SLOT);
  for (const { slot, id, name, address, port } of settings.members)
    entries[slot] = { role: Role.MEMBER, id, name, address, port, dead: 0 };
  new MemberTableWriter(buffer).write(settings.view, entries);
  return buffer;
}

function between(name: string, value: number, min: number, max: number): void {
  if (!(value >= min && value <= max)) throw new RangeError(`${name}: ${value} is not in ${min} … ${max}`);
}

export function ownMember(settings: ReplicationSettings): PlacedMember {
  const own = settings.members.find((member) => member.id === settings.self);
  if (own === undefined) throw new RangeError(`self: there is no member with the id ${settings.self}`);
  return own;
}

/** This member's slot. */
export function selfIndex(settings: ReplicationSettings): number {
  return ownMember(settings).slot;
}

const IPV4_UDP_BYTES = 28;
const IPV6_UDP_BYTES = 48;

/**
 * IP and UDP header bytes of a message's packet. With multicast, packets to one member's address
 * count too.
 */
function headerBytes(settings: ReplicationSettings): number {
  const { transport } = settings;
  const addresses = [ownMember(settings).address, ...(transport.kind === 'multicast' ? [transport.group] : [])];
  return addresses.some((address) => isIP(address.split('%')[0]) === 6) ? IPV6_UDP_BYTES : IPV4_UDP_BYTES;
}

/** The most bytes of a state message. There is always room for its seal. */
export function messageBytes(settings: ReplicationSettings): number {
  return (settings.mtu - headerBytes(settings) - SEAL_BYTES) & ~3;
}

/** Bytes of an IP packet in addition to its message. */
export function wireOverheadBytes(settings: ReplicationSettings): number {
  return headerBytes(settings) + SEAL_BYTES;
}

/** The most bytes of a datagram. */
export function datagramBytes(settings: ReplicationSettings): number {
  return messageBytes(settings) + SEAL_BYTES;
}

/**
 * Acknowledgement delay, in ms. It grows with the group, to bound the traffic of N members that
 * answer N members.
 */
export function groupAckDelayMs(settings: ReplicationSettings, members: number): number {
  return Math.min(settings.ackDelayMs * Math.max(1, members - 1), settings.ackDelayMsMax);
}

/** A cluster's id in messages: the first 32 bits of the SHA-256 of its name. */
export function clusterIdOf(name: string): number {
  return createHash('sha256').update(name).digest().readUInt32LE(0);
}

/** The highest incarnation, which leaves room for a later one. */
export const INCARNATION_MAX = 2 ** 53 - 2 ** 24;
const RAISE = 2 ** 20;

/**
 * The first choice of an incarnation for a start of an instance: the millisecond (42 bits) and 11
 * random bits. If the clock went back, members know a later incarnation of the slot; then use
 * `laterIncarnation`.
 */
export function newIncarnation(unixMs: number = Date.now()): number {
  const ms = Math.max(1, Math.trunc(unixMs - EPOCH_MS)) % 2 ** 42;
  return ms * 2 ** 11 + randomInt(2 ** 11);
}

/** The clock at the start that chose this incarnation, Unix ms. */
export function startOf(incarnation: number): number {
  return Math.floor(incarnation / 2 ** 11) + EPOCH_MS;
}

/**
 * An incarnation above `known`, the latest that members report of our slot. It is random, so that
 * two starts do not choose the same.
 */
export function laterIncarnation(known: number): number {
  return known + 1 + randomInt(RAISE);
}
