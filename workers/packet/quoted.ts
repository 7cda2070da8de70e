/**
 * The packet that an ICMP error is about, quoted behind the ICMP header (RFC 792): its IPv4 header and at least 8 bytes.
 *
 * One object serves a worker: `find` looks into a packet's quotation, and the rest is about the one found last.
 */

import type { Batch } from '../batch.js';
import { difference, difference16, update } from './checksum.js';
import { ICMP_BYTES, IcmpAt, IcmpType, isQuery } from './icmp.js';
import { IPV4_BYTES_MIN, Ipv4At, Ipv4Fragment, Protocol, upperNumber } from './ipv4.js';
import type { PacketMemory } from './memory.js';
import { TcpAt } from './tcp.js';
import { UdpAt } from './udp.js';

/** What is quoted of a packet behind its IP header, at the least. */
const QUOTED_BYTES_MIN = 8;

export function isError(type: number): boolean {
  return type === IcmpType.UNREACHABLE || type === IcmpType.TIME_EXCEEDED || type === IcmpType.PARAMETER_PROBLEM;
}

export class Quoted {
  /** Raw addresses, ports as in a batch's column, and the protocol of the quoted packet. */
  source = 0;
  destination = 0;
  ports = 0;
  protocol = 0;
  private memory: PacketMemory | null = null;
  /** Byte offsets: the error's ICMP header, the quoted headers, and the end of the quotation. */
  private icmp = 0;
  private l3 = 0;
  private l4 = 0;
  private end = 0;

  /**
   * Looks at what ICMP error `i` quotes. False when it is not the beginning of an IPv4 packet with ports or a query
   * identifier, of which enough is quoted to tell.
   */
  find(batch: Batch, i: number): boolean {
    const { u8, u16, i32 } = batch.memory;
    this.memory = batch.memory;
    this.icmp = batch.l4[i];
    this.l3 = this.icmp + ICMP_BYTES;
    this.end = batch.l3[i] + upperNumber(i32[batch.l3[i] >> 2]);
    if (this.l3 + IPV4_BYTES_MIN > this.end) return false;
    const headerBytes = (u8[this.l3] & 0x0f) * 4;
    this.l4 = this.l3 + headerBytes;
    if (u8[this.l3] >>> 4 !== 4 || headerBytes < IPV4_BYTES_MIN || this.l4 + QUOTED_BYTES_MIN > this.end) return false;
    if ((upperNumber(i32[(this.l3 + 4) >> 2]) & Ipv4Fragment.OFFSET) !== 0) return false;
    this.protocol = u8[this.l3 + Ipv4At.protocol];
    this.source = i32[(this.l3 + Ipv4At.source) >> 2];
    this.destination = i32[(this.l3 + Ipv4At.destination) >> 2];
    if (this.protocol === Protocol.ICMP) {
      const identifier = u16[(this.l4 + IcmpAt.identifier) >> 1];
      this.ports = identifier | (identifier << 16);
      return isQuery(u8[this.l4]);
    }
    this.ports = i32[this.l4 >> 2];
    return this.protocol === Protocol.TCP || this.protocol === Protocol.UDP;
  }

  /** Gives the quoted packet another source, and makes up for it in every checksum, the error's included. */
  rewriteSource(address: number, port: number): void {
    this.rewrite(Ipv4At.source, address, 0, port);
    this.source = address;
    this.ports = this.protocol === Protocol.ICMP ? port | (port << 16) : (this.ports & ~0xffff) | port;
  }

  /** The same for the destination. */
  rewriteDestination(address: number, port: number): void {
    this.rewrite(Ipv4At.destination, address, 2, port);
    this.destination = address;
    this.ports = this.protocol === Protocol.ICMP ? port | (port << 16) : (this.ports & 0xffff) | (port << 16);
  }

  private rewrite(addressAt: number, address: number, portAt: number, port: number): void {
    const { u16, i32 } = this.memory as PacketMemory;
    const word = (this.l3 + addressAt) >> 2;
    const addressChange = difference(i32[word], address);
    i32[word] = address;
    const isIcmp = this.protocol === Protocol.ICMP;
    const half = (this.l4 + (isIcmp ? IcmpAt.identifier : portAt)) >> 1;
    const portChange = difference16(u16[half], port);
    u16[half] = port;
    // An ICMP checksum covers no addresses.
    const quotedChange =
      this.follow(this.l3 + Ipv4At.checksum, addressChange) +
      this.follow(this.transportChecksum(), isIcmp ? portChange : addressChange + portChange);
    const sum = (this.icmp + IcmpAt.checksum) >> 1;
    u16[sum] = update(u16[sum], addressChange + portChange + quotedChange);
  }

  /** Updates a quoted checksum; returns the difference that makes to the sum around it. */
  private follow(at: number, change: number): number {
    if (at < 0) return 0;
    const u16 = (this.memory as PacketMemory).u16;
    const before = u16[at >> 1];
    const isUdp = this.protocol === Protocol.UDP && at === this.l4 + UdpAt.checksum;
    if (isUdp && before === 0) return 0; // there is none
    const updated = update(before, change);
    const after = isUdp && updated === 0 ? 0xffff : updated;
    u16[at >> 1] = after;
    return difference16(before, after);
  }

  /** Byte offset of the quoted transport checksum, or -1 when the quotation ends before. */
  private transportChecksum(): number {
    if (this.protocol === Protocol.UDP) return this.l4 + UdpAt.checksum;
    if (this.protocol === Protocol.ICMP) return this.l4 + IcmpAt.checksum;
    const at = this.l4 + TcpAt.checksum;
    return at + 2 <= this.end ? at : -1;
  }
}
