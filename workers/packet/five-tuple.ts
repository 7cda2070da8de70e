/**
 * The five-tuple of a batch's packet: addresses, ports and protocol, raw as in the batch's columns.
 */

import type { Batch } from '../batch.js';
import { formatIpv4, Protocol, swap16 } from './ipv4.js';

/** Raw source port of a raw port pair. */
export function sourcePort(ports: number): number {
  return ports & 0xffff;
}

/** Raw destination port of a raw port pair. */
export function destinationPort(ports: number): number {
  return ports >>> 16;
}

/** The port pair of the opposite direction. */
export function reversePorts(ports: number): number {
  return (ports >>> 16) | (ports << 16);
}

const NAMES: Readonly<Record<number, string>> = {
  [Protocol.ICMP]: 'icmp',
  [Protocol.TCP]: 'tcp',
  [Protocol.UDP]: 'udp',
  [Protocol.ICMPV6]: 'icmp6',
};

export function protocolName(protocol: number): string {
  return NAMES[protocol] ?? `protocol ${protocol}`;
}

/** `tcp 10.0.0.5:4000 > 198.51.100.7:80`, for people. IPv4 only. */
export function formatFiveTuple(batch: Batch, i: number): string {
  const ports = batch.ports[i];
  const from = `${formatIpv4(batch.source[i])}:${swap16(sourcePort(ports))}`;
  const to = `${formatIpv4(batch.destination[i])}:${swap16(destinationPort(ports))}`;
  return `${protocolName(batch.protocol[i])} ${from} > ${to}`;
}
