/**
 * Parsing: fills the header columns of a batch, and drops, counted by reason, what lies about itself.
 *
 * After `parse` a packet of the batch is one of
 * - dropped;
 * - bypassing (wire mode only): it is not IP, and goes on unseen by the middleboxes;
 * - whole and consistent: every header up to the transport header lies within the packet, and the packet within the
 *   frame, so nothing after this checks a length again. Bytes of the frame past the packet's end (padding) may be there.
 *
 * Transport checksums are not verified here: a middlebox updates them incrementally, so an error stays one, and the
 * receiver sees it.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import type { Batch } from '../batch.js';
import { type Columns, columnsOf, counterMetrics } from '../counters.js';
import { ETHERNET_BYTES, EtherType } from './ethernet.js';
import { Fragment } from './fragment.js';
import type { PacketMemory } from './memory.js';
import { IPV6_DROPS, Ipv6Parser } from './parse-ipv6.js';
import { TRANSPORT_DROPS, TransportParser } from './parse-transport.js';
import { isVlan, VLAN_BYTES, VLAN_TAGS_MAX } from './vlan.js';

export const PARSE_DROPS = {
  parse_frame_bounds:
    'dropped: the frame reaches past its chunk of packet memory, or does not start where frames start',
  parse_frame_truncated: 'dropped: the frame ends within its Ethernet header or a VLAN tag',
  parse_vlan_tags: 'dropped: more than two VLAN tags',
  parse_not_ip: 'dropped: neither IPv4 nor IPv6 (route mode)',
  parse_ipv4_truncated: 'dropped: the frame ends within its IPv4 header',
  parse_ipv4_version: 'dropped: the version of what the frame calls IPv4 is not 4',
  parse_ipv4_header_length: 'dropped: the IPv4 header length is below 5 words or more than the packet',
  parse_ipv4_total_length: 'dropped: the IPv4 total length is more than the frame holds',
  parse_ipv4_checksum: 'dropped: the IPv4 header checksum is wrong',
  parse_ipv4_fragment: 'dropped: an IPv4 fragment of a length or offset that no datagram is cut into',
  ...IPV6_DROPS,
  ...TRANSPORT_DROPS,
} as const;

export const PARSE_METRICS: Metric[] = counterMetrics(PARSE_DROPS);

/** What becomes of a frame that is not IP. */
export type Mode = 'wire' | 'route';

// As constants of this file: the optimiser folds those, but not imported ones.
const ETHERNET = ETHERNET_BYTES;
const TYPE_IPV4 = EtherType.IPV4;
const TYPE_IPV6 = EtherType.IPV6;
const IPV4_MIN = 20;
const MORE = 0x2000;
const OFFSET = 0x1fff;
const TCP = 6;
const WHOLE = Fragment.WHOLE;
const FIRST = Fragment.FIRST;
const LATER = Fragment.LATER;

export class Parser {
  private readonly u8: Uint8Array;
  private readonly u16: Uint16Array;
  private readonly i32: Int32Array;
  private readonly chunkBytes: number;
  private readonly wire: boolean;
  /** Where a packet goes if no middlebox says otherwise, by port it came in by. */
  private readonly peers: Int32Array;
  private readonly drops: Columns<typeof PARSE_DROPS>;
  private readonly transport: TransportParser;
  private readonly ipv6: Ipv6Parser;

  constructor(memory: PacketMemory, mode: Mode, peers: Int32Array, catalogue: MetricCatalogue) {
    this.u8 = memory.u8;
    this.u16 = memory.u16;
    this.i32 = memory.i32;
    this.chunkBytes = memory.chunkBytes;
    this.wire = mode === 'wire';
    this.peers = peers;
    this.drops = columnsOf(catalogue, PARSE_DROPS);
    this.transport = new TransportParser(memory, this.drops);
    this.ipv6 = new Ipv6Parser(memory, this.drops, this.transport);
  }

  parse(batch: Batch): void {
    for (let i = 0; i < batch.count; i++) {
      batch.egress[i] = this.peers[batch.port[i]];
      this.frame(batch, i);
    }
  }

  private frame(batch: Batch, i: number): void {
    const start = batch.start[i];
    const length = batch.length[i];
    if ((start & 3) !== 2 || (start & (this.chunkBytes - 1)) + length > this.chunkBytes || start >>> 0 > this.u8.length)
      return batch.drop(i, this.drops.parse_frame_bounds);
    if (length < ETHERNET) return batch.drop(i, this.drops.parse_frame_truncated);
    let l3 = start + ETHERNET;
    let type = this.u16[(l3 - 2) >> 1];
    if (type !== TYPE_IPV4 && isVlan(type)) {
      for (let tags = 0; isVlan(type); tags++) {
        if (tags === VLAN_TAGS_MAX) return batch.drop(i, this.drops.parse_vlan_tags);
        l3 += VLAN_BYTES;
        if (l3 - start > length) return batch.drop(i, this.drops.parse_frame_truncated);
        type = this.u16[(l3 - 2) >> 1];
      }
    }
    const room = length - (l3 - start);
    if (type === TYPE_IPV4) this.ipv4(batch, i, l3, room);
    else if (type === TYPE_IPV6) this.ipv6.parse(batch, i, l3, room);
    else if (this.wire) batch.bypass(i, batch.egress[i]);
    else batch.drop(i, this.drops.parse_not_ip);
  }

  private ipv4(batch: Batch, i: number, l3: number, room: number): void {
    if (room < IPV4_MIN) return batch.drop(i, this.drops.parse_ipv4_truncated);
    const i32 = this.i32;
    const at = l3 >> 2;
    const first = i32[at];
    if ((first & 0xf0) !== 0x40) return batch.drop(i, this.drops.parse_ipv4_version);
    const total = ((first >>> 8) & 0xff00) | (first >>> 24);
    const headerBytes = (first & 0x0f) << 2;
    if (headerBytes < IPV4_MIN || headerBytes > total) return batch.drop(i, this.drops.parse_ipv4_header_length);
    if (total > room) return batch.drop(i, this.drops.parse_ipv4_total_length);
    if (this.headerSum(at, headerBytes) !== 0xffff) return batch.drop(i, this.drops.parse_ipv4_checksum);

    const third = i32[at + 2];
    const protocol = (third >>> 8) & 0xff;
    const payload = total - headerBytes;
    const l4 = l3 + headerBytes;
    batch.version[i] = 4;
    batch.l3[i] = l3;
    batch.l4[i] = l4;
    batch.protocol[i] = protocol;
    batch.source[i] = i32[at + 3];
    batch.destination[i] = i32[at + 4];
    batch.fragment[i] = WHOLE;

    const second = i32[at + 1];
    const fragment = ((second >>> 8) & 0xff00) | (second >>> 24);
    if ((fragment & (MORE | OFFSET)) !== 0) return this.fragment(batch, i, fragment, l4, payload);
    this.transport.parse(batch, i, protocol, l4, payload, true);
  }

  private fragment(batch: Batch, i: number, field: number, l4: number, payload: number): void {
    const offset = (field & OFFSET) << 3;
    const more = (field & MORE) !== 0;
    // Fragments but the last are multiples of 8 bytes, and no datagram is longer than 65535. A TCP fragment at offset 8
    // would overwrite the flags of the header that was looked at (RFC 1858 §4).
    if (
      payload === 0 ||
      (more && (payload & 7) !== 0) ||
      offset + payload > 0xffff ||
      (offset === 8 && batch.protocol[i] === TCP)
    )
      return batch.drop(i, this.drops.parse_ipv4_fragment);
    if (offset === 0) {
      batch.fragment[i] = FIRST;
      this.transport.parse(batch, i, batch.protocol[i], l4, payload, false);
    } else {
      batch.fragment[i] = LATER;
      batch.ports[i] = 0;
      batch.flags[i] = 0;
    }
  }

  /** Ones' complement sum over a header that begins at word `at`, its checksum included: 0xffff when that is right. */
  private headerSum(at: number, headerBytes: number): number {
    const i32 = this.i32;
    const end = at + (headerBytes >> 2);
    let sum = 0;
    for (let word = at; word < end; word++) sum += (i32[word] & 0xffff) + (i32[word] >>> 16);
    sum = (sum & 0xffff) + (sum >>> 16);
    return (sum & 0xffff) + (sum >>> 16);
  }
}
