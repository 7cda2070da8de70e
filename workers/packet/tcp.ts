/**
 * TCP (RFC 9293).
 *
 *     0   source port            2        12  data offset, in words, in the upper half   1
 *     2   destination port       2        13  flags                                      1
 *     4   sequence number        4        14  window                                     2
 *     8   acknowledgement        4        16  checksum                                   2
 */

export const TCP_BYTES_MIN = 20;

export const TcpAt = { dataOffset: 12, flags: 13, checksum: 16 };

export const TcpFlag = { FIN: 0x01, SYN: 0x02, RST: 0x04, PSH: 0x08, ACK: 0x10, URG: 0x20 } as const;
