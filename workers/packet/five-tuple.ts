/**
 * Parts of a packet's five-tuple: the raw port pair of a batch's column, and the protocol's name.
 */

import { Protocol } from './ipv4.js';

/** Raw source port of a raw port pair. */
export function sourcePort(ports: number): number {
  return ports & 0xffff;
}

/** Raw destination port of a raw port pair. */
export function destinationPort(ports: number): number {
  return ports >>> 16;
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
