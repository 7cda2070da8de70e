/**
 * ICMP errors about an IPv4 packet: time exceeded, and destination unreachable with its codes.
 *
 * The packet becomes the error, and goes back (packet/turn.ts). The error quotes the packet in its
 * current form. An error about the packet as it arrived must be made before any middlebox changes
 * it.
 *
 *     Ethernet (tags kept) | IPv4 20 | ICMP 8 | quoted: up to 576 bytes in all (RFC 1812 §4.3.2.3)
 *
 * No error is sent about an ICMP error or a later fragment, or to an address that is not a single
 * host (RFC 1812 §4.3.2.7). A worker sends at most `ERRORS_PER_SECOND` errors (§4.3.2.8).
 */

import type { Batch } from '../packet/batch.js';
import { ICMP_BYTES, IcmpType, isQuery } from '../packet/icmp.js';
import { IPV4_BYTES_MIN, Protocol, swap16, upperNumber } from '../packet/ipv4.js';
import type { Turn } from '../packet/turn.js';

const ERRORS_PER_SECOND = 1000;
export const ERRORS_IN_A_BURST = 50;

const HEADERS_BYTES = IPV4_BYTES_MIN + ICMP_BYTES;
const QUOTED_BYTES_MAX = 576 - HEADERS_BYTES;
/** Internetwork control precedence (RFC 1812 §4.3.2.5). */
const SERVICE = 0xc0;

const FRAGMENTATION_NEEDED = 4;

/** Limits the errors that a worker sends, both IP versions together. */
export interface ErrorLimit {
  /** Starts a round of the data plane at this Unix time in milliseconds. */
  begin(unixMs: number): void;
  /** Whether one more error may be sent. If so, counts it as sent. */
  take(): boolean;
}

export function createErrorLimit(): ErrorLimit {
  let nowMs = 0;
  let tokens = ERRORS_IN_A_BURST;
  let refilledMs = 0;

  function take(): boolean {
    const due = ((nowMs - refilledMs) * ERRORS_PER_SECOND) / 1000;
    if (due >= 1 || due < 0) {
      // If the clock was set back, nothing is refilled, and counting restarts from the new time.
      tokens = Math.min(ERRORS_IN_A_BURST, tokens + Math.max(0, Math.trunc(due)));
      refilledMs = nowMs;
    }
    if (tokens === 0) return false;
    tokens--;
    return true;
  }

  return {
    begin(unixMs) {
      nowMs = unixMs;
    },
    take,
  };
}

const INFORMATION_REQUEST = 15;
const ADDRESS_MASK_REPLY = 18;

/**
 * Each method turns packet `i` into an error and returns true. If no error may be sent, it returns
 * false and leaves the packet unchanged.
 */
export interface IcmpErrors {
  /** "Time to live exceeded in transit", from raw address `from`. */
  timeExceeded(i: number, from: number): boolean;
  /** "Fragmentation needed", naming the next hop's MTU (RFC 1191 §4). */
  fragmentationNeeded(i: number, from: number, mtu: number): boolean;
  /** "Destination unreachable", with a code of RFC 792 or RFC 1812 §5.2.7.1. */
  unreachable(i: number, from: number, code: number): boolean;
}

/** Made once per data plane: see the head of batch.ts. */
export function createIcmpErrors(batch: Batch, turn: Turn, limit: ErrorLimit): IcmpErrors {
  const { l3, source, protocol, flags } = batch;
  const { u8, i32 } = batch.memory;

  function isAllowed(i: number): boolean {
    if (!turn.isAnswerable(i)) return false;
    if (protocol[i] === Protocol.ICMP && !isAnswered(flags[i])) return false;
    return limit.take();
  }

  function build(i: number, from: number, typeAndCode: number, rest: number): boolean {
    const at = l3[i];
    const quoted = Math.min(upperNumber(i32[at >> 2]), QUOTED_BYTES_MAX);
    const total = HEADERS_BYTES + quoted;
    if (!turn.hasRoom(i, total) || !isAllowed(i)) return false;
    u8.copyWithin(at + HEADERS_BYTES, at, at + quoted);
    turn.header(i, total, Protocol.ICMP, SERVICE);
    const icmp = (at + IPV4_BYTES_MIN) >> 2;
    i32[icmp] = typeAndCode;
    i32[icmp + 1] = rest;
    turn.send(i, from, source[i]);
    return true;
  }

  return {
    timeExceeded: (i, from) => build(i, from, IcmpType.TIME_EXCEEDED, 0),
    fragmentationNeeded: (i, from, mtu) =>
      build(i, from, IcmpType.UNREACHABLE | (FRAGMENTATION_NEEDED << 8), swap16(mtu) << 16),
    unreachable: (i, from, code) => build(i, from, IcmpType.UNREACHABLE | ((code & 0xff) << 8), 0),
  };
}

/**
 * Whether an error may be sent about an ICMP message of this type. The types are queries and their
 * replies, including those that RFC 6918 deprecates. All other types are errors, or are unknown and
 * may be errors (RFC 1122 §3.2.2).
 */
function isAnswered(type: number): boolean {
  return isQuery(type) || (type >= INFORMATION_REQUEST && type <= ADDRESS_MASK_REPLY);
}
