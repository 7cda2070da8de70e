/**
 * The kernel's neighbour tables for IPv4 (ARP) and IPv6 (neighbour discovery). This file reads
 * them, and makes the kernel resolve an address.
 *
 * Data plane packets never pass the kernel, so the kernel has no reason to resolve their next hops.
 * An empty datagram to the discard port (9, RFC 863) gives it one. Its TTL or hop limit of 1 keeps
 * it on the link.
 */

import { createSocket, type Socket } from 'node:dgram';
import type { RawAddress } from '../../shm/next-hops.js';
import { interfaceNeighbours, NEIGHBOUR_WORDS, NeighbourAt } from '../../workers/native/index.js';
import type { Mac } from '../../workers/packet/ethernet.js';
import { formatIpv4 } from '../../workers/packet/ipv4.js';
import { formatIpv6, isLinkLocal } from '../../workers/packet/ipv6.js';

export interface KernelNeighbour {
  readonly interface: string;
  readonly address: RawAddress;
  readonly mac: Mac;
}

/** The interface from the watcher to the kernel; tests have their own implementation. */
export interface KernelNeighbours {
  /** Returns every neighbour on these interfaces whose link-layer address is known. */
  read(interfaces: readonly string[]): KernelNeighbour[];
  /** Gives the kernel a reason to resolve an address on the link of this interface. */
  provoke(address: RawAddress, name: string): void;
  close(): void;
}

const DISCARD_PORT = 9;

/** An address as text. */
export function formatAddress(address: RawAddress): string {
  if (typeof address === 'number') return formatIpv4(address);
  return formatIpv6(new Uint8Array(address.buffer, address.byteOffset, 16));
}

/** Number of addresses kept until the socket is open. Others are requested again anyway. */
const WAITING_MAX = 256;

/**
 * A socket of one IP version. It is opened when first needed, because a host may lack one version.
 */
class Provoker {
  private readonly socket: Socket;
  private readonly failed: (problem: string) => void;
  private open = false;
  private waiting: string[] = [];

  constructor(type: 'udp4' | 'udp6', failed: (problem: string) => void) {
    this.failed = failed;
    this.socket = createSocket({ type, ipv6Only: type === 'udp6' });
    this.socket.on('error', (error) => failed(error.message));
    this.socket.bind(0, () => {
      this.socket.unref();
      this.socket.setTTL(1); // for IPv6, the hop limit
      this.open = true;
      for (const to of this.waiting.splice(0)) this.send(to);
    });
  }

  send(to: string): void {
    if (!this.open) {
      if (this.waiting.length < WAITING_MAX) this.waiting.push(to);
      return;
    }
    this.socket.send('', DISCARD_PORT, to, (error) => {
      if (error !== null) this.failed(`${to}: ${error.message}`);
    });
  }

  close(): void {
    this.open = false;
    this.waiting = [];
    this.socket.close();
  }
}

/** The tables of the process's network namespace. */
export class LinuxNeighbours implements KernelNeighbours {
  private readonly failed: (problem: string) => void;
  private readonly reported = new Set<string>();
  private readonly provokers = new Map<'udp4' | 'udp6', Provoker>();
  private readonly last = new Map<string, KernelNeighbour[]>();

  /**
   * `failed` takes a sentence for the log if the kernel refuses something; it is called once per
   * text.
   */
  constructor(failed: (problem: string) => void) {
    this.failed = failed;
  }

  /** If an interface's neighbours cannot be read, the last ones that were read stay valid. */
  read(interfaces: readonly string[]): KernelNeighbour[] {
    return interfaces.flatMap((name) => {
      try {
        this.last.set(name, readNeighbours(name));
      } catch (error) {
        this.report((error as Error).message);
      }
      return this.last.get(name) ?? [];
    });
  }

  provoke(address: RawAddress, name: string): void {
    const type = typeof address === 'number' ? 'udp4' : 'udp6';
    let provoker = this.provokers.get(type);
    if (provoker === undefined) {
      provoker = new Provoker(type, (problem) => this.report(problem));
      this.provokers.set(type, provoker);
    }
    const scope = typeof address !== 'number' && isLinkLocal(address) ? `%${name}` : '';
    provoker.send(`${formatAddress(address)}${scope}`);
  }

  close(): void {
    for (const provoker of this.provokers.values()) provoker.close();
    this.provokers.clear();
  }

  private report(problem: string): void {
    if (this.reported.has(problem) || this.reported.size > 100) return;
    this.reported.add(problem);
    this.failed(`neighbours: ${problem}`);
  }
}

function readNeighbours(name: string): KernelNeighbour[] {
  const words = interfaceNeighbours(name);
  return Array.from({ length: words.length / NEIGHBOUR_WORDS }, (_, i) => {
    const record = words.subarray(i * NEIGHBOUR_WORDS, (i + 1) * NEIGHBOUR_WORDS);
    const address = record.subarray(NeighbourAt.address, NeighbourAt.address + 4);
    return {
      interface: name,
      address: record[NeighbourAt.version] === 4 ? address[0] : address,
      mac: { low: record[NeighbourAt.macLow], high: record[NeighbourAt.macHigh] },
    };
  });
}
