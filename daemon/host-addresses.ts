/** The addresses of this host, as the XDP filter and the ports need them. */

import type { RawAddress } from '../shm/next-hops.js';
import { isLinkLocal } from '../workers/packet/ipv6.js';
import { formatAddress } from './kernel-neighbours.js';
import { type HostAddress, hostAddresses } from './rtnetlink.js';

export interface HostAddresses {
  /** All of IPv4, each once. */
  readonly all4: readonly number[];
  /**
   * All of IPv6 that are valid beyond a link: what goes to others never comes with a link's own.
   */
  readonly all6: readonly Int32Array[];
  /** The first IPv4 address of each interface, by index. */
  readonly first4: ReadonlyMap<number, number>;
  /**
   * The first IPv6 address of each interface, one that is valid beyond its link if there is one.
   */
  readonly first6: ReadonlyMap<number, Int32Array>;
}

/** Throws where the kernel does not say. */
export function readHostAddresses(): HostAddresses {
  return sortAddresses(hostAddresses());
}

export function sortAddresses(found: readonly HostAddress[]): HostAddresses {
  const all4 = new Set<number>();
  const all6: Int32Array[] = [];
  const first4 = new Map<number, number>();
  const first6 = new Map<number, Int32Array>();
  for (const { index, address } of found) {
    if (typeof address === 'number') {
      all4.add(address);
      if (!first4.has(index)) first4.set(index, address);
      continue;
    }
    const isWider = !isLinkLocal(address);
    if (isWider) all6.push(address);
    const first = first6.get(index);
    if (first === undefined || (isWider && isLinkLocal(first))) first6.set(index, address);
  }
  return { all4: [...all4], all6, first4, first6 };
}

/** Whether the filters and the ports' own addresses are the same by both. */
export function sameAddresses(a: HostAddresses, b: HostAddresses): boolean {
  return textOf(a) === textOf(b);
}

function textOf({ all4, all6, first4, first6 }: HostAddresses): string {
  const firsts = [...first4, ...first6].map(([index, address]) => `${index} ${text(address)}`);
  return [...all4.map(text).sort(), ...all6.map(text).sort(), ...firsts.sort()].join();
}

function text(address: RawAddress): string {
  return formatAddress(address);
}
