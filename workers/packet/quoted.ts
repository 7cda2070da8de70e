/**
 * The packet that an ICMP error quotes after the ICMP header: its IPv4 header and at least 8 bytes
 * (RFC 792), or, in ICMPv6, its IPv6 header with extension headers and at least 8 bytes (RFC 4443
 * §2.4).
 *
 * One object serves a worker. `find` reads a packet's quotation. All other members refer to the
 * quotation that was found last.
 */

import type { Batch } from './batch.js';
import { checksum, difference, difference16, update } from './checksum.js';
import { hasIdentifier, ICMP_BYTES, IcmpAt, IcmpType, Icmpv6Type } from './icmp.js';
import { hasPorts, IPV4_BYTES_MIN, Ipv4At, Ipv4Fragment, Protocol, upperNumber } from './ipv4.js';
import { IPV6_BYTES, Ipv6At } from './ipv6.js';
import { CHAIN_RIGHT, Ipv6Chain } from './ipv6-chain.js';
import { exchanged } from './keys.js';
import type { PacketMemory } from './memory.js';
import { TcpAt } from './tcp.js';
import { UdpAt } from './udp.js';

/** Fewest bytes that are quoted after the IP header. */
const QUOTED_BYTES_MIN = 8;

/** Whether an ICMP message of this type is an error. For ICMPv6, pass IP version 6. */
export function isError(type: number, version = 4): boolean {
  if (version === 6) return type < Icmpv6Type.ECHO; // RFC 4443 §2.1
  return type === IcmpType.UNREACHABLE || type === IcmpType.TIME_EXCEEDED || type === IcmpType.PARAMETER_PROBLEM;
}

export class Quoted {
  /** IP version of the quoted packet. */
  version = 0;
  /**
   * Raw IPv4 addresses (for IPv6 see `key`), the raw port pair, and the protocol of the quoted
   * packet.
   */
  source = 0;
  destination = 0;
  ports = 0;
  protocol = 0;
  /** The type of a quoted ICMP or ICMPv6 query. 0 for other protocols. */
  type = 0;
  /** The link of the ICMP error. The quoted packet was on the same link. */
  private link = 0;
  private memory: PacketMemory | null = null;
  private chain: Ipv6Chain | null = null;
  /** Byte offsets: the error's ICMP header, the quoted headers, and the end of the quotation. */
  private icmp = 0;
  private l3 = 0;
  private l4 = 0;
  private end = 0;

  /**
   * Reads the quotation of ICMP error `i`. Returns false if it is not the beginning of a packet of
   * the same IP version, or if its flow cannot be told: if the protocol has ports or a query
   * identifier, they must be quoted.
   */
  find(batch: Batch, i: number): boolean {
    if (this.chain === null || this.memory !== batch.memory) this.chain = new Ipv6Chain(batch.memory.u8);
    this.memory = batch.memory;
    this.version = batch.version[i];
    this.link = batch.link[i];
    this.icmp = batch.l4[i];
    this.l3 = this.icmp + ICMP_BYTES;
    return this.version === 4 ? this.findIpv4(batch, i) : this.findIpv6(batch, i, this.chain);
  }

  private findIpv4(batch: Batch, i: number): boolean {
    const { u8, i32 } = batch.memory;
    this.end = batch.l3[i] + upperNumber(i32[batch.l3[i] >> 2]);
    if (this.l3 + IPV4_BYTES_MIN > this.end) return false;
    const headerBytes = (u8[this.l3] & 0x0f) * 4;
    this.l4 = this.l3 + headerBytes;
    if (u8[this.l3] >>> 4 !== 4 || headerBytes < IPV4_BYTES_MIN || this.l4 > this.end) return false;
    // Only a first fragment has ports.
    if ((upperNumber(i32[(this.l3 + 4) >> 2]) & Ipv4Fragment.OFFSET) !== 0) return false;
    this.protocol = u8[this.l3 + Ipv4At.protocol];
    this.source = i32[(this.l3 + Ipv4At.source) >> 2];
    this.destination = i32[(this.l3 + Ipv4At.destination) >> 2];
    return this.findPorts(batch);
  }

  private findIpv6(batch: Batch, i: number, chain: Ipv6Chain): boolean {
    const { u8, i32 } = batch.memory;
    this.end = batch.l3[i] + IPV6_BYTES + upperNumber(i32[(batch.l3[i] + 4) >> 2] << 16);
    if (this.l3 + IPV6_BYTES > this.end || u8[this.l3] >>> 4 !== 6) return false;
    if (chain.walk(this.l3, this.end) !== CHAIN_RIGHT) return false;
    const fragment = chain.fragmentAt;
    if (fragment !== 0 && ((u8[fragment + 2] << 8) | (u8[fragment + 3] & 0xf8)) !== 0) return false;
    this.protocol = chain.header;
    this.l4 = chain.at;
    return this.findPorts(batch);
  }

  /**
   * Sets `ports` and `type` to what the parser would write to the columns `ports` and, for ICMP,
   * `flags`.
   */
  private findPorts(batch: Batch): boolean {
    const { u8, u16, i32 } = batch.memory;
    const { protocol, l4 } = this;
    const isWhole = l4 + QUOTED_BYTES_MIN <= this.end;
    this.type = 0;
    this.ports = 0;
    if (protocol === Protocol.ICMP || protocol === Protocol.ICMPV6) {
      if (!isWhole || !hasIdentifier(protocol, u8[l4])) return false;
      this.type = u8[l4];
      const identifier = u16[(l4 + IcmpAt.identifier) >> 1];
      this.ports = identifier | (identifier << 16);
    } else if (hasPorts(protocol)) {
      if (!isWhole) return false;
      this.ports = i32[l4 >> 2];
    }
    return true;
  }

  /** IPv4 only: whether the error's own checksum is right. */
  get isSound(): boolean {
    return checksum((this.memory as PacketMemory).u8, this.icmp, this.end - this.icmp) === 0;
  }

  /** Writes the quoted packet's key: that of `PacketKeys.ipv4` or `ipv6`, by its `version`. */
  key(out: Int32Array, at: number): void {
    const addresses = this.writeAddresses(out, at, 0);
    out[at + addresses] = this.ports;
    out[at + addresses + 1] = this.protocol | (this.link << 8);
  }

  /** Writes the key of a packet that answers the quoted one. */
  replyKey(out: Int32Array, at: number): void {
    const addresses = this.writeAddresses(out, at, 1);
    out[at + addresses] = exchanged(this.ports);
    out[at + addresses + 1] = this.protocol | (this.link << 8);
  }

  /**
   * Writes both addresses, beginning with the source (`first` 0) or the destination (1). Returns
   * the number of words.
   */
  private writeAddresses(out: Int32Array, at: number, first: number): number {
    const { i32 } = this.memory as PacketMemory;
    const words = this.version === 4 ? 1 : 4;
    const from = (this.l3 + (this.version === 4 ? Ipv4At.source : Ipv6At.source)) >> 2;
    for (let word = 0; word < words; word++) {
      out[at + word] = i32[from + first * words + word];
      out[at + words + word] = i32[from + (1 - first) * words + word];
    }
    return 2 * words;
  }

  /**
   * IPv4 only: replaces the source of the quoted packet, and updates every checksum, including the
   * error's own.
   */
  rewriteSource(address: number, port: number): void {
    this.rewrite(Ipv4At.source, address, 0, port);
    this.source = address;
    if (this.protocol === Protocol.ICMP) this.ports = port | (port << 16);
    else if (this.isMapped) this.ports = (this.ports & ~0xffff) | port;
  }

  /** The same for the destination. */
  rewriteDestination(address: number, port: number): void {
    this.rewrite(Ipv4At.destination, address, 2, port);
    this.destination = address;
    if (this.protocol === Protocol.ICMP) this.ports = port | (port << 16);
    else if (this.isMapped) this.ports = (this.ports & 0xffff) | (port << 16);
  }

  private rewrite(addressAt: number, address: number, portAt: number, port: number): void {
    const { u16, i32 } = this.memory as PacketMemory;
    const word = (this.l3 + addressAt) >> 2;
    const addressChange = difference(i32[word], address);
    i32[word] = address;
    const isIcmp = this.protocol === Protocol.ICMP;
    const portChange = this.rewritePort(isIcmp ? IcmpAt.identifier : portAt, port);
    // An ICMP checksum does not cover addresses.
    const quotedChange =
      this.follow(this.l3 + Ipv4At.checksum, addressChange) +
      this.follow(this.transportChecksum(), isIcmp ? portChange : addressChange + portChange);
    const sum = (this.icmp + IcmpAt.checksum) >> 1;
    u16[sum] = update(u16[sum], addressChange + portChange + quotedChange);
  }

  /** Whether the protocol's ports or identifier may be changed. */
  private get isMapped(): boolean {
    const { protocol } = this;
    return protocol === Protocol.TCP || protocol === Protocol.UDP || protocol === Protocol.ICMP;
  }

  /**
   * Replaces a port or query identifier, of TCP, UDP and ICMP only. Returns the checksum
   * difference.
   */
  private rewritePort(at: number, port: number): number {
    if (!this.isMapped) return 0;
    const u16 = (this.memory as PacketMemory).u16;
    const half = (this.l4 + at) >> 1;
    const change = difference16(u16[half], port);
    u16[half] = port;
    return change;
  }

  /** Updates a quoted checksum. Returns the difference for the sum of the enclosing packet. */
  private follow(at: number, change: number): number {
    if (at < 0) return 0;
    const u16 = (this.memory as PacketMemory).u16;
    const before = u16[at >> 1];
    const isUdp = this.protocol === Protocol.UDP && at === this.l4 + UdpAt.checksum;
    if (isUdp && before === 0) return 0; // no checksum
    const updated = update(before, change);
    const after = isUdp && updated === 0 ? 0xffff : updated;
    u16[at >> 1] = after;
    return difference16(before, after);
  }

  /**
   * Byte offset of the quoted transport checksum. -1 if the quotation ends before it, or if the
   * protocol has none.
   */
  private transportChecksum(): number {
    const { protocol } = this;
    // The checksums of UDP-Lite and DCCP are where UDP's is, and cover the same pseudo header.
    if (protocol === Protocol.UDP || protocol === Protocol.UDP_LITE || protocol === Protocol.DCCP)
      return this.l4 + UdpAt.checksum;
    if (protocol === Protocol.ICMP) return this.l4 + IcmpAt.checksum;
    if (protocol !== Protocol.TCP) return -1;
    const at = this.l4 + TcpAt.checksum;
    return at + 2 <= this.end ? at : -1;
  }
}
