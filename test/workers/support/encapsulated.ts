/**
 * Puts plain frames of IPv4 and IPv6 behind VLAN tags, into SNAP and into PPPoE sessions, and takes
 * them out again.
 */

import { strict as assert } from 'node:assert';

export interface Encapsulation {
  /** The outer one first. */
  readonly tags: readonly { readonly type: number; readonly id: number }[];
  readonly framing: 'ethernet' | 'snap' | 'pppoe';
  /** Of PPPoE. */
  readonly session?: number;
  /** Bytes behind the packet. */
  readonly padding?: number;
}

export const TAG_TYPES = [0x8100, 0x88a8, 0x9100, 0x9200] as const;

const SNAP = [0xaa, 0xaa, 0x03, 0, 0, 0];
const half = (value: number): number[] => [value >> 8, value & 0xff];

export function encapsulated(
  frame: Uint8Array,
  { tags, framing, session = 1, padding = 0 }: Encapsulation,
): Uint8Array {
  const packet = frame.subarray(14);
  const type = [...frame.subarray(12, 14)];
  const protocol = type[0] === 0x08 ? 0x0021 : 0x0057;
  const header = {
    ethernet: type,
    snap: [...half(SNAP.length + 2 + packet.length), ...SNAP, ...type],
    pppoe: [...half(0x8864), 0x11, 0, ...half(session), ...half(2 + packet.length), ...half(protocol)],
  }[framing];
  const words = tags.flatMap(({ type, id }) => [...half(type), ...half(id)]);
  const end = new Array(padding).fill(0xee);
  return Uint8Array.of(...frame.subarray(0, 12), ...words, ...header, ...packet, ...end);
}

/**
 * The plain frame, and what it was in. Asserts that the length fields are right: what is behind is
 * padding.
 */
export function decapsulated(frame: Uint8Array): { frame: Uint8Array; tags: number[]; framing: string } {
  const bytes = Buffer.from(frame);
  const tags: number[] = [];
  let at = 12;
  for (; (TAG_TYPES as readonly number[]).includes(bytes.readUInt16BE(at)); at += 4)
    tags.push(bytes.readUInt16BE(at + 2));
  const first = bytes.readUInt16BE(at);
  const [framing, typeAt, end] =
    first === 0x8864
      ? (['pppoe', at + 8, at + 8 + bytes.readUInt16BE(at + 6)] as const)
      : first <= 1500
        ? (['snap', at + 8, at + 2 + first] as const)
        : (['ethernet', at, bytes.length] as const);
  if (framing === 'pppoe') assert.deepEqual([...bytes.subarray(at + 2, at + 4)], [0x11, 0]);
  if (framing === 'snap') assert.deepEqual([...bytes.subarray(at + 2, at + 8)], SNAP);
  const written = bytes.readUInt16BE(typeAt);
  const type = framing === 'pppoe' ? { 33: 0x0800, 87: 0x86dd }[written] : written;
  assert.ok(type === 0x0800 || type === 0x86dd, `type ${written.toString(16)} in ${framing}`);
  const ip = typeAt + 2;
  const length = type === 0x0800 ? bytes.readUInt16BE(ip + 2) : 40 + bytes.readUInt16BE(ip + 4);
  assert.ok(ip + length <= bytes.length, 'the packet is longer than the frame');
  if (framing !== 'ethernet') assert.equal(end, ip + length, `the length field of ${framing}`);
  const plain = Uint8Array.of(...bytes.subarray(0, 12), ...half(type), ...bytes.subarray(ip, ip + length));
  return { frame: plain, tags, framing };
}
