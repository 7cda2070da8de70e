/**
 * Columns in which the NAT binding looks up many packets at once. Make them once per thread: see
 * flow-lookup.ts.
 */

import { checker, finder2 } from '../flow/flow-lookup.js';
import type { ExternalPlaces } from '../ports/external-places.js';
import type { PortClaims } from '../ports/port-claims.js';
import type { FlowSlots } from '../table/table-slots.js';
import { DEAD } from './nat-tables.js';

/**
 * Looks up many packets from inside at once, several times faster than one by one. Write the
 * columns `addresses` and `keys` (see `portAndProtocol`), call `find`, and read `slots`: the slot
 * of a valid binding, or `NONE`. `hashes` are for `add`. For a binding made after `find`, call
 * `findOutbound`.
 */
export interface OutboundLookup {
  readonly addresses: Int32Array;
  readonly keys: Int32Array;
  readonly hashes: Int32Array;
  readonly slots: Int32Array;
  /** External addresses and ports of the bindings found, raw. */
  readonly externalAddresses: Int32Array;
  readonly externalPorts: Int32Array;
  find(count: number, now: number): void;
}

/**
 * As `OutboundLookup`, for packets to external addresses. `places` are `NONE` for addresses that
 * are not external ones.
 */
export interface InboundLookup {
  readonly addresses: Int32Array;
  readonly keys: Int32Array;
  readonly places: Int32Array;
  readonly slots: Int32Array;
  /** Internal endpoints of the bindings found; keys as `portAndProtocol` makes them. */
  readonly internalAddresses: Int32Array;
  readonly internalKeys: Int32Array;
  find(count: number, now: number): void;
}

function columns(capacity: number): [Int32Array, Int32Array, Int32Array, Int32Array] {
  const column = (): Int32Array => new Int32Array(capacity);
  return [column(), column(), column(), column()];
}

export function createOutboundLookup(flows: FlowSlots, external: ExternalPlaces, capacity: number): OutboundLookup {
  const [addresses, keys, hashes, slots] = columns(capacity);
  const [places, externalAddresses, externalPorts] = columns(capacity);
  const findSlots = finder2(flows.place, addresses, keys, hashes, slots, places, DEAD);
  const splitPlaces = external.splitter(places, externalAddresses, externalPorts);
  const find = (count: number, now: number): void => {
    findSlots(count, now);
    splitPlaces(count);
  };
  return { addresses, keys, hashes, slots, externalAddresses, externalPorts, find };
}

export function createInboundLookup(
  flows: FlowSlots,
  claims: PortClaims,
  external: ExternalPlaces,
  capacity: number,
): InboundLookup {
  const [addresses, keys, places, slots] = columns(capacity);
  const findPlaces = external.finder(addresses, keys, places);
  const findOwners = claims.ownerFinder(places, slots);
  const [internalAddresses, internalKeys] = columns(capacity);
  const check = checker(flows.place, slots, places, DEAD, internalAddresses, internalKeys);
  const find = (count: number, now: number): void => {
    findPlaces(count);
    findOwners(count);
    check(count, now);
  };
  return { addresses, keys, places, slots, internalAddresses, internalKeys, find };
}
