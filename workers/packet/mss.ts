/**
 * MSS clamping: lowers the maximum segment size that the ends of a TCP connection announce (RFC
 * 9293 §3.7.1). So no segment exceeds the MTU of a link on the path, even if ICMP errors are lost.
 *
 *     kind 2   length 4   MSS 2     an option of SYN and SYN-ACK
 *
 *     Other options have a length too, except kinds 0 (end) and 1 (no operation), which are 1 byte.
 *
 * An MSS is never raised, and none is added. If an option's length is impossible, the options after
 * it stay unchanged. Options in a later fragment stay unchanged too.
 */

import type { Batch } from './batch.js';
import { difference16, update } from './checksum.js';
import { Fragment } from './fragment.js';
import { Protocol, swap16, upperNumber } from './ipv4.js';
import { IPV6_BYTES, Ipv6At } from './ipv6.js';
import { TCP_BYTES_MIN, TcpAt, TcpFlag } from './tcp.js';

const END = 0;
const NO_OPERATION = 1;
const MSS = 2;
const MSS_BYTES = 4;
/** Bytes of the MTU that the IP and TCP headers take without options. */
const HEADERS_IPV4 = 40;
const HEADERS_IPV6 = 60;

/**
 * Limits of a fixed MSS: the least that Linux accepts from a peer, and the most that fits into the
 * longest IPv4 packet.
 */
export const MSS_MIN = 88;
export const MSS_MAX = 65_495;

interface MssClampParts {
  readonly batch: Batch;
  /** Longest IP packet of each port. */
  readonly mtus: Int32Array;
  /** The option. `true`: as the MTUs of the ports allow. A number: at most that. `false`: off. */
  readonly setting: boolean | number;
}

/**
 * Returns a function that lowers the MSS of packet `i`, if it has one, and returns whether it did.
 * While a packet's egress is undecided, only the MTU of its arrival port counts, unless `parse` has
 * set an opposite port. Returns `null` if the setting is `false`. Made once per data plane: see the
 * head of batch.ts.
 */
export function createMssClamp({ batch, mtus, setting }: MssClampParts): ((i: number) => boolean) | null {
  if (setting === false) return null;
  const fixed = setting === true ? MSS_MAX : setting;
  const { port, egress, version, fragment, protocol, flags, l3, l4 } = batch;
  const { u8, u16, i32 } = batch.memory;

  function clamp(i: number): boolean {
    if (protocol[i] !== Protocol.TCP || (flags[i] & TcpFlag.SYN) === 0 || fragment[i] === Fragment.LATER) return false;
    return lower(i, setting === true ? limitOf(i) : fixed);
  }

  function limitOf(i: number): number {
    const way = Math.min(mtus[port[i]], egress[i] >= 0 && egress[i] < mtus.length ? mtus[egress[i]] : MSS_MAX);
    return way - (version[i] === 4 ? HEADERS_IPV4 : HEADERS_IPV6);
  }

  function lower(i: number, limit: number): boolean {
    const header = l4[i];
    const end = Math.min(header + ((u8[header + TcpAt.dataOffset] & 0xf0) >>> 2), endOf(i));
    let isLower = false;
    for (let at = header + TCP_BYTES_MIN; at < end; ) {
      const kind = u8[at];
      if (kind === END) break;
      if (kind === NO_OPERATION) {
        at++;
        continue;
      }
      const bytes = at + 1 < end ? u8[at + 1] : 0;
      if (bytes < 2 || at + bytes > end) break;
      if (kind === MSS && bytes === MSS_BYTES && ((u8[at + 2] << 8) | u8[at + 3]) > limit) {
        write(header, at + 2, limit);
        isLower = true;
      }
      at += bytes;
    }
    return isLower;
  }

  /** Byte offset of the end of the IP packet. */
  function endOf(i: number): number {
    if (version[i] === 4) return l3[i] + upperNumber(i32[l3[i] >> 2]);
    return l3[i] + IPV6_BYTES + upperNumber(i32[(l3[i] + Ipv6At.payloadLength) >> 2] << 16);
  }

  /**
   * Writes the number at byte `at`. If `at` is odd, the number spans two of the words that the
   * checksum adds up.
   */
  function write(header: number, at: number, value: number): void {
    const first = at >> 1;
    const last = (at + 1) >> 1;
    const before = u16[first];
    const beforeLast = u16[last];
    if (first === last) u16[first] = swap16(value);
    else {
      u8[at] = value >>> 8;
      u8[at + 1] = value;
    }
    let change = difference16(before, u16[first]);
    if (first !== last) change += difference16(beforeLast, u16[last]);
    const sum = (header + TcpAt.checksum) >> 1;
    u16[sum] = update(u16[sum], change);
  }

  return clamp;
}
