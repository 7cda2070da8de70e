/**
 * Wire mode, before the middleboxes: drops and counts packets whose source address no host can
 * have, on any link. So they never become connections or evidence.
 *
 * | source                        | exceptions that pass                                          |
 * | ----------------------------- | ------------------------------------------------------------- |
 * | 224/4, 255.255.255.255, 127/8 | –                                                             |
 * | 0/8                           | from 0.0.0.0: DHCP of a client, to 255.255.255.255 (RFC 2131  |
 * |                               | §4.1); IGMP (RFC 3376 §4.2.13)                                |
 * | multicast, ::1, ::ffff:0:0/96 | –                                                             |
 * | ::                            | MLD (RFC 3590 §4) and neighbour discovery (RFC 4862 §5.4.2),  |
 * |                               | to a multicast address                                        |
 * | the destination, and its port | BFD echo packets (RFC 5881 §4), sent back by the neighbour    |
 *
 * For fragments and for packets without ports, only the addresses are compared. 240/4 passes,
 * because some networks use it as private addresses. Packets that pass meet the middleboxes like
 * any other.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import type { Batch } from '../packet/batch.js';
import { Fragment } from '../packet/fragment.js';
import { Icmpv6Type } from '../packet/icmp.js';
import { Protocol, swap16 } from '../packet/ipv4.js';
import { Ipv6At } from '../packet/ipv6.js';

const COUNTERS = {
  wire_martian:
    'dropped: no host has the source address (multicast, broadcast, loopback, unspecified), or it is the destination, with the same port (mode wire)',
} as const;

export const WIRE_SOURCE_METRICS: Metric[] = counterMetrics(COUNTERS);

const { UDP, ICMPV6 } = Protocol;
const IGMP = 2;
const { WHOLE } = Fragment;
const BROADCAST = -1;
const LOOPBACK = 127;
/** The first octets of multicast addresses are 224 to 239. */
const MULTICAST = 0xe0;
const MULTICAST_MASK = 0xf0;
const DHCP_PORTS = swap16(68) | (swap16(67) << 16);
const BFD_ECHO = swap16(3785);
/** The last word of ::1, and the third word of ::ffff:0:0/96, as they lie in memory. */
const ONE = 0x0100_0000;
const MAPPED = 0xffff_0000 | 0;

/** Made once per data plane: see the head of batch.ts. */
export function createWireSources(batch: Batch, catalogue: MetricCatalogue): () => void {
  const { egress, version, protocol, fragment, l3, source, destination, ports, flags } = batch;
  const { i32 } = batch.memory;
  const { wire_martian } = columnsOf(catalogue, COUNTERS);

  function drop(): void {
    for (let i = 0; i < batch.count; i++) {
      if (egress[i] < 0) continue;
      if (version[i] === 4 ? isMartian(i) : isMartianIpv6(i)) batch.drop(i, wire_martian);
    }
  }

  function isMartian(i: number): boolean {
    const from = source[i];
    const first = from & 0xff;
    if (first === 0) return from !== 0 || !isUnnumbered(i);
    if (first === LOOPBACK || (first & MULTICAST_MASK) === MULTICAST || from === BROADCAST) return true;
    return from === destination[i] && isToItself(i);
  }

  /** Whether hosts without an address send such a packet. */
  function isUnnumbered(i: number): boolean {
    const to = destination[i];
    if (protocol[i] === IGMP) return (to & MULTICAST_MASK) === MULTICAST;
    if (protocol[i] !== UDP || to !== BROADCAST) return false;
    return fragment[i] === Fragment.LATER || ports[i] === DHCP_PORTS;
  }

  /**
   * Whether a packet whose source is its destination also has equal ports. Always true for
   * fragments; false for BFD echo packets.
   */
  function isToItself(i: number): boolean {
    if (fragment[i] !== WHOLE) return true;
    const pair = ports[i];
    if (protocol[i] === UDP && pair >>> 16 === BFD_ECHO) return false;
    return pair >>> 16 === (pair & 0xffff);
  }

  function isMartianIpv6(i: number): boolean {
    const at = (l3[i] + Ipv6At.source) >> 2;
    const first = i32[at];
    if ((first & 0xff) === 0xff) return true;
    if (first === 0 && i32[at + 1] === 0) {
      const third = i32[at + 2];
      if (third === MAPPED) return true;
      if (third === 0 && i32[at + 3] === ONE) return true;
      if (third === 0 && i32[at + 3] === 0) return !isUnnumberedIpv6(i, at + 4);
    }
    const isSame =
      first === i32[at + 4] &&
      i32[at + 1] === i32[at + 5] &&
      i32[at + 2] === i32[at + 6] &&
      i32[at + 3] === i32[at + 7];
    return isSame && isToItself(i);
  }

  /** `isUnnumbered` for IPv6. `to` is the word index of the destination address. */
  function isUnnumberedIpv6(i: number, to: number): boolean {
    if (protocol[i] !== ICMPV6 || fragment[i] !== WHOLE || (i32[to] & 0xff) !== 0xff) return false;
    const type = flags[i];
    return (
      type === Icmpv6Type.LISTENER_REPORT ||
      type === Icmpv6Type.LISTENER_DONE ||
      type === Icmpv6Type.LISTENER_REPORT_2 ||
      type === Icmpv6Type.NEIGHBOUR_SOLICITATION ||
      type === Icmpv6Type.ROUTER_SOLICITATION
    );
  }

  return drop;
}
