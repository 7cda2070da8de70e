/** Converts a packet of the batch to the words that rules match (`PACKET` of program.ts). */

import { type Batch, Fragment, hasPorts, Protocol } from '../../api/api.js';
import { NO_QUERY, queryOf } from './icmp.js';
import { PACKET } from './program.js';

const { source, destination, sport, dport, protocol, icmpType, icmpCode, dscp, flags, inPort, outPort, nextHeader } =
  PACKET;
const { TCP, ICMP, ICMPV6 } = Protocol;
const NOT_THERE = -1;
const IPV6_BYTES = 40;
const FRAGMENT_HEADER = 44;
const SOURCE_IPV6 = 2;
const DESTINATION_IPV6 = 6;

/** Converts a raw address word to host order, biased. */
function host(raw: number): number {
  return ((((raw & 0xff) << 24) | ((raw & 0xff00) << 8) | ((raw >>> 8) & 0xff00) | (raw >>> 24)) ^ 0x8000_0000) | 0;
}

function portNumber(raw: number): number {
  return ((raw & 0xff) << 8) | ((raw >>> 8) & 0xff);
}

export interface PacketWords {
  /**
   * Fills in packet `i`. If `reversed`, fills in the packet as it would be in the other direction.
   * The caller sets the state.
   */
  fill(i: number, reversed: boolean): void;
}

/** Made once per worker: see the head of batch.ts. */
export function createPacketWords(batch: Batch, words: Int32Array): PacketWords {
  const { l3, l4, version, source: sources, destination: destinations, ports, egress, port, fragment } = batch;
  const { i32, u8 } = batch.memory;

  function fill(i: number, reversed: boolean): void {
    const from = reversed ? destination : source;
    const to = reversed ? source : destination;
    if (version[i] === 4) {
      words[from] = host(sources[i]);
      words[to] = host(destinations[i]);
    } else {
      const header = l3[i] >> 2;
      for (let n = 0; n < 4; n++) {
        words[from + n] = host(i32[header + SOURCE_IPV6 + n]);
        words[to + n] = host(i32[header + DESTINATION_IPV6 + n]);
      }
    }
    const carried = batch.protocol[i];
    if (hasPorts(carried)) {
      words[reversed ? dport : sport] = portNumber(ports[i] & 0xffff);
      words[reversed ? sport : dport] = portNumber(ports[i] >>> 16);
    } else {
      // As in nftables, `th sport` and `th dport` are the first bytes of the transport header of
      // any protocol.
      const isThere = !reversed && hasFirstWord(i);
      const first = isThere ? i32[l4[i] >> 2] : 0;
      words[sport] = isThere ? portNumber(first & 0xffff) : NOT_THERE;
      words[dport] = isThere ? portNumber(first >>> 16) : NOT_THERE;
    }
    words[nextHeader] = version[i] === 4 ? 0 : firstHeader(l3[i] >> 2);
    words[protocol] = carried;
    const isIcmp = carried === ICMP || carried === ICMPV6;
    words[icmpType] = isIcmp ? typeOf(batch.flags[i], carried, reversed) : 0;
    words[icmpCode] = isIcmp ? u8[l4[i] + 1] : 0;
    words[dscp] = version[i] === 4 ? u8[l3[i] + 1] >>> 2 : ((u8[l3[i]] & 0xf) << 2) | (u8[l3[i] + 1] >>> 6);
    words[flags] = carried === TCP ? batch.flags[i] : 0;
    words[reversed ? outPort : inPort] = port[i];
    words[reversed ? inPort : outPort] = egress[i];
  }

  /**
   * Returns the first next header of the IPv6 packet at word `at`. As in the kernel, a fragment
   * counts as the whole packet, so a leading fragment header is skipped.
   */
  function firstHeader(at: number): number {
    const first = (i32[at + 1] >>> 16) & 0xff;
    return first === FRAGMENT_HEADER ? i32[at + IPV6_BYTES / 4] & 0xff : first;
  }

  /** Returns true if packet `i` has four bytes after its last IP header. */
  function hasFirstWord(i: number): boolean {
    if (fragment[i] === Fragment.LATER) return false;
    const header = l3[i] >> 2;
    const bytes = version[i] === 4 ? portNumber(i32[header] >>> 16) : IPV6_BYTES + portNumber(i32[header + 1] & 0xffff);
    return l4[i] + 4 <= l3[i] + bytes;
  }

  /** In the other direction, a reply becomes its query. */
  function typeOf(type: number, carried: number, reversed: boolean): number {
    const query = reversed ? queryOf(type, carried) : NO_QUERY;
    return query === NO_QUERY ? type : query;
  }

  return { fill };
}
