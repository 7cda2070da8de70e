/**
 * Keys of flow tables, filled from a packet: addresses, ports and protocol as raw words (see
 * batch.ts).
 *
 *     IPv4, KEY_WORDS_IPV4_FIVE_TUPLE   source 1, destination 1, port pair 1, protocol and link 1
 *     IPv6, KEY_WORDS_IPV6_FIVE_TUPLE   source 4, destination 4, port pair 1, protocol and link 1
 *
 * The last word is `protocol | link << 8`: equal addresses on two VLANs of a wire are two flows.
 *
 * The *reply* key is the key of a packet in the other direction: addresses and ports are exchanged.
 */

import type { Batch } from './batch.js';

/** Words of an IPv6 header before its source and before its destination address. */
const SOURCE = 2;
const DESTINATION = 6;

/**
 * Each method writes a key of packet `i` into `out[at …]`. The packet must be of that IP version,
 * and `skips` must be false for it.
 */
export interface PacketKeys {
  ipv4(i: number, out: Int32Array, at: number): void;
  ipv4Reply(i: number, out: Int32Array, at: number): void;
  ipv6(i: number, out: Int32Array, at: number): void;
  ipv6Reply(i: number, out: Int32Array, at: number): void;
  /** Writes the four words of an IPv6 address. */
  ipv6Source(i: number, out: Int32Array, at: number): void;
  ipv6Destination(i: number, out: Int32Array, at: number): void;
}

/** Made once per middlebox, when it is opened: see the head of batch.ts. */
export function packetKeys(batch: Batch): PacketKeys {
  const { l3, source, destination, ports, protocol, link } = batch;
  const { i32 } = batch.memory;

  function ipv4(i: number, out: Int32Array, at: number): void {
    out[at] = source[i];
    out[at + 1] = destination[i];
    out[at + 2] = ports[i];
    out[at + 3] = protocol[i] | (link[i] << 8);
  }

  function ipv4Reply(i: number, out: Int32Array, at: number): void {
    out[at] = destination[i];
    out[at + 1] = source[i];
    out[at + 2] = exchanged(ports[i]);
    out[at + 3] = protocol[i] | (link[i] << 8);
  }

  function copyAddress(from: number, out: Int32Array, at: number): void {
    out[at] = i32[from];
    out[at + 1] = i32[from + 1];
    out[at + 2] = i32[from + 2];
    out[at + 3] = i32[from + 3];
  }

  function ipv6(i: number, out: Int32Array, at: number): void {
    const header = l3[i] >> 2;
    copyAddress(header + SOURCE, out, at);
    copyAddress(header + DESTINATION, out, at + 4);
    out[at + 8] = ports[i];
    out[at + 9] = protocol[i] | (link[i] << 8);
  }

  function ipv6Reply(i: number, out: Int32Array, at: number): void {
    const header = l3[i] >> 2;
    copyAddress(header + DESTINATION, out, at);
    copyAddress(header + SOURCE, out, at + 4);
    out[at + 8] = exchanged(ports[i]);
    out[at + 9] = protocol[i] | (link[i] << 8);
  }

  return {
    ipv4,
    ipv4Reply,
    ipv6,
    ipv6Reply,
    ipv6Source: (i, out, at) => copyAddress((l3[i] >> 2) + SOURCE, out, at),
    ipv6Destination: (i, out, at) => copyAddress((l3[i] >> 2) + DESTINATION, out, at),
  };
}

/** The raw port pair of a packet in the other direction. */
export function exchanged(ports: number): number {
  return (ports << 16) | (ports >>> 16);
}
