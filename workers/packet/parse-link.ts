/**
 * The link layer of frames that are not plain IP over Ethernet II: VLAN tags, 802.3 with LLC and
 * SNAP (RFC 1042), and PPPoE sessions (RFC 2516).
 *
 *     Ethernet 14 | tags 0–4 × 4 | IP
 *                                | LLC and SNAP 8 | IP
 *                                | PPPoE and PPP 8 | IP
 *
 * The length of each is a multiple of 4 bytes, so the IP header stays on a word boundary. In wire
 * mode, a frame without an IP packet is one of
 *
 * - control: protocols that maintain the link itself and carry no payload of hosts. They bypass the
 *   middleboxes.
 * - unknown: frames that may carry a payload that no middlebox can inspect. `unknown_ethertypes`
 *   decides.
 */

import type { MetricCatalogue } from '../../shm/metrics.js';
import { columnsOf } from '../base/counters.js';
import type { Batch } from './batch.js';
import { ETHERNET_BYTES, EtherType, LENGTH_MAX } from './ethernet.js';
import { swap16 } from './ipv4.js';
import { isVlan, linkBehind, mixedLink, VLAN_BYTES, VLAN_ID, VLAN_TAGS_MAX } from './vlan.js';

/** The operator's settings for frames. They apply before any middlebox sees the frames. */
export interface FrameSettings {
  /**
   * Wire mode. `separate`: equal addresses on different VLANs are different hosts. `together`: tags
   * are ignored.
   */
  readonly vlans: 'separate' | 'together';
  /** Wire mode: what happens to frames that may carry a payload that cannot be inspected. */
  readonly unknownEthertypes: 'pass' | 'drop';
  /** Both modes: what happens to packets with a source route. */
  readonly sourceRoutes: 'pass' | 'drop';
}

export const FRAME_DEFAULTS: FrameSettings = { vlans: 'separate', unknownEthertypes: 'drop', sourceRoutes: 'drop' };

export const LINK_DROPS = {
  parse_frame_truncated: 'dropped: the frame ends within its Ethernet header or a VLAN tag',
  parse_not_ip: 'dropped: neither IPv4 nor IPv6 (route mode)',
  parse_llc_length: 'dropped: the 802.3 length is more than the frame holds, or less than an LLC header',
  parse_pppoe: 'dropped: a PPPoE session frame of another version or code, or one that lies about its length',
  parse_unknown_ethertype:
    'dropped: a frame whose payload cannot be inspected, with unknown_ethertypes: drop (wire mode)',
} as const;

export const LINK_COUNTERS = {
  link_control: 'frames of protocols that keep the link going (ARP, LLDP, spanning tree), passed unseen (wire mode)',
  unknown_ethertype_passed: 'frames passed unseen that cannot be inspected, with unknown_ethertypes: pass (wire mode)',
} as const;

/** Control protocols by type, in host order. */
const CONTROL_TYPES = new Set([
  0x0806, // ARP
  0x8035, // RARP: announcements of moved virtual machines
  0x8808, // MAC control
  0x8809, // slow protocols: link aggregation
  0x8863, // PPPoE discovery
  0x888e, // 802.1X
  0x88cc, // LLDP
  0x88f5, // MVRP
  0x88f6, // MMRP
  0x88f7, // precision time
  0x8902, // connectivity fault management
  0x9000, // loopback
]);

/** Parts of the destination address, raw. */
const CONTROL_GROUP_LOW = 0x8001; // 01:80 …
const CONTROL_GROUP_HIGH = 0x0000_00c2; // … c2:00:00:0x (IEEE 802.1Q, table 8-1)
const CISCO_LOW = 0x0001; // 01:00 …
const CISCO_HIGH = 0xcccc_cc0c | 0; // … 0c:cc:cc:cc, and cd: CDP, VTP, per-VLAN spanning tree
const CISCO_TREE_HIGH = 0xcdcc_cc0c | 0;

const ETHERNET = ETHERNET_BYTES;
const TYPE_IPV4 = EtherType.IPV4;
const TYPE_IPV6 = EtherType.IPV6;
const LLC_BYTES = 3;
/** Length of the LLC header with the organisation code and the type. */
const SNAP_BYTES = 8;
/** AA AA 03, and the first byte of organisation code 0. */
const SNAP = 0x0003_aaaa;
const PPPOE_BYTES = 6;
const PPP_BYTES = 2;
/** Version 1, type 1, code 0: session data (RFC 2516 §4). Raw. */
const PPPOE_DATA = 0x0011;
/** Raw. */
const PPP_IPV4 = 0x2100;
const PPP_IPV6 = 0x5700;
/** Bit that separates session numbers from the VLAN ids that are mixed into a link. */
const SESSION = 0x1_0000;

interface LinkParserParts {
  readonly batch: Batch;
  readonly wire: boolean;
  readonly settings: FrameSettings;
  readonly catalogue: MetricCatalogue;
  /**
   * Each parses packet `i`, whose IP header is at byte `at`. The frame has `room` bytes from there
   * on.
   */
  parseIpv4(i: number, at: number, room: number): void;
  parseIpv6(i: number, at: number, room: number): void;
}

/** Parses packet `i`, a frame of `bytes` bytes at `from` with the raw type `type`. */
type LinkParser = (i: number, from: number, bytes: number, type: number) => void;

/** Made once per data plane: see the head of batch.ts. */
export function createLinkParser(parts: LinkParserParts): LinkParser {
  const { batch, wire, settings, catalogue, parseIpv4, parseIpv6 } = parts;
  const { start, egress, link, lengthAt } = batch;
  const { u8, u16, i32 } = batch.memory;
  const isSeparate = wire && settings.vlans === 'separate';
  const passesUnknown = settings.unknownEthertypes === 'pass';
  const columns = columnsOf(catalogue, { ...LINK_DROPS, ...LINK_COUNTERS });
  const isControlType = new Uint8Array(0x1_0000);
  for (const type of CONTROL_TYPES) isControlType[swap16(type)] = 1;

  function parse(i: number, from: number, bytes: number, outer: number): void {
    let at = from + ETHERNET;
    let type = outer;
    let ids = 0;
    for (let tags = 0; isVlan(type); tags++) {
      if (tags === VLAN_TAGS_MAX) return unknown(i);
      if (at + VLAN_BYTES - from > bytes) return batch.drop(i, columns.parse_frame_truncated);
      ids = linkBehind(ids, tags, swap16(u16[at >> 1]) & VLAN_ID);
      type = u16[(at + 2) >> 1];
      at += VLAN_BYTES;
    }
    if (isSeparate) link[i] = ids;
    const room = bytes - (at - from);
    if (type === TYPE_IPV4) parseIpv4(i, at, room);
    else if (type === TYPE_IPV6) parseIpv6(i, at, room);
    else if (!wire) batch.drop(i, columns.parse_not_ip);
    else if (type === EtherType.PPPOE_SESSION) pppoe(i, at, room, ids);
    else if (swap16(type) <= LENGTH_MAX) llc(i, at, room, swap16(type));
    else other(i, type);
  }

  /** Bytes after the first `bytes` are padding. */
  function llc(i: number, at: number, room: number, bytes: number): void {
    if (bytes > room || bytes < LLC_BYTES) return batch.drop(i, columns.parse_llc_length);
    const isSnap = bytes >= SNAP_BYTES && i32[at >> 2] === SNAP && u16[(at + 4) >> 1] === 0;
    if (!isSnap) return other(i, 0);
    lengthAt[i] = at - 2;
    const type = u16[(at + 6) >> 1];
    if (type === TYPE_IPV4) parseIpv4(i, at + SNAP_BYTES, bytes - SNAP_BYTES);
    else if (type === TYPE_IPV6) parseIpv6(i, at + SNAP_BYTES, bytes - SNAP_BYTES);
    else other(i, type);
  }

  function pppoe(i: number, at: number, room: number, ids: number): void {
    if (room < PPPOE_BYTES + PPP_BYTES) return batch.drop(i, columns.parse_pppoe);
    const bytes = swap16(u16[(at + 4) >> 1]);
    if (u16[at >> 1] !== PPPOE_DATA || bytes < PPP_BYTES || bytes > room - PPPOE_BYTES)
      return batch.drop(i, columns.parse_pppoe);
    if (isSeparate) link[i] = mixedLink(ids, SESSION | u16[(at + 2) >> 1]);
    lengthAt[i] = at + 4;
    const behind = at + PPPOE_BYTES + PPP_BYTES;
    const carried = u16[(behind - PPP_BYTES) >> 1];
    if (carried === PPP_IPV4) parseIpv4(i, behind, bytes - PPP_BYTES);
    else if (carried === PPP_IPV6) parseIpv6(i, behind, bytes - PPP_BYTES);
    else if (isPppControl(carried & 0xff)) control(i);
    else unknown(i);
  }

  /**
   * Whether a PPP protocol with this first byte is a control protocol. From 0x80 on, protocols
   * negotiate the link or a network protocol (RFC 1661 §2). An odd byte is a protocol number
   * compressed to one byte, which is never a control protocol.
   */
  function isPppControl(first: number): boolean {
    return first >= 0x80 && (first & 1) === 0;
  }

  function other(i: number, type: number): void {
    if (isControlType[type] === 1 || isToControlGroup(start[i])) control(i);
    else unknown(i);
  }

  /**
   * Whether the destination is a group address that bridges do not forward. Hosts do not use such
   * addresses for payload.
   */
  function isToControlGroup(from: number): boolean {
    const low = u16[from >> 1];
    const high = i32[(from + 2) >> 2];
    if (low === CONTROL_GROUP_LOW) return (high & 0x00ff_ffff) === CONTROL_GROUP_HIGH && u8[from + 5] < 0x10;
    return low === CISCO_LOW && (high === CISCO_HIGH || high === CISCO_TREE_HIGH);
  }

  function control(i: number): void {
    batch.bypass(i, egress[i]);
    batch.count1(columns.link_control);
  }

  function unknown(i: number): void {
    if (!wire) return batch.drop(i, columns.parse_not_ip);
    if (!passesUnknown) return batch.drop(i, columns.parse_unknown_ethertype);
    batch.bypass(i, egress[i]);
    batch.count1(columns.unknown_ethertype_passed);
  }

  return parse;
}
