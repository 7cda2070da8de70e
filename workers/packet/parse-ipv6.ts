/**
 * IPv6 headers: walks the extension headers to the transport header.
 */

import type { Batch } from '../batch.js';
import { Fragment } from './fragment.js';
import { Icmpv6Type } from './icmp.js';
import { Protocol } from './ipv4.js';
import { EXTENSIONS_MAX, Extension, IPV6_BYTES, Ipv6At, isExtension } from './ipv6.js';
import type { TransportParser } from './parse-transport.js';

export const IPV6_DROPS = {
  parse_ipv6_truncated: 'dropped: the frame ends within its IPv6 header, or before the payload the header promises',
  parse_ipv6_version: 'dropped: the version of what the frame calls IPv6 is not 6',
  parse_ipv6_extensions:
    'dropped: the IPv6 extension headers run past the packet, are out of place, or are more than 8',
  parse_ipv6_fragment: 'dropped: an IPv6 fragment of a length or offset that no datagram is cut into',
} as const;

type Drops = { readonly [Name in keyof typeof IPV6_DROPS]: number };

/** A function for packet `i`, of which the frame has `room` bytes from the IPv6 header at `at` on. */
export type Ipv6Parser = (i: number, at: number, room: number) => void;

/** Of what no router forwards (RFC 4861 §6.1, §7.1, RFC 3810 §5). */
const ND_HOP_LIMIT = 255;
const MLD_HOP_LIMIT = 1;

/**
 * Made once per data plane: see the head of batch.ts. On a wire what keeps the link itself going, neighbour discovery and multicast
 * listeners, passes unseen as ARP does: RFC 4890 §4.4.
 */
export function createIpv6Parser(
  batch: Batch,
  wire: boolean,
  drops: Drops,
  parseTransport: TransportParser,
): Ipv6Parser {
  const { u8 } = batch.memory;

  function parse(i: number, l3: number, room: number): void {
    if (room < IPV6_BYTES) return batch.drop(i, drops.parse_ipv6_truncated);
    if (u8[l3] >>> 4 !== 6) return batch.drop(i, drops.parse_ipv6_version);
    const payload = (u8[l3 + Ipv6At.payloadLength] << 8) | u8[l3 + Ipv6At.payloadLength + 1];
    const end = l3 + IPV6_BYTES + payload;
    if (IPV6_BYTES + payload > room) return batch.drop(i, drops.parse_ipv6_truncated);
    batch.version[i] = 6;
    batch.l3[i] = l3;
    batch.source[i] = 0;
    batch.destination[i] = 0;
    batch.fragment[i] = Fragment.WHOLE;
    walk(i, l3, end);
  }

  function walk(i: number, l3: number, end: number): void {
    let header = u8[l3 + Ipv6At.nextHeader];
    let at = l3 + IPV6_BYTES;
    let fragment: number = Fragment.WHOLE;
    let fragmentHeaders = 0;
    for (let n = 0; isExtension(header); n++) {
      // Hop-by-hop options stand first or not at all (RFC 8200 §4.1).
      if (n === EXTENSIONS_MAX || at + 8 > end || (header === Extension.HOP_BY_HOP && n > 0))
        return batch.drop(i, drops.parse_ipv6_extensions);
      const next = u8[at];
      if (header === Extension.FRAGMENT) {
        if (fragmentHeaders++ > 0) return batch.drop(i, drops.parse_ipv6_extensions);
        fragment = parseFragment(at, end);
        if (fragment < 0) return batch.drop(i, drops.parse_ipv6_fragment);
        at += 8;
      } else if (header === Extension.AUTHENTICATION) at += (u8[at + 1] + 2) * 4;
      else at += (u8[at + 1] + 1) * 8;
      if (at > end) return batch.drop(i, drops.parse_ipv6_extensions);
      header = next;
      // What follows the fragment header of a later fragment is data, whatever the header calls it.
      if (fragment === Fragment.LATER) break;
    }
    batch.fragment[i] = fragment;
    batch.protocol[i] = header;
    batch.l4[i] = at;
    if (fragment !== Fragment.WHOLE) batch.fragments++;
    if (fragment === Fragment.LATER) {
      batch.ports[i] = 0;
      batch.flags[i] = 0;
    } else {
      parseTransport(i, header, at, end - at, fragment === Fragment.WHOLE);
      if (wire && header === Protocol.ICMPV6 && batch.egress[i] >= 0 && isOfTheLink(u8[l3 + Ipv6At.hopLimit], u8[at]))
        batch.bypass(i, batch.egress[i]);
    }
  }

  function isOfTheLink(hopLimit: number, type: number): boolean {
    if (hopLimit === ND_HOP_LIMIT) return type >= Icmpv6Type.ROUTER_SOLICITATION && type <= Icmpv6Type.REDIRECT;
    if (hopLimit !== MLD_HOP_LIMIT) return false;
    return (
      type === Icmpv6Type.LISTENER_REPORT_2 || (type >= Icmpv6Type.LISTENER_QUERY && type <= Icmpv6Type.LISTENER_DONE)
    );
  }

  /** Fragment state from the fragment header at `at`, or -1 when it lies. */
  function parseFragment(at: number, end: number): number {
    const field = (u8[at + 2] << 8) | u8[at + 3];
    const offset = field & 0xfff8;
    const more = (field & 1) !== 0;
    const bytes = end - at - 8;
    if (more && (bytes === 0 || (bytes & 7) !== 0)) return -1;
    if (offset + bytes > 0xffff) return -1;
    if (offset !== 0) return Fragment.LATER;
    return more ? Fragment.FIRST : Fragment.WHOLE; // an "atomic" fragment (RFC 6946) is a whole packet
  }

  return parse;
}
