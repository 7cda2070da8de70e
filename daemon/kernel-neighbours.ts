/**
 * The kernel's IPv4 neighbour table: reading it, and making the kernel resolve an address.
 *
 * Data plane packets never pass the kernel, so it has no reason of its own to resolve their next hops: a datagram of ours
 * to the discard port (9, RFC 863) gives it one. It carries nothing, and its time to live of 1 keeps it on the link.
 */

import { createSocket, type Socket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { type Mac, parseMac } from '../workers/packet/ethernet.js';
import { formatIpv4, parseIpv4 } from '../workers/packet/ipv4.js';

export interface KernelNeighbour {
  readonly interface: string;
  /** Raw IPv4 address. */
  readonly address: number;
  readonly mac: Mac;
}

/** What the watcher needs of the kernel; tests give their own. */
export interface KernelNeighbours {
  /** Every neighbour whose address is known. */
  read(): KernelNeighbour[];
  /** Gives the kernel a reason to resolve an address. */
  provoke(address: number): void;
  close(): void;
}

const ARP_TABLE = '/proc/net/arp';
const ETHERNET = 0x1;
const COMPLETE = 0x2;
const DISCARD_PORT = 9;

/** Reads the text of /proc/net/arp; lines that are not understood, or not resolved, are left out. */
export function parseArpTable(text: string): KernelNeighbour[] {
  const neighbours: KernelNeighbour[] = [];
  for (const line of text.split('\n').slice(1)) {
    const [address, type, flags, mac, , name] = line.trim().split(/\s+/);
    if (name === undefined || Number(type) !== ETHERNET || (Number(flags) & COMPLETE) === 0) continue;
    try {
      neighbours.push({ interface: name, address: parseIpv4(address), mac: parseMac(mac) });
    } catch {
      // Not an Ethernet neighbour after all.
    }
  }
  return neighbours;
}

/** Addresses kept until the socket is open; more are asked for again anyway. */
const WAITING_MAX = 256;

/** The table of the network namespace the process is in. */
export class LinuxNeighbours implements KernelNeighbours {
  private readonly socket: Socket;
  private readonly failed: (problem: string) => void;
  private readonly reported = new Set<string>();
  private open = false;
  private waiting: number[] = [];
  private last: KernelNeighbour[] = [];

  /** `failed` takes a sentence for the log when the kernel refuses to send somewhere; once for each reason. */
  constructor(failed: (problem: string) => void) {
    this.failed = failed;
    this.socket = createSocket('udp4');
    this.socket.on('error', (error) => this.report(error.message));
    this.socket.bind(0, () => {
      this.socket.unref();
      this.socket.setTTL(1);
      this.open = true;
      for (const address of this.waiting.splice(0)) this.provoke(address);
    });
  }

  /** While the table cannot be read, what it was before goes on holding. */
  read(): KernelNeighbour[] {
    try {
      this.last = parseArpTable(readFileSync(ARP_TABLE, 'latin1'));
    } catch (error) {
      this.report((error as Error).message);
    }
    return this.last;
  }

  provoke(address: number): void {
    if (!this.open) {
      if (this.waiting.length < WAITING_MAX) this.waiting.push(address);
      return;
    }
    const to = formatIpv4(address);
    this.socket.send('', DISCARD_PORT, to, (error) => {
      if (error !== null) this.report(`${to}: ${error.message}`);
    });
  }

  close(): void {
    this.open = false;
    this.waiting = [];
    this.socket.close();
  }

  private report(problem: string): void {
    if (this.reported.has(problem) || this.reported.size > 100) return;
    this.reported.add(problem);
    this.failed(`neighbours: ${problem}`);
  }
}
