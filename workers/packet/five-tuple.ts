/**
 * Parts of a packet's five-tuple: the two ports of the raw pair in a batch's column.
 */

/** Raw source port of a raw port pair. */
export function sourcePort(ports: number): number {
  return ports & 0xffff;
}

/** Raw destination port of a raw port pair. */
export function destinationPort(ports: number): number {
  return ports >>> 16;
}
