/** Parses addresses, prefixes and ranges, IPv4 and IPv6. */

import { BITS_IPV4, BITS_IPV6, type Interval, largest } from './intervals.js';

interface AddressRange {
  readonly version: 4 | 6;
  readonly interval: Interval;
}

/** Parses an address, a prefix, or a range `a-b`. A returned string says what is wrong. */
export function parseAddresses(text: string): AddressRange | string {
  const [first, last, more] = text.split('-');
  if (last !== undefined && more === undefined) return parseRange(first, last);
  const [address, length, rest] = text.split('/');
  const parsed = parseAddress(address);
  if (parsed === null || rest !== undefined) return 'is not an IP address, a prefix or a range';
  const { version, number } = parsed;
  if (length === undefined) return { version, interval: [number, number] };
  const bits = version === 4 ? BITS_IPV4 : BITS_IPV6;
  if (!/^\d{1,3}$/.test(length) || Number(length) > bits) return `has a prefix length beyond ${bits}`;
  const host = largest(bits - Number(length));
  if ((number & host) !== 0n)
    return `has bits set behind its prefix; the prefix is ${formatAddress(version, number & ~host)}/${length}`;
  return { version, interval: [number, number | host] };
}

function parseRange(first: string, last: string): AddressRange | string {
  const from = parseAddress(first);
  const to = parseAddress(last);
  if (from === null || to === null) return 'is not an IP address, a prefix or a range';
  if (from.version !== to.version) return 'goes from one IP version to the other';
  if (from.number > to.number) return 'ends before it begins';
  return { version: from.version, interval: [from.number, to.number] };
}

function parseAddress(text: string): { version: 4 | 6; number: bigint } | null {
  const number = text.includes(':') ? parseIpv6(text) : parseIpv4(text);
  return number === null ? null : { version: text.includes(':') ? 6 : 4, number };
}

function parseIpv4(text: string): bigint | null {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)) return null;
  return parts.reduce((number, part) => (number << 8n) | BigInt(part), 0n);
}

/** Format of RFC 4291 §2.2: at most one `::`, and optionally an IPv4 address at the end. */
function parseIpv6(text: string): bigint | null {
  const [head, tail, more] = text.split('::');
  if (more !== undefined || text.length > 45) return null;
  const before = groups(head, tail === undefined);
  const after = tail === undefined ? [] : groups(tail, true);
  if (before === null || after === null) return null;
  const missing = 8 - before.length - after.length;
  if (tail === undefined ? missing !== 0 : missing < 1) return null;
  const all = [...before, ...Array<number>(missing).fill(0), ...after];
  return all.reduce((number, group) => (number << 16n) | BigInt(group), 0n);
}

function groups(text: string, isEnd: boolean): number[] | null {
  if (text === '') return [];
  const parts = text.split(':');
  const numbers: number[] = [];
  for (const [i, part] of parts.entries()) {
    if (/^[0-9A-Fa-f]{1,4}$/.test(part)) numbers.push(Number.parseInt(part, 16));
    else {
      const ipv4 = isEnd && i === parts.length - 1 ? parseIpv4(part) : null;
      if (ipv4 === null) return null;
      numbers.push(Number(ipv4 >> 16n), Number(ipv4 & 0xffffn));
    }
  }
  return numbers;
}

function formatAddress(version: 4 | 6, number: bigint): string {
  const size = version === 4 ? 8 : 16;
  const parts = Array.from(
    { length: version === 4 ? 4 : 8 },
    (_, i) => (number >> BigInt(size * ((version === 4 ? 3 : 7) - i))) & largest(size),
  );
  if (version === 4) return parts.join('.');
  // The longest run of two or more zero groups is left out (RFC 5952 §4.2).
  const text = parts.map((part) => part.toString(16)).join(':');
  const runs = [...text.matchAll(/\b0(?::0)+\b/g)].sort((a, b) => b[0].length - a[0].length);
  if (runs.length === 0) return text;
  const [{ 0: run, index }] = runs;
  return `${text.slice(0, index).replace(/:$/, '')}::${text.slice(index + run.length).replace(/^:/, '')}`;
}
