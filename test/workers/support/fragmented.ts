/**
 * Cuts whole packets into fragments, and puts fragments together again, as hosts do: IPv4 without
 * options, and IPv6.
 */

import { checksum } from '../../../workers/packet/checksum.js';

const L3 = 14;
const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
const FRAGMENT_HEADER_BYTES = 8;
const FRAGMENT_HEADER = 44;

const isIpv6 = (frame: Uint8Array): boolean => frame[12] === 0x86;

/** Fragments of an untagged frame, of `bytes` (a multiple of 8) each but the last. */
export function fragmentsOf(frame: Uint8Array, bytes: number, id = 1): Uint8Array[] {
  const headerBytes = isIpv6(frame) ? IPV6_BYTES : IPV4_BYTES;
  const payload = frame.subarray(L3 + headerBytes);
  const fragments: Uint8Array[] = [];
  for (let offset = 0; offset < payload.length; offset += bytes) {
    const part = payload.subarray(offset, offset + bytes);
    const more = offset + bytes < payload.length;
    const head = frame.subarray(0, L3 + headerBytes);
    fragments.push(isIpv6(frame) ? cutIpv6(head, part, offset, more, id) : cutIpv4(head, part, offset, more, id));
  }
  return fragments;
}

function cutIpv4(head: Uint8Array, part: Uint8Array, offset: number, more: boolean, id: number): Uint8Array {
  const bytes = Buffer.concat([head, part]);
  bytes.writeUInt16BE(IPV4_BYTES + part.length, L3 + 2);
  bytes.writeUInt16BE(id & 0xffff, L3 + 4);
  bytes.writeUInt16BE((offset >> 3) | (more ? 0x2000 : 0), L3 + 6);
  sealIpv4(bytes);
  return new Uint8Array(bytes);
}

function sealIpv4(bytes: Buffer): void {
  bytes.writeUInt16LE(0, L3 + 10);
  bytes.writeUInt16LE(checksum(bytes, L3, IPV4_BYTES), L3 + 10);
}

function cutIpv6(head: Uint8Array, part: Uint8Array, offset: number, more: boolean, id: number): Uint8Array {
  const header = Buffer.alloc(FRAGMENT_HEADER_BYTES);
  header[0] = head[L3 + 6];
  header.writeUInt16BE(offset | (more ? 1 : 0), 2);
  header.writeUInt32BE(id >>> 0, 4);
  const bytes = Buffer.concat([head, header, part]);
  bytes.writeUInt16BE(FRAGMENT_HEADER_BYTES + part.length, L3 + 4);
  bytes[L3 + 6] = FRAGMENT_HEADER;
  return new Uint8Array(bytes);
}

/**
 * The packet that fragments of one datagram make, in whatever order; `null` while something is
 * missing. Overlaps throw.
 */
export function reassembled(fragments: readonly Uint8Array[]): Uint8Array | null {
  const parts = fragments.map((frame) => (isIpv6(frame) ? partIpv6(frame) : partIpv4(frame)));
  parts.sort((a, b) => a.offset - b.offset);
  let at = 0;
  for (const { offset, bytes } of parts) {
    if (offset < at) throw new Error(`fragments overlap at ${offset}`);
    if (offset > at) return null;
    at += bytes.length;
  }
  const [first] = parts;
  if (first === undefined || parts[parts.length - 1].more) return null;
  const whole = Buffer.concat([first.head, ...parts.map(({ bytes }) => bytes)]);
  if (isIpv6(first.head)) whole.writeUInt16BE(whole.length - L3 - IPV6_BYTES, L3 + 4);
  else {
    whole.writeUInt16BE(whole.length - L3, L3 + 2);
    whole.writeUInt32BE(0, L3 + 4);
    sealIpv4(whole);
  }
  return new Uint8Array(whole);
}

interface Part {
  readonly head: Buffer;
  readonly offset: number;
  readonly more: boolean;
  readonly bytes: Buffer;
}

function partIpv4(frame: Uint8Array): Part {
  const bytes = Buffer.from(frame);
  const field = bytes.readUInt16BE(L3 + 6);
  const end = L3 + bytes.readUInt16BE(L3 + 2);
  const at = L3 + IPV4_BYTES;
  return {
    head: bytes.subarray(0, at),
    offset: (field & 0x1fff) * 8,
    more: (field & 0x2000) !== 0,
    bytes: bytes.subarray(at, end),
  };
}

function partIpv6(frame: Uint8Array): Part {
  const bytes = Buffer.from(frame);
  const at = L3 + IPV6_BYTES;
  const field = bytes.readUInt16BE(at + 2);
  const head = Buffer.from(bytes.subarray(0, at));
  head[L3 + 6] = bytes[at];
  const end = at + bytes.readUInt16BE(L3 + 4);
  return {
    head,
    offset: field & 0xfff8,
    more: (field & 1) !== 0,
    bytes: bytes.subarray(at + FRAGMENT_HEADER_BYTES, end),
  };
}
