/**
 * Packets for the fuzzer: real ones of every kind, with any header field changed, cut short, made
 * longer, cut into fragments, or answered, so that what is wrong comes between what is right, and
 * belongs to state that is there.
 */

import { checksum } from '../../workers/packet/checksum.js';
import { parseMac } from '../../workers/packet/ethernet.js';
import type { Stream } from '../sim/random.js';
import { captureFrames } from '../support/captures.js';
import { encapsulated, TAG_TYPES } from '../workers/support/encapsulated.js';
import { fragmentsOf } from '../workers/support/fragmented.js';
import { frame, ROUTER_MAC } from '../workers/support/frames.js';
import { frame6, icmpv6Error, seal6 } from '../workers/support/frames6.js';

export const FRAME_BYTES_MAX = 2048 - 258;

const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const L3 = 14;

/** Fields of the headers, from the beginning of the IP header: offset and bytes. */
const IPV4_FIELDS: readonly (readonly [number, number])[] = [
  ...[0, 1, 8, 9].map((at) => [at, 1] as const),
  ...[2, 4, 6, 10].map((at) => [at, 2] as const),
  ...[12, 16].map((at) => [at, 4] as const),
];
const IPV6_FIELDS: readonly (readonly [number, number])[] = [
  ...[0, 6, 7, 40, 41, 42, 43].map((at) => [at, 1] as const),
  ...[4, 44].map((at) => [at, 2] as const),
  ...[8, 20, 24, 36].map((at) => [at, 4] as const),
];
/**
 * From the beginning of the transport header: of TCP, UDP, ICMP, and of what an ICMP error quotes.
 */
const TRANSPORT_FIELDS: readonly (readonly [number, number])[] = [
  ...[0, 1, 8, 12, 13, 17].map((at) => [at, 1] as const),
  ...[0, 2, 4, 6, 10, 14, 16, 18, 24, 28].map((at) => [at, 2] as const),
  ...[4, 8, 20, 24].map((at) => [at, 4] as const),
];

const INSIDE = ['10.0.0.5', '10.0.0.77'];
const OUTSIDE = ['198.51.100.7', '8.8.8.8', '203.0.113.1'];

/** Packets that are right, in both directions. */
export function seedFrames(): Uint8Array[] {
  const ends = INSIDE.flatMap((inside) => OUTSIDE.map((outside) => [inside, outside] as const));
  const both = [...ends, ...ends.map(([a, b]) => [b, a] as const), ['198.51.100.7', '203.0.113.1'] as const];
  const seeds = both.flatMap(([from, to]) => [
    ...['S', 'SA', 'A', 'PA', 'FA', 'R', 'RA', 'SF', ''].map((flags) => `tcp ${from}:4000 > ${to}:80 ${flags} len 20`),
    `tcp ${from}:4000 > ${to}:22 S`,
    `udp ${from}:4000 > ${to}:53 len 30`,
    `udp ${from}:4000 > ${to}:123 nosum len 9`,
    `udp ${from}:4000 > ${to}:53 len 400 options 3`,
    `icmp ${from} > ${to} echo 77 len 40`,
    `icmp ${from} > ${to} reply 77 len 40`,
    `icmp ${from} > ${to} type 3 len 60`,
    `icmp ${from} > ${to} type 11 len 28`,
    `icmp ${from} > ${to} type 5 len 28`,
    ...[33, 47, 50, 132, 136].map((protocol) => `ip ${from} > ${to} proto ${protocol} len 60`),
    `udp ${from}:4000 > ${to}:53 len 20 options 9`,
    `udp ${from}:4000 > ${to}:53 vlan 5 len 8`,
    `tcp ${from}:4000 > ${to}:80 S vlan 5.7`,
  ]);
  const six = ['fd00::5 2001:db8::7', '2001:db8::7 fd00::5'].flatMap((text) => {
    const [from, to] = text.split(' ');
    const about = frame6(`udp ${to} 4000 > ${from} 53 len 20`);
    return [
      ...['S', 'SA', 'A', 'FA', 'R'].map((flags) => frame6(`tcp ${from} 4000 > ${to} 80 ${flags} len 20`)),
      frame6(`udp ${from} 4000 > ${to} 53 len 30`),
      frame6(`icmp ${from} > ${to} echo 77 len 40`),
      frame6(`icmp ${from} > ${to} reply 77 len 40`),
      frame6(`icmp ${from} > ${to} type 135 len 24 hop 255`),
      ...[1, 2, 3].map((type) => icmpv6Error(from, to, type, about)),
    ];
  });
  const whole = [...seeds.map(frame), ...six];
  const long = [frame('udp 10.0.0.5:4000 > 8.8.8.8:53 len 900'), frame6('udp fd00::5 4000 > 2001:db8::7 53 len 900')];
  const fragments = long.flatMap((bytes, id) => fragmentsOf(bytes, 304, id));
  return [...whole, ...fragments, ...quoting(), arp()];
}

/** ICMP errors about packets that are there. */
function quoting(): Uint8Array[] {
  const about = [
    'udp 203.0.113.1:4000 > 8.8.8.8:53 len 30',
    'tcp 10.0.0.5:4000 > 8.8.8.8:80 S',
    'icmp 10.0.0.5 > 8.8.8.8 echo 77',
  ];
  return about.flatMap((text) =>
    [3, 11].map((type) => {
      const quoted = frame(text).subarray(L3);
      const bytes = frame(
        `icmp 8.8.8.8 > ${text.includes('203') ? '203.0.113.1' : '10.0.0.5'} type ${type} len ${quoted.length}`,
      );
      bytes.set(quoted, L3 + 28);
      return bytes;
    }),
  );
}

function arp(): Uint8Array {
  const bytes = new Uint8Array(60);
  bytes.set([8, 6], 12);
  return bytes;
}

/** The public captures, where they are: as many frames of each. */
export function capturedFrames(most: number): Uint8Array[] {
  const names = ['fragments.pcap', 'mixed-many-protocols.pcap', 'synscan.pcap', 'echo-500-flows.pcap'];
  const all = names.flatMap((name) => captureFrames(name, most) ?? []);
  return all.filter(({ length }) => length >= 14 && length <= FRAME_BYTES_MAX).map(toRouter);
}

/** Addressed to the station that is fed. */
function toRouter(bytes: Uint8Array): Uint8Array {
  const mac = parseMac(ROUTER_MAC);
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  view.writeInt32LE(mac.low, 0);
  view.writeUInt16LE(mac.high, 4);
  return bytes;
}

/** A packet to feed: one of `frames`, or an answer to one that came out, changed or not. */
export function mutated(random: Stream, frames: readonly Uint8Array[], recent: readonly Uint8Array[]): Uint8Array {
  const isAnswer = recent.length > 0 && random.chance(0.3);
  let bytes = Buffer.from(isAnswer ? random.pick(recent) : random.pick(frames));
  if (isAnswer) {
    toRouter(bytes);
    if (random.chance(0.8)) exchangeEnds(bytes);
  }
  if (random.chance(0.3)) return bytes;
  const isIpv6 = bytes.length > 54 && bytes.readUInt16BE(12) === IPV6;
  const changes = random.whole(1, 4);
  for (let n = 0; n < changes; n++) change(random, bytes, isIpv6);
  const length = random.unit();
  if (length < 0.1) bytes = bytes.subarray(0, random.whole(1, bytes.length));
  else if (length < 0.2) bytes = Buffer.concat([bytes, Buffer.alloc(random.below(200))]).subarray(0, FRAME_BYTES_MAX);
  if (random.chance(0.8)) reseal(bytes);
  if (random.chance(0.02) && bytes.length > 80)
    bytes = Buffer.from(random.pick(fragmentsOf(bytes, 8 * random.whole(1, 20), random.below(4))));
  return random.chance(0.15) ? framed(random, bytes) : bytes;
}

/** In another framing, which is damaged as well now and then. */
function framed(random: Stream, bytes: Buffer): Buffer {
  const type = bytes.length > L3 ? bytes.readUInt16BE(12) : 0;
  if (type !== IPV4 && type !== IPV6) return bytes;
  const tags = Array.from({ length: random.below(6) }, () => ({
    type: random.pick(TAG_TYPES),
    id: random.below(4096),
  }));
  const framing = random.pick(['ethernet', 'snap', 'pppoe'] as const);
  const frame = Buffer.from(
    encapsulated(bytes, { tags, framing, session: random.below(4), padding: random.below(60) }),
  );
  if (random.chance(0.3)) write(random, frame, random.whole(12, 40), random.whole(1, 2));
  return frame.subarray(0, FRAME_BYTES_MAX);
}

function change(random: Stream, bytes: Buffer, isIpv6: boolean): void {
  const l4 = L3 + (isIpv6 ? 40 : 4 * ((bytes[L3] ?? 5) & 15));
  const where = random.unit();
  if (where < 0.05) return write(random, bytes, random.pick([0, 4, 6, 12, 13]), 1);
  if (where < 0.5) {
    const [at, length] = random.pick(isIpv6 ? IPV6_FIELDS : IPV4_FIELDS);
    return write(random, bytes, L3 + at, length);
  }
  if (where < 0.95) {
    const [at, length] = random.pick(TRANSPORT_FIELDS);
    return write(random, bytes, l4 + at, length);
  }
  write(random, bytes, random.below(bytes.length), 1);
}

/** Any value, an extreme one, or a little more or less than it was. */
function write(random: Stream, bytes: Buffer, at: number, length: number): void {
  if (at + length > bytes.length) return;
  const before = bytes.readUIntBE(at, length);
  const limit = 2 ** (8 * length);
  const value = random.pick([
    () => random.below(limit),
    () => 0,
    () => limit - 1,
    () => before + 1,
    () => before + limit - 1,
    () => before ^ (1 << random.below(Math.min(31, 8 * length))),
    () => random.below(Math.min(limit, 64)),
  ])();
  bytes.writeUIntBE(((value % limit) + limit) % limit, at, length);
}

/** Makes checksums right again, so that the damage gets past them. */
function reseal(bytes: Buffer): void {
  const type = bytes.length >= L3 ? bytes.readUInt16BE(12) : 0;
  if (type === IPV4 && bytes.length >= L3 + 20) {
    const end = L3 + 4 * (bytes[L3] & 15);
    if (end < L3 + 20 || end > bytes.length) return;
    bytes.writeUInt16LE(0, L3 + 10);
    bytes.writeUInt16LE(checksum(bytes, L3, end - L3), L3 + 10);
  } else if (type === IPV6 && bytes.length >= 74 && bytes.readUInt16BE(18) === bytes.length - 54) seal6(bytes);
}

/** The way back of a packet: addresses, and what are ports. */
function exchangeEnds(bytes: Buffer): void {
  const type = bytes.length >= 62 ? bytes.readUInt16BE(12) : 0;
  if (type !== IPV4 && type !== IPV6) return;
  const [at, length] = type === IPV4 ? [L3 + 12, 4] : [L3 + 8, 16];
  const source = Buffer.from(bytes.subarray(at, at + length));
  bytes.copyWithin(at, at + length, at + 2 * length);
  bytes.set(source, at + length);
  const l4 = L3 + (type === IPV4 ? 4 * (bytes[L3] & 15) : 40);
  if (l4 + 4 > bytes.length) return;
  const ports = bytes.readUInt32BE(l4);
  bytes.writeUInt32BE(((ports << 16) | (ports >>> 16)) >>> 0, l4);
}
