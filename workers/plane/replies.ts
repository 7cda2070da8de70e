/**
 * Replies of middleboxes: the third verdict, besides forward and drop. The packet becomes its own
 * answer, in place, and leaves by the port it arrived by. Later middleboxes do not see it
 * (packet/turn.ts).
 *
 * A reply answers the packet in its current form. If its addresses were rewritten before, the reply
 * goes back through the middlebox that rewrote them (passage.ts).
 */

import type { PortBoardReader } from '../../shm/port-board.js';
import { type Replies, Unreachable } from '../api/replies.js';
import type { Batch } from '../packet/batch.js';
import { Fragment } from '../packet/fragment.js';
import { IcmpType, Icmpv6Type } from '../packet/icmp.js';
import { IPV4_BYTES_MIN, Protocol, upperNumber } from '../packet/ipv4.js';
import { IPV6_BYTES } from '../packet/ipv6.js';
import { TCP_BYTES_MIN, TcpFlag } from '../packet/tcp.js';
import { createTurn } from '../packet/turn.js';
import { createTurnIpv6 } from '../packet/turn-ipv6.js';
import { createErrorLimit, createIcmpErrors, type ErrorLimit, type IcmpErrors } from './icmp-errors.js';
import { createIcmpv6Errors, type Icmpv6Errors } from './icmpv6-errors.js';

/**
 * The corresponding ICMPv6 codes (RFC 4443 §3.1). A code without a counterpart becomes 1
 * (administratively prohibited).
 */
const UNREACHABLE_IPV6: readonly number[] = Object.assign(new Array(256).fill(1), {
  [Unreachable.NET]: 0,
  [Unreachable.HOST]: 3,
  [Unreachable.PORT]: 4,
});

export interface DataPlaneReplies extends Replies {
  readonly limit: ErrorLimit;
  readonly errors: IcmpErrors;
  readonly errors6: Icmpv6Errors;
}

/** `facts` gives the addresses of the ports. Made once per data plane: see the head of batch.ts. */
export function createReplies(batch: Batch, facts: PortBoardReader): DataPlaneReplies {
  const { hasAddress, address, hasAddress6, address6 } = facts;
  const { port, egress, version, l3, l4, fragment, protocol, flags, source, destination } = batch;
  const { i32, u8 } = batch.memory;
  const turning = createTurn(batch);
  const turning6 = createTurnIpv6(batch);
  const limit = createErrorLimit();
  const errors = createIcmpErrors(batch, turning, limit);
  const errors6 = createIcmpv6Errors(batch, turning6, limit);

  function isWhole(i: number): boolean {
    return egress[i] >= 0 && fragment[i] === Fragment.WHOLE && turning.isAnswerable(i);
  }

  function turn(i: number): boolean {
    const word = i32[l3[i] >> 2];
    const headerBytes = (word & 0x0f) << 2;
    const total = upperNumber(word);
    const isShort = headerBytes < IPV4_BYTES_MIN || headerBytes > total;
    if (!isWhole(i) || isShort || !turning.hasRoom(i, total)) return false;
    const at = (l3[i] + headerBytes) >> 2;
    if (hasPorts(u8[l3[i] + 9]) && headerBytes + 4 <= total) i32[at] = (i32[at] << 16) | (i32[at] >>> 16);
    turning.send(i, destination[i], source[i]);
    return true;
  }

  function isWholeIpv6(i: number): boolean {
    return egress[i] >= 0 && fragment[i] === Fragment.WHOLE && turning6.isAnswerable(i);
  }

  /** Whether the packet is whole and has no extension headers, which a reply would have to skip. */
  function isPlainIpv6(i: number): boolean {
    return l4[i] === l3[i] + IPV6_BYTES && isWholeIpv6(i);
  }

  function echo(i: number): boolean {
    if (version[i] === 6) return echo6(i);
    if (protocol[i] !== Protocol.ICMP || flags[i] !== IcmpType.ECHO || !isWhole(i)) return false;
    u8[l4[i]] = IcmpType.ECHO_REPLY;
    return turn(i);
  }

  function echo6(i: number): boolean {
    if (protocol[i] !== Protocol.ICMPV6 || flags[i] !== Icmpv6Type.ECHO || !isPlainIpv6(i)) return false;
    u8[l4[i]] = Icmpv6Type.ECHO_REPLY;
    turning6.send(i, Protocol.ICMPV6, payloadOf(i), l3[i], null, 0);
    return true;
  }

  function payloadOf(i: number): number {
    return upperNumber(i32[(l3[i] + 4) >> 2] << 16);
  }

  function reset(i: number): boolean {
    if (version[i] === 6 ? !isWholeIpv6(i) : !isWhole(i)) return false;
    const shown = flags[i];
    if (protocol[i] !== Protocol.TCP || (shown & TcpFlag.RST) !== 0) return false;
    const from = l4[i] >> 2;
    const ports = i32[from];
    const answersTo = (shown & TcpFlag.ACK) !== 0;
    const sequence = answersTo ? i32[from + 2] : 0;
    const acknowledged = answersTo ? 0 : swap32(swap32(i32[from + 1]) + segmentLength(i, shown));
    const headerBytes = version[i] === 6 ? IPV6_BYTES : IPV4_BYTES_MIN;
    if (version[i] === 4) turning.header(i, IPV4_BYTES_MIN + TCP_BYTES_MIN, Protocol.TCP, 0);
    const at = (l3[i] + headerBytes) >> 2;
    i32[at] = (ports << 16) | (ports >>> 16);
    i32[at + 1] = sequence;
    i32[at + 2] = acknowledged;
    i32[at + 3] = ((TCP_BYTES_MIN / 4) << 4) | ((answersTo ? TcpFlag.RST : TcpFlag.RST | TcpFlag.ACK) << 8);
    i32[at + 4] = 0;
    if (version[i] === 4) turning.send(i, destination[i], source[i]);
    else turning6.send(i, Protocol.TCP, TCP_BYTES_MIN, l3[i], null, 0);
    return true;
  }

  /** Sequence numbers that a segment takes: its data, and one each for SYN and FIN. */
  function segmentLength(i: number, shown: number): number {
    const end = version[i] === 4 ? l3[i] + upperNumber(i32[l3[i] >> 2]) : l3[i] + IPV6_BYTES + payloadOf(i);
    const data = l4[i] + ((u8[l4[i] + 12] & 0xf0) >>> 2);
    return end - data + (shown & TcpFlag.SYN ? 1 : 0) + (shown & TcpFlag.FIN ? 1 : 0);
  }

  function unreachable(i: number, code: number): boolean {
    if (egress[i] < 0) return false;
    const by = port[i];
    if (version[i] === 4) return errors.unreachable(i, hasAddress[by] === 1 ? address[by] : destination[i], code);
    return errors6.unreachable(i, hasAddress6[by] === 1 ? address6 : null, 4 * by, UNREACHABLE_IPV6[code & 0xff]);
  }

  return { turn, echo, reset, unreachable, limit, errors, errors6 };
}

function hasPorts(protocol: number): boolean {
  return protocol === Protocol.TCP || protocol === Protocol.UDP;
}

/** Converts a 32-bit number between raw and host order. */
function swap32(raw: number): number {
  return ((raw & 0xff) << 24) | ((raw & 0xff00) << 8) | ((raw >>> 8) & 0xff00) | (raw >>> 24);
}
