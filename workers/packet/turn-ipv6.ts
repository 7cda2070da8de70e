/**
 * Turns an IPv6 packet round, as turn.ts does for IPv4. In its chunk, it becomes another packet
 * that leaves by its arrival port. The new packet has no extension headers.
 */

import type { Batch } from './batch.js';
import { checksum, halves } from './checksum.js';
import { isGroupAddressed, returnToSender } from './ethernet.js';
import { Fragment } from './fragment.js';
import { IcmpAt } from './icmp.js';
import { Protocol, swap16 } from './ipv4.js';
import { IPV6_BYTES, Ipv6At, isHostIpv6 } from './ipv6.js';
import { TcpAt } from './tcp.js';
import { fitsFraming, sealFraming } from './turn.js';

const HOP_LIMIT = 64;
const VERSION = 0x60;
const WORDS = 4;

export interface TurnIpv6 {
  /**
   * Whether packet `i` may be answered: it is IPv6, not a later fragment, and goes from one host to
   * another (RFC 4443 §2.4).
   */
  isAnswerable(i: number): boolean;
  /**
   * Whether there is room at packet `i` for an IPv6 packet of `payloadBytes` bytes after its
   * header.
   */
  hasRoom(i: number, payloadBytes: number): boolean;
  /**
   * Sends back `payloadBytes` bytes, which lie after an IPv6 header at packet `i`'s place. The
   * destination is the source in the IPv6 header at byte `quoted` of packet memory. The source is
   * the address at `from` in `addresses`, or, if that is null, the destination in that header.
   * `protocol` is TCP or ICMPv6. Checksums are computed.
   */
  send(
    i: number,
    protocol: number,
    payloadBytes: number,
    quoted: number,
    addresses: Int32Array | null,
    from: number,
  ): void;
}

/** Made once per data plane: see the head of batch.ts. */
export function createTurnIpv6(batch: Batch): TurnIpv6 {
  const { memory, start, length, port, version, fragment, l3 } = batch;
  const { u8, u16, i32, chunkBytes } = memory;
  const ends = new Int32Array(2 * WORDS);

  function isAnswerable(i: number): boolean {
    if (version[i] !== 6 || fragment[i] === Fragment.LATER || isGroupAddressed(memory, start[i])) return false;
    const at = l3[i];
    return isHostIpv6(i32, (at + Ipv6At.source) >> 2) && isHostIpv6(i32, (at + Ipv6At.destination) >> 2);
  }

  function hasRoom(i: number, payloadBytes: number): boolean {
    const bytes = IPV6_BYTES + payloadBytes;
    return (l3[i] & (chunkBytes - 1)) + bytes <= chunkBytes && fitsFraming(batch, i, bytes);
  }

  function send(
    i: number,
    protocol: number,
    payloadBytes: number,
    quoted: number,
    addresses: Int32Array | null,
    from: number,
  ): void {
    const at = l3[i];
    const header = at >> 2;
    const source = (quoted + Ipv6At.source) >> 2;
    const destination = (quoted + Ipv6At.destination) >> 2;
    for (let word = 0; word < WORDS; word++) {
      ends[word] = addresses === null ? i32[destination + word] : addresses[from + word];
      ends[WORDS + word] = i32[source + word];
    }
    i32[header] = VERSION;
    i32[header + 1] = swap16(payloadBytes) | (protocol << 16) | (HOP_LIMIT << 24);
    let sum = (protocol << 8) + swap16(payloadBytes);
    for (let word = 0; word < 2 * WORDS; word++) {
      i32[header + 2 + word] = ends[word];
      sum += halves(ends[word]);
    }
    const payload = at + IPV6_BYTES;
    const field = payload + (protocol === Protocol.TCP ? TcpAt.checksum : IcmpAt.checksum);
    u16[field >> 1] = 0;
    u16[field >> 1] = checksum(u8, payload, payloadBytes, sum);
    returnToSender(memory, start[i]);
    length[i] = payload + payloadBytes - start[i];
    sealFraming(batch, i, IPV6_BYTES + payloadBytes);
    batch.bypass(i, port[i]);
  }

  return { isAnswerable, hasRoom, send };
}
