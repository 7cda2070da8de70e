/**
 * The Internet checksum, on words as they lie in memory.
 *
 * The ones' complement sum does not depend on byte order (RFC 1071 §2.B): summing the packet's
 * bytes as little-endian words gives the byte-swapped sum, which is the right one once stored
 * little-endian again. So nothing here swaps.
 */

/** Ones' complement sum of 16-bit words, folded into 16 bits. Takes sums below 2^31. */
export function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/** Adds both halves of a raw word. */
export function halves(word: number): number {
  return (word & 0xffff) + (word >>> 16);
}

/**
 * Sum of `bytes` bytes from `from`, unfolded; an odd last byte is padded with zero (RFC 1071 §4.1).
 */
export function sumBytes(u8: Uint8Array, from: number, bytes: number, initial = 0): number {
  let sum = initial;
  const end = from + (bytes & ~1);
  for (let at = from; at < end; at += 2) sum += u8[at] | (u8[at + 1] << 8);
  if ((bytes & 1) !== 0) sum += u8[end];
  return sum;
}

/**
 * RFC 1071: the raw checksum over bytes whose checksum field is zero. 0 over bytes whose checksum
 * is right.
 */
export function checksum(u8: Uint8Array, from: number, bytes: number, initial = 0): number {
  return ~fold(sumBytes(u8, from, bytes, initial)) & 0xffff;
}

/**
 * What replacing raw word `before` by `after` adds to the sum under a checksum: ~m + m' of RFC 1624
 * (eqn. 3), by halves. Differences of several words are added up before `update`.
 */
export function difference(before: number, after: number): number {
  return (~before & 0xffff) + (~before >>> 16) + (after & 0xffff) + (after >>> 16);
}

/** The same for one 16-bit field. */
export function difference16(before: number, after: number): number {
  return (~before & 0xffff) + (after & 0xffff);
}

/** RFC 1624: the checksum after a change, HC' = ~(~HC + ~m + m'). */
export function update(before: number, difference: number): number {
  return ~fold((~before & 0xffff) + difference) & 0xffff;
}
