/** Options of NAT bindings, and the reasons why a binding is refused. */

import type { Parameters } from '../../arena.js';
import { capacityOf } from '../core/merge-source.js';
import { type ExternalPlaces, formatAddress, swapPort } from '../ports/external-places.js';
import type { PortRange } from '../ports/port-allocator.js';
import type { HalfOpenOptions } from '../table/half-open.js';
import { MappingError, type StaticMapping, StaticMappings, WHOLE_ADDRESS } from './static-mappings.js';
import type { SubscriberLimits } from './subscribers.js';

/** Why `add` returned `NONE`. */
export const Refusal = {
  NONE: 0,
  /** No external port is free in any region. */
  EXHAUSTED: 1,
  /** The table is full. */
  TABLE_FULL: 2,
  /** The log ring has no room: the send thread is behind. */
  LOG_FULL: 3,
  /** Another thread held the slot's lock too long. */
  CONTENDED: 4,
  /** The protocol has no ports or identifiers. */
  UNSUPPORTED: 5,
  /** The quota of half-open bindings is full, and none could be evicted. */
  HALF_OPEN: 6,
  /** The internal address has reached its limit of bindings. */
  SUBSCRIBER: 7,
  /** The internal address has reached its limit of new bindings per second. */
  SUBSCRIBER_RATE: 8,
} as const;
export type Refusal = (typeof Refusal)[keyof typeof Refusal];

/**
 * How an external port is chosen (port-allocator.ts):
 *
 * - `leased`: at random from the member's own blocks of ports.
 * - `shared`: at random from all ports, as in the paper.
 * - `keyed`: by a keyed function of the inside endpoint, the same at every member.
 * - `hybrid`: as `keyed` for UDP and ICMP; for TCP by such a function among the member's own
 *   blocks.
 *
 * If these ports are taken, or there is no secret, the port is taken from the member's own blocks,
 * then from all ports.
 */
export const ALLOCATIONS = ['leased', 'shared', 'keyed', 'hybrid'] as const;
export type Allocation = (typeof ALLOCATIONS)[number];

export interface NatBindingOptions extends HalfOpenOptions, Partial<SubscriberLimits> {
  /** External addresses, raw words. */
  readonly addresses: readonly number[];
  /** Maximum number of bindings. */
  readonly flows: number;
  /** External ports to use, in host order, inclusive; default all but 0. */
  readonly portRange?: PortRange;
  readonly allocation: Allocation;
  /**
   * `paired`: one internal address gets ports of one external address only. `any`, the default: it
   * gets ports of other addresses when these are used up.
   */
  readonly pooling?: 'paired' | 'any';
  /**
   * Seconds past the end of a binding in which no other endpoint gets its port; default only the
   * guard.
   */
  readonly reuseAfterS?: number;
  /** Static mappings. */
  readonly statics?: readonly StaticMapping[];
  /**
   * Whether the bindings made at this instance are noted, in `NatBinding.own`; default false. This
   * instance only.
   */
  readonly keepsOwn?: boolean;
  /** Whether packets of bindings can be held; default false. This instance only. */
  readonly holds?: boolean;
}

/**
 * The external addresses in a donor's shape. Throws a `RangeError` if they are not a list of words.
 */
export function addressesOf(shape: Parameters): readonly number[] {
  const list = shape['addresses'];
  if (!Array.isArray(list) || !list.every((entry) => Number.isInteger(entry) && (entry | 0) === entry))
    throw new RangeError('a shape whose addresses are no list of words');
  return list as number[];
}

/** The options that a donor's shape gives. Throws a `RangeError` if the shape is not valid. */
export function optionsOf(shape: Parameters) {
  const bindingsPerSubscriber = shape['subscribers'] === true ? 1 : 0;
  const sizes = { flows: capacityOf(shape, 'flows'), addresses: addressesOf(shape) };
  return { ...sizes, halfOpen: 1, statics: [], bindingsPerSubscriber, newPerSecond: 0 };
}

/** The external ports to use. Throws a `RangeError` if the range is not valid. */
export function portRangeOf({ portRange = { first: 1, last: 65_535 } }: NatBindingOptions): PortRange {
  const { first, last } = portRange;
  if (!Number.isInteger(first) || !Number.isInteger(last) || first < 1 || last > 65_535 || first > last)
    throw new RangeError(`port range ${first}–${last}: ports are 1 to 65535, the first not after the last`);
  return { first, last };
}

/** The places of static mappings: no binding gets them. */
export function reservedPlaces(statics: readonly StaticMapping[], places: ExternalPlaces): ReadonlySet<number> {
  return new Set(
    statics.map(({ externalAddress, externalPort, protocol }) =>
      places.find(externalAddress, swapPort(externalPort), protocol),
    ),
  );
}

/**
 * Checks static mappings. Within the pool of external addresses only single endpoints can be
 * mapped: an address is either mapped whole or shared. Throws a `MappingError`.
 */
export function checkStatics(statics: readonly StaticMapping[], places: ExternalPlaces): void {
  new StaticMappings(statics);
  for (const [i, { protocol, externalAddress }] of statics.entries())
    if (protocol === WHOLE_ADDRESS && places.has(externalAddress))
      throw new MappingError(
        i,
        `${formatAddress(externalAddress)} is mapped whole to one internal address, so it cannot be shared: take it out of the external addresses`,
      );
}
