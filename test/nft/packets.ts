/**
 * Packets for the comparison with nftables: drawn from a seed, with values that rules speak of,
 * right checksums, and a number in their last bytes by which they are known again wherever they
 * come out.
 *
 * A *scene* is one packet, or some that belong together: a request and its reply, or a packet and
 * an ICMP error about it. No two scenes of a draw are of the same connection, so what a rule does
 * to one has no effect on the others.
 */

import { checksum, sumBytes } from '../../workers/packet/checksum.js';
import type { Stream } from '../sim/random.js';
import { crc32c } from './crc32c.js';
import { CODES, DSCP, ICMP_TYPES, ICMPV6_TYPES, PORTS, PROTOCOLS, V4, V6 } from './values.js';

export interface Packet {
  /** Index of the port it comes in by. */
  readonly port: number;
  /** From the IP header on. */
  readonly ip: Buffer;
  /** Whether it is an ICMP error, about which nobody sends another. */
  readonly isError: boolean;
  /** Whether its protocol has a checksum by which the kernel knows what it may answer. */
  readonly hasChecksum: boolean;
  readonly says: string;
}

const MAGIC = 0xc0f1a7e5;
export const TRAILER_BYTES = 8;

/** The number in the last bytes of a packet or of one that quotes it; -1: there is none. */
export function numberOf(bytes: Uint8Array): number {
  const at = bytes.length - TRAILER_BYTES;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return at >= 0 && view.getUint32(at) === MAGIC ? view.getUint32(at + 4) : -1;
}

/**
 * Of TCP, sequence and acknowledgement numbers begin with the packet's number, by which a reset is
 * known.
 */
const NUMBER_SHIFT = 8;

/**
 * The answer of a firewall that rejects, as text, and the number of the packet that it answers;
 * null: this is none.
 */
export function answerOf(ip: Buffer): { number: number; says: string } | null {
  const isV4 = ip[0] >>> 4 === 4;
  const protocol = isV4 ? ip[9] : ip[6];
  const at = isV4 ? 20 : 40;
  if (protocol === (isV4 ? ICMP : ICMPV6) && ip[at] === (isV4 ? 3 : 1)) {
    const number = numberOf(ip);
    return number < 0 ? null : { number, says: `unreachable, code ${ip[at + 1]}` };
  }
  if (protocol !== TCP || (ip[at + 13] & RST) === 0 || numberOf(ip) >= 0) return null;
  const number = ip.readUInt32BE((ip[at + 13] & ACK) === 0 ? at + 4 : at + 8) >>> NUMBER_SHIFT;
  return { number, says: 'reset' };
}

const SYN = 2;
const RST = 4;
const PSH = 8;
const ACK = 16;
const TCP = 6;
const UDP = 17;
const ICMP = 1;
const ICMPV6 = 58;
const DCCP = 33;
const SCTP = 132;
const UDP_LITE = 136;
const GRE = 47;
/** No connection is kept of it. */
const IGMP = 2;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;
const HOP_BY_HOP = 0;

/** One end of a connection: address as bytes, port or identifier. */
interface Flow {
  readonly version: 4 | 6;
  readonly protocol: number;
  readonly from: Buffer;
  readonly to: Buffer;
  readonly sport: number;
  readonly dport: number;
  /** TCP flags, or type of ICMP. */
  readonly what: number;
  /**
   * Sequence and acknowledgement number of TCP, where they are not drawn from the packet's number.
   */
  readonly numbers?: readonly [number, number];
  /** Of ICMP. */
  readonly code: number;
  readonly dscp: number;
}

export class PacketDraw {
  private readonly random: Stream;
  private readonly used = new Set<string>();
  private next: number;

  /** `first`: the number of the first packet. */
  constructor(random: Stream, first: number) {
    this.random = random;
    this.next = first;
  }

  /** The packets of one scene. */
  scene(): Packet[] {
    const flow = this.flow();
    const port = this.random.below(2);
    const first = this.packet(flow, port);
    const kind = this.random.below(6);
    if (kind === 0 && flow.protocol === UDP)
      return [first, this.packet(reversed(flow), 1 - port), this.packet(flow, port)];
    if (kind === 0 && isEcho(flow)) {
      const reply = { ...reversed(flow), what: flow.protocol === ICMP ? 0 : 129 };
      return [first, this.packet(reply, 1 - port)];
    }
    if (kind <= 1 && flow.protocol === TCP && flow.what === SYN && this.random.chance(0.5))
      return [first, ...this.handshake(flow, port)];
    if (kind === 2 && flow.protocol === UDP && (flow.version === 4 || first.ip[6] === UDP))
      return this.fragments(flow, first);
    if (kind <= 1 && !isIcmp(flow) && flow.protocol !== IGMP) return [first, this.error(flow, first, 1 - port)];
    return [first];
  }

  private flow(): Flow {
    for (;;) {
      const flow = this.draw();
      const key = keyOf(flow);
      if (this.used.has(key)) continue;
      this.used.add(key);
      return flow;
    }
  }

  private draw(): Flow {
    const { random } = this;
    const version = random.chance(0.6) ? 4 : 6;
    const addresses = version === 4 ? V4 : V6;
    const protocol = this.protocol(version);
    const isPort = [TCP, UDP, SCTP, DCCP, UDP_LITE].includes(protocol);
    const from = random.pick(addresses);
    const port = (): number => (isPort && random.chance(0.8) ? random.pick(PORTS) : random.below(65_536));
    return {
      version,
      protocol,
      from,
      to: random.pick(addresses.filter((address) => address !== from)),
      // Of ICMP and what has no ports it tells scenes from each other.
      sport: isPort && random.chance(0.3) ? random.pick(PORTS) : random.below(65_536),
      dport: port(),
      what: protocol === TCP ? this.flags() : this.type(protocol),
      code: random.chance(0.3) ? random.pick(CODES) : 0,
      dscp: random.chance(0.3) ? random.pick(DSCP) : 0,
    };
  }

  private protocol(version: 4 | 6): number {
    const { random } = this;
    if (random.chance(0.4)) return TCP;
    if (random.chance(0.4)) return UDP;
    if (random.chance(0.4)) return version === 4 ? ICMP : ICMPV6;
    return random.pick(PROTOCOLS);
  }

  private flags(): number {
    const { random } = this;
    if (random.chance(0.5)) return 2;
    return random.chance(0.5)
      ? random.pick([0, 1, 0x10, 0x12, 4, 0x14, 0x29, 0x11, 0x18, 0xc2, 0x22])
      : random.below(256);
  }

  private type(protocol: number): number {
    const { random } = this;
    const types = protocol === ICMP ? ICMP_TYPES : ICMPV6_TYPES;
    return random.chance(0.8) ? random.pick(types) : random.below(256);
  }

  private packet(flow: Flow, port: number): Packet {
    const number = this.next++;
    const ip = packetOf(flow, transportOf(flow, number, null), this.extensions(flow));
    const isOwnIcmp = flow.protocol === (flow.version === 4 ? ICMP : ICMPV6);
    const isError = isOwnIcmp && (flow.version === 4 ? [3, 4, 5, 11, 12].includes(flow.what) : flow.what < 128);
    const hasChecksum = flow.protocol in SUM_AT && (isOwnIcmp || !isIcmp(flow));
    return { port, ip, isError, hasChecksum, says: `#${number} port ${port} ${said(flow)}` };
  }

  /** What follows a SYN: the answer, and data both ways. */
  private handshake(flow: Flow, port: number): Packet[] {
    const back = reversed(flow);
    // The SYN had data, too.
    const [ours, theirs] = [((this.next - 1) << NUMBER_SHIFT) + 1 + TRAILER_BYTES, this.next << NUMBER_SHIFT];
    const next = theirs + 1 + TRAILER_BYTES;
    return [
      this.packet({ ...back, what: SYN | ACK, numbers: [theirs, ours] }, 1 - port),
      this.packet({ ...flow, what: ACK, numbers: [ours, next] }, port),
      this.packet({ ...back, what: PSH | ACK, numbers: [next, ours + TRAILER_BYTES] }, 1 - port),
    ];
  }

  /** A packet in two fragments, which both firewalls look at as one. */
  private fragments({ version }: Flow, whole: Packet): Packet[] {
    const { ip } = whole;
    const cut = ip.length - TRAILER_BYTES;
    const id = this.random.below(65_536);
    const parts = version === 4 ? fragmentsIpv4(ip, cut, id) : fragmentsIpv6(ip, cut, id);
    // Fragments are not answered here.
    return parts.map((part) => ({ ...whole, ip: part, hasChecksum: false, says: `${whole.says} in fragments` }));
  }

  /**
   * An ICMP error about a packet, to its sender; sometimes to another, or about another connection.
   */
  private error(flow: Flow, about: Packet, port: number): Packet {
    const { random } = this;
    const number = this.next++;
    const quoted = Buffer.from(about.ip.subarray(0, about.ip.length - TRAILER_BYTES));
    // Of DCCP kernels from 6.16 on no longer see the ports.
    const wrong = flow.protocol !== DCCP && random.chance(0.15);
    if (wrong) {
      // Another source port, of a connection that nobody began.
      const at = headerBytes(quoted);
      quoted.writeUInt16BE(quoted.readUInt16BE(at) ^ 0x4000, at);
    }
    const isV4 = flow.version === 4;
    const elsewhere = random.chance(0.15);
    const others = (isV4 ? V4 : V6).filter((address) => address !== flow.to);
    const to = elsewhere ? random.pick(others) : flow.from;
    const error: Flow = {
      version: flow.version,
      protocol: isV4 ? ICMP : ICMPV6,
      from: random.chance(0.5) ? flow.to : random.pick(others.filter((address) => address !== to)),
      to,
      sport: 0,
      dport: 0,
      what: random.pick(isV4 ? [3, 4, 5, 11, 12] : [1, 2, 3, 4]),
      code: random.chance(0.5) ? random.pick(CODES) : 0,
      dscp: 0,
    };
    const ip = packetOf(error, transportOf(error, number, quoted), []);
    const says = `#${number} port ${port} ${said(error)} about ${about.says}${wrong ? ' (another port)' : ''}`;
    return { port, ip, isError: true, hasChecksum: true, says };
  }

  private extensions({ version }: Flow): readonly number[] {
    if (version === 4 || this.random.chance(0.7)) return [];
    return this.random.pick([[HOP_BY_HOP], [DESTINATION_OPTIONS], [HOP_BY_HOP, DESTINATION_OPTIONS], [FRAGMENT]]);
  }
}

function reversed(flow: Flow): Flow {
  return { ...flow, from: flow.to, to: flow.from, sport: flow.dport, dport: flow.sport };
}

function isIcmp({ protocol }: Flow): boolean {
  return protocol === ICMP || protocol === ICMPV6;
}

function isEcho({ version, protocol, what }: Flow): boolean {
  return version === 4 ? protocol === ICMP && what === 8 : protocol === ICMPV6 && what === 128;
}

/** The same for both directions, and for all packets that could be of one connection. */
function keyOf({ version, protocol, from, to, sport, dport }: Flow): string {
  const hasPorts = protocol === TCP || protocol === UDP || protocol === SCTP;
  const ends = hasPorts
    ? [`${from.toString('hex')}:${sport}`, `${to.toString('hex')}:${dport}`]
    : [from.toString('hex'), to.toString('hex')];
  const isQuery = protocol === ICMP || protocol === ICMPV6;
  return [version, protocol, isQuery ? sport : '', ...ends.sort()].join(' ');
}

function said({ version, protocol, from, to, sport, dport, what }: Flow): string {
  const address = (bytes: Buffer): string =>
    version === 4 ? bytes.join('.') : (bytes.toString('hex').match(/.{4}/g) ?? []).join(':');
  return `proto ${protocol} ${address(from)} ${sport} > ${address(to)} ${dport} what 0x${what.toString(16)}`;
}

function headerBytes(ip: Buffer): number {
  if (ip[0] >>> 4 === 4) return 20;
  let header = ip[6];
  let at = 40;
  while (header === HOP_BY_HOP || header === DESTINATION_OPTIONS || header === FRAGMENT) {
    header = ip[at];
    at += 8;
  }
  return at;
}

/** The IP packet around a transport header, whose checksum it fills in. */
function packetOf(flow: Flow, transport: Buffer, extensions: readonly number[]): Buffer {
  const { version, protocol, from, to, dscp } = flow;
  const l4 = version === 4 ? 20 : 40 + 8 * extensions.length;
  const ip = Buffer.alloc(l4 + transport.length);
  transport.copy(ip, l4);
  if (version === 4) {
    ip[0] = 0x45;
    ip[1] = dscp << 2;
    ip.writeUInt16BE(ip.length, 2);
    ip[8] = 64;
    ip[9] = protocol;
    from.copy(ip, 12);
    to.copy(ip, 16);
    ip.writeUInt16LE(checksum(ip, 0, 20), 10);
  } else {
    ip[0] = 0x60 | (dscp >> 2);
    ip[1] = (dscp & 3) << 6;
    ip.writeUInt16BE(ip.length - 40, 4);
    ip[6] = extensions[0] ?? protocol;
    ip[7] = 64;
    from.copy(ip, 8);
    to.copy(ip, 24);
    for (const [n, header] of extensions.entries()) {
      const at = 40 + 8 * n;
      ip[at] = extensions[n + 1] ?? protocol;
      // Options: six bytes of padding. A fragment header that says "all of it".
      if (header !== FRAGMENT) ip.set([0, 1, 4], at + 1);
    }
  }
  sum(ip, l4, flow);
  return ip;
}

function fragmentsIpv4(ip: Buffer, cut: number, id: number): Buffer[] {
  const [first, last] = [ip.subarray(0, cut), Buffer.concat([ip.subarray(0, 20), ip.subarray(cut)])].map((bytes) =>
    Buffer.from(bytes),
  );
  for (const [part, field] of [
    [first, MORE],
    [last, (cut - 20) >> 3],
  ] as const) {
    part.writeUInt16BE(part.length, 2);
    part.writeUInt16BE(id, 4);
    part.writeUInt16BE(field, 6);
    part.writeUInt16LE(0, 10);
    part.writeUInt16LE(checksum(part, 0, 20), 10);
  }
  return [first, last];
}

/** The fragment header comes first; extension headers are behind it. */
function fragmentsIpv6(ip: Buffer, cut: number, id: number): Buffer[] {
  return [
    { bytes: ip.subarray(40, cut), field: 1 },
    { bytes: ip.subarray(cut), field: cut - 40 },
  ].map(({ bytes, field }) => {
    const part = Buffer.concat([ip.subarray(0, 40), Buffer.alloc(8), bytes]);
    part.writeUInt16BE(part.length - 40, 4);
    part[40] = ip[6];
    part[6] = FRAGMENT;
    part.writeUInt16BE(field, 42);
    part.writeUInt32BE(id, 44);
    return part;
  });
}

const MORE = 0x2000;
const SUM_AT: Readonly<Record<number, number>> = { [TCP]: 16, [UDP]: 6, [UDP_LITE]: 6, [ICMP]: 2, [ICMPV6]: 2 };

function sum(ip: Buffer, l4: number, { version, protocol }: Flow): void {
  const length = ip.length - l4;
  if (protocol === SCTP) ip.writeUInt32LE(crc32c(ip.subarray(l4)), l4 + 8);
  const at = SUM_AT[protocol];
  if (at === undefined) return;
  const addresses = version === 4 ? sumBytes(ip, 12, 8) : sumBytes(ip, 8, 32);
  const pseudo = addresses + (protocol << 8) + (((length & 0xff) << 8) | (length >> 8));
  const value = checksum(ip, l4, length, protocol === ICMP ? 0 : pseudo);
  ip.writeUInt16LE(value === 0 && (protocol === UDP || protocol === UDP_LITE) ? 0xffff : value, l4 + at);
}

/**
 * A transport header and what it carries; the packet's number comes last. `quoted`: what an ICMP
 * error is about.
 */
function transportOf(flow: Flow, number: number, quoted: Buffer | null): Buffer {
  const head = headOf(flow, number);
  const bytes = Buffer.concat([head, quoted ?? Buffer.alloc(0), Buffer.alloc(TRAILER_BYTES)]);
  bytes.writeUInt32BE(MAGIC, bytes.length - 8);
  bytes.writeUInt32BE(number, bytes.length - 4);
  if (flow.protocol === UDP) bytes.writeUInt16BE(bytes.length, 4);
  return bytes;
}

function headOf({ protocol, sport, dport, what, code, numbers }: Flow, number: number): Buffer {
  const ports = (bytes: number): Buffer => {
    const head = Buffer.alloc(bytes);
    head.writeUInt16BE(sport, 0);
    head.writeUInt16BE(dport, 2);
    return head;
  };
  switch (protocol) {
    case TCP: {
      const head = ports(20);
      head.writeUInt32BE(numbers?.[0] ?? number << NUMBER_SHIFT, 4);
      head.writeUInt32BE(numbers?.[1] ?? number << NUMBER_SHIFT, 8);
      head[12] = 0x50;
      head[13] = what;
      head.writeUInt16BE(1000, 14);
      return head;
    }
    case UDP:
    case UDP_LITE:
      return ports(8);
    case SCTP: {
      // One INIT chunk, in which the packet's number is part of a parameter.
      const head = ports(32);
      head.set([1, 0, 0, 20 + TRAILER_BYTES], 12);
      head.writeUInt32BE(77, 16);
      head.writeUInt32BE(65_536, 20);
      head.set([0, 1, 0, 1], 24);
      head.writeUInt32BE(1, 28);
      return head;
    }
    case DCCP: {
      const head = ports(16);
      head.set([4], 4);
      return head;
    }
    case ICMP:
    case ICMPV6: {
      const head = Buffer.alloc(8);
      head[0] = what;
      head[1] = code;
      head.writeUInt16BE(sport, 4);
      return head;
    }
    case GRE: {
      const head = Buffer.alloc(4);
      head.writeUInt16BE(dport, 2);
      return head;
    }
    default: {
      const head = ports(8);
      return head;
    }
  }
}
