/**
 * Lists of IPv4 addresses, as an operator writes them: addresses, networks (`192.0.2.0/28`: all
 * sixteen addresses) and ranges (`192.0.2.1-192.0.2.9`: both ends and all between).
 */

/** Maximum number of addresses in one list. */
export const ADDRESSES_MAX = 4096;

/** First and last address, as numbers that sort like addresses. */
export interface Span {
  readonly first: number;
  readonly last: number;
}

const OCTET = '(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
export const IPV4_PATTERN = `(${OCTET}\\.){3}${OCTET}`;
const BITS = '(3[0-2]|[12]?[0-9])';
/** An address, a network or a range. */
export const SPAN_PATTERN = `${IPV4_PATTERN}(/${BITS}|-${IPV4_PATTERN})?`;

/** An IPv4 address as a number in the order people read it, 0 … 2^32 − 1. */
export function numericIpv4(text: string): number {
  return text.split('.').reduce((number, octet) => number * 256 + Number(octet), 0);
}

/** An IPv4 address from such a number. */
export function ipv4Text(number: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join('.');
}

/**
 * The span of `text`, which must match `SPAN_PATTERN`. Returns an error message if the span is
 * invalid.
 */
export function parseSpan(text: string): Span | string {
  const [from, to] = text.split('-');
  if (to !== undefined) {
    const span = { first: numericIpv4(from), last: numericIpv4(to) };
    return span.first <= span.last ? span : `${text} ends before it begins: write ${to}-${from}`;
  }
  const [address, bits = '32'] = text.split('/');
  const first = numericIpv4(address);
  const size = 2 ** (32 - Number(bits));
  if (first % size !== 0)
    return `${text} has bits set behind the network's: write the network's first address, ${ipv4Text(first - (first % size))}/${bits}`;
  return { first, last: first + size - 1 };
}

/** All addresses of a checked list, in the order written. Throws if an entry is invalid. */
export function expandAddresses(written: readonly string[]): string[] {
  return written.flatMap((text) => {
    const span = parseSpan(text);
    if (typeof span === 'string') throw new RangeError(span);
    return Array.from({ length: span.last - span.first + 1 }, (_, i) => ipv4Text(span.first + i));
  });
}

/**
 * The fewest networks that cover each entry: `10.0.0.0/8` is itself, a range may be several. Throws
 * if an entry is invalid.
 */
export function expandPrefixes(written: readonly string[]): string[] {
  return written.flatMap((text) => {
    const span = parseSpan(text);
    if (typeof span === 'string') throw new RangeError(span);
    const networks: string[] = [];
    for (let at = span.first; at <= span.last; ) {
      let bits = 32;
      while (bits > 0 && at % 2 ** (33 - bits) === 0 && at + 2 ** (33 - bits) - 1 <= span.last) bits--;
      networks.push(`${ipv4Text(at)}/${bits}`);
      at += 2 ** (32 - bits);
    }
    return networks;
  });
}
