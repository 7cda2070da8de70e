/**
 * ICMPv6 errors about an IPv6 packet (RFC 4443 §3): unreachable, too big, time exceeded. They are
 * made as icmp-errors.ts makes IPv4 errors, and share its limit.
 *
 *     Ethernet (tags kept) | IPv6 40 | ICMPv6 8 | quoted: up to 1280 bytes in all (RFC 4443 §2.4 c)
 */

import type { Batch } from '../packet/batch.js';
import { ICMP_BYTES, Icmpv6Type } from '../packet/icmp.js';
import { Protocol, upperNumber } from '../packet/ipv4.js';
import { IPV6_BYTES, Ipv6At } from '../packet/ipv6.js';
import type { TurnIpv6 } from '../packet/turn-ipv6.js';
import type { ErrorLimit } from './icmp-errors.js';

const QUOTED_BYTES_MAX = 1280 - IPV6_BYTES - ICMP_BYTES;

/**
 * Each method turns packet `i` into an error and returns true. If no error may be sent, it returns
 * false and leaves the packet unchanged. The error's source is the address at word `from` of
 * `addresses`, or, if that is null, the packet's destination.
 */
export interface Icmpv6Errors {
  /** "Hop limit exceeded in transit". */
  timeExceeded(i: number, addresses: Int32Array | null, from: number): boolean;
  /** "Packet too big", naming the next hop's MTU. */
  packetTooBig(i: number, addresses: Int32Array | null, from: number, mtu: number): boolean;
  /** "Destination unreachable", with a code of RFC 4443 §3.1. */
  unreachable(i: number, addresses: Int32Array | null, from: number, code: number): boolean;
}

/** Made once per data plane: see the head of batch.ts. */
export function createIcmpv6Errors(batch: Batch, turn: TurnIpv6, limit: ErrorLimit): Icmpv6Errors {
  const { l3, protocol, flags } = batch;
  const { u8, i32 } = batch.memory;

  function build(i: number, addresses: Int32Array | null, from: number, typeAndCode: number, rest: number): boolean {
    const at = l3[i];
    const quoted = Math.min(IPV6_BYTES + upperNumber(i32[(at + Ipv6At.payloadLength) >> 2] << 16), QUOTED_BYTES_MAX);
    if (!turn.isAnswerable(i) || !turn.hasRoom(i, ICMP_BYTES + quoted)) return false;
    if (protocol[i] === Protocol.ICMPV6 && flags[i] < Icmpv6Type.ECHO) return false; // an error
    if (!limit.take()) return false;
    const quotation = at + IPV6_BYTES + ICMP_BYTES;
    u8.copyWithin(quotation, at, at + quoted);
    i32[(at + IPV6_BYTES) >> 2] = typeAndCode;
    i32[(at + IPV6_BYTES + 4) >> 2] = rest;
    turn.send(i, Protocol.ICMPV6, ICMP_BYTES + quoted, quotation, addresses, from);
    return true;
  }

  return {
    timeExceeded: (i, addresses, from) => build(i, addresses, from, Icmpv6Type.TIME_EXCEEDED, 0),
    packetTooBig: (i, addresses, from, mtu) => build(i, addresses, from, Icmpv6Type.PACKET_TOO_BIG, swap32(mtu)),
    unreachable: (i, addresses, from, code) =>
      build(i, addresses, from, Icmpv6Type.UNREACHABLE | ((code & 0xff) << 8), 0),
  };
}

function swap32(value: number): number {
  return ((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24);
}
