/**
 * Turning a packet round: an IPv4 packet becomes, in the chunk it came in, another one that goes
 * back out of the port it came in by, to the station that sent it, from the link-layer address it
 * was sent to. Every reply is made this way.
 *
 * Checksums are computed anew over what is there, for a reply is a packet of our own.
 */

import type { Batch } from '../batch.js';
import { checksum, halves } from './checksum.js';
import { isGroupAddressed, LENGTH_MAX, returnToSender } from './ethernet.js';
import { Fragment } from './fragment.js';
import { ICMP_BYTES, IcmpAt } from './icmp.js';
import { Ipv4At, isHost, Protocol, swap16, upperNumber } from './ipv4.js';
import { TCP_BYTES_MIN, TcpAt } from './tcp.js';
import { UDP_BYTES, UdpAt } from './udp.js';

const TTL = 64;

/**
 * Whether an IP packet of so many bytes can stand behind the length field of packet `i`'s framing,
 * if there is one.
 */
export function fitsFraming({ lengthAt, l3, memory }: Batch, i: number, bytes: number): boolean {
  const field = lengthAt[i];
  if (field === 0) return true;
  // What came was a length; above LENGTH_MAX that of 802.3 would be a type.
  return l3[i] - field - 2 + bytes <= Math.max(LENGTH_MAX, swap16(memory.u16[field >> 1]));
}

/** Makes the length field of packet `i`'s framing that of an IP packet of so many bytes. */
export function sealFraming({ lengthAt, l3, memory }: Batch, i: number, bytes: number): void {
  const field = lengthAt[i];
  if (field !== 0) memory.u16[field >> 1] = swap16(l3[i] - field - 2 + bytes);
}

export interface Turn {
  /**
   * Whether anything may be sent back about packet `i`: it is IPv4, and from one host to another
   * (RFC 1812 §4.3.2.7).
   */
  isAnswerable(i: number): boolean;
  /** Whether an IPv4 packet of so many bytes has room where packet `i` is. */
  hasRoom(i: number, totalBytes: number): boolean;
  /**
   * Writes an IPv4 header without options, of a packet of so many bytes. Addresses and checksum
   * come with `send`.
   */
  header(i: number, totalBytes: number, protocol: number, service: number): void;
  /**
   * Addresses what is there, computes its checksums, and sends it back. What its header says of its
   * length is so.
   */
  send(i: number, source: number, destination: number): void;
}

/** Made once per data plane: see the head of batch.ts. */
export function createTurn(batch: Batch): Turn {
  const { memory, start, length, port, version, l3, source, destination } = batch;
  const { u8, u16, i32, chunkBytes } = memory;
  let identification = 0;

  function isAnswerable(i: number): boolean {
    if (version[i] !== 4 || batch.fragment[i] === Fragment.LATER) return false;
    return !isGroupAddressed(memory, start[i]) && isHost(source[i]) && isHost(destination[i]);
  }

  function hasRoom(i: number, totalBytes: number): boolean {
    return (l3[i] & (chunkBytes - 1)) + totalBytes <= chunkBytes && fitsFraming(batch, i, totalBytes);
  }

  function header(i: number, totalBytes: number, protocol: number, service: number): void {
    const word = l3[i] >> 2;
    identification = (identification + 1) & 0xffff;
    i32[word] = 0x45 | (service << 8) | (swap16(totalBytes) << 16);
    i32[word + 1] = swap16(identification);
    i32[word + 2] = protocol << 8;
  }

  function send(i: number, from: number, to: number): void {
    const at = l3[i];
    const word = at >> 2;
    const headerBytes = (i32[word] & 0x0f) << 2;
    const total = upperNumber(i32[word]);
    const protocol = u8[at + Ipv4At.protocol];
    i32[word + 2] = TTL | (protocol << 8);
    i32[word + 3] = from;
    i32[word + 4] = to;
    u16[(at + Ipv4At.checksum) >> 1] = checksum(u8, at, headerBytes);
    seal(at + headerBytes, total - headerBytes, protocol, halves(from) + halves(to));
    returnToSender(memory, start[i]);
    length[i] = at - start[i] + total;
    sealFraming(batch, i, total);
    batch.bypass(i, port[i]);
  }

  /** The checksum of what the packet carries, `bytes` bytes at `at`. */
  function seal(at: number, bytes: number, protocol: number, addresses: number): void {
    const pseudoHeader = addresses + (protocol << 8) + swap16(bytes);
    if (protocol === Protocol.ICMP && bytes >= ICMP_BYTES) {
      write(at + IcmpAt.checksum, at, bytes, 0);
    } else if (protocol === Protocol.TCP && bytes >= TCP_BYTES_MIN) {
      write(at + TcpAt.checksum, at, bytes, pseudoHeader);
    } else if (protocol === Protocol.UDP && bytes >= UDP_BYTES) {
      u16[(at + UdpAt.length) >> 1] = swap16(bytes);
      // One that comes out as 0 is sent as 0xffff: 0 says that there is none (RFC 768).
      if (write(at + UdpAt.checksum, at, bytes, pseudoHeader) === 0) u16[(at + UdpAt.checksum) >> 1] = 0xffff;
    }
  }

  function write(field: number, at: number, bytes: number, initial: number): number {
    u16[field >> 1] = 0;
    const sum = checksum(u8, at, bytes, initial);
    u16[field >> 1] = sum;
    return sum;
  }

  return { isAnswerable, hasRoom, header, send };
}
