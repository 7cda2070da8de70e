/**
 * The Internet checksum, on words as they lie in memory.
 *
 * The ones' complement sum does not depend on byte order (RFC 1071 §2.B). The sum of the packet's
 * bytes as little-endian words is the byte-swapped sum, and becomes right when it is stored
 * little-endian again. So no code here swaps bytes.
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
 * Sum of `bytes` bytes from `from`, not folded. An odd last byte is padded with zero (RFC 1071
 * §4.1).
 */
export function sumBytes(u8: Uint8Array, from: number, bytes: number, initial = 0): number {
  let sum = initial;
  const end = from + (bytes & ~1);
  for (let at = from; at < end; at += 2) sum += u8[at] | (u8[at + 1] << 8);
  if ((bytes & 1) !== 0) sum += u8[end];
  return sum;
}

/**
 * RFC 1071: the raw checksum over bytes whose checksum field is zero. If the bytes include a
 * correct checksum, the result is 0.
 */
export function checksum(u8: Uint8Array, from: number, bytes: number, initial = 0): number {
  return ~fold(sumBytes(u8, from, bytes, initial)) & 0xffff;
}

/**
 * Change of a checksum's sum if raw word `before` is replaced by `after`: ~m + m' of RFC 1624 (eqn.
 * 3), by halves. Differences of several words may be added up before `update`.
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
