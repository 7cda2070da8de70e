/**
 * Parses IPv6 packets: checks the fixed header and the fragment header. ipv6-chain.ts walks the
 * headers between.
 */

import type { Batch } from './batch.js';
import { Fragment } from './fragment.js';
import { Icmpv6Type } from './icmp.js';
import { Protocol } from './ipv4.js';
import { IPV6_BYTES, Ipv6At } from './ipv6.js';
import { CHAIN_OPTIONS, CHAIN_RIGHT, Ipv6Chain } from './ipv6-chain.js';
import type { FrameSettings } from './parse-link.js';
import type { TransportParser } from './parse-transport.js';

export const IPV6_DROPS = {
  parse_ipv6_truncated: 'dropped: the frame ends within its IPv6 header, or before the payload the header promises',
  parse_ipv6_version: 'dropped: the version of what the frame calls IPv6 is not 6',
  parse_ipv6_extensions:
    'dropped: the IPv6 extension headers run past the packet, are out of place, or are more than 8',
  parse_ipv6_options: 'dropped: an IPv6 hop-by-hop or destination option runs past its header',
  parse_ipv6_fragment: 'dropped: an IPv6 fragment of a length or offset that no datagram is cut into',
} as const;

type Drops = { readonly [Name in keyof typeof IPV6_DROPS | 'parse_source_route']: number };

/**
 * Parses packet `i`, whose IPv6 header is at byte `at`. The frame has `room` bytes from there on.
 */
type Ipv6Parser = (i: number, at: number, room: number) => void;

/** Hop limit of packets that no router has forwarded (RFC 4861 §6.1, §7.1). */
const ND_HOP_LIMIT = 255;

/**
 * Made once per data plane: see the head of batch.ts. On a wire, neighbour discovery bypasses the
 * middleboxes, as ARP does (RFC 4890 §4.4). Group membership does not: the middleboxes see MLD and
 * IGMP.
 */
export function createIpv6Parser(
  batch: Batch,
  wire: boolean,
  settings: FrameSettings,
  drops: Drops,
  parseTransport: TransportParser,
): Ipv6Parser {
  const { u8 } = batch.memory;
  const chain = new Ipv6Chain(u8);
  const passesSourceRoutes = settings.sourceRoutes === 'pass';

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
    const fault = chain.walk(l3, end);
    if (fault !== CHAIN_RIGHT)
      return batch.drop(i, fault === CHAIN_OPTIONS ? drops.parse_ipv6_options : drops.parse_ipv6_extensions);
    if (chain.isSourceRouted && !passesSourceRoutes) return batch.drop(i, drops.parse_source_route);
    const { header, at, fragmentAt } = chain;
    const fragment = fragmentAt === 0 ? Fragment.WHOLE : parseFragment(fragmentAt, end);
    if (fragment < 0) return batch.drop(i, drops.parse_ipv6_fragment);
    batch.fragment[i] = fragment;
    batch.protocol[i] = header;
    batch.l4[i] = at;
    if (fragment !== Fragment.WHOLE) batch.fragments++;
    if (fragment === Fragment.LATER) {
      batch.ports[i] = 0;
      batch.flags[i] = 0;
    } else {
      parseTransport(i, header, at, end - at, fragment === Fragment.WHOLE);
      // Hosts do not accept neighbour discovery with a fragment header (RFC 6980 §5).
      const mayDiscover = wire && header === Protocol.ICMPV6 && fragmentAt === 0 && batch.egress[i] >= 0;
      if (mayDiscover && isDiscovery(u8[l3 + Ipv6At.hopLimit], u8[at])) batch.bypass(i, batch.egress[i]);
    }
  }

  function isDiscovery(hopLimit: number, type: number): boolean {
    return hopLimit === ND_HOP_LIMIT && type >= Icmpv6Type.ROUTER_SOLICITATION && type <= Icmpv6Type.REDIRECT;
  }

  /** Returns the fragment state from the fragment header at `at`, or -1 if it is malformed. */
  function parseFragment(at: number, end: number): number {
    const field = (u8[at + 2] << 8) | u8[at + 3];
    const offset = field & 0xfff8;
    const more = (field & 1) !== 0;
    const bytes = end - at - 8;
    if (more && (bytes === 0 || (bytes & 7) !== 0)) return -1;
    if (offset + bytes > 0xffff) return -1;
    if (offset !== 0) return Fragment.LATER;
    return more ? Fragment.FIRST : Fragment.WHOLE; // an "atomic" fragment (RFC 6946) is whole
  }

  return parse;
}
