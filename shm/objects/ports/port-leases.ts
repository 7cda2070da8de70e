/**
 * The leases of external ports, and so whether another member can have bound a port. Blocks of
 * ports are leased to the members in turn (port-allocator.ts). A member whose own ports of a class
 * at an address are used up takes any port.
 */

import { NONE } from '../../none.js';
import { PROTOCOL_COUNT } from './external-places.js';
import { BLOCK_PORTS, classesOf, type PortRange, PortRegion, WELL_KNOWN_PORTS } from './port-allocator.js';
import { PORTS_PER_ADDRESS } from './port-claims.js';

/**
 * Number of a member's ports that are sampled to find whether its leases are used up. They are not
 * if `SAMPLE_FREE` of these are free.
 */
const SAMPLE = 16;
const SAMPLE_FREE = 5;

interface LeasesOptions {
  readonly range: PortRange;
  /** Number of places: all are below this. */
  readonly places: number;
  /** This member's slot, and the number of slots. 0 of 1: there are no leases. */
  readonly memberIndex: number;
  readonly memberCount: number;
  /**
   * Bits by protocol index: ports of these protocols are proposed by key, whichever member leases
   * them.
   */
  readonly unleased: number;
  /** Whether the member that leases a place could bind it now. */
  isFree(place: number, now: number): boolean;
}

export class PortLeases {
  private readonly options: LeasesOptions;
  /** By class and member: the member's ports. */
  private readonly regions: readonly (readonly PortRegion[])[];
  /**
   * By protocol, address and class: the coarse second of the last sample of the peers' leases, and
   * whether those of any peer were used up.
   */
  private readonly lookedAt: Float64Array;
  private readonly usedUp: Uint8Array;
  private readonly placesPerProtocol: number;
  private draws = 0;

  constructor(options: LeasesOptions) {
    const { memberCount, places, range } = options;
    this.options = options;
    this.regions = classesOf(range).map((ports) =>
      Array.from({ length: memberCount }, (_, member) => new PortRegion(ports, member, memberCount)),
    );
    const pools = 2 * Math.ceil(places / PORTS_PER_ADDRESS);
    this.placesPerProtocol = places / PROTOCOL_COUNT;
    this.lookedAt = new Float64Array(pools);
    this.usedUp = new Uint8Array(pools);
  }

  /** The slot of the member that leases a place, or `NONE` if every member may take it. */
  owner(place: number): number {
    const { range, memberCount, unleased } = this.options;
    if (memberCount === 1 || (unleased >>> Math.trunc(place / this.placesPerProtocol)) & 1) return NONE;
    const port = place & (PORTS_PER_ADDRESS - 1);
    const first = port < WELL_KNOWN_PORTS ? range.first : Math.max(range.first, WELL_KNOWN_PORTS);
    const turn = Math.trunc(port / BLOCK_PORTS) - Math.trunc(first / BLOCK_PORTS);
    return turn < 0 ? NONE : turn % memberCount;
  }

  /** Whether no other member leases a place. */
  isOurs(place: number): boolean {
    const owner = this.owner(place);
    return owner === NONE || owner === this.options.memberIndex;
  }

  /**
   * Whether a peer may have bound a place that is not bound here. `isHeard`: whether the member in
   * a slot is heard.
   */
  mayBeBoundElsewhere(place: number, now: number, isHeard: (slot: number) => boolean): boolean {
    const port = place & (PORTS_PER_ADDRESS - 1);
    const { range, memberIndex } = this.options;
    if (port < range.first || port > range.last) return false;
    const owner = this.owner(place);
    if (owner === NONE) return true;
    return (owner !== memberIndex && isHeard(owner)) || this.isAnyUsedUp(place, now, isHeard);
  }

  /**
   * Whether a peer that is heard has used up its ports of the place's class and address. Peers are
   * sampled once per second.
   */
  private isAnyUsedUp(place: number, now: number, isHeard: (slot: number) => boolean): boolean {
    const { memberCount, memberIndex } = this.options;
    const address = Math.trunc(place / PORTS_PER_ADDRESS);
    const portClass = (place & (PORTS_PER_ADDRESS - 1)) < WELL_KNOWN_PORTS ? 0 : 1;
    const pool = 2 * address + portClass;
    if (this.lookedAt[pool] !== now) {
      this.lookedAt[pool] = now;
      this.usedUp[pool] = 0;
      for (let member = 0; member < memberCount && this.usedUp[pool] === 0; member++)
        if (member !== memberIndex && isHeard(member) && this.isUsedUp(address, this.regions[portClass][member], now))
          this.usedUp[pool] = 1;
    }
    return this.usedUp[pool] === 1;
  }

  private isUsedUp(address: number, region: PortRegion, now: number): boolean {
    let free = 0;
    for (let looked = 0; looked < SAMPLE && free < SAMPLE_FREE; looked++) {
      this.draws = (this.draws + 0x9e3779b1) | 0;
      const port = region.at(Math.trunc(((this.draws >>> 0) / 2 ** 32) * region.size));
      if (port !== NONE && this.options.isFree(address * PORTS_PER_ADDRESS + port, now)) free++;
    }
    return free < SAMPLE_FREE;
  }
}
