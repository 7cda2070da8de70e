/**
 * Copying IPv4 options (RFC 791 §3.1) into fragments.
 *
 *     0   type: copy bit 0x80, class, number   1   end of list (0), no operation (1): 1 byte
 *     1   length of the whole option           1
 *     2   data
 */

import { IPV4_BYTES_MIN } from './ipv4.js';

const END = 0;
const NO_OPERATION = 1;
/** Bit of the type: every fragment has the option, not only the first. */
const COPIED = 0x80;

/**
 * Copies the options that every fragment carries from the IPv4 header at `header` into `into`, from
 * byte 20 on, padded to whole words. Returns their length in bytes. An option with an impossible
 * length ends the list.
 */
export function copiedOptions(bytes: Uint8Array, header: number, into: Uint8Array): number {
  const end = header + ((bytes[header] & 0x0f) << 2);
  let to = IPV4_BYTES_MIN;
  for (let at = header + IPV4_BYTES_MIN; at < end; ) {
    const type = bytes[at];
    if (type === END) break;
    if (type === NO_OPERATION) {
      at++;
      continue;
    }
    const length = at + 1 < end ? bytes[at + 1] : 0;
    if (length < 2 || at + length > end) break;
    if ((type & COPIED) !== 0) for (let byte = 0; byte < length; byte++) into[to++] = bytes[at + byte];
    at += length;
  }
  while ((to & 3) !== 0) into[to++] = END;
  return to - IPV4_BYTES_MIN;
}
