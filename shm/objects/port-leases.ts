/**
 * Whose lease an external port is in, and so whether another member can have bound it. Blocks of ports are leased to the
 * members in turn (port-allocator.ts). A member whose leases are used up takes ports of the others.
 */

import { NONE } from '../none.js';
import { PROTOCOL_COUNT } from './external-places.js';
import { BLOCK_PORTS, type PortRange, WELL_KNOWN_PORTS } from './port-allocator.js';
import { PORTS_PER_ADDRESS } from './port-claims.js';

/** Ports looked at to tell whether the others' leases are used up, and how many of them taken say so. */
const SAMPLE = 16;
const SAMPLE_TAKEN = 12;

export interface LeasesOptions {
  readonly range: PortRange;
  /** Places are below this. */
  readonly places: number;
  /** Our slot, and how many there are; 0 of 1: there are no leases. */
  readonly memberIndex: number;
  readonly memberCount: number;
  /** Protocols, as bits by index, whose ports are proposed by key, whoever leases them. */
  readonly unleased: number;
  /** Whether a place is bound. */
  isBound(place: number): boolean;
}

export class PortLeases {
  private readonly options: LeasesOptions;
  /** By protocol and address: when the others' leases were looked at, and whether they were used up. */
  private readonly lookedAt: Float64Array;
  private readonly usedUp: Uint8Array;
  private readonly placesPerProtocol: number;
  private draws = 0;

  constructor(options: LeasesOptions) {
    this.options = options;
    const pools = Math.ceil(options.places / PORTS_PER_ADDRESS);
    this.placesPerProtocol = options.places / PROTOCOL_COUNT;
    this.lookedAt = new Float64Array(pools);
    this.usedUp = new Uint8Array(pools);
  }

  /** The slot of the member that leases a place, or `NONE`: anyone takes it. */
  owner(place: number): number {
    const { range, memberCount, unleased } = this.options;
    if (memberCount === 1 || (unleased >>> Math.trunc(place / this.placesPerProtocol)) & 1) return NONE;
    const port = place & (PORTS_PER_ADDRESS - 1);
    const first = port < WELL_KNOWN_PORTS ? range.first : Math.max(range.first, WELL_KNOWN_PORTS);
    const turn = Math.trunc(port / BLOCK_PORTS) - Math.trunc(first / BLOCK_PORTS);
    return turn < 0 ? NONE : turn % memberCount;
  }

  /** Whether a member other than us may have bound a place that is not bound here. `isHeard`: whether the member in a slot is heard. */
  mayBeBoundElsewhere(place: number, now: number, isHeard: (slot: number) => boolean): boolean {
    const port = place & (PORTS_PER_ADDRESS - 1);
    const { range, memberIndex } = this.options;
    if (port < range.first || port > range.last) return false;
    const owner = this.owner(place);
    if (owner === NONE) return true;
    return (owner !== memberIndex && isHeard(owner)) || this.areUsedUp(place, now);
  }

  /** Whether the leases of the others at the address of a place are used up, as a sample of each second tells. */
  private areUsedUp(place: number, now: number): boolean {
    const pool = Math.trunc(place / PORTS_PER_ADDRESS);
    if (this.lookedAt[pool] !== now) {
      this.lookedAt[pool] = now;
      this.usedUp[pool] = this.sample(pool) ? 1 : 0;
    }
    return this.usedUp[pool] === 1;
  }

  private sample(pool: number): boolean {
    const { range, memberIndex, isBound } = this.options;
    const first = Math.max(range.first, Math.min(WELL_KNOWN_PORTS, range.last));
    const width = range.last - first + 1;
    let looked = 0;
    let taken = 0;
    for (let tries = 0; tries < 4 * SAMPLE && looked < SAMPLE; tries++) {
      this.draws = (this.draws + 0x9e3779b1) | 0;
      const at = pool * PORTS_PER_ADDRESS + first + Math.trunc(((this.draws >>> 0) / 2 ** 32) * width);
      if (this.owner(at) === memberIndex) continue;
      looked++;
      if (isBound(at)) taken++;
    }
    return looked > 0 && taken * SAMPLE >= looked * SAMPLE_TAKEN;
  }
}
