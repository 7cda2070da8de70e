/** Which ports a NAT binding proposes, by its option `allocation`: nat-options.ts says what the choices mean. */

import { SIPHASH_KEY_WORDS } from '../siphash.js';
import { ICMP, PROTOCOL_COUNT, protocolIndex, UDP } from './external-places.js';
import type { NatBindingOptions } from './nat-options.js';
import type { OpenContext } from './object.js';
import { PortAllocator } from './port-allocator.js';
import { PORTS_PER_ADDRESS } from './port-claims.js';
import { PortLeases } from './port-leases.js';

const EVERY_PROTOCOL = -1;
/**
 * With `hybrid`. A TCP endpoint seldom has two connections that begin at once, and a port that two endpoints took costs one
 * of them a connection. A UDP endpoint often has several remotes, and goes on with another port.
 */
const ALL_BUT_TCP = (1 << protocolIndex(UDP)) | (1 << protocolIndex(ICMP));

type AllocationOptions = Required<Pick<NatBindingOptions, 'addresses' | 'portRange' | 'allocation' | 'pooling'>>;

export function createAllocator(
  { addresses, portRange, allocation, pooling }: AllocationOptions,
  { memberIndex, memberCount, clusterSecret, seed }: OpenContext,
): PortAllocator {
  const isLeased = allocation !== 'shared';
  const isKeyed = allocation === 'keyed' || allocation === 'hybrid';
  return new PortAllocator({
    addresses: addresses.length,
    range: portRange,
    memberIndex: isLeased ? memberIndex : 0,
    memberCount: isLeased ? memberCount : 1,
    paired: pooling === 'paired',
    secret: (isKeyed ? clusterSecret : undefined) ?? new Int32Array(SIPHASH_KEY_WORDS),
    keyed: allocation === 'hybrid' ? ALL_BUT_TCP : EVERY_PROTOCOL,
    ...(seed && { seed }),
  });
}

/** Who may have bound a port. `proposesByKey`: there is a secret, without which ports are leased. */
export function createLeases(
  { addresses, portRange, allocation }: AllocationOptions,
  { memberIndex, memberCount }: OpenContext,
  proposesByKey: boolean,
  isFree: (place: number, now: number) => boolean,
): PortLeases {
  const isLeased = allocation !== 'shared';
  return new PortLeases({
    range: portRange,
    places: PROTOCOL_COUNT * addresses.length * PORTS_PER_ADDRESS,
    memberIndex: isLeased ? memberIndex : 0,
    memberCount: isLeased ? memberCount : 1,
    unleased: !proposesByKey ? 0 : allocation === 'hybrid' ? ALL_BUT_TCP : EVERY_PROTOCOL,
    isFree,
  });
}
