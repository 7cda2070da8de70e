/**
 * Route mode: the worker as an IP hop (RFC 1812), in two steps around the middleboxes.
 *
 * `admit`, before them, drops what a hop must not forward: frames for others, addresses that are no host's, packets
 * whose time to live ends here or that are too large for the way on; the sender is told where that is due.
 * `dispatch`, after them, takes one off the time to live, and addresses the frame to the next hop: a link-layer address
 * from the configuration, a neighbour from the configuration, or, with none configured, the packet's destination itself.
 */

import type { Metric, MetricCatalogue } from '../shm/metrics.js';
import type { NextHopReader } from '../shm/next-hops.js';
import { NONE } from '../shm/none.js';
import type { Batch } from './batch.js';
import { type Columns, columnsOf, counterMetrics } from './counters.js';
import { IcmpErrors } from './icmp-errors.js';
import { isGroupAddressed, type Mac, setDestinationMac, setSourceMac } from './packet/ethernet.js';
import { isHost } from './packet/ipv4.js';
import { IPV6_BYTES } from './packet/ipv6.js';
import type { PacketMemory } from './packet/memory.js';
import { peersOf } from './ports.js';

export const ROUTE_COUNTERS = {
  route_other_host: 'dropped: the frame is addressed to another station, or to a group',
  route_martian: 'dropped: the source or destination address is not a single host (RFC 1812 §5.3.7)',
  route_ttl: 'dropped: the time to live or hop limit ends here',
  route_mtu: "dropped: longer than the egress port's MTU",
  route_unresolved: 'dropped: the link-layer address of the next hop is not known yet, or nobody has it',
  route_ipv6: 'dropped: IPv6 to a port whose next hop is not given as a MAC address',
  route_icmp_errors: 'ICMP errors sent: time exceeded, fragmentation needed',
} as const;

export const ROUTE_METRICS: Metric[] = counterMetrics(ROUTE_COUNTERS);

/** How one port takes part in routing. Plain data: main makes it, workers receive it. */
export interface RoutePort {
  /** The port's own link-layer address. */
  readonly mac: Mac;
  /** The port's own raw IPv4 address, from which ICMP errors come; `null`: none are sent. */
  readonly address: number | null;
  /** Longest IP packet the port sends. */
  readonly mtuBytes: number;
  /** A raw IPv4 address on the port's link, a link-layer address, or `null`: destinations are on the link themselves. */
  readonly nextHop: number | Mac | null;
  /** Whether frames addressed to other stations are taken too (capture files). */
  readonly promiscuous: boolean;
}

/** How the next hop of a port is known. */
const Way = { UNRESOLVED: 0, FIXED: 1, ON_LINK: 2 } as const;

export class Router {
  private readonly memory: PacketMemory;
  private readonly ports: readonly RoutePort[];
  private readonly neighbours: NextHopReader;
  private readonly columns: Columns<typeof ROUTE_COUNTERS>;
  private readonly errors: IcmpErrors;
  private readonly peers: Int32Array;

  // Columns by port, for the packet path.
  private readonly way: Int32Array;
  private readonly nextLow: Int32Array;
  private readonly nextHigh: Int32Array;
  private readonly ownLow: Int32Array;
  private readonly ownHigh: Int32Array;
  private readonly mtu: Int32Array;
  private readonly promiscuous: Uint8Array;
  private readonly byMac: Uint8Array;

  constructor(
    memory: PacketMemory,
    ports: readonly RoutePort[],
    neighbours: NextHopReader,
    catalogue: MetricCatalogue,
  ) {
    this.memory = memory;
    this.ports = ports;
    this.neighbours = neighbours;
    this.columns = columnsOf(catalogue, ROUTE_COUNTERS);
    this.errors = new IcmpErrors(memory);
    this.peers = peersOf(ports.length);
    this.way = new Int32Array(ports.length);
    this.nextLow = new Int32Array(ports.length);
    this.nextHigh = new Int32Array(ports.length);
    this.ownLow = Int32Array.from(ports, (port) => port.mac.low);
    this.ownHigh = Int32Array.from(ports, (port) => port.mac.high);
    this.mtu = Int32Array.from(ports, (port) => port.mtuBytes);
    this.promiscuous = Uint8Array.from(ports, (port) => Number(port.promiscuous));
    this.byMac = Uint8Array.from(ports, (port) => Number(port.nextHop !== null && typeof port.nextHop === 'object'));
    this.neighbours.refresh();
    this.resolvePorts();
  }

  /** Before the middleboxes. */
  admit(batch: Batch, unixMs: number): void {
    if (this.neighbours.refresh()) this.resolvePorts();
    for (let i = 0; i < batch.count; i++) {
      if (batch.skips(i)) continue;
      if (!this.isOurs(batch.start[i], batch.port[i])) batch.drop(i, this.columns.route_other_host);
      else if (batch.version[i] === 4) this.admitIpv4(batch, i, unixMs);
      else if (this.memory.u8[batch.l3[i] + 7] <= 1) batch.drop(i, this.columns.route_ttl);
    }
  }

  private isOurs(start: number, port: number): boolean {
    const { u16, i32 } = this.memory;
    // Bytes 0–1 and 2–5 of the destination, as the frame's alignment gives them.
    const low = u16[start >> 1];
    const high = i32[(start + 2) >> 2];
    if (low === (this.ownLow[port] & 0xffff) && high === ((this.ownLow[port] >>> 16) | (this.ownHigh[port] << 16)))
      return true;
    return this.promiscuous[port] === 1 && !isGroupAddressed(this.memory, start);
  }

  private admitIpv4(batch: Batch, i: number, unixMs: number): void {
    if (!isHost(batch.source[i]) || !isHost(batch.destination[i])) return batch.drop(i, this.columns.route_martian);
    const i32 = this.memory.i32;
    const word = batch.l3[i] >> 2;
    if ((i32[word + 2] & 0xff) <= 1) return this.expired(batch, i, unixMs);
    const egress = this.peers[batch.port[i]];
    const total = ((i32[word] >>> 8) & 0xff00) | (i32[word] >>> 24);
    if (egress < this.mtu.length && total > this.mtu[egress]) this.tooLong(batch, i, egress, unixMs);
  }

  private expired(batch: Batch, i: number, unixMs: number): void {
    batch.drop(i, this.columns.route_ttl);
    const { address, mac } = this.ports[batch.port[i]];
    if (address === null) return;
    if (this.errors.timeExceeded(batch, i, address, mac, unixMs)) batch.count1(this.columns.route_icmp_errors);
  }

  private tooLong(batch: Batch, i: number, egress: number, unixMs: number): void {
    batch.drop(i, this.columns.route_mtu);
    const { address, mac } = this.ports[batch.port[i]];
    // Byte 6 of the header, in the upper half of word 1: bit 6 of it is "don't fragment".
    const dontFragment = (this.memory.i32[(batch.l3[i] + 4) >> 2] & 0x40_0000) !== 0;
    if (address === null || !dontFragment) return;
    if (this.errors.fragmentationNeeded(batch, i, address, mac, this.mtu[egress], unixMs))
      batch.count1(this.columns.route_icmp_errors);
  }

  /** After the middleboxes. */
  dispatch(batch: Batch): void {
    for (let i = 0; i < batch.count; i++) {
      const port = batch.egress[i];
      if (port < 0 || port >= this.way.length) continue; // dropped, bypassing, or undecided
      if (batch.version[i] === 4) this.dispatchIpv4(batch, i, port);
      else this.dispatchIpv6(batch, i, port);
    }
    this.neighbours.flushWanted();
  }

  private dispatchIpv4(batch: Batch, i: number, port: number): void {
    const i32 = this.memory.i32;
    const l3 = batch.l3[i];
    const total = ((i32[l3 >> 2] >>> 8) & 0xff00) | (i32[l3 >> 2] >>> 24);
    if (total > this.mtu[port]) return batch.drop(i, this.columns.route_mtu);
    if (!this.address(batch, i, port)) return;
    const third = i32[(l3 + 8) >> 2];
    // RFC 1141: one less in the low byte of the sum is one more in the checksum; 0xffff is not a checksum, its 0 is.
    let check = (third >>> 16) + 1;
    if (check >= 0xffff) check++;
    i32[(l3 + 8) >> 2] = ((third & 0xffff) - 1) | (check << 16);
    batch.length[i] = l3 - batch.start[i] + total; // padding of the link it came by stays there
  }

  private dispatchIpv6(batch: Batch, i: number, port: number): void {
    const { u8 } = this.memory;
    const l3 = batch.l3[i];
    const total = IPV6_BYTES + ((u8[l3 + 4] << 8) | u8[l3 + 5]);
    if (total > this.mtu[port]) return batch.drop(i, this.columns.route_mtu);
    if (this.byMac[port] === 0) return batch.drop(i, this.columns.route_ipv6);
    this.address(batch, i, port);
    u8[l3 + 7]--;
    batch.length[i] = l3 - batch.start[i] + total;
  }

  /** Writes the link-layer addresses; drops the packet when the next hop's is not known. */
  private address(batch: Batch, i: number, port: number): boolean {
    let low = this.nextLow[port];
    let high = this.nextHigh[port];
    if (this.way[port] !== Way.FIXED) {
      const slot = this.way[port] === Way.ON_LINK ? this.neighbours.find(port, batch.destination[i]) : NONE;
      if (slot === NONE) {
        this.unresolved(batch, i, port);
        return false;
      }
      low = this.neighbours.macLow(slot);
      high = this.neighbours.macHigh(slot);
    }
    setDestinationMac(this.memory, batch.start[i], low, high);
    setSourceMac(this.memory, batch.start[i], this.ownLow[port], this.ownHigh[port]);
    return true;
  }

  private unresolved(batch: Batch, i: number, port: number): void {
    const { nextHop } = this.ports[port];
    this.neighbours.want(port, typeof nextHop === 'number' ? nextHop : batch.destination[i]);
    batch.drop(i, this.columns.route_unresolved);
  }

  /** After the table of neighbours changed: the next hops that are the same for every packet. */
  private resolvePorts(): void {
    for (let port = 0; port < this.ports.length; port++) {
      const { nextHop } = this.ports[port];
      if (nextHop === null) this.way[port] = Way.ON_LINK;
      else if (typeof nextHop === 'object') this.fix(port, nextHop.low, nextHop.high);
      else {
        const slot = this.neighbours.find(port, nextHop);
        if (slot === NONE) this.way[port] = Way.UNRESOLVED;
        else this.fix(port, this.neighbours.macLow(slot), this.neighbours.macHigh(slot));
      }
    }
  }

  private fix(port: number, low: number, high: number): void {
    this.way[port] = Way.FIXED;
    this.nextLow[port] = low;
    this.nextHigh[port] = high;
  }
}
