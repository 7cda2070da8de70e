/**
 * Checks that options are well-formed: those of IPv4 headers (RFC 791 §3.1), and those of IPv6
 * hop-by-hop and destination headers (RFC 8200 §4.2). A receiver that trusts a wrong length, or
 * follows a source route, would act on unchecked data. The kernel drops such packets too.
 *
 *     IPv4   type 1, length of the whole option 1, data   types 0 (end), 1 (no operation): 1 byte
 *     IPv6   type 1, length of the data 1, data           type 0: 1 byte
 */

const OPTIONS_RIGHT = 0;
/**
 * An option has length 0 or 1, reaches past the header, or is a malformed or second source route.
 */
export const OPTIONS_MALFORMED = 1;
/** Well-formed, with a loose or strict source route. */
export const OPTIONS_SOURCE_ROUTE = 2;

const END = 0;
const NO_OPERATION = 1;
const LOOSE_SOURCE_ROUTE = 131;
const STRICT_SOURCE_ROUTE = 137;
/** Type, length and pointer. */
const ROUTE_BYTES_MIN = 3;
/** The pointer counts from 1, and the first address follows it. */
const ROUTE_POINTER_MIN = 4;

/** Checks the options between the bytes `from` and `end` of an IPv4 header. */
export function checkIpv4Options(u8: Uint8Array, from: number, end: number): number {
  let found = OPTIONS_RIGHT;
  for (let at = from; at < end; ) {
    const type = u8[at];
    if (type === END) break;
    if (type === NO_OPERATION) {
      at++;
      continue;
    }
    const bytes = at + 1 < end ? u8[at + 1] : 0;
    if (bytes < 2 || at + bytes > end) return OPTIONS_MALFORMED;
    if (type === LOOSE_SOURCE_ROUTE || type === STRICT_SOURCE_ROUTE) {
      const isFirst = found === OPTIONS_RIGHT;
      if (!isFirst || bytes < ROUTE_BYTES_MIN || u8[at + 2] < ROUTE_POINTER_MIN) return OPTIONS_MALFORMED;
      found = OPTIONS_SOURCE_ROUTE;
    }
    at += bytes;
  }
  return found;
}

/**
 * Whether the options between the bytes `from` and `end` of an IPv6 extension header are
 * well-formed.
 */
export function areIpv6Options(u8: Uint8Array, from: number, end: number): boolean {
  let at = from;
  while (at < end) {
    if (u8[at] === 0) at++;
    else if (at + 1 < end) at += 2 + u8[at + 1];
    else return false;
  }
  return at === end;
}
