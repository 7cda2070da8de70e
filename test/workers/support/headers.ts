/** Puts options into IPv4 headers, and extension headers behind IPv6 headers. */

import { seal } from './frames.js';

const L3 = 14;

/**
 * An untagged frame of IPv4 without options, with these bytes as options, filled up to whole words
 * with `end`.
 */
export function withOptions(frame: Uint8Array, options: readonly number[], end = 0): Uint8Array {
  const filled = [...options, ...new Array((4 - (options.length & 3)) & 3).fill(end)];
  if (filled.length > 40) throw new Error(`${filled.length} bytes of options`);
  const bytes = Uint8Array.of(...frame.subarray(0, L3 + 20), ...filled, ...frame.subarray(L3 + 20));
  const total = bytes.length - L3;
  bytes.set([0x45 + filled.length / 4], L3);
  bytes.set([total >> 8, total & 0xff], L3 + 2);
  return seal(bytes);
}

/**
 * An extension header of `bytes` bytes: zeros behind the first two, where `start` does not say
 * otherwise.
 */
export interface Extension6 {
  readonly header: number;
  readonly bytes: number;
  readonly start?: readonly number[];
}

const FRAGMENT = 44;
const AUTHENTICATION = 51;

/**
 * An untagged frame of IPv6, with extension headers before what it carries; `protocol`: called
 * another.
 */
export function withExtensions(
  frame: Uint8Array,
  extensions: readonly Extension6[],
  protocol = frame[L3 + 6],
): Uint8Array {
  const chain = extensions.flatMap(({ header, bytes, start = [] }, n) => {
    const next = extensions[n + 1]?.header ?? protocol;
    const units = header === FRAGMENT ? 0 : header === AUTHENTICATION ? bytes / 4 - 2 : bytes / 8 - 1;
    return [next, units, ...start, ...new Array(bytes - 2 - start.length).fill(0)];
  });
  const out = Uint8Array.of(...frame.subarray(0, L3 + 40), ...chain, ...frame.subarray(L3 + 40));
  const payload = out.length - L3 - 40;
  out.set([payload >> 8, payload & 0xff, extensions[0]?.header ?? protocol], L3 + 4);
  return out;
}
