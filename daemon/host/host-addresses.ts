/** The addresses of this host, in the form that the XDP filter and the ports need. */

import type { RawAddress } from '../../shm/next-hops.js';
import type { PortNetwork } from '../../shm/port-board.js';
import { isLinkLocal } from '../../workers/packet/ipv6.js';
import { formatAddress } from './kernel-neighbours.js';
import { type HostAddress, hostAddresses } from './rtnetlink.js';

export interface HostAddresses {
  /** All IPv4 addresses, each once. */
  readonly all4: readonly number[];
  /**
   * All IPv6 addresses that are not link-local. Packets for other hosts never come with a
   * link-local address.
   */
  readonly all6: readonly Int32Array[];
  /** The first IPv4 address of each interface, by interface index. */
  readonly first4: ReadonlyMap<number, number>;
  /**
   * The first IPv6 address of each interface, by index. An address that is not link-local comes
   * before a link-local one.
   */
  readonly first6: ReadonlyMap<number, Int32Array>;
  /** All IPv4 addresses of each interface, with their subnets. */
  readonly networks4: ReadonlyMap<number, readonly PortNetwork[]>;
}

/** Throws if the kernel does not return the addresses. */
export function readHostAddresses(): HostAddresses {
  return sortAddresses(hostAddresses());
}

export function sortAddresses(found: readonly HostAddress[]): HostAddresses {
  const all4 = new Set<number>();
  const all6: Int32Array[] = [];
  const first4 = new Map<number, number>();
  const first6 = new Map<number, Int32Array>();
  const networks4 = new Map<number, PortNetwork[]>();
  for (const { index, address, subnet, prefix } of found) {
    if (typeof address === 'number') {
      const mask = maskOf(prefix);
      const network = { own: address, address: (subnet as number) & mask, mask };
      networks4.set(index, [...(networks4.get(index) ?? []), network]);
      all4.add(address);
      if (!first4.has(index)) first4.set(index, address);
      continue;
    }
    const isWider = !isLinkLocal(address);
    if (isWider) all6.push(address);
    const first = first6.get(index);
    if (first === undefined || (isWider && isLinkLocal(first))) first6.set(index, address);
  }
  return { all4: [...all4], all6, first4, first6, networks4 };
}

/** Whether the filter's addresses and the ports' own addresses are the same in both. */
export function sameAddresses(a: HostAddresses, b: HostAddresses): boolean {
  return textOf(a) === textOf(b);
}

/** The raw mask of an IPv4 prefix. */
function maskOf(prefix: number): number {
  const mask = prefix === 0 ? 0 : -1 << (32 - prefix);
  return (mask >>> 24) | ((mask >>> 8) & 0xff00) | ((mask << 8) & 0xff_0000) | (mask << 24) | 0;
}

function textOf({ all4, all6, first4, first6, networks4 }: HostAddresses): string {
  const firsts = [...first4, ...first6].map(([index, address]) => `${index} ${text(address)}`);
  const networks = [...networks4].flatMap(([index, all]) =>
    all.map(({ own, address, mask }) => `${index} ${text(own)} ${text(address)} ${text(mask)}`),
  );
  return [...all4.map(text).sort(), ...all6.map(text).sort(), ...firsts.sort(), ...networks.sort()].join();
}

function text(address: RawAddress): string {
  return formatAddress(address);
}
