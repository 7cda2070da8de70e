/**
 * Frames of IPv6 as text; as frames.ts, with a port as a word of its own:
 *
 *     tcp 2001:db8::5 4000 > fd00::8 80 SA hop 63 len 20
 *     udp 2001:db8::5 4000 > fd00::8 53 len 8 more
 *     udp 2001:db8::5 4000 > fd00::8 53 len 8 offset 64 id 7
 *     icmp 2001:db8::5 > fd00::8 echo 77      (or `reply 77`, or `type N`)
 *
 * Words that may follow: `hop N` (64), `len N` payload bytes (0), `id N`, `more` and `offset N`
 * bytes (fragments), `seq N` (1000), `ack N` and `win N` (TCP), `to MAC`, `from MAC`. `describe6`
 * writes the same, without numbers of TCP, and `bad-sum` if the checksum of a whole packet is
 * wrong.
 */

import { checksum, sumBytes } from '../../../workers/packet/checksum.js';
import { parseMac } from '../../../workers/packet/ethernet.js';
import { formatIpv6, parseIpv6 } from '../../../workers/packet/ipv6.js';
import { HOST_MAC, ROUTER_MAC } from './frames.js';

const FLAGS = 'FSRPAU';
const PROTOCOLS: Record<string, number> = { tcp: 6, udp: 17, icmp: 58 };
const HEADER_BYTES: Record<string, number> = { tcp: 20, udp: 8, icmp: 8 };
const SUM_AT: Record<number, number> = { 6: 16, 17: 6, 58: 2 };

/** A frame of a packet written as text. */
export function frame6(text: string): Uint8Array {
  const words = text.trim().split(/\s+/);
  const kind = words.shift() as string;
  const take = (): string => words.shift() as string;
  const source = take();
  const sourcePort = words[0] === '>' ? 0 : Number(take());
  if (take() !== '>') throw new Error(`not a packet: ${text}`);
  const destination = take();
  const destinationPort = /^\d+$/.test(words[0] ?? '') ? Number(take()) : 0;
  const given = new Map<string, string>();
  let flags = 0;
  while (words.length > 0) {
    const word = take();
    if (kind === 'tcp' && /^[FSRPAU]+$/.test(word)) for (const flag of word) flags |= 1 << FLAGS.indexOf(flag);
    else given.set(word, word === 'more' ? '' : take());
  }
  const number = (key: string, preset: number) => Number(given.get(key) ?? preset);
  const isFragment = given.has('more') || given.has('offset');
  const headerBytes = number('offset', 0) > 0 ? 0 : HEADER_BYTES[kind];
  const length = number('len', 0);
  const l4 = 54 + (isFragment ? 8 : 0);
  const bytes = Buffer.alloc(l4 + headerBytes + length);
  writeMac(bytes, 0, given.get('to') ?? ROUTER_MAC);
  writeMac(bytes, 6, given.get('from') ?? HOST_MAC);
  bytes.writeUInt16BE(0x86dd, 12);
  bytes[14] = 0x60;
  bytes.writeUInt16BE(bytes.length - 54, 18);
  bytes[20] = isFragment ? 44 : PROTOCOLS[kind];
  bytes[21] = number('hop', 64);
  writeAddress(bytes, 22, source);
  writeAddress(bytes, 38, destination);
  if (isFragment) {
    bytes[54] = PROTOCOLS[kind];
    bytes.writeUInt16BE(number('offset', 0) | (given.has('more') ? 1 : 0), 56);
    bytes.writeUInt32BE(number('id', 0), 58);
  }
  for (let i = 0; i < length; i++) bytes[l4 + headerBytes + i] = (i * 7 + 1) & 0xff;
  if (headerBytes === 0) return new Uint8Array(bytes);
  if (kind === 'icmp') {
    bytes[l4] = given.has('echo') ? 128 : given.has('reply') ? 129 : number('type', 1);
    bytes.writeUInt16BE(Number(given.get('echo') ?? given.get('reply') ?? 0), l4 + 4);
  } else {
    bytes.writeUInt16BE(sourcePort, l4);
    bytes.writeUInt16BE(destinationPort, l4 + 2);
  }
  if (kind === 'tcp') {
    bytes.writeUInt32BE(number('seq', 1000), l4 + 4);
    bytes.writeUInt32BE(number('ack', 0), l4 + 8);
    bytes.writeUInt16BE(number('win', 0), l4 + 14);
    bytes[l4 + 12] = 0x50;
    bytes[l4 + 13] = flags;
  }
  // The length of a fragmented datagram is more than what is here.
  if (kind === 'udp') bytes.writeUInt16BE(bytes.length - l4 + (isFragment ? 64 : 0), l4 + 4);
  seal6(bytes);
  return new Uint8Array(bytes);
}

/** An ICMPv6 error about a packet, of which it quotes so many bytes. */
export function icmpv6Error(from: string, to: string, type: number, about: Uint8Array, quoted = 1232): Uint8Array {
  const quotation = about.subarray(14, 14 + quoted);
  const bytes = Buffer.from(frame6(`icmp ${from} > ${to} type ${type} len ${quotation.length}`));
  bytes.set(quotation, 62);
  seal6(bytes);
  return new Uint8Array(bytes);
}

/** Writes the transport checksum anew, in place. */
export function seal6(bytes: Buffer): void {
  const at = sumAt(bytes);
  if (at < 0) return;
  bytes.writeUInt16LE(0, at);
  const sum = computed(bytes);
  bytes.writeUInt16LE(sum === 0 && protocolOf(bytes) === 17 ? 0xffff : sum, at);
}

function protocolOf(bytes: Buffer): number {
  return bytes[20] === 44 ? bytes[54] : bytes[20];
}

function l4Of(bytes: Buffer): number {
  return bytes[20] === 44 ? 62 : 54;
}

function sumAt(bytes: Buffer): number {
  const later = bytes[20] === 44 && (bytes.readUInt16BE(56) & 0xfff8) !== 0;
  const at = SUM_AT[protocolOf(bytes)];
  return later || at === undefined ? -1 : l4Of(bytes) + at;
}

/** Over what is there; right once the field is in it as zero. */
function computed(bytes: Buffer): number {
  const l4 = l4Of(bytes);
  const end = 54 + bytes.readUInt16BE(18);
  const length = end - l4;
  const pseudo = sumBytes(bytes, 22, 32) + (protocolOf(bytes) << 8) + (((length & 0xff) << 8) | (length >> 8));
  return checksum(bytes, l4, length, pseudo);
}

/** The packet in a frame as text. */
export function describe6(frame: Uint8Array): string {
  const bytes = Buffer.from(frame);
  const protocol = protocolOf(bytes);
  const [kind = `proto-${protocol}`] = Object.entries(PROTOCOLS).find(([, number]) => number === protocol) ?? [];
  const l4 = l4Of(bytes);
  const end = 54 + bytes.readUInt16BE(18);
  const field = bytes[20] === 44 ? bytes.readUInt16BE(56) : 0;
  const offset = field & 0xfff8;
  const ported = offset === 0 && (kind === 'tcp' || kind === 'udp');
  const one = (at: number, port: number) =>
    formatIpv6(bytes.subarray(at, at + 16)) + (ported ? ` ${bytes.readUInt16BE(port)}` : '');
  const words = [kind, one(22, l4), '>', one(38, l4 + 2)];
  if (kind === 'tcp' && offset === 0) {
    const flags = [...FLAGS].filter((_, i) => (bytes[l4 + 13] & (1 << i)) !== 0).join('');
    if (flags !== '') words.push(flags);
  }
  if (kind === 'icmp' && offset === 0) {
    const type = bytes[l4];
    const identifier = bytes.readUInt16BE(l4 + 4);
    words.push(type === 128 ? `echo ${identifier}` : type === 129 ? `reply ${identifier}` : `type ${type}`);
  }
  if (bytes[21] !== 64) words.push(`hop ${bytes[21]}`);
  const length = end - l4 - (offset === 0 ? (HEADER_BYTES[kind] ?? 0) : 0);
  if (length !== 0) words.push(`len ${length}`);
  if ((field & 1) !== 0) words.push('more');
  if (offset !== 0) words.push(`offset ${offset}`);
  if (field === 0 && sumAt(bytes) >= 0 && computed(bytes) !== 0) words.push('bad-sum');
  return words.join(' ');
}

function writeMac(bytes: Buffer, at: number, text: string): void {
  const mac = parseMac(text);
  bytes.writeInt32LE(mac.low, at);
  bytes.writeUInt16LE(mac.high, at + 4);
}

function writeAddress(bytes: Buffer, at: number, text: string): void {
  const words = parseIpv6(text);
  for (let word = 0; word < 4; word++) bytes.writeInt32LE(words[word], at + 4 * word);
}
