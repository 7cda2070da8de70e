/**
 * UDP (RFC 768).
 *
 *     0   source port        2        4   length, header included   2
 *     2   destination port   2        6   checksum, 0 for none      2
 */

export const UDP_BYTES = 8;

export const UdpAt = { length: 4, checksum: 6 };
