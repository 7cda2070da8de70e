/**
 * What the operator decides about replication, and what follows from it.
 */

import { createHash, randomInt } from 'node:crypto';
import { isIP } from 'node:net';
import { EPOCH_MS } from '../../shm/clock.js';

export interface Member {
  /** 1 … 65535, unique in the cluster. */
  readonly id: number;
  readonly name: string;
  /** Numeric IP address state messages reach it at (`unicast`). */
  readonly address: string;
  readonly port: number;
}

export interface UnicastSettings {
  readonly kind: 'unicast';
}

export interface MulticastSettings {
  readonly kind: 'multicast';
  /** Address of object 0's group; object n has the address n further on. */
  readonly group: string;
  readonly port: number;
  /** Address of the interface to send and listen on (IPv6: `::%eth0`). */
  readonly interface: string;
  /** Routers a message may pass. */
  readonly ttl: number;
  /** Whether other members on this host hear us. */
  readonly loopback: boolean;
}

export interface ReplicationSettings {
  /** `clusterIdOf(name)`; messages of another are dropped. */
  readonly clusterId: number;
  /** Our own member id. */
  readonly self: number;
  /** Every member, ourselves included. */
  readonly members: readonly Member[];
  readonly transport: UnicastSettings | MulticastSettings;
  /** Number of the view; members of another view do not understand each other. */
  readonly view: number;
  /** Path MTU: the largest IP packet, 1280 … 9216 bytes. */
  readonly mtu: number;
  /** How long an acknowledgement may wait for a message to ride on, for each other member there is… */
  readonly ackDelayMs: number;
  /** …and at most. */
  readonly ackDelayMsMax: number;
  /** A message with the whole vector goes out on every channel at least this often. */
  readonly keepaliveMs: number;
  /** A member not heard for so long is silent: it gets probes instead of every unit it lacks. */
  readonly silentMs: number;
  readonly retransmitMsMin: number;
  readonly retransmitMsMax: number;
  /** Retransmission timeout before the first round trip is measured (RFC 6298: 1 s). */
  readonly retransmitMsInitial: number;
  /** Log of units not yet acknowledged by all, per object; rounded up to a power of two. */
  readonly unitLogBytes: number;
  /** Out-of-order units kept, per in-order object and origin. */
  readonly reorderBytes: number;
  /** Socket buffers asked of the kernel. */
  readonly sendBufferBytes: number;
  readonly receiveBufferBytes: number;
  /** How long a stopping instance waits for its last units to be acknowledged. */
  readonly flushMs: number;
}

export const REPLICATION_DEFAULTS = {
  transport: { kind: 'unicast' },
  view: 0,
  mtu: 1500,
  ackDelayMs: 2,
  ackDelayMsMax: 40,
  keepaliveMs: 1000,
  silentMs: 5000,
  retransmitMsMin: 20,
  retransmitMsMax: 5000,
  retransmitMsInitial: 1000,
  unitLogBytes: 8 << 20,
  reorderBytes: 1 << 20,
  sendBufferBytes: 4 << 20,
  receiveBufferBytes: 4 << 20,
  flushMs: 1000,
} as const satisfies Omit<ReplicationSettings, 'clusterId' | 'self' | 'members'>;

export type ReplicationOptions = Partial<ReplicationSettings> &
  Pick<ReplicationSettings, 'clusterId' | 'self' | 'members'>;

/**
 * Fills in defaults, puts the members in the order of their ids (a member's place in it is its *index* everywhere),
 * and checks the whole. Throws a RangeError that names the field.
 */
export function replicationSettings(options: ReplicationOptions): ReplicationSettings {
  const members = [...options.members].sort((a, b) => a.id - b.id);
  const settings: ReplicationSettings = { ...REPLICATION_DEFAULTS, ...options, members };
  const ids = new Set<number>();
  for (const member of members) {
    between(`members.${member.name}.id`, member.id, 1, 0xffff);
    if (ids.has(member.id)) throw new RangeError(`members.${member.name}.id: ${member.id} is given twice`);
    if (isIP(member.address.split('%')[0]) === 0)
      throw new RangeError(`members.${member.name}.address: ${member.address} is not an IP address`);
    between(`members.${member.name}.port`, member.port, 0, 0xffff);
    ids.add(member.id);
  }
  between('members', members.length, 1, 64);
  if (!ids.has(settings.self)) throw new RangeError(`self: there is no member with the id ${settings.self}`);
  between('mtu', settings.mtu, 1280, 9216);
  between('view', settings.view, 0, 0xffffffff);
  between('unitLogBytes', settings.unitLogBytes, 64 << 10, 1 << 30);
  between('reorderBytes', settings.reorderBytes, 4096, 1 << 30);
  for (const name of ['ackDelayMs', 'ackDelayMsMax', 'flushMs'] as const) between(name, settings[name], 0, 600_000);
  for (const name of ['keepaliveMs', 'silentMs', 'retransmitMsMin', 'retransmitMsMax', 'retransmitMsInitial'] as const)
    between(name, settings[name], 1, 600_000);
  if (settings.retransmitMsMin > settings.retransmitMsMax)
    throw new RangeError('retransmitMsMin is more than retransmitMsMax');
  if (settings.transport.kind === 'multicast') between('transport.ttl', settings.transport.ttl, 0, 255);
  return settings;
}

function between(name: string, value: number, min: number, max: number): void {
  if (!(value >= min && value <= max)) throw new RangeError(`${name}: ${value} is not in ${min} … ${max}`);
}

/** Our place among the members in the order of their ids. */
export function selfIndex(settings: ReplicationSettings): number {
  return settings.members.findIndex((member) => member.id === settings.self);
}

const IPV4_UDP_BYTES = 28;
const IPV6_UDP_BYTES = 48;
/** Room that every message leaves for the nonce and the tag of authenticated encryption. */
const SEAL_BYTES = 32;

/** Bytes a state message may have. */
export function messageBytes(settings: ReplicationSettings): number {
  const address = settings.transport.kind === 'multicast' ? settings.transport.group : settings.members[0].address;
  const headers = isIP(address.split('%')[0]) === 6 ? IPV6_UDP_BYTES : IPV4_UDP_BYTES;
  return (settings.mtu - headers - SEAL_BYTES) & ~3;
}

/** Acknowledgement delay: grows with the group, so that N members' answers to N members stay bearable. */
export function groupAckDelayMs(settings: ReplicationSettings): number {
  return Math.min(settings.ackDelayMs * Math.max(1, settings.members.length - 1), settings.ackDelayMsMax);
}

/** A cluster's id on the wire: the first 32 bits of the SHA-256 of its name. */
export function clusterIdOf(name: string): number {
  return createHash('sha256').update(name).digest().readUInt32LE(0);
}

/**
 * A number for one life of an instance: the millisecond it started in (42 bits) and 11 random bits. So a new life is never
 * taken for the old one, and, as long as the clock goes forward, is seen to be the later one.
 */
export function newIncarnation(unixMs: number = Date.now()): number {
  const ms = Math.max(1, Math.trunc(unixMs - EPOCH_MS)) % 2 ** 42;
  return ms * 2 ** 11 + randomInt(2 ** 11);
}
