/**
 * Walks the extension headers of an IPv6 packet, from the fixed header to the transport header. The
 * parser, the fragments and the quotations of ICMPv6 errors all use this walk, because they must
 * agree on where the transport header is.
 *
 * The walk ends at the fragment header of a later fragment. Data follows it, whatever the header
 * names.
 */

import { areIpv6Options } from './header-options.js';
import { EXTENSIONS_MAX, Extension, IPV6_BYTES, Ipv6At, isExtension } from './ipv6.js';

export const CHAIN_RIGHT = 0;
/** The headers run past the end, are out of place, or are too many. */
const CHAIN_MALFORMED = 1;
/** A hop-by-hop or destination option runs past its header. */
export const CHAIN_OPTIONS = 2;

/** Byte offsets in a routing header (RFC 8200 §4.4). */
const ROUTING_TYPE = 2;
const SEGMENTS_LEFT = 3;
/** The deprecated source route (RFC 5095). */
const TYPE_SOURCE_ROUTE = 0;
/** Mobile IPv6: its only segment is the home address of the node itself (RFC 6275 §6.4). */
const TYPE_HOME_ADDRESS = 2;

export class Ipv6Chain {
  /** The transport protocol. In a later fragment, the protocol that its fragment header names. */
  header = 0;
  /** Byte offset after the last header. */
  at = 0;
  /** Byte offset of the fragment header. 0 if there is none. */
  fragmentAt = 0;
  /** Whether a routing header names nodes that the packet has yet to visit, or is of type 0. */
  isSourceRouted = false;
  private readonly u8: Uint8Array;

  constructor(u8: Uint8Array) {
    this.u8 = u8;
  }

  /**
   * Walks the packet whose fixed header is at byte `l3` and which ends before byte `end`. Returns
   * one of the `CHAIN_` results.
   */
  walk(l3: number, end: number): number {
    const { u8 } = this;
    let header = u8[l3 + Ipv6At.nextHeader];
    let at = l3 + IPV6_BYTES;
    this.fragmentAt = 0;
    this.isSourceRouted = false;
    for (let n = 0; isExtension(header); n++) {
      // Hop-by-hop options may only come first (RFC 8200 §4.1).
      if (n === EXTENSIONS_MAX || at + 8 > end || (header === Extension.HOP_BY_HOP && n > 0)) return CHAIN_MALFORMED;
      const behind = at + extensionBytes(header, u8[at + 1]);
      if (behind > end) return CHAIN_MALFORMED;
      if (header === Extension.FRAGMENT) {
        if (this.fragmentAt !== 0) return CHAIN_MALFORMED;
        this.fragmentAt = at;
      } else if (header === Extension.ROUTING) {
        if (!this.isRoute(at, behind)) return CHAIN_MALFORMED;
      } else if (header !== Extension.AUTHENTICATION && !areIpv6Options(u8, at + 2, behind)) return CHAIN_OPTIONS;
      const isLater = header === Extension.FRAGMENT && ((u8[at + 2] << 8) | (u8[at + 3] & 0xf8)) !== 0;
      header = u8[at];
      at = behind;
      if (isLater) break;
    }
    this.header = header;
    this.at = at;
    return CHAIN_RIGHT;
  }

  private isRoute(at: number, behind: number): boolean {
    const { u8 } = this;
    const type = u8[at + ROUTING_TYPE];
    const left = u8[at + SEGMENTS_LEFT];
    if (type === TYPE_SOURCE_ROUTE || (type !== TYPE_HOME_ADDRESS && left > 0)) this.isSourceRouted = true;
    // Type 0 is a list of whole addresses after 8 bytes.
    if (type !== TYPE_SOURCE_ROUTE) return true;
    const bytes = behind - at - 8;
    return (bytes & 15) === 0 && left << 4 <= bytes;
  }
}

/** Length in bytes of an extension header whose length field is `units`. */
function extensionBytes(header: number, units: number): number {
  if (header === Extension.FRAGMENT) return 8;
  return header === Extension.AUTHENTICATION ? (units + 2) * 4 : (units + 1) * 8;
}
