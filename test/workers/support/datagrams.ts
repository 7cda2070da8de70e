/**
 * IPv4 datagrams as a host makes and reassembles them, with options: an implementation of its own,
 * to compare fragmentation with. A datagram is the bytes from the IP header on.
 */

import { checksum } from '../../../workers/packet/checksum.js';
import type { Stream } from '../../sim/random.js';
import { HOST_MAC, ROUTER_MAC } from './frames.js';

export interface Datagram {
  readonly id: number;
  /** Whole options; no operation between them, end of list behind. */
  readonly options: readonly Buffer[];
  readonly payload: Buffer;
}

const NO_OPERATION = Buffer.of(1);
/** Type, length, data: with and without the copy bit. */
const OPTIONS = [
  Buffer.of(0x94, 4, 0, 0), // router alert
  Buffer.of(0x88, 4, 1, 2), // stream identifier
  Buffer.of(0x86, 7, 9, 8, 7, 6, 5), // CIPSO as far as it matters here
  Buffer.of(0x07, 7, 4, 0, 0, 0, 0), // record route
  Buffer.of(0x44, 8, 5, 0, 0, 0, 0, 0), // time stamp
  Buffer.of(0x52, 3, 3), // traceroute, of an odd length
];

/** A datagram with a random set of options, of UDP, with so many bytes behind the IP header. */
export function drawDatagram(random: Stream, id: number, bytes: number): Datagram {
  const options: Buffer[] = [];
  let optionBytes = 0;
  while (random.chance(0.6)) {
    const option = random.chance(0.3) ? NO_OPERATION : random.pick(OPTIONS);
    if (optionBytes + option.length > 40) break;
    options.push(option);
    optionBytes += option.length;
  }
  const payload = Buffer.from(Uint8Array.from({ length: bytes }, () => random.below(256)));
  payload.writeUInt16BE(4000, 0);
  payload.writeUInt16BE(53, 2);
  payload.writeUInt16BE(bytes, 4);
  payload.writeUInt16BE(0, 6);
  return { id, options, payload };
}

/** Options as they stand in a header. */
export function optionField(options: readonly Buffer[]): Buffer {
  const bytes = Buffer.concat(options);
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}

/** A frame of `payload` from byte `offset` of a datagram on. */
export function frameOf({ id, options }: Datagram, payload: Buffer, offset: number, more: boolean): Uint8Array {
  const field = optionField(options);
  const header = Buffer.concat([Buffer.alloc(20), field]);
  header[0] = 0x40 | (header.length / 4);
  header[1] = 0x28;
  header.writeUInt16BE(header.length + payload.length, 2);
  header.writeUInt16BE(id, 4);
  header.writeUInt16BE((offset >> 3) | (more ? 0x2000 : 0), 6);
  header[8] = 64;
  header[9] = 17;
  header.set([10, 0, 0, 5, 198, 51, 100, 7], 12);
  header.writeUInt16LE(checksum(header, 0, header.length), 10);
  const link = [ROUTER_MAC, HOST_MAC].flatMap((mac) => mac.split(':').map((byte) => Number.parseInt(byte, 16)));
  return new Uint8Array(Buffer.concat([Buffer.from(link), Buffer.of(8, 0), header, payload]));
}

/** The fragments that a host or a router before ours makes: as many bytes each as drawn. */
export function drawFragments(random: Stream, datagram: Datagram): Uint8Array[] {
  const { payload, options } = datagram;
  const later = { ...datagram, options: options.filter((option) => (option[0] & 0x80) !== 0) };
  const frames: Uint8Array[] = [];
  for (let at = 0; at < payload.length; ) {
    const end = Math.min(payload.length, at + 8 * random.whole(1, 200));
    frames.push(frameOf(at === 0 ? datagram : later, payload.subarray(at, end), at, end < payload.length));
    at = end;
  }
  return frames;
}

export interface Arrived {
  readonly options: Buffer;
  readonly payload: Buffer;
}

/**
 * Puts frames together as a host does (RFC 791 §3.2), by identification. Throws if one is not a
 * sound IPv4 packet, if two overlap or if a fragment that is not the last is no multiple of 8
 * bytes. What is incomplete is not returned.
 */
export function reassemble(
  frames: readonly Uint8Array[],
  firstOptions = new Map<number, Buffer>(),
): Map<number, Arrived> {
  const parts = new Map<number, { offset: number; bytes: Buffer; more: boolean }[]>();
  for (const frame of frames) {
    const packet = Buffer.from(frame).subarray(14);
    const headerBytes = (packet[0] & 15) * 4;
    const total = packet.readUInt16BE(2);
    if (checksum(packet, 0, headerBytes) !== 0) throw new Error('a wrong header checksum');
    if (total !== packet.length) throw new Error(`${packet.length} bytes, of ${total}`);
    const field = packet.readUInt16BE(6);
    const more = (field & 0x2000) !== 0;
    const offset = (field & 0x1fff) * 8;
    const bytes = packet.subarray(headerBytes);
    if (bytes.length === 0 || (more && bytes.length % 8 !== 0)) throw new Error(`a fragment of ${bytes.length} bytes`);
    const id = packet.readUInt16BE(4);
    if (offset === 0) firstOptions.set(id, packet.subarray(20, headerBytes));
    parts.set(id, [...(parts.get(id) ?? []), { offset, bytes, more }]);
  }
  const whole = new Map<number, Arrived>();
  for (const [id, list] of parts) {
    list.sort((a, b) => a.offset - b.offset);
    let at = 0;
    for (const { offset, bytes } of list) {
      if (offset < at) throw new Error(`datagram ${id}: fragments overlap at ${offset}`);
      if (offset > at) break;
      at += bytes.length;
    }
    const last = list[list.length - 1];
    if (last.more || at !== last.offset + last.bytes.length) continue;
    whole.set(id, {
      options: firstOptions.get(id) as Buffer,
      payload: Buffer.concat(list.map(({ bytes }) => bytes)),
    });
  }
  return whole;
}
