/**
 * Wire mode, around the middleboxes. Before them it drops packets whose source no host can have
 * (wire-sources.ts). After them it handles packets that exceed the MTU of their egress port.
 *
 * The kernel would silently drop such a packet after it was counted as sent. So it is dropped and
 * counted here. If it is IPv6, or IPv4 with "don't fragment" set, it becomes the ICMP error that a
 * router would send. The error's source is the packet's destination, since a wire has no address.
 * The sender then adapts as it would to a router. A wire fragments nothing.
 *
 * As with a bridge, a frame with a VLAN tag may exceed the MTU by the length of one tag.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import { type Batch, DROPPED } from '../packet/batch.js';
import { ETHERNET_BYTES } from '../packet/ethernet.js';
import { upperNumber } from '../packet/ipv4.js';
import { IPV6_BYTES, Ipv6At } from '../packet/ipv6.js';
import { isVlan, VLAN_BYTES } from '../packet/vlan.js';
import type { IcmpErrors } from './icmp-errors.js';
import type { Icmpv6Errors } from './icmpv6-errors.js';
import { createWireSources, WIRE_SOURCE_METRICS } from './wire-sources.js';

const COUNTERS = {
  wire_mtu: 'dropped: longer than the MTU of the port it was to leave by (mode wire)',
  wire_icmp_errors: 'ICMP and ICMPv6 errors about such packets: fragmentation needed, packet too big',
} as const;

export const WIRE_METRICS: Metric[] = [...counterMetrics(COUNTERS), ...WIRE_SOURCE_METRICS];

export interface Wire {
  /** Runs before the middleboxes. */
  admit(): void;
  /** Runs after the middleboxes. */
  dispatch(): void;
}

/** `mtus` gives the MTU of each port. Made once per data plane: see the head of batch.ts. */
export function createWire(
  batch: Batch,
  mtus: Int32Array,
  { errors, errors6 }: { readonly errors: IcmpErrors; readonly errors6: Icmpv6Errors },
  catalogue: MetricCatalogue,
): Wire {
  const { start, length, port, egress, version, l3, destination } = batch;
  const { u16, i32 } = batch.memory;
  const columns = columnsOf(catalogue, COUNTERS);
  const ports = mtus.length;

  function dispatch(): void {
    for (let i = 0; i < batch.count; i++) {
      const by = egress[i];
      if (by === DROPPED) continue;
      const to = by < 0 ? batch.bypassPort(i) : by;
      if (to < ports && length[i] - ETHERNET_BYTES > mtus[to] && isTooLong(i, to)) refuse(i, to, by >= 0);
    }
  }

  function isTooLong(i: number, to: number): boolean {
    return length[i] - linkBytes(i) > mtus[to];
  }

  /** Bytes of the Ethernet header and one tag, which do not count towards the MTU. */
  function linkBytes(i: number): number {
    return isVlan(u16[(start[i] + ETHERNET_BYTES - 2) >> 1]) ? ETHERNET_BYTES + VLAN_BYTES : ETHERNET_BYTES;
  }

  /** `isParsed`: the header columns are valid. */
  function refuse(i: number, to: number, isParsed: boolean): void {
    batch.drop(i, columns.wire_mtu);
    if (!isParsed) return;
    // The MTU that remains for IP after other tags and link-layer headers.
    const mtu = mtus[to] - (l3[i] - start[i] - linkBytes(i));
    if (packetBytes(i) <= mtu) return; // the excess is padding
    const isError =
      version[i] === 4
        ? forbidsFragments(i) && errors.fragmentationNeeded(i, destination[i], mtu)
        : errors6.packetTooBig(i, null, 0, mtu);
    if (!isError) return;
    batch.count1(columns.wire_icmp_errors);
    if (isTooLong(i, port[i])) batch.drop(i, columns.wire_mtu);
  }

  function packetBytes(i: number): number {
    if (version[i] === 4) return upperNumber(i32[l3[i] >> 2]);
    return IPV6_BYTES + upperNumber(i32[(l3[i] + Ipv6At.payloadLength) >> 2] << 16);
  }

  /**
   * Whether an IPv4 packet has "don't fragment" set: bit 6 of byte 6, in the upper half of word 1
   * (which is read as little-endian).
   */
  function forbidsFragments(i: number): boolean {
    return (i32[(l3[i] + 4) >> 2] & 0x40_0000) !== 0;
  }

  return { admit: createWireSources(batch, catalogue), dispatch };
}
