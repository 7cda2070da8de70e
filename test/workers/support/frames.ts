/**
 * Frames as text, so that tests read as packets in and packets out.
 *
 *     tcp 10.0.0.5:4000 > 198.51.100.7:80 SA ttl 63 len 20
 *     udp 10.0.0.5:4000 > 198.51.100.7:53 nosum
 *     icmp 10.0.0.5 > 198.51.100.7 echo 77
 *     icmp 198.51.100.7 > 10.0.0.5 reply 77
 *     ip 10.0.0.5 > 198.51.100.7 proto 47
 *
 * Words that may follow: `ttl N` (64), `len N` payload bytes (0), `id N`, `df`, `more` and `offset
 * N` bytes (fragments), `seq N`, `ack N`, `win N`, `scale N` (TCP: sequence, acknowledgement,
 * window, a window scale option), `options N` words of IP options, `vlan N`, `vlan N.M`, `nosum`
 * (UDP), `to MAC`, `from MAC`. `describe` writes the same, in this order, with what is not the
 * default, and `bad-ip-sum`, `bad-sum` for wrong checksums.
 */

import { checksum, sumBytes } from '../../../workers/packet/checksum.js';
import { formatMac, parseMac } from '../../../workers/packet/ethernet.js';
import { formatIpv4, parseIpv4 } from '../../../workers/packet/ipv4.js';

const FLAGS = 'FSRPAU';
const PROTOCOLS: Record<string, number> = { icmp: 1, tcp: 6, udp: 17 };
const HEADER_BYTES: Record<string, number> = { icmp: 8, tcp: 20, udp: 8, ip: 0, frag: 0 };

export const ROUTER_MAC = '02:00:00:00:00:01';
export const HOST_MAC = '02:00:00:00:00:99';

interface Words {
  kind: string;
  source: string;
  destination: string;
  flags: number;
  given: Map<string, string>;
}

function read(text: string): Words {
  const words = text.trim().split(/\s+/);
  const [kind, source, , destination] = words;
  if (words[2] !== '>') throw new Error(`not a packet: ${text}`);
  const given = new Map<string, string>();
  let flags = 0;
  const alone = ['df', 'more', 'nosum'];
  for (let i = 4; i < words.length; i++) {
    const word = words[i];
    if (kind === 'tcp' && /^[FSRPAU]+$/.test(word)) for (const flag of word) flags |= 1 << FLAGS.indexOf(flag);
    else if (alone.includes(word)) given.set(word, '');
    else given.set(word, words[++i]);
  }
  return { kind, source, destination, flags, given };
}

/** A frame of a packet written as text. */
export function frame(text: string): Uint8Array {
  const { kind, source, destination, flags, given } = read(text);
  const number = (key: string, preset: number) => Number(given.get(key) ?? preset);
  const [sourceAddress, sourcePort] = source.split(':');
  const [destinationAddress, destinationPort] = destination.split(':');
  const protocol = PROTOCOLS[kind] ?? number('proto', 47);
  const tags = (given.get('vlan') ?? '').split('.').filter((tag) => tag !== '');
  const l3 = 14 + 4 * tags.length;
  const l4 = l3 + 20 + 4 * number('options', 0);
  const optionBytes = given.has('scale') ? 4 : 0;
  const headerBytes = number('offset', 0) > 0 ? 0 : HEADER_BYTES[kind] + optionBytes;
  const length = number('len', 0);
  const bytes = Buffer.alloc(l4 + headerBytes + length);
  mac(bytes, 0, given.get('to') ?? ROUTER_MAC);
  mac(bytes, 6, given.get('from') ?? HOST_MAC);
  tags.forEach((tag, i) => {
    bytes.writeUInt16BE(i === 0 && tags.length === 2 ? 0x88a8 : 0x8100, 12 + 4 * i);
    bytes.writeUInt16BE(Number(tag), 14 + 4 * i);
  });
  bytes.writeUInt16BE(0x0800, l3 - 2);
  for (let i = 0; i < length; i++) bytes[l4 + headerBytes + i] = (i * 7 + 1) & 0xff;

  bytes[l3] = 0x40 | ((l4 - l3) / 4);
  bytes.writeUInt16BE(bytes.length - l3, l3 + 2);
  bytes.writeUInt16BE(number('id', 0), l3 + 4);
  const fragment = (given.has('df') ? 0x4000 : 0) | (given.has('more') ? 0x2000 : 0) | (number('offset', 0) / 8);
  bytes.writeUInt16BE(fragment, l3 + 6);
  bytes[l3 + 8] = number('ttl', 64);
  bytes[l3 + 9] = protocol;
  bytes.writeInt32LE(parseIpv4(sourceAddress), l3 + 12);
  bytes.writeInt32LE(parseIpv4(destinationAddress), l3 + 16);
  for (let at = l3 + 20; at < l4; at++) bytes[at] = 1; // no operation
  if (headerBytes > 0) transport(bytes, kind, l4, Number(sourcePort), Number(destinationPort), flags, given);
  seal(bytes);
  if (given.has('nosum') && headerBytes > 0) bytes.writeUInt16LE(0, l4 + 6);
  return new Uint8Array(bytes);
}

function transport(
  bytes: Buffer,
  kind: string,
  l4: number,
  source: number,
  destination: number,
  flags: number,
  given: Map<string, string>,
): void {
  if (kind === 'tcp' || kind === 'udp') {
    bytes.writeUInt16BE(source, l4);
    bytes.writeUInt16BE(destination, l4 + 2);
  }
  if (kind === 'tcp') {
    const number = (key: string, preset: number) => Number(given.get(key) ?? preset);
    bytes.writeUInt32BE(number('seq', 1000), l4 + 4);
    bytes.writeUInt32BE(number('ack', 0), l4 + 8);
    bytes[l4 + 12] = given.has('scale') ? 0x60 : 0x50;
    bytes[l4 + 13] = flags;
    bytes.writeUInt16BE(number('win', 0), l4 + 14);
    if (given.has('scale')) bytes.set([1, 3, 3, number('scale', 0)], l4 + 20);
  }
  if (kind === 'udp') bytes.writeUInt16BE(bytes.length - l4, l4 + 4);
  if (kind === 'icmp') {
    bytes[l4] = given.has('echo') ? 8 : given.has('reply') ? 0 : Number(given.get('type') ?? 3);
    bytes.writeUInt16BE(Number(given.get('echo') ?? given.get('reply') ?? 0), l4 + 4);
  }
}

function mac(bytes: Buffer, at: number, text: string): void {
  const { low, high } = parseMac(text);
  bytes.writeInt32LE(low, at);
  bytes.writeUInt16LE(high, at + 4);
}

interface Headers {
  l3: number;
  l4: number;
  end: number;
  protocol: number;
  fragment: number;
}

function headers(bytes: Buffer): Headers {
  let l3 = 14;
  while (bytes.readUInt16BE(l3 - 2) === 0x8100 || bytes.readUInt16BE(l3 - 2) === 0x88a8) l3 += 4;
  return {
    l3,
    l4: l3 + (bytes[l3] & 15) * 4,
    end: l3 + bytes.readUInt16BE(l3 + 2),
    protocol: bytes[l3 + 9],
    fragment: bytes.readUInt16BE(l3 + 6),
  };
}

/** Where the transport checksum is, or -1. */
function transportSum({ l4, protocol, fragment }: Headers): number {
  if ((fragment & 0x1fff) !== 0) return -1;
  if (protocol === 6) return l4 + 16;
  if (protocol === 17) return l4 + 6;
  return protocol === 1 ? l4 + 2 : -1;
}

/** The transport checksum of a packet, over the whole of it with the field taken for zero. */
function computed(bytes: Buffer, at: number): number {
  const { l3, l4, end, protocol } = headers(bytes);
  const copy = Buffer.from(bytes);
  copy.writeUInt16LE(0, at);
  if (protocol === 1) return checksum(copy, l4, end - l4);
  const length = end - l4;
  const pseudo = sumBytes(copy, l3 + 12, 8) + (protocol << 8) + (((length & 0xff) << 8) | (length >> 8));
  const sum = checksum(copy, l4, length, pseudo);
  return protocol === 17 && sum === 0 ? 0xffff : sum;
}

/** Writes both checksums of a frame anew, in place. */
export function seal(frame: Uint8Array): Uint8Array {
  const bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
  const { l3, l4 } = headers(bytes);
  bytes.writeUInt16LE(0, l3 + 10);
  bytes.writeUInt16LE(checksum(bytes, l3, l4 - l3), l3 + 10);
  const at = transportSum(headers(bytes));
  if (at >= 0) bytes.writeUInt16LE(computed(bytes, at), at);
  return frame;
}

/** Whether both checksums are what a full recomputation gives; a UDP checksum of 0 is none. */
export function checksums(frame: Uint8Array): { ip: boolean; transport: boolean } {
  const bytes = Buffer.from(frame);
  const found = headers(bytes);
  const at = transportSum(found);
  const sum = at < 0 ? 0 : bytes.readUInt16LE(at);
  const none = found.protocol === 17 && sum === 0;
  // A fragment's transport checksum covers what is not here.
  const whole = (found.fragment & 0x3fff) === 0;
  return {
    ip: checksum(bytes, found.l3, found.l4 - found.l3) === 0,
    transport: at < 0 || none || !whole || sum === computed(bytes, at),
  };
}

/** The packet in a frame as text. `{ macs: true }` adds the link-layer addresses. */
export function describeFrame(frame: Uint8Array, { macs = false } = {}): string {
  const bytes = Buffer.from(frame);
  if (bytes.readUInt16BE(12) === 0x0806) return 'arp';
  const found = headers(bytes);
  const { l3, l4, end, protocol, fragment } = found;
  const later = (fragment & 0x1fff) !== 0;
  const kind = Object.entries(PROTOCOLS).find(([, number]) => number === protocol)?.[0] ?? 'ip';
  const ported = !later && (kind === 'tcp' || kind === 'udp');
  const end1 = (at: number, port: number) =>
    formatIpv4(bytes.readInt32LE(at)) + (ported ? `:${bytes.readUInt16BE(port)}` : '');
  const words = [kind, end1(l3 + 12, l4), '>', end1(l3 + 16, l4 + 2)];
  if (kind === 'ip') words.push(`proto ${protocol}`);
  if (kind === 'tcp' && !later) {
    const flags = [...FLAGS].filter((_, i) => (bytes[l4 + 13] & (1 << i)) !== 0).join('');
    if (flags !== '') words.push(flags);
  }
  if (kind === 'icmp' && !later) words.push(icmpWords(bytes, l4));
  if (bytes[l3 + 8] !== 64) words.push(`ttl ${bytes[l3 + 8]}`);
  const length = end - l4 - (later ? 0 : HEADER_BYTES[kind]);
  if (length !== 0) words.push(`len ${length}`);
  if ((fragment & 0x4000) !== 0) words.push('df');
  if ((fragment & 0x2000) !== 0) words.push('more');
  if (later) words.push(`offset ${(fragment & 0x1fff) * 8}`);
  if (l3 === 18) words.push(`vlan ${bytes.readUInt16BE(14)}`);
  if (l3 === 22) words.push(`vlan ${bytes.readUInt16BE(14)}.${bytes.readUInt16BE(18)}`);
  if (kind === 'udp' && !later && bytes.readUInt16LE(l4 + 6) === 0) words.push('nosum');
  const right = checksums(frame);
  if (!right.ip) words.push('bad-ip-sum');
  if (!right.transport) words.push('bad-sum');
  if (macs) words.push(`to ${macAt(bytes, 0)}`, `from ${macAt(bytes, 6)}`);
  return words.join(' ');
}

function icmpWords(bytes: Buffer, l4: number): string {
  const type = bytes[l4];
  const identifier = bytes.readUInt16BE(l4 + 4);
  if (type === 8) return `echo ${identifier}`;
  if (type === 0) return `reply ${identifier}`;
  return `type ${type}`;
}

function macAt(bytes: Buffer, at: number): string {
  return formatMac({ low: bytes.readInt32LE(at), high: bytes.readUInt16LE(at + 4) });
}

/** An ICMP error with the first `bytes` bytes of a packet behind it. */
export function errorAbout(text: string, packet: string, bytes = 1000): Uint8Array {
  const quoted = frame(packet).subarray(14, 14 + bytes);
  const whole = frame(`${text} len ${quoted.length}`);
  whole.set(quoted, whole.length - quoted.length);
  return seal(whole);
}
