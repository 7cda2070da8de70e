/**
 * Ethernet II.
 *
 *     0   destination address   6 bytes
 *     6   source address        6 bytes
 *     12  type, or VLAN tags    2 bytes
 *
 * A frame starts at 2 modulo 4. So the destination is a half word and a word, and the source is a
 * word and a half word.
 */

import type { PacketMemory } from './memory.js';

export const ETHERNET_BYTES = 14;

/** Types, raw: read as a little-endian half word. */
export const EtherType = {
  IPV4: 0x0008,
  ARP: 0x0608,
  VLAN: 0x0081,
  SERVICE_VLAN: 0xa888,
  IPV6: 0xdd86,
  PPPOE_SESSION: 0x6488,
} as const;

/**
 * Up to this value, in host order, the type field is an 802.3 length, and an LLC header follows.
 */
export const LENGTH_MAX = 1500;

/** A link-layer address as raw words: bytes 0–3 in `low`, 4–5 in the low half of `high`. */
export interface Mac {
  readonly low: number;
  readonly high: number;
}

/** Reads `aa:bb:cc:dd:ee:ff`. Throws a RangeError that quotes the text. */
export function parseMac(text: string): Mac {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)) throw new RangeError(`"${text}" is not a MAC address`);
  const bytes = text.split(/[:-]/).map((byte) => Number.parseInt(byte, 16));
  return {
    low: bytes[0] | (bytes[1] << 8) | (bytes[2] << 16) | (bytes[3] << 24),
    high: bytes[4] | (bytes[5] << 8),
  };
}

export function formatMac(mac: Mac): string {
  const bytes = [mac.low, mac.low >>> 8, mac.low >>> 16, mac.low >>> 24, mac.high, mac.high >>> 8];
  return bytes.map((byte) => (byte & 0xff).toString(16).padStart(2, '0')).join(':');
}

/** Whether a frame is addressed to a group, which includes broadcast. */
export function isGroupAddressed(memory: PacketMemory, start: number): boolean {
  return (memory.u8[start] & 1) !== 0;
}

function setDestinationMac(memory: PacketMemory, start: number, low: number, high: number): void {
  memory.u16[start >> 1] = low;
  memory.i32[(start + 2) >> 2] = (low >>> 16) | (high << 16);
}

function setSourceMac(memory: PacketMemory, start: number, low: number, high: number): void {
  memory.i32[(start + 6) >> 2] = low;
  memory.u16[(start + 10) >> 1] = high;
}

/**
 * Swaps the frame's source and destination addresses, so it returns to the station that sent it.
 */
export function returnToSender(memory: PacketMemory, start: number): void {
  const { u16, i32 } = memory;
  const low = u16[start >> 1] | (i32[(start + 2) >> 2] << 16);
  const high = i32[(start + 2) >> 2] >>> 16;
  setDestinationMac(memory, start, i32[(start + 6) >> 2], u16[(start + 10) >> 1]);
  setSourceMac(memory, start, low, high);
}
