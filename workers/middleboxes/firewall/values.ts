/** Values of rules: a word, a name that was defined, or a set of them in braces. */

import { parseAddresses } from './addresses.js';
import { type Cursor, Mistake, said } from './cursor.js';
import { type Interval, union } from './intervals.js';
import { quote, type Token } from './tokens.js';
import { ICMP_TYPES, ICMPV6_TYPES, PROTOCOLS, SERVICES, STATES } from './vocabulary.js';

/** Elements of sets: for the reading of one `read`, which notes what is wrong and throws. */
export interface Kind<T> {
  readonly name: string;
  read(token: Token, cursor: Cursor): T;
  /** Values without those that say nothing more: names that refer to names would multiply them. */
  join(values: readonly T[]): readonly T[];
}

export interface Addresses {
  readonly v4: Interval | null;
  readonly v6: Interval | null;
}

/** What was defined: its tokens, read as what they are needed for when they are used, once for each kind. */
export class Defined {
  readonly name: string;
  readonly tokens: readonly Token[];
  private readonly read = new Map<Kind<unknown>, readonly unknown[] | null>();

  constructor(name: string, tokens: readonly Token[]) {
    this.name = name;
    this.tokens = tokens;
  }

  /** `null`: something is wrong with it, and was noted. */
  as<T>(kind: Kind<T>, read: () => readonly T[]): readonly T[] | null {
    const known = this.read.get(kind);
    if (known !== undefined) return known as readonly T[] | null;
    let values: readonly T[] | null = null;
    try {
      values = kind.join(read());
    } catch (error) {
      if (!(error instanceof Mistake)) throw error;
    }
    this.read.set(kind, values);
    return values;
  }
}

/** A number, or an end of a range, with a leading zero. */
const OCTAL = /^(0\d+)(-\d+)?$|^\d+-0\d+$/;

function numbers(name: string, example: string, max: number, names: Readonly<Record<string, number>>): Kind<Interval> {
  const number = (text: string): number | null => {
    if (/^\d{1,10}$/.test(text)) return Number(text);
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
