/**
 * Turns a packet round: in its chunk, an IPv4 packet becomes another one. It leaves by its arrival
 * port, to the station that sent it, from the link-layer address it was sent to. Every reply is
 * made this way.
 *
 * Checksums are computed from scratch, because a reply is a packet of our own.
 */

import type { Batch } from './batch.js';
import { checksum, halves } from './checksum.js';
import { isGroupAddressed, LENGTH_MAX, returnToSender } from './ethernet.js';
import { Fragment } from './fragment.js';
import { ICMP_BYTES, IcmpAt } from './icmp.js';
import { Ipv4At, isHost, Protocol, swap16, upperNumber } from './ipv4.js';
import { TCP_BYTES_MIN, TcpAt } from './tcp.js';
import { UDP_BYTES, UdpAt } from './udp.js';

const TTL = 64;

/**
 * Whether an IP packet of `bytes` bytes fits the length field of packet `i`'s framing, if there is
 * one.
 */
export function fitsFraming({ lengthAt, l3, memory }: Batch, i: number, bytes: number): boolean {
  const field = lengthAt[i];
  if (field === 0) return true;
  // The old value was a length. Beyond LENGTH_MAX, an 802.3 length would be read as a type.
  return l3[i] - field - 2 + bytes <= Math.max(LENGTH_MAX, swap16(memory.u16[field >> 1]));
}

/** Sets the length field of packet `i`'s framing for an IP packet of `bytes` bytes. */
export function sealFraming({ lengthAt, l3, memory }: Batch, i: number, bytes: number): void {
  const field = lengthAt[i];
  if (field !== 0) memory.u16[field >> 1] = swap16(l3[i] - field - 2 + bytes);
}

export interface Turn {
  /**
   * Whether packet `i` may be answered: it is IPv4, not a later fragment, and goes from one host to
   * another (RFC 1812 §4.3.2.7).
   */
  isAnswerable(i: number): boolean;
  /** Whether there is room at packet `i` for an IPv4 packet of `totalBytes` bytes. */
  hasRoom(i: number, totalBytes: number): boolean;
  /**
   * Writes an IPv4 header without options, for a packet of `totalBytes` bytes. `send` adds
   * addresses and checksum.
   */
  header(i: number, totalBytes: number, protocol: number, service: number): void;
  /**
   * Addresses the packet in place, computes its checksums, and sends it back. The total length in
   * its header must be right.
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

  /** Writes the checksum of the payload, `bytes` bytes at `at`. */
  function seal(at: number, bytes: number, protocol: number, addresses: number): void {
    const pseudoHeader = addresses + (protocol << 8) + swap16(bytes);
    if (protocol === Protocol.ICMP && bytes >= ICMP_BYTES) {
      write(at + IcmpAt.checksum, at, bytes, 0);
    } else if (protocol === Protocol.TCP && bytes >= TCP_BYTES_MIN) {
      write(at + TcpAt.checksum, at, bytes, pseudoHeader);
    } else if (protocol === Protocol.UDP && bytes >= UDP_BYTES) {
      u16[(at + UdpAt.length) >> 1] = swap16(bytes);
      // 0 means no checksum, so a computed 0 is sent as 0xffff (RFC 768).
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
