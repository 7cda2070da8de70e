/** Values in rules: a word, a defined name, or a set of them in braces. */

import { parseAddresses } from './addresses.js';
import { type Cursor, said } from './cursor.js';
import { type Interval, union } from './intervals.js';
import { SERVICES } from './services.js';
import { quote, type Token } from './tokens.js';
import { DSCP, ICMP_CODES, ICMP_TYPES, ICMPV6_CODES, ICMPV6_TYPES, PROTOCOLS, STATES } from './vocabulary.js';

/** A kind of element. `read` reads one element. On a mistake it notes the problem and throws. */
export interface Kind<T> {
  readonly name: string;
  /** True if an element may be a text in quotes. */
  readonly isText?: boolean;
  read(token: Token, cursor: Cursor): T;
  /**
   * Returns the values without redundant ones. Without this, names that refer to names would
   * multiply them.
   */
  join(values: readonly T[]): readonly T[];
}

export interface Addresses {
  readonly v4: Interval | null;
  readonly v6: Interval | null;
}

/** A number, or an end of a range, with a leading zero. */
const OCTAL = /^(0\d+)(-\d+)?$|^\d+-0\d+$/;

function numbers(name: string, example: string, max: number, names: Readonly<Record<string, number>>): Kind<Interval> {
  const number = (text: string): number | null => {
    if (/^(\d{1,10}|0x[0-9A-Fa-f]{1,8})$/.test(text)) return Number(text);
    return Object.hasOwn(names, text) ? names[text] : null;
  };
  return {
    name,
    join: union,
    read(token, cursor) {
      const { text } = token;
      if (OCTAL.test(text))
        return cursor.fail(token, `${said(token)} begins with 0, which nftables reads as octal: write it without`);
      const single = number(text);
      const [first, last, more] = text.split('-').map(number);
      const [low, high] = single !== null ? [single, single] : more === undefined ? [first, last] : [null, null];
      if (low === null || low === undefined || high === null || high === undefined)
        return cursor.fail(token, `${said(token)} is no ${name}, such as ${example}`, text, Object.keys(names));
      if (low > max || high > max) return cursor.fail(token, `${said(token)} is no ${name}: they go up to ${max}`);
      if (low > high) return cursor.fail(token, `${quote(text)} ends before it begins`);
      return [BigInt(low), BigInt(high)];
    },
  };
}

export const PORT = numbers('port', '443, https or 8000-8080', 65_535, SERVICES);
export const PROTOCOL = numbers('protocol', 'tcp or 47', 255, PROTOCOLS);
export const ICMP_TYPE = numbers('ICMP type', 'echo-request', 255, ICMP_TYPES);
export const ICMPV6_TYPE = numbers('ICMPv6 type', 'echo-request', 255, ICMPV6_TYPES);
export const ICMP_CODE = numbers('ICMP code', '3 or frag-needed', 255, ICMP_CODES);
export const ICMPV6_CODE = numbers('ICMPv6 code', '0 or no-route', 255, ICMPV6_CODES);
export const CODE_POINT = numbers('DSCP', 'ef, af41 or 0x2e', 63, DSCP);

export const ADDRESS: Kind<Addresses> = {
  name: 'address',
  join: (values) => {
    const v4 = union(values.map(({ v4 }) => v4).filter((range) => range !== null));
    const v6 = union(values.map(({ v6 }) => v6).filter((range) => range !== null));
    return [...v4.map((range) => ({ v4: range, v6: null })), ...v6.map((range) => ({ v4: null, v6: range }))];
  },
  read(token, cursor) {
    const parsed = token.kind === 'word' ? parseAddresses(token.text) : 'is not an IP address, a prefix or a range';
    if (typeof parsed === 'string') return cursor.fail(token, `${said(token)} ${parsed}`);
    const { version, interval } = parsed;
    return version === 4 ? { v4: interval, v6: null } : { v4: null, v6: interval };
  },
};

export const STATE: Kind<number> = {
  name: 'connection state',
  join: (values) => [...new Set(values)],
  read(token, cursor) {
    if (Object.hasOwn(STATES, token.text)) return STATES[token.text];
    const known = Object.keys(STATES);
    return cursor.fail(token, `${said(token)} is no connection state: ${known.join(', ')}`, token.text, known);
  },
};

/** Bits of IP versions, for `meta nfproto` and `meta protocol`. */
export const FAMILY: Kind<number> = {
  name: 'IP version',
  join: (values) => [...new Set(values)],
  read(token, cursor) {
    const versions: Readonly<Record<string, number>> = { ipv4: 1, ipv6: 2, ip: 1, ip6: 2 };
    if (Object.hasOwn(versions, token.text)) return versions[token.text];
    return cursor.fail(token, `${said(token)} is no IP version: ipv4 or ipv6`, token.text, ['ipv4', 'ipv6']);
  },
};
