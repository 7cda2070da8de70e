/**
 * ICMP errors of an IPv4 hop: time exceeded, and fragmentation needed.
 *
 * The error is built in the chunk of the packet it is about, which is then that packet no longer but the error, going
 * back out of the port it came in by, to the link-layer sender. It quotes the packet as it came, before any middlebox
 * changed it, so this runs before them.
 *
 *     Ethernet (tags kept) | IPv4 20 | ICMP 8 | quoted: as much as makes 576 bytes (RFC 1812 §4.3.2.3)
 *
 * None is sent about an ICMP error, a later fragment, or to what is no single host (RFC 1812 §4.3.2.7), and no more than
 * `ERRORS_PER_SECOND` (§4.3.2.8).
 */

import type { Batch } from './batch.js';
import { checksum } from './packet/checksum.js';
import { isGroupAddressed, type Mac, returnToSender } from './packet/ethernet.js';
import { Fragment } from './packet/fragment.js';
import { ICMP_BYTES, IcmpType, isQuery } from './packet/icmp.js';
import { IPV4_BYTES_MIN, isHost, Protocol, swap16, upperNumber } from './packet/ipv4.js';
import type { PacketMemory } from './packet/memory.js';

export const ERRORS_PER_SECOND = 1000;
export const ERRORS_IN_A_BURST = 50;

const HEADERS_BYTES = IPV4_BYTES_MIN + ICMP_BYTES;
const QUOTED_BYTES_MAX = 576 - HEADERS_BYTES;
const TTL = 64;
/** Internetwork control precedence (RFC 1812 §4.3.2.5). */
const SERVICE = 0xc0;

export class IcmpErrors {
  private readonly memory: PacketMemory;
  private identification = 0;
  private tokens = ERRORS_IN_A_BURST;
  private refilledMs = 0;

  constructor(memory: PacketMemory) {
    this.memory = memory;
  }

  /** Turns packet `i` into "time to live exceeded in transit", from `address`. Returns false if none may be sent. */
  timeExceeded(batch: Batch, i: number, address: number, mac: Mac, unixMs: number): boolean {
    return this.allowed(batch, i, unixMs) && this.build(batch, i, address, mac, IcmpType.TIME_EXCEEDED, 0);
  }

  /** Turns packet `i` into "fragmentation needed", naming the next hop's MTU (RFC 1191 §4). */
  fragmentationNeeded(batch: Batch, i: number, address: number, mac: Mac, mtu: number, unixMs: number): boolean {
    const code = 4;
    return (
      this.allowed(batch, i, unixMs) &&
      this.build(batch, i, address, mac, IcmpType.UNREACHABLE | (code << 8), swap16(mtu) << 16)
    );
  }

  private allowed(batch: Batch, i: number, unixMs: number): boolean {
    if (batch.fragment[i] === Fragment.LATER) return false;
    if (batch.protocol[i] === Protocol.ICMP && !isQuery(batch.flags[i])) return false;
    if (isGroupAddressed(this.memory, batch.start[i])) return false;
    if (!isHost(batch.source[i]) || !isHost(batch.destination[i])) return false;
    return this.takeToken(unixMs);
  }

  private takeToken(unixMs: number): boolean {
    const due = ((unixMs - this.refilledMs) * ERRORS_PER_SECOND) / 1000;
    if (due >= 1 || due < 0) {
      // A clock set back refills nothing, and counts from where it is now.
      this.tokens = Math.min(ERRORS_IN_A_BURST, this.tokens + Math.max(0, Math.trunc(due)));
      this.refilledMs = unixMs;
    }
    if (this.tokens === 0) return false;
    this.tokens--;
    return true;
  }

  private build(batch: Batch, i: number, address: number, mac: Mac, typeAndCode: number, rest: number): boolean {
    const { u8, u16, i32, chunkBytes } = this.memory;
    const l3 = batch.l3[i];
    const quoted = Math.min(upperNumber(i32[l3 >> 2]), QUOTED_BYTES_MAX);
    const total = HEADERS_BYTES + quoted;
    if ((l3 & (chunkBytes - 1)) + total > chunkBytes) return false;
    u8.copyWithin(l3 + HEADERS_BYTES, l3, l3 + quoted);

    const word = l3 >> 2;
    i32[word] = 0x45 | (SERVICE << 8) | (swap16(total) << 16);
    this.identification = (this.identification + 1) & 0xffff;
    i32[word + 1] = swap16(this.identification);
    i32[word + 2] = TTL | (Protocol.ICMP << 8);
    i32[word + 3] = address;
    i32[word + 4] = batch.source[i];
    u16[(l3 + 10) >> 1] = checksum(u8, l3, IPV4_BYTES_MIN);

    i32[word + 5] = typeAndCode;
    i32[word + 6] = rest;
    u16[(l3 + IPV4_BYTES_MIN + 2) >> 1] = checksum(u8, l3 + IPV4_BYTES_MIN, ICMP_BYTES + quoted);

    returnToSender(this.memory, batch.start[i], mac.low, mac.high);
    batch.length[i] = l3 - batch.start[i] + total;
    batch.bypass(i, batch.port[i]);
    return true;
  }
}
