/** Parses transport headers: checks their lengths and fills the batch's port and flag columns. */

import type { Batch } from './batch.js';
import { hasIdentifier, ICMP_BYTES } from './icmp.js';
import { Protocol } from './ipv4.js';
import { TCP_BYTES_MIN } from './tcp.js';
import { UDP_BYTES } from './udp.js';

export const TRANSPORT_DROPS = {
  parse_l4_truncated: 'dropped: the packet ends within its TCP, UDP, UDP-Lite, SCTP, DCCP or ICMP header',
  parse_tcp_offset: 'dropped: the TCP data offset is below 5 words or points past the packet',
  parse_udp_length: 'dropped: the UDP length is below 8 or more than the packet holds',
} as const;

// Constants of this file: the optimiser folds those, but not imported ones.
const TCP = Protocol.TCP;
const UDP = Protocol.UDP;
const ICMP = Protocol.ICMP;
const ICMPV6 = Protocol.ICMPV6;
const SCTP = Protocol.SCTP;
const UDP_LITE = Protocol.UDP_LITE;
const DCCP = Protocol.DCCP;
const TCP_MIN = TCP_BYTES_MIN;
const UDP_MIN = UDP_BYTES;
const ICMP_MIN = ICMP_BYTES;
/** Common header (RFC 9260 §3.1). */
const SCTP_MIN = 12;
/** RFC 3828 §3.1. */
const UDP_LITE_MIN = 8;
/** Header with short sequence numbers (RFC 4340 §5.1). */
const DCCP_MIN = 12;
const TCP_OFFSET_AND_FLAGS = 12;
const UDP_LENGTH = 4;
const ICMP_IDENTIFIER = 4;

type Drops = { readonly [Name in keyof typeof TRANSPORT_DROPS]: number };

/**
 * Whether `bytes` bytes at `at`, in a first fragment, end within a transport header that must be
 * complete.
 */
export function isHeaderCut(header: number, u8: Uint8Array, at: number, bytes: number): boolean {
  if (header === TCP) return bytes < TCP_MIN || (u8[at + TCP_OFFSET_AND_FLAGS] & 0xf0) >>> 2 > bytes;
  if (header === SCTP) return bytes < SCTP_MIN;
  return header === DCCP && bytes < DCCP_MIN;
}

/**
 * Parses packet `i`, which carries `bytes` bytes at `at`, beginning with a header of protocol
 * `header`. `whole`: it is not a fragment. A first fragment must contain the whole header (RFC
 * 1858, RFC 7112), because port-based decisions are impossible otherwise. First IPv4 fragments with
 * a cut header do not come here (`isHeaderCut`).
 */
export type TransportParser = (i: number, header: number, at: number, bytes: number, whole: boolean) => void;

/** Made once per data plane: see the head of batch.ts. */
export function createTransportParser(batch: Batch, drops: Drops): TransportParser {
  const { ports, flags } = batch;
  const { i32 } = batch.memory;

  function tcp(i: number, at: number, bytes: number): void {
    if (bytes < TCP_MIN) return batch.drop(i, drops.parse_l4_truncated);
    const word = i32[(at + TCP_OFFSET_AND_FLAGS) >> 2];
    const headerBytes = (word & 0xf0) >>> 2;
    if (headerBytes < TCP_MIN || headerBytes > bytes) return batch.drop(i, drops.parse_tcp_offset);
    ports[i] = i32[at >> 2];
    flags[i] = (word >>> 8) & 0xff;
  }

  function udp(i: number, at: number, bytes: number, whole: boolean): void {
    if (bytes < UDP_MIN) return batch.drop(i, drops.parse_l4_truncated);
    const word = i32[(at + UDP_LENGTH) >> 2];
    const length = ((word & 0xff) << 8) | ((word >>> 8) & 0xff);
    // In a fragmented datagram the UDP length covers all fragments, so it exceeds this one.
    if (length < UDP_MIN || (whole ? length > bytes : length < bytes)) return batch.drop(i, drops.parse_udp_length);
    ports[i] = i32[at >> 2];
    flags[i] = 0;
  }

  function icmp(i: number, header: number, at: number, bytes: number): void {
    if (bytes < ICMP_MIN) return batch.drop(i, drops.parse_l4_truncated);
    const type = i32[at >> 2] & 0xff;
    const identifier = hasIdentifier(header, type) ? i32[(at + ICMP_IDENTIFIER) >> 2] & 0xffff : 0;
    ports[i] = identifier | (identifier << 16);
    flags[i] = type;
  }

  function portsAlone(i: number, at: number, bytes: number, min: number): void {
    if (bytes < min) return batch.drop(i, drops.parse_l4_truncated);
    ports[i] = i32[at >> 2];
    flags[i] = 0;
  }

  return (i, header, at, bytes, whole) => {
    if (header === TCP) tcp(i, at, bytes);
    else if (header === UDP) udp(i, at, bytes, whole);
    else if (header === ICMP || header === ICMPV6) icmp(i, header, at, bytes);
    else if (header === SCTP) portsAlone(i, at, bytes, SCTP_MIN);
    else if (header === UDP_LITE) portsAlone(i, at, bytes, UDP_LITE_MIN);
    else if (header === DCCP) portsAlone(i, at, bytes, DCCP_MIN);
    else {
      ports[i] = 0;
      flags[i] = 0;
    }
  };
}
