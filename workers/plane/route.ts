/**
 * Route mode: the worker as an IP hop (RFC 1812), in two steps around the middleboxes.
 *
 * `admit`, before them, drops what a hop must not forward: frames for other stations, addresses
 * that are not a single host's, packets whose time to live ends here, and packets that must not be
 * fragmented and exceed the MTU of the opposite port. The sender gets an ICMP error if one is due.
 *
 * `dispatch`, after them, decrements the time to live and addresses the frame to the next hop. The
 * next hop is a link-layer address from the configuration, a neighbour from the configuration, or,
 * if none is configured, the packet's destination. A port has one next hop for IPv4 and one for
 * IPv6.
 *
 * **MTU.** Only `dispatch` knows the real egress, because a hairpinned packet leaves by its arrival
 * port. A packet above the MTU is fragmented (fragmentation.ts). If it is IPv6 or has "don't
 * fragment" set, it becomes an ICMP error. The error passes the chain back to the sender, so the
 * middlebox that translated the packet also translates the error (passage.ts).
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import type { NextHopReader, RawAddress } from '../../shm/next-hops.js';
import { NONE } from '../../shm/none.js';
import type { PortBoardReader, PortNetwork } from '../../shm/port-board.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import { type Batch, DROPPED } from '../packet/batch.js';
import { isGroupAddressed, type Mac } from '../packet/ethernet.js';
import { isHost, upperNumber } from '../packet/ipv4.js';
import { IPV6_BYTES, Ipv6At, isHostIpv6 } from '../packet/ipv6.js';
import { peersOf } from '../packet/ports.js';
import type { Fragmentation } from './fragmentation.js';
import type { IcmpErrors } from './icmp-errors.js';
import type { Icmpv6Errors } from './icmpv6-errors.js';
import { createRouteAddresses, Known } from './route-addresses.js';

const ROUTE_COUNTERS = {
  route_other_host: 'dropped: the frame is addressed to another station, or to a group',
  route_martian:
    "dropped: the source or destination address is not a single host, or of one link (RFC 1812 §5.3.7), or a broadcast address of a port's subnet (RFC 2644), or the source is an address of a port here, or the destination itself",
  route_ttl: 'dropped: the time to live or hop limit ends here',
  route_mtu: 'dropped: longer than the egress port\'s MTU, and IPv6, or with "don\'t fragment" set',
  route_unresolved: 'dropped: the link-layer address of the next hop is not known yet, or nobody has it',
  route_icmp_errors: 'ICMP and ICMPv6 errors sent: time exceeded, fragmentation needed, packet too big',
} as const;

export const ROUTE_METRICS: Metric[] = counterMetrics(ROUTE_COUNTERS);

/**
 * How one port takes part in routing. Plain data: main makes it, workers receive it. The fields up
 * to `mtuBytes` hold the values at the start. The current values are on the port board.
 */
export interface RoutePort {
  /** The port's own link-layer address. */
  readonly mac: Mac;
  /** The port's own raw IPv4 address, the source of ICMP errors. `null`: no errors are sent. */
  readonly address: number | null;
  /** The same for IPv6, as four raw words. */
  readonly address6?: Int32Array | null;
  /** All IPv4 addresses of the port, with their subnets. Absent: none are known. */
  readonly networks?: readonly PortNetwork[];
  /** Longest IP packet that the port sends. */
  readonly mtuBytes: number;
  /**
   * A raw IPv4 address on the port's link, a link-layer address, or `null` if destinations are on
   * the link themselves.
   */
  readonly nextHop: number | Mac | null;
  /** The same for IPv6, with the address as four raw words. */
  readonly nextHop6: Int32Array | Mac | null;
  /** Whether to accept frames addressed to other stations (capture files). */
  readonly promiscuous: boolean;
}

function isSameIpv6(a: Int32Array, at: number, b: Int32Array, bt: number): boolean {
  return a[at] === b[bt] && a[at + 1] === b[bt + 1] && a[at + 2] === b[bt + 2] && a[at + 3] === b[bt + 3];
}

const { NOTHING, BROADCAST } = Known;

/** The state of a port's next hop. */
const UNRESOLVED = 0;
const FIXED = 1;
const ON_LINK = 2;

export interface Router {
  /** Runs before the middleboxes. */
  admit(): void;
  /**
   * Runs after the middleboxes. `goBack` takes a packet back through them that became a reply when
   * it was to leave by port `towards`.
   */
  dispatch(goBack: GoBack, now: number): void;
}

type GoBack = (i: number, towards: number, now: number) => void;

/** Made once per data plane: see the head of batch.ts. */
export function createRouter(
  batch: Batch,
  ports: readonly RoutePort[],
  facts: PortBoardReader,
  neighbours: NextHopReader,
  { errors, errors6 }: { readonly errors: IcmpErrors; readonly errors6: Icmpv6Errors },
  catalogue: MetricCatalogue,
  fragmentation: Pick<Fragmentation, 'mark'>,
): Router {
  const { memory, start, length, port, egress, version, l3, source, destination } = batch;
  const { u8, u16, i32 } = memory;
  const columns = columnsOf(catalogue, ROUTE_COUNTERS);
  const peers = peersOf(ports.length);
  const portCount = ports.length;

  // Columns by port.
  const way = new Int32Array(portCount);
  const nextLow = new Int32Array(portCount);
  const nextHigh = new Int32Array(portCount);
  const way6 = new Int32Array(portCount);
  const nextLow6 = new Int32Array(portCount);
  const nextHigh6 = new Int32Array(portCount);
  const { macLow: ownLow, macHigh: ownHigh, mtu, hasAddress, hasAddress6, address6 } = facts;
  const ownAddress = facts.address;
  const { refresh: refreshAddresses, kindOf } = createRouteAddresses(facts);
  const promiscuous = Uint8Array.from(ports, (port) => Number(port.promiscuous));

  function admit(): void {
    if (neighbours.refresh()) resolvePorts();
    refreshAddresses();
    for (let i = 0; i < batch.count; i++) {
      if (egress[i] < 0) continue;
      if (!isOurs(start[i], port[i])) batch.drop(i, columns.route_other_host);
      else if (version[i] === 4) admitIpv4(i);
      else admitIpv6(i);
    }
  }

  function isOurs(from: number, by: number): boolean {
    // Bytes 0–1 and 2–5 of the destination, as the frame's alignment gives them.
    const low = u16[from >> 1];
    const high = i32[(from + 2) >> 2];
    if (low === (ownLow[by] & 0xffff) && high === ((ownLow[by] >>> 16) | (ownHigh[by] << 16))) return true;
    return promiscuous[by] === 1 && !isGroupAddressed(memory, from);
  }

  function admitIpv4(i: number): void {
    if (!isHost(source[i]) || !isHost(destination[i]) || isMartian(source[i], destination[i]))
      return batch.drop(i, columns.route_martian);
    const word = l3[i] >> 2;
    if ((i32[word + 2] & 0xff) <= 1) return expired(i);
    const peer = peers[port[i]];
    if (peer < portCount && upperNumber(i32[word]) > mtu[peer] && forbidsFragments(i)) refuse(i, peer);
  }

  /**
   * Whether the source is the destination, an address of a port of this hop, or a broadcast address
   * of a port's subnet, or the destination is such a broadcast address.
   */
  function isMartian(from: number, to: number): boolean {
    return from === to || kindOf(from) !== NOTHING || kindOf(to) === BROADCAST;
  }

  /**
   * Whether the source address at word `from` equals the destination address after it, or is a
   * port's own.
   */
  function isOwnSourceIpv6(from: number): boolean {
    if (isSameIpv6(i32, from, i32, from + 4)) return true;
    for (let by = 0; by < portCount; by++)
      if (hasAddress6[by] === 1 && isSameIpv6(i32, from, address6, 4 * by)) return true;
    return false;
  }

  function admitIpv6(i: number): void {
    const at = l3[i];
    if (!isHostIpv6(i32, (at + Ipv6At.source) >> 2) || !isHostIpv6(i32, (at + Ipv6At.destination) >> 2))
      return batch.drop(i, columns.route_martian);
    if (isOwnSourceIpv6((at + Ipv6At.source) >> 2)) return batch.drop(i, columns.route_martian);
    const by = port[i];
    if (u8[at + Ipv6At.hopLimit] <= 1) {
      batch.drop(i, columns.route_ttl);
      if (hasAddress6[by] === 1 && errors6.timeExceeded(i, address6, 4 * by)) batch.count1(columns.route_icmp_errors);
      return;
    }
    const peer = peers[by];
    if (peer < portCount && ipv6Length(at) > mtu[peer]) refuse(i, peer);
  }

  function ipv6Length(at: number): number {
    return IPV6_BYTES + ((u8[at + Ipv6At.payloadLength] << 8) | u8[at + Ipv6At.payloadLength + 1]);
  }

  function expired(i: number): void {
    batch.drop(i, columns.route_ttl);
    const by = port[i];
    if (hasAddress[by] === 1 && errors.timeExceeded(i, ownAddress[by])) batch.count1(columns.route_icmp_errors);
  }

  /**
   * Whether an IPv4 packet has "don't fragment" set: bit 6 of byte 6, in the upper half of word 1
   * (which is read as little-endian).
   */
  function forbidsFragments(i: number): boolean {
    return (i32[(l3[i] + 4) >> 2] & 0x40_0000) !== 0;
  }

  /**
   * Drops packet `i`, which exceeds the MTU of port `by` and must not be fragmented. Returns
   * whether it became an ICMP error.
   */
  function refuse(i: number, by: number): boolean {
    batch.drop(i, columns.route_mtu);
    const from = port[i];
    const isError =
      version[i] === 4
        ? hasAddress[from] === 1 && errors.fragmentationNeeded(i, ownAddress[from], mtu[by])
        : hasAddress6[from] === 1 && errors6.packetTooBig(i, address6, 4 * from, mtu[by]);
    if (isError) batch.count1(columns.route_icmp_errors);
    return isError;
  }

  // The arguments of the current `dispatch`.
  let goBack: GoBack | null = null;
  let now = 0;

  function dispatch(back: GoBack, second: number): void {
    goBack = back;
    now = second;
    for (let i = 0; i < batch.count; i++) {
      const by = egress[i];
      if (by >= portCount) continue; // undecided
      if (by >= 0) dispatchPacket(i, by);
      else if (by !== DROPPED) dispatchReply(i, batch.bypassPort(i));
    }
    neighbours.flushWanted();
  }

  function dispatchPacket(i: number, by: number): void {
    if (version[i] === 4) dispatchIpv4(i, by);
    else dispatchIpv6(i, by);
  }

  /**
   * A reply already has its link-layer addresses. An ICMP error can be longer than the MTU of the
   * port it leaves by.
   */
  function dispatchReply(i: number, by: number): void {
    const total = version[i] === 4 ? upperNumber(i32[l3[i] >> 2]) : ipv6Length(l3[i]);
    if (by >= portCount || total <= mtu[by]) return;
    if (version[i] === 4 && !forbidsFragments(i)) fragmentation.mark(i);
    else batch.drop(i, columns.route_mtu);
  }

  /** `refuse` for a packet that has passed the chain. */
  function refuseLate(i: number, by: number): void {
    if (!refuse(i, by)) return;
    goBack?.(i, by, now);
    const to = egress[i];
    if (to >= 0 && to < portCount) dispatchPacket(i, to);
    else if (to < DROPPED) dispatchReply(i, batch.bypassPort(i));
  }

  function dispatchIpv4(i: number, by: number): void {
    const at = l3[i];
    const total = upperNumber(i32[at >> 2]);
    if (total > mtu[by] && forbidsFragments(i)) return refuseLate(i, by);
    if (!address(i, by)) return;
    if (total > mtu[by]) fragmentation.mark(i);
    const third = i32[(at + 8) >> 2];
    // RFC 1141: decrementing the sum's low byte increments the checksum. 0xffff is not a valid
    // checksum; the code writes 0 instead.
    let check = (third >>> 16) + 1;
    if (check >= 0xffff) check++;
    i32[(at + 8) >> 2] = ((third & 0xffff) - 1) | (check << 16);
    length[i] = at - start[i] + total; // the padding of the arrival link is cut off
  }

  function dispatchIpv6(i: number, by: number): void {
    const at = l3[i];
    const total = ipv6Length(at);
    if (total > mtu[by]) return refuseLate(i, by);
    if (!addressIpv6(i, by)) return;
    u8[at + Ipv6At.hopLimit]--;
    length[i] = at - start[i] + total;
  }

  /** Writes the link-layer addresses. Drops the packet if the next hop's address is not known. */
  function address(i: number, by: number): boolean {
    if (way[by] === FIXED) {
      write(i, by, nextLow[by], nextHigh[by]);
      return true;
    }
    const slot = way[by] === ON_LINK ? neighbours.find(by, destination[i]) : NONE;
    if (slot !== NONE) {
      write(i, by, neighbours.macLow(slot), neighbours.macHigh(slot));
      return true;
    }
    const { nextHop } = ports[by];
    neighbours.want(by, typeof nextHop === 'number' ? nextHop : destination[i]);
    batch.drop(i, columns.route_unresolved);
    return false;
  }

  function addressIpv6(i: number, by: number): boolean {
    if (way6[by] === FIXED) {
      write(i, by, nextLow6[by], nextHigh6[by]);
      return true;
    }
    const to = (l3[i] + Ipv6At.destination) >> 2;
    const slot = way6[by] === ON_LINK ? neighbours.findIpv6(by, i32, to) : NONE;
    if (slot !== NONE) {
      write(i, by, neighbours.macLow(slot), neighbours.macHigh(slot));
      return true;
    }
    const { nextHop6 } = ports[by];
    if (nextHop6 instanceof Int32Array) neighbours.wantIpv6(by, nextHop6, 0);
    else neighbours.wantIpv6(by, i32, to);
    batch.drop(i, columns.route_unresolved);
    return false;
  }

  /** Does the same as `setDestinationMac` and `setSourceMac`. */
  function write(i: number, by: number, low: number, high: number): void {
    const to = start[i];
    u16[to >> 1] = low;
    i32[(to + 2) >> 2] = (low >>> 16) | (high << 16);
    i32[(to + 6) >> 2] = ownLow[by];
    u16[(to + 10) >> 1] = ownHigh[by];
  }

  /**
   * Resolves the next hops that are the same for every packet, after the neighbour table changed.
   */
  function resolvePorts(): void {
    for (const [by, { nextHop, nextHop6 }] of ports.entries()) {
      resolve(by, nextHop, way, nextLow, nextHigh);
      resolve(by, nextHop6, way6, nextLow6, nextHigh6);
    }
  }

  function resolve(
    by: number,
    hop: RawAddress | Mac | null,
    ways: Int32Array,
    low: Int32Array,
    high: Int32Array,
  ): void {
    ways[by] = UNRESOLVED;
    if (hop === null) {
      ways[by] = ON_LINK;
    } else if (typeof hop === 'object' && 'low' in hop) {
      ways[by] = FIXED;
      low[by] = hop.low;
      high[by] = hop.high;
    } else {
      const slot = typeof hop === 'number' ? neighbours.find(by, hop) : neighbours.findIpv6(by, hop, 0);
      if (slot === NONE) return;
      ways[by] = FIXED;
      low[by] = neighbours.macLow(slot);
      high[by] = neighbours.macHigh(slot);
    }
  }

  neighbours.refresh();
  resolvePorts();
  return { admit, dispatch };
}
