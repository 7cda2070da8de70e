/**
 * IPv4 fragments as bytes, and their reassembly, for datagrams whose transport header is split
 * (workers/plane/fragments.ts).
 */

import { checksum } from './checksum.js';
import { Ipv4At, Ipv4Fragment } from './ipv4.js';

function half(u8: Uint8Array, at: number): number {
  return (u8[at] << 8) | u8[at + 1];
}

function setHalf(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value >>> 8;
  u8[at + 1] = value & 0xff;
}

export function headerBytesOf(u8: Uint8Array, header: number): number {
  return (u8[header] & 0x0f) << 2;
}

/** Offset of a fragment's data in the datagram, in bytes. */
export function offsetOf(u8: Uint8Array, header: number): number {
  return (half(u8, header + Ipv4At.fragment) & Ipv4Fragment.OFFSET) << 3;
}

/** Length of a fragment's data, in bytes. */
export function dataBytesOf(u8: Uint8Array, header: number): number {
  return half(u8, header + Ipv4At.totalLength) - headerBytesOf(u8, header);
}

/** Copies a fragment's data to its position after the header of the first fragment. */
export function copyData(u8: Uint8Array, first: number, header: number): void {
  const from = header + headerBytesOf(u8, header);
  const to = first + headerBytesOf(u8, first) + offsetOf(u8, header);
  u8.copyWithin(to, from, from + dataBytesOf(u8, header));
}

/**
 * Turns the header of the first fragment into the header of the whole packet. `lengthAt` is the
 * byte offset of a length field before it, or 0.
 */
export function sealWhole(u8: Uint8Array, first: number, totalBytes: number, lengthAt: number): void {
  const field = half(u8, first + Ipv4At.fragment);
  setHalf(u8, first + Ipv4At.totalLength, totalBytes);
  setHalf(u8, first + Ipv4At.fragment, field & Ipv4Fragment.DONT);
  setHalf(u8, first + Ipv4At.checksum, 0);
  const sum = checksum(u8, first, headerBytesOf(u8, first));
  u8[first + Ipv4At.checksum] = sum & 0xff;
  u8[first + Ipv4At.checksum + 1] = sum >>> 8;
  if (lengthAt !== 0) setHalf(u8, lengthAt, first - lengthAt - 2 + totalBytes);
}
