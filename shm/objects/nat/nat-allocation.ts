/**
 * Makes the allocator and the leases of a NAT binding by its option `allocation`. nat-options.ts
 * says what the choices mean.
 */

import type { Parameters } from '../../arena.js';
import { SIPHASH_KEY_WORDS } from '../../siphash.js';
import type { OpenContext } from '../core/object.js';
import type { AddressUse } from '../ports/address-use.js';
import { type ExternalPlaces, formatAddress, ICMP, protocolIndex, UDP } from '../ports/external-places.js';
import { PortAllocator } from '../ports/port-allocator.js';
import { PortLeases } from '../ports/port-leases.js';
import { addressesOf, type NatBindingOptions } from './nat-options.js';

const EVERY_PROTOCOL = -1;
/**
 * For `hybrid`. A TCP endpoint seldom has two connections that begin at once, and if two endpoints
 * take one port, one of them loses a connection. A UDP endpoint often has several remotes, and
 * continues with another port.
 */
const ALL_BUT_TCP = (1 << protocolIndex(UDP)) | (1 << protocolIndex(ICMP));

type AllocationOptions = Required<Pick<NatBindingOptions, 'portRange' | 'allocation' | 'pooling'>>;

export function createAllocator(
  { portRange, allocation, pooling }: AllocationOptions,
  places: ExternalPlaces,
  use: AddressUse,
  { memberIndex, memberCount, clusterSecret, seed }: OpenContext,
): PortAllocator {
  const isLeased = allocation !== 'shared';
  const isKeyed = allocation === 'keyed' || allocation === 'hybrid';
  return new PortAllocator({
    addresses: places.list(),
    use,
    range: portRange,
    memberIndex: isLeased ? memberIndex : 0,
    memberCount: isLeased ? memberCount : 1,
    paired: pooling === 'paired',
    secret: (isKeyed ? clusterSecret : undefined) ?? new Int32Array(SIPHASH_KEY_WORDS),
    keyed: allocation === 'hybrid' ? ALL_BUT_TCP : EVERY_PROTOCOL,
    ...(seed && { seed }),
  });
}

/**
 * Makes the object that says which member may have bound a port. `proposesByKey`: there is a
 * secret, without which all ports are leased.
 */
export function createLeases(
  { portRange, allocation }: AllocationOptions,
  external: ExternalPlaces,
  { memberIndex, memberCount }: OpenContext,
  proposesByKey: boolean,
  isFree: (place: number, now: number) => boolean,
): PortLeases {
  const isLeased = allocation !== 'shared';
  return new PortLeases({
    range: portRange,
    places: external.count,
    memberIndex: isLeased ? memberIndex : 0,
    memberCount: isLeased ? memberCount : 1,
    unleased: !proposesByKey ? 0 : allocation === 'hybrid' ? ALL_BUT_TCP : EVERY_PROTOCOL,
    isFree,
  });
}

/**
 * Bars new bindings from addresses that some of these shapes lack. Returns a text that lists these
 * addresses, or `null`.
 */
export function barAddresses(places: ExternalPlaces, use: AddressUse, shapes: readonly Parameters[]): string | null {
  const lists = shapes.map((shape) => new Set(addressesOf(shape)));
  const own = places.list();
  const barred = own.filter((address) => lists.some((list) => !list.has(address)));
  use.bar(new Set(barred.map((address) => own.indexOf(address))));
  if (barred.length === 0) return null;
  const names = barred.map(formatAddress).join(', ');
  return barred.length === own.length
    ? `no new bindings are made: no external address is configured at every member (here ${names})`
    : `new bindings do not use ${names}, which not every member has`;
}
