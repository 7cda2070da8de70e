/**
 * Static mappings of a NAT: external endpoints that always belong to an internal one, as the
 * operator configured them. Thread-local and read-only. Every instance has the same ones from its
 * configuration, so they are not replicated.
 *
 *     an endpoint     protocol, external address and port ↔ internal address and port
 *     an address      external address ↔ internal address, every port and query identifier unchanged
 *
 * A mapping of an endpoint takes precedence over one of its address. Mappings are looked up for
 * packets without a binding. The result is read from the fields, so that nothing is allocated.
 */

import type { StaticMapping } from '../../../options/option.js';
import { NONE } from '../../none.js';
import { powerOfTwo } from '../../struct.js';
import { formatAddress, protocolIndex, swapPort } from '../ports/external-places.js';

export type { StaticMapping };

/** The protocol number of a mapping of whole addresses. */
export const WHOLE_ADDRESS = 0;

const SPREAD_ADDRESS = 0x9e3779b1;
const SPREAD_KEY = 0x85ebca6b;

/**
 * Maps (address, raw port | protocol << 16) to an index; open-addressed, at most a quarter full.
 */
class Index {
  private readonly table: Int32Array;
  private readonly mask: number;

  constructor(entries: number) {
    const size = powerOfTwo(Math.max(4, 4 * entries));
    this.mask = size - 1;
    this.table = new Int32Array(3 * size).fill(NONE);
  }

  private slotOf(address: number, key: number): number {
    const { table, mask } = this;
    let slot = ((Math.imul(address, SPREAD_ADDRESS) ^ Math.imul(key, SPREAD_KEY)) >>> 8) & mask;
    while (table[3 * slot + 2] !== NONE && (table[3 * slot] !== address || table[3 * slot + 1] !== key))
      slot = (slot + 1) & mask;
    return slot;
  }

  find(address: number, key: number): number {
    return this.table[3 * this.slotOf(address, key) + 2];
  }

  add(address: number, key: number, index: number): void {
    this.table.set([address, key, index], 3 * this.slotOf(address, key));
  }
}

/** An error in the mapping at `index`. */
export class MappingError extends RangeError {
  readonly index: number;

  constructor(index: number, message: string) {
    super(message);
    this.index = index;
  }
}

export class StaticMappings {
  /** Address and port of the mapping found last, raw. */
  address = 0;
  port = 0;
  readonly count: number;
  private readonly mappings: readonly StaticMapping[];
  private readonly inside: Index;
  private readonly outside: Index;
  private readonly externals: Index;

  /** Throws a `MappingError` if two mappings contradict each other. */
  constructor(mappings: readonly StaticMapping[]) {
    this.mappings = mappings;
    this.count = mappings.length;
    this.inside = new Index(mappings.length);
    this.outside = new Index(mappings.length);
    this.externals = new Index(mappings.length);
    for (const [i, mapping] of mappings.entries()) {
      const external = keyOf(mapping.externalPort, mapping.protocol);
      const internal = keyOf(mapping.internalPort, mapping.protocol);
      const clash = [
        this.outside.find(mapping.externalAddress, external),
        this.inside.find(mapping.internalAddress, internal),
        mapping.protocol === WHOLE_ADDRESS ? NONE : this.outside.find(mapping.externalAddress, WHOLE_ADDRESS),
        mapping.protocol === WHOLE_ADDRESS ? mappings.slice(0, i).findIndex(sharesAddress(mapping)) : NONE,
      ].find((index) => index !== NONE);
      if (clash !== undefined) throw new MappingError(i, `contradicts ${describe(mappings[clash])}`);
      this.externals.add(mapping.externalAddress, WHOLE_ADDRESS, i);
      this.outside.add(mapping.externalAddress, external, i);
      this.inside.add(mapping.internalAddress, internal, i);
    }
  }

  /** Whether a raw address is the external address of a mapping. */
  hasExternal(address: number): boolean {
    return this.externals.find(address, WHOLE_ADDRESS) !== NONE;
  }

  /** Finds the external endpoint of an internal one, and writes it to `address` and `port`. */
  findOutbound(address: number, portAndProtocol: number): boolean {
    const index = this.inside.find(address, portAndProtocol);
    const found = index === NONE ? this.inside.find(address, WHOLE_ADDRESS) : index;
    if (found === NONE) return false;
    const { externalAddress, externalPort, protocol } = this.mappings[found];
    this.address = externalAddress;
    this.port = protocol === WHOLE_ADDRESS ? portAndProtocol & 0xffff : swapPort(externalPort);
    return true;
  }

  /** Finds the internal endpoint of an external one, and writes it to `address` and `port`. */
  findInbound(address: number, portAndProtocol: number): boolean {
    const index = this.outside.find(address, portAndProtocol);
    const found = index === NONE ? this.outside.find(address, WHOLE_ADDRESS) : index;
    if (found === NONE) return false;
    const { internalAddress, internalPort, protocol } = this.mappings[found];
    this.address = internalAddress;
    this.port = protocol === WHOLE_ADDRESS ? portAndProtocol & 0xffff : swapPort(internalPort);
    return true;
  }
}

function keyOf(port: number, protocol: number): number {
  return swapPort(port) | (protocol << 16);
}

/**
 * Whether another mapping has the same external address. An address that is mapped whole has no
 * endpoint left for other mappings.
 */
function sharesAddress(mapping: StaticMapping): (other: StaticMapping) => boolean {
  return (other) => other.externalAddress === mapping.externalAddress;
}

function describe(mapping: StaticMapping): string {
  const { protocol, externalAddress, externalPort, internalAddress, internalPort } = mapping;
  if (protocol === WHOLE_ADDRESS) return `${formatAddress(externalAddress)} → ${formatAddress(internalAddress)}`;
  const kind = ['tcp', 'udp', 'icmp'][protocolIndex(protocol)];
  return `${kind} ${formatAddress(externalAddress)}:${externalPort} → ${formatAddress(internalAddress)}:${internalPort}`;
}
