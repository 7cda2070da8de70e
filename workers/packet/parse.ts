/**
 * Parsing: fills the header columns of a batch. Malformed packets are dropped and counted by
 * reason.
 *
 * After `parse`, a packet of the batch is one of
 *
 * - dropped.
 * - bypassing (wire mode only): a control protocol of the link, or another frame that parse-link.ts
 *   lets bypass the middleboxes.
 * - whole and consistent: every header up to the transport header is within the packet, and the
 *   packet is within the frame. So later code does not check lengths again. The frame may have
 *   padding after the packet's end.
 *
 * Transport checksums are not verified here. Middleboxes update them incrementally, so a wrong
 * checksum stays wrong, and the receiver detects it.
 */

import type { Mode } from '../../options/middlebox.js';
import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import type { Batch } from './batch.js';
import { fold, halves } from './checksum.js';
import { ETHERNET_BYTES, EtherType } from './ethernet.js';
import { Fragment } from './fragment.js';
import { checkIpv4Options, OPTIONS_MALFORMED, OPTIONS_SOURCE_ROUTE } from './header-options.js';
import { JUMBO_BYTES } from './memory.js';
import { createIpv6Parser, IPV6_DROPS } from './parse-ipv6.js';
import { createLinkParser, FRAME_DEFAULTS, type FrameSettings, LINK_COUNTERS, LINK_DROPS } from './parse-link.js';
import { createTransportParser, isHeaderCut, TRANSPORT_DROPS } from './parse-transport.js';
import type { Peers } from './ports.js';

const PARSE_DROPS = {
  parse_frame_bounds:
    'dropped: the frame reaches past its chunk of packet memory, or does not start where frames start',
  ...LINK_DROPS,
  parse_ipv4_truncated: 'dropped: the frame ends within its IPv4 header',
  parse_ipv4_version: 'dropped: the version of what the frame calls IPv4 is not 4',
  parse_ipv4_header_length: 'dropped: the IPv4 header length is below 5 words or more than the packet',
  parse_ipv4_total_length: 'dropped: the IPv4 total length is more than the frame holds',
  parse_ipv4_checksum: 'dropped: the IPv4 header checksum is wrong',
  parse_ipv4_options: 'dropped: an IPv4 option has length 0 or 1, or reaches past the header',
  parse_source_route: 'dropped: a source route, of IPv4 options or of an IPv6 routing header, with source_routes: drop',
  parse_ipv4_fragment: 'dropped: an IPv4 fragment of a length or offset that no datagram is cut into',
  ...IPV6_DROPS,
  ...TRANSPORT_DROPS,
} as const;

export const PARSE_METRICS: Metric[] = counterMetrics({ ...PARSE_DROPS, ...LINK_COUNTERS });

export type { Mode };

// Constants of this file: the optimiser folds those, but not imported ones.
const ETHERNET = ETHERNET_BYTES;
const TYPE_IPV4 = EtherType.IPV4;
const TYPE_IPV6 = EtherType.IPV6;
const IPV4_MIN = 20;
const MORE = 0x2000;
const OFFSET = 0x1fff;
const WHOLE = Fragment.WHOLE;
const FIRST = Fragment.FIRST;
const LATER = Fragment.LATER;
const SHORT = Fragment.SHORT;

interface Parser {
  /** Parses every packet of the batch. */
  parse(): void;
  /** Parses packet `i` again. */
  reparse(i: number): void;
}

/**
 * Made once per data plane: see the head of batch.ts. `peers` gives the default egress, by arrival
 * port.
 */
export function createParser(
  batch: Batch,
  mode: Mode,
  peers: Peers,
  catalogue: MetricCatalogue,
  settings: FrameSettings = FRAME_DEFAULTS,
): Parser {
  const { start, length, port, egress, version, l3, l4, protocol, fragment, source, destination, ports, flags } = batch;
  const { link, lengthAt } = batch;
  const { u8, u16, i32, chunkBytes, jumboAt } = batch.memory;
  const memoryBytes = u8.length;
  const passesSourceRoutes = settings.sourceRoutes === 'pass';
  const wire = mode === 'wire';
  const drops = columnsOf(catalogue, PARSE_DROPS);
  const parseTransport = createTransportParser(batch, drops);
  const parseIpv6 = createIpv6Parser(batch, wire, settings, drops, parseTransport);
  const parseLink = createLinkParser({ batch, wire, settings, catalogue, parseIpv4: ipv4, parseIpv6 });

  function parse(): void {
    batch.fragments = 0;
    for (let i = 0; i < batch.count; i++) packet(i);
  }

  function packet(i: number): void {
    egress[i] = peers[port[i]];
    frame(i);
  }

  /** Whether a frame ends in the buffer that it begins in. */
  function isWithin(from: number, bytes: number): boolean {
    const room = from < jumboAt ? chunkBytes : JUMBO_BYTES;
    return (from & (room - 1)) + bytes <= room;
  }

  function frame(i: number): void {
    link[i] = 0;
    lengthAt[i] = 0;
    const from = start[i];
    const bytes = length[i];
    if ((from & 3) !== 2 || !isWithin(from, bytes) || from >>> 0 > memoryBytes)
      return batch.drop(i, drops.parse_frame_bounds);
    if (bytes < ETHERNET) return batch.drop(i, drops.parse_frame_truncated);
    const at = from + ETHERNET;
    const type = u16[(at - 2) >> 1];
    if (type === TYPE_IPV4) ipv4(i, at, bytes - ETHERNET);
    else if (type === TYPE_IPV6) parseIpv6(i, at, bytes - ETHERNET);
    else parseLink(i, from, bytes, type);
  }

  function ipv4(i: number, at: number, room: number): void {
    if (room < IPV4_MIN) return batch.drop(i, drops.parse_ipv4_truncated);
    const word = at >> 2;
    const first = i32[word];
    if ((first & 0xf0) !== 0x40) return batch.drop(i, drops.parse_ipv4_version);
    const total = ((first >>> 8) & 0xff00) | (first >>> 24);
    const headerBytes = (first & 0x0f) << 2;
    if (headerBytes < IPV4_MIN || headerBytes > total) return batch.drop(i, drops.parse_ipv4_header_length);
    if (total > room) return batch.drop(i, drops.parse_ipv4_total_length);
    if (headerSum(word, headerBytes) !== 0xffff) return batch.drop(i, drops.parse_ipv4_checksum);
    if (headerBytes !== IPV4_MIN && !hasGoodOptions(i, at + IPV4_MIN, at + headerBytes)) return;

    const header = (i32[word + 2] >>> 8) & 0xff;
    const behind = at + headerBytes;
    version[i] = 4;
    l3[i] = at;
    l4[i] = behind;
    protocol[i] = header;
    source[i] = i32[word + 3];
    destination[i] = i32[word + 4];
    fragment[i] = WHOLE;

    const second = i32[word + 1];
    const field = ((second >>> 8) & 0xff00) | (second >>> 24);
    if ((field & (MORE | OFFSET)) !== 0) return fragmented(i, field, behind, total - headerBytes);
    parseTransport(i, header, behind, total - headerBytes, true);
  }

  /**
   * Checks the options from byte `from` to `end`. If they must not pass, drops the packet and
   * returns false.
   */
  function hasGoodOptions(i: number, from: number, end: number): boolean {
    const found = checkIpv4Options(u8, from, end);
    if (found === OPTIONS_MALFORMED) batch.drop(i, drops.parse_ipv4_options);
    else if (found === OPTIONS_SOURCE_ROUTE && !passesSourceRoutes) batch.drop(i, drops.parse_source_route);
    else return true;
    return false;
  }

  function fragmented(i: number, field: number, at: number, bytes: number): void {
    const offset = (field & OFFSET) << 3;
    const more = (field & MORE) !== 0;
    // All fragments but the last are multiples of 8 bytes, and no datagram exceeds 65535 bytes. A
    // fragment that would overwrite an inspected header (RFC 1858 §4) overlaps it, so
    // packet/datagrams.ts refuses it.
    if (bytes === 0 || (more && (bytes & 7) !== 0) || offset + bytes > 0xffff)
      return batch.drop(i, drops.parse_ipv4_fragment);
    batch.fragments++;
    if (offset === 0 && !isHeaderCut(protocol[i], u8, at, bytes)) {
      fragment[i] = FIRST;
      parseTransport(i, protocol[i], at, bytes, false);
    } else {
      fragment[i] = offset === 0 ? SHORT : LATER;
      ports[i] = 0;
      flags[i] = 0;
    }
  }

  /**
   * Ones' complement sum over a header that begins at `word`, including its checksum. 0xffff if the
   * checksum is right.
   */
  function headerSum(word: number, headerBytes: number): number {
    let sum = halves(i32[word]) + halves(i32[word + 1]) + halves(i32[word + 2]);
    sum += halves(i32[word + 3]) + halves(i32[word + 4]);
    const end = word + (headerBytes >> 2);
    for (let option = word + 5; option < end; option++) sum += halves(i32[option]);
    return fold(sum);
  }

  return { parse, reparse: packet };
}
