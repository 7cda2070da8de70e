/** The few values that drawn rules and drawn packets share, so that rules meet packets. */

function v4(...parts: number[]): Buffer {
  return Buffer.from(parts);
}

function v6(...groups: number[]): Buffer {
  const bytes = Buffer.alloc(16);
  for (const [i, group] of groups.entries()) bytes.writeUInt16BE(group, 2 * i);
  return bytes;
}

/** Addresses of hosts: no martians, and none of the machine that forwards. */
export const V4: readonly Buffer[] = [
  v4(10, 0, 0, 1),
  v4(10, 0, 0, 2),
  v4(10, 0, 1, 255),
  v4(10, 128, 0, 0),
  v4(172, 16, 0, 1),
  v4(192, 168, 255, 254),
  v4(198, 51, 100, 7),
  v4(223, 255, 255, 254),
];

export const V6: readonly Buffer[] = [
  v6(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
  v6(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1),
  v6(0x2001, 0xdb8, 0, 0, 0xffff, 0xffff, 0xffff, 0xffff),
  v6(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 2),
  v6(0xfd00, 0, 0, 0, 0, 0, 0, 1),
  v6(0x3fff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
];

export const PORTS: readonly number[] = [0, 1, 22, 53, 80, 443, 1023, 1024, 8080, 65_534, 65_535];

/** Protocols that a packet may carry, also where they belong to the other IP version. */
export const PROTOCOLS: readonly number[] = [1, 2, 6, 17, 33, 47, 50, 58, 89, 103, 132, 136, 200, 255];

export const ICMP_TYPES: readonly number[] = [0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18];
export const ICMPV6_TYPES: readonly number[] = [
  1, 2, 3, 4, 100, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 143, 151, 152, 200,
];

/** Codes of ICMP that a packet may have instead of 0. */
export const CODES: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 9, 10, 13, 255];

/** Code points, and how rules call them. */
export const DSCP: readonly number[] = [0, 8, 10, 46, 48];
export const DSCP_NAMES: readonly string[] = ['cs0', 'cs1', 'af11', 'ef', '0x30'];
