/**
 * The XDP program decides which frames of an interface go to the data plane. Everything else goes
 * on to the kernel, so the host's own traffic, ARP and neighbour discovery work as if nothing were
 * attached.
 *
 *     frame ─▶ to this interface? ─▶ untagged IPv4? ─▶ wanted? ─▶ socket of its rx queue
 *                      │ no                │ no           │ no         │ none bound
 *                      └───────────────────┴──────────────┴─▶ kernel   └─▶ dropped, counted
 *
 * **It never fails open.** While the program is attached, a frame for the data plane never goes to
 * the kernel, because the kernel would forward it past the middleboxes. If its queue has no socket,
 * because no worker is there or the queue was added at run time, the frame is dropped and counted.
 *
 * IPv6 is taken if a middlebox handles it: packets between other hosts that are valid beyond the
 * link. All other IPv6, above all neighbour discovery, has link-local or multicast addresses, or is
 * for this host.
 *
 * The IPv4 destination is compared with sorted address ranges, compiled into a search tree. A pool
 * of 256 consecutive addresses costs two comparisons, and a thousand scattered ones cost about ten.
 * No map is consulted.
 */

import { BpfAssembler, Register } from '../native/bpf-assembler.js';
import { XdpAction } from '../native/index.js';

const { R0, R1, R2, R3, R4, R5, R6 } = Register;

/**
 * The host's own IPv6 addresses, four raw words each. IPv6 to other hosts is taken. Absent: no IPv6
 * is taken.
 */
interface Ipv6Filter {
  readonly ipv6NotTo?: readonly Int32Array[] | undefined;
}

/** The frames that the data plane takes. Addresses are raw IPv4 words, as in batch.ts. */
export type XdpFilter =
  /** Every frame of any kind: only the data plane uses the port (`wire` mode). */
  | { readonly mode: 'all' }
  /** IPv4 to one of these addresses: the outside of a NAT. */
  | ({ readonly mode: 'to'; readonly addresses: readonly number[] } & Ipv6Filter)
  /**
   * IPv4 to any unicast address except these: the inside of a NAT, where they are the host's own.
   */
  | ({ readonly mode: 'not-to'; readonly addresses: readonly number[] } & Ipv6Filter);

/** First and last address, as numbers in host byte order. */
type Range = readonly [first: number, last: number];

/**
 * Most address ranges. More would make jumps too long. A NAT with more scattered addresses should
 * get them as blocks.
 */
export const RANGES_MAX = 4096;

/** Multicast, reserved and limited broadcast. Mode `not-to` never takes these. */
const NOT_UNICAST: Range = [0xe0_00_00_00, 0xff_ff_ff_ff];

/** Offsets into struct xdp_md (linux/bpf.h). */
const CONTEXT = { data: 0, dataEnd: 4, rxQueueIndex: 16 } as const;
const FRAME = { destinationMac: 0, etherType: 12, ipDestination: 30, bytesMin: 34 } as const;
const FRAME_IPV6 = { source: 22, destination: 38, bytesMin: 54 } as const;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
/**
 * The first 16 bits of link-local addresses (fe80::/10). All addresses above them are multicast or
 * not global either.
 */
const LINK_LOCAL = 0xfe80;
/** Most own addresses. More would make the program long: each costs a comparison per packet. */
const OWN_IPV6_MAX = 256;
const HELPER_REDIRECT_MAP = 51;

/**
 * The program's instructions.
 *
 * @param mac the interface's own address. Only frames to it are taken (except in mode `all`), so
 *   flooded frames, multicast and broadcast are left to the kernel.
 * @param mapFd the XSKMAP: sockets by queue
 * @param counterFd counts frames whose queue has no socket
 */
export function xdpProgram(filter: XdpFilter, mac: Uint8Array, mapFd: number, counterFd: number): Uint8Array {
  const program = new BpfAssembler();
  program.move(R6, R1);
  if (filter.mode !== 'all') {
    const hit = filter.mode === 'to' ? 'redirect' : 'pass';
    const miss = filter.mode === 'to' ? 'pass' : 'redirect';
    const ranges = mergeRanges(filter);
    program.load(4, R2, R6, CONTEXT.data).load(4, R3, R6, CONTEXT.dataEnd);
    program.move(R4, R2).add(R4, FRAME.bytesMin).jumpIfGreater(R4, R3, 'pass');
    const { ipv6NotTo } = filter;
    const address = new DataView(mac.buffer, mac.byteOffset, 6);
    program.load(4, R5, R2, FRAME.destinationMac).jumpIf(R5, '!=', address.getUint32(0, true), 'pass');
    program.load(2, R5, R2, FRAME.destinationMac + 4).jumpIf(R5, '!=', address.getUint16(4, true), 'pass');
    program.load(2, R5, R2, FRAME.etherType).fromNetworkOrder(R5, 16);
    if (ipv6NotTo !== undefined) program.jumpIf(R5, '==', ETHERTYPE_IPV6, 'ipv6?');
    program.jumpIf(R5, '!=', ETHERTYPE_IPV4, 'pass');
    program.load(4, R5, R2, FRAME.ipDestination).fromNetworkOrder(R5, 32);
    search(program, ranges, 0, ranges.length, hit, miss);
    if (ipv6NotTo !== undefined) ipv6(program, ipv6NotTo);
  }
  program.label('redirect');
  // If the map has no socket for the queue, the helper returns its third argument.
  program.load(4, R2, R6, CONTEXT.rxQueueIndex).loadMap(R1, mapFd).moveImmediate(R3, XdpAction.DROP);
  program.call(HELPER_REDIRECT_MAP).jumpIf(R0, '==', XdpAction.REDIRECT, 'redirected');
  program.loadMapValues(R1, counterFd).moveImmediate(R2, 1).atomicAdd(R1, R2);
  program.label('redirected').exit();
  // The verifier refuses unreachable instructions.
  if (filter.mode !== 'all') program.label('pass').moveImmediate(R0, XdpAction.PASS).exit();
  return program.assemble();
}

/**
 * Jumps to `redirect` if an IPv6 packet is between hosts and not to one of `own`, otherwise to
 * `pass`.
 */
function ipv6(program: BpfAssembler, own: readonly Int32Array[]): void {
  if (own.length > OWN_IPV6_MAX)
    throw new RangeError(`${own.length} IPv6 addresses of this host; at most ${OWN_IPV6_MAX} can be told apart`);
  program.label('ipv6?');
  program.move(R4, R2).add(R4, FRAME_IPV6.bytesMin).jumpIfGreater(R4, R3, 'pass');
  for (const end of [FRAME_IPV6.source, FRAME_IPV6.destination])
    program.load(2, R5, R2, end).fromNetworkOrder(R5, 16).jumpIf(R5, '>=', LINK_LOCAL, 'pass');
  for (const [i, address] of own.entries()) {
    for (const [word, raw] of address.entries())
      program.load(4, R5, R2, FRAME_IPV6.destination + 4 * word).jumpIf(R5, '!=', raw >>> 0, `not own ${i}`);
    program.jump('pass').label(`not own ${i}`);
  }
  program.jump('redirect');
}

/** Jumps to `hit` if R5 is in one of `ranges[from..to)`, otherwise to `miss`. */
function search(
  program: BpfAssembler,
  ranges: readonly Range[],
  from: number,
  to: number,
  hit: string,
  miss: string,
): void {
  if (from === to) {
    program.jump(miss);
  } else if (from + 1 === to) {
    const [first, last] = ranges[from];
    program.jumpIf(R5, '<', first, miss).jumpIf(R5, '>', last, miss).jump(hit);
  } else {
    const middle = (from + to) >>> 1;
    const upper = `from ${middle}`;
    program.jumpIf(R5, '>=', ranges[middle][0], upper);
    search(program, ranges, from, middle, hit, miss);
    program.label(upper);
    search(program, ranges, middle, to, hit, miss);
  }
}

/** The filter's addresses as ascending ranges that neither touch nor overlap. */
function mergeRanges(filter: Exclude<XdpFilter, { mode: 'all' }>): Range[] {
  if (filter.mode === 'to' && filter.addresses.length === 0)
    throw new RangeError('an XDP filter of mode "to" without addresses would send nothing to the data plane');
  const single = filter.addresses.map((raw): Range => [hostOrder(raw), hostOrder(raw)]);
  if (filter.mode === 'not-to') single.push(NOT_UNICAST);
  single.sort((a, b) => a[0] - b[0]);
  const merged: [number, number][] = [];
  for (const [first, last] of single) {
    const before = merged.at(-1);
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else merged.push([first, last]);
  }
  if (merged.length > RANGES_MAX)
    throw new RangeError(
      `${merged.length} separate address ranges in an XDP filter; at most ${RANGES_MAX} can be told apart, use blocks`,
    );
  return merged;
}

/** Converts a raw word to host order, so that addresses compare as numbers. */
function hostOrder(raw: number): number {
  return (((raw & 0xff) << 24) | ((raw & 0xff00) << 8) | ((raw >>> 8) & 0xff00) | (raw >>> 24)) >>> 0;
}
