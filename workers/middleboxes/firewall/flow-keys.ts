/**
 * Keys of the connection table. Both directions of a connection have the same key.
 *
 *     end of side 0, end of side 1   an address each
 *     port word                      both ports; of an ICMP query: identifier | type of its request << 16 | requester's side << 24
 *     protocol | link << 8           the link is the VLAN of a wire (batch.ts)
 *
 * **Sides.** The two ends of a connection are behind different ports of the instance. The egress
 * port of a packet tells its side. A packet that arrives at the wrong port leaves by the other one,
 * so it has the key of another connection, and the rules must accept it by itself. Side 0 is behind
 * the port whose name sorts first, so sites agree if their ports have the same names. The egress
 * port is used instead of the ingress port because a NAT behind the firewall may hairpin packets.
 * Without `bind_ports`, side 0 is the end with the smaller raw address, then port.
 *
 * ICMP and ICMPv6 messages other than queries and their replies, and group membership (IGMP), have
 * no key and are never looked up: see `isTracked`.
 */

import { type Batch, Protocol, type Quoted } from '../../api/api.js';
import { isReply, NO_QUERY, queryOf } from './icmp.js';

const { ICMP, ICMPV6 } = Protocol;
const IGMP = 2;
const PORTS = 2;

interface FlowKeys {
  /** Returns true if packet `i` can belong to a connection. */
  isTracked(i: number): boolean;
  /** Writes the key of packet `i` to `out[at …]`. Returns the packet's side. */
  ipv4(i: number, out: Int32Array, at: number): number;
  ipv6(i: number, out: Int32Array, at: number): number;
  /**
   * Writes the key of the connection that ICMP error `i` is about. `quoted` must hold the packet
   * that the error quotes.
   */
  quoted(i: number, quoted: Quoted, out: Int32Array): void;
}

/** Offsets in the IPv6 header, in words. */
const SOURCE = 2;
const DESTINATION = 6;

/** Side of the packets that leave by each port. If it is empty, addresses tell the side. */
export function sidesByPort(ports: readonly string[], isBound: boolean): Int32Array {
  if (!isBound || ports.length !== PORTS) return new Int32Array(0);
  return ports[0] < ports[1] ? Int32Array.of(1, 0) : Int32Array.of(0, 1);
}

/** Made once per worker: see the head of batch.ts. `sides` is the result of `sidesByPort`. */
export function createFlowKeys(batch: Batch, sides: Int32Array): FlowKeys {
  const { l3, version, source, destination, ports, protocol, link, flags, egress } = batch;
  const { i32 } = batch.memory;
  const bound = sides.length;

  function isTracked(i: number): boolean {
    const carried = protocol[i];
    if (carried === ICMP || carried === ICMPV6)
      return queryOf(flags[i], carried) !== NO_QUERY && (carried === ICMPV6) === (version[i] === 6);
    return carried !== IGMP;
  }

  function isLarger(difference: number, pair: number): boolean {
    return difference > 0 || (difference === 0 && (pair & 0xffff) > pair >>> 16);
  }

  function portWord(pair: number, carried: number, type: number, side: number): number {
    if (carried === ICMP || carried === ICMPV6) {
      const requester = isReply(type, carried) ? 1 - side : side;
      return (pair & 0xffff) | (queryOf(type, carried) << 16) | (requester << 24);
    }
    return side === 0 ? pair : (pair << 16) | (pair >>> 16);
  }

  function ipv4(i: number, out: Int32Array, at: number): number {
    const from = source[i];
    const to = destination[i];
    const pair = ports[i];
    const leaves = egress[i];
    const side = leaves < bound ? sides[leaves] : Number(isLarger(from - to, pair));
    out[at] = side === 0 ? from : to;
    out[at + 1] = side === 0 ? to : from;
    out[at + 2] = portWord(pair, protocol[i], flags[i], side);
    out[at + 3] = protocol[i] | (link[i] << 8);
    return side;
  }

  function ipv6(i: number, out: Int32Array, at: number): number {
    const header = l3[i] >> 2;
    const pair = ports[i];
    const leaves = egress[i];
    const side = leaves < bound ? sides[leaves] : Number(isLarger(compare(i32, header + SOURCE, 4), pair));
    const first = header + (side === 0 ? SOURCE : DESTINATION);
    const second = header + (side === 0 ? DESTINATION : SOURCE);
    for (let word = 0; word < 4; word++) {
      out[at + word] = i32[first + word];
      out[at + 4 + word] = i32[second + word];
    }
    out[at + 8] = portWord(pair, protocol[i], flags[i], side);
    out[at + 9] = protocol[i] | (link[i] << 8);
    return side;
  }

  /** Compares two adjacent addresses. The sign of the result tells which one is larger. */
  function compare(words: Int32Array, at: number, length: number): number {
    let n = 0;
    while (n < length - 1 && words[at + n] === words[at + length + n]) n++;
    return words[at + n] - words[at + length + n];
  }

  function quotedKey(i: number, quoted: Quoted, out: Int32Array): void {
    const words = quoted.version === 4 ? 1 : 4;
    quoted.key(out, 0);
    const leaves = egress[i];
    // The error goes in the opposite direction.
    const side = leaves < bound ? 1 - sides[leaves] : Number(isLarger(compare(out, 0, words), quoted.ports));
    if (side === 1) quoted.replyKey(out, 0);
    out[2 * words] = portWord(quoted.ports, quoted.protocol, quoted.type, side);
  }

  return { isTracked, ipv4, ipv6, quoted: quotedKey };
}
