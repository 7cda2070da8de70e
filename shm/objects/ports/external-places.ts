/**
 * Maps an external address, port and protocol to the place of its claim, and back. Thread-local and
 * read-only: it follows from the list of addresses.
 *
 * Places are numbers of one instance, because lists of addresses may differ. Addresses are numbered
 * in ascending order. So instances with the same addresses have the same places, whatever the order
 * of their lists.
 */

import { NONE } from '../../none.js';
import { powerOfTwo } from '../../struct.js';
import { PORTS_PER_ADDRESS } from './port-claims.js';

/** IP protocol numbers that have bindings, in the order of their places. */
export const ICMP = 1;
export const TCP = 6;
export const UDP = 17;
const PROTOCOLS = [TCP, UDP, ICMP] as const;
export const PROTOCOL_COUNT = PROTOCOLS.length;

/**
 * Golden ratio, for a multiplicative hash. The addresses are the operator's, so nobody can attack
 * their distribution.
 */
const SPREAD = 0x9e3779b1;
const MAX_ADDRESSES = 256;

export function protocolIndex(protocol: number): number {
  return protocol === TCP ? 0 : protocol === UDP ? 1 : protocol === ICMP ? 2 : NONE;
}

/** A raw address in dotted notation. */
export function formatAddress(raw: number): string {
  return `${raw & 0xff}.${(raw >>> 8) & 0xff}.${(raw >>> 16) & 0xff}.${raw >>> 24}`;
}

/** Converts a port from raw (as in the packet, read little-endian) to host order, or back. */
export function swapPort(port: number): number {
  return ((port & 0xff) << 8) | (port >>> 8);
}

/** Raw addresses in the order of their places. */
export function inOrder(addresses: readonly number[]): number[] {
  return addresses.map((address) => address | 0).sort((a, b) => (a >>> 0) - (b >>> 0));
}

export class ExternalPlaces {
  readonly count: number;
  readonly addressCount: number;
  /** By place >> 16: the addresses, once for each protocol. */
  private readonly addresses: Int32Array;
  /** Open-addressed: address, then its index + 1; 0 is free. */
  private readonly table: Int32Array;
  private readonly shift: number;
  private readonly mask: number;

  /** `given`: raw words, from 1 to 256 of them, none twice. Throws a `RangeError` otherwise. */
  constructor(given: readonly number[]) {
    if (given.length < 1 || given.length > MAX_ADDRESSES)
      throw new RangeError(`${given.length} external addresses: from 1 to ${MAX_ADDRESSES} are possible`);
    const addresses = inOrder(given);
    this.addressCount = addresses.length;
    this.count = PROTOCOL_COUNT * addresses.length * PORTS_PER_ADDRESS;
    this.addresses = Int32Array.from(PROTOCOLS.flatMap(() => addresses));
    const size = powerOfTwo(4 * addresses.length);
    this.mask = 2 * size - 1;
    this.shift = 32 - Math.log2(size);
    this.table = new Int32Array(2 * size);
    addresses.forEach((address, index) => {
      if (this.indexOf(address) !== NONE)
        throw new RangeError(`external address ${formatAddress(address)} is given twice`);
      let at = (Math.imul(address, SPREAD) >>> this.shift) << 1;
      while (this.table[at + 1] !== 0) at = (at + 2) & this.mask;
      this.table[at] = address;
      this.table[at + 1] = index + 1;
    });
  }

  private indexOf(address: number): number {
    let at = (Math.imul(address, SPREAD) >>> this.shift) << 1;
    while (this.table[at + 1] !== 0) {
      if (this.table[at] === address) return this.table[at + 1] - 1;
      at = (at + 2) & this.mask;
    }
    return NONE;
  }

  has(address: number): boolean {
    return this.indexOf(address) !== NONE;
  }

  /** The addresses, raw, in the order of their places. */
  list(): readonly number[] {
    return [...this.addresses.subarray(0, this.addressCount)];
  }

  /**
   * The place of a raw address and raw port. `NONE` if the address is not an external one or the
   * protocol has no bindings.
   */
  find(address: number, port: number, protocol: number): number {
    const index = this.indexOf(address);
    const first = protocolIndex(protocol);
    if (index === NONE || first === NONE) return NONE;
    // Places contain the port in host order, so that ports allocated side by side share cache
    // lines.
    return ((first * this.addressCount + index) << 16) | swapPort(port);
  }

  /**
   * Returns a function that writes the place of `addresses[i]`, `keys[i]` (raw port (16) | protocol
   * (8)) to `places[i]` for i < `count`. Make it once per thread: see flow-lookup.ts.
   */
  finder(addresses: Int32Array, keys: Int32Array, places: Int32Array): (count: number) => void {
    const { table, shift, mask, addressCount } = this;
    return (count: number): void => {
      for (let i = 0; i < count; i++) {
        const address = addresses[i];
        const key = keys[i];
        const protocol = key >>> 16;
        const first = protocol === TCP ? 0 : protocol === UDP ? 1 : protocol === ICMP ? 2 : -1;
        let at = (Math.imul(address, SPREAD) >>> shift) << 1;
        while (table[at + 1] !== 0 && table[at] !== address) at = (at + 2) & mask;
        const index = table[at + 1] - 1;
        places[i] =
          index < 0 || first < 0
            ? -1
            : ((first * addressCount + index) << 16) | ((key & 0xff) << 8) | ((key >>> 8) & 0xff);
      }
    };
  }

  /**
   * Returns a function that writes the raw address and port of `places[i]` to `addresses[i]` and
   * `ports[i]` for i < `count`. Make it once per thread.
   */
  splitter(places: Int32Array, addresses: Int32Array, ports: Int32Array): (count: number) => void {
    const table = this.addresses;
    return (count: number): void => {
      for (let i = 0; i < count; i++) {
        const place = places[i];
        addresses[i] = table[place >>> 16];
        ports[i] = ((place & 0xff) << 8) | ((place >>> 8) & 0xff);
      }
    };
  }

  /** Raw external address of a place. */
  address(place: number): number {
    return this.addresses[place >>> 16];
  }

  /** Index of a place's address, in the order of `list`. */
  indexAt(place: number): number {
    return (place >>> 16) % this.addressCount;
  }

  /**
   * Whether a place's address and port are larger than the other's. Every instance compares them
   * alike. Both are of one protocol.
   */
  isLarger(place: number, other: number): boolean {
    const a = this.addresses[place >>> 16];
    const b = this.addresses[other >>> 16];
    return a === b ? place > other : a >>> 0 > b >>> 0;
  }

  /** Raw external port of a place. */
  port(place: number): number {
    return swapPort(place & 0xffff);
  }

  protocol(place: number): number {
    return PROTOCOLS[Math.trunc((place >>> 16) / this.addressCount)];
  }

  /** Whether a number from another instance is a place of this protocol that can be bound. */
  isValid(place: number, protocol: number): boolean {
    return place > 0 && place < this.count && (place & 0xffff) !== 0 && this.protocol(place) === protocol;
  }
}
