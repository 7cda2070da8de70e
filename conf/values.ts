/**
 * The schemas of the kinds of single value in a configuration, each with the words of its errors.
 */

import { isIPv6 } from 'node:net';
import { z } from 'zod';
import { IPV4_PATTERN } from '../options/addresses.js';
import { expected } from './messages.js';

const IPV4 = IPV4_PATTERN;
const IPV6 = z.regexes.ipv6.source.slice(1, -1); // without its anchors
const MAC = '[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}';

/** Text of one form. The pattern also goes into the JSON Schema, so that an editor checks it. */
export function form(pattern: string, what: string, error = expected(what)) {
  return z.string({ error }).regex(new RegExp(`^${pattern}$`), { error });
}

const PORT = '[0-9]{1,5}';

export const ipv4 = () => form(IPV4, 'an IPv4 address such as 10.0.0.1');
export const mac = () => form(MAC, 'a MAC address such as 02:00:00:00:00:01');
const IPV4_OR_MAC = 'an IPv4 address such as 10.0.0.1, or a MAC address';

/** A next hop. `next_hop6` may be written beside it for IPv6. */
export const ipv4OrMac = () =>
  form(`(${IPV4}|${MAC})`, IPV4_OR_MAC, (issue) =>
    typeof issue.input === 'string' && isIPv6(issue.input)
      ? `expected ${IPV4_OR_MAC}; write next_hop6: ${issue.input} for IPv6`
      : expected(IPV4_OR_MAC)(issue),
  );
export const ipv6OrMac = () =>
  form(`(${IPV6}|${MAC})`, 'an IPv6 address such as 2001:db8::1 or fe80::1, or a MAC address');

/** A static mapping of a NAT. */
export const ipv4Mapping = () =>
  form(
    `((tcp|udp) ${IPV4}:${PORT} -> ${IPV4}:${PORT}|${IPV4} -> ${IPV4})`,
    'a mapping such as "tcp 203.0.113.1:80 -> 10.0.0.5:8080" or "203.0.113.2 -> 10.0.0.6"',
  ).refine((text) => [...text.matchAll(/:(\d+)/g)].every(([, port]) => Number(port) >= 1 && Number(port) <= 65_535), {
    error: (issue) => `${JSON.stringify(issue.input)} has a port that is none: they are 1 to 65535`,
  });

/** Names of members and ports: they appear in tables, metrics and commands. */
export const name = () =>
  form('[a-z][a-z0-9_-]{0,30}', 'a name of up to 31 lower-case letters, digits, "-" or "_" that starts with a letter');

/** A network interface as the kernel allows it (IFNAMSIZ is 16 with the final NUL). */
export const interfaceName = () => form('[^\\s/:]{1,15}', 'the name of a network interface, of up to 15 characters');

export const path = () => form('[^\\x00-\\x1f]+', 'a file path');

const notWhole = expected('a whole number');

export const whole = (min: number, max: number) =>
  z
    .int({ error: (issue) => (issue.code === 'invalid_type' ? notWhole(issue) : undefined) })
    .min(min)
    .max(max);

export const powerOfTwo = (min: number, max: number) =>
  whole(min, max).refine((value) => Number.isInteger(Math.log2(value)), {
    error: (issue) => {
      const below = 2 ** Math.floor(Math.log2(Number(issue.input)));
      return `must be a power of two, such as ${below} or ${below * 2}, not ${issue.input}`;
    },
  });

/**
 * An IPv4 address as a raw word: its four bytes read as one little-endian word, as they lie in a
 * packet (workers/packet/batch.ts works on these). The text must have been checked by `ipv4`.
 */
export function rawIpv4(text: string): number {
  const [a, b, c, d] = text.split('.').map(Number);
  return a | (b << 8) | (c << 16) | (d << 24);
}

/** A network whose text was checked, as raw words (options/option.ts). */
export function rawPrefix(text: string): { readonly address: number; readonly mask: number } {
  const [address, bits = '32'] = text.split('/');
  const [a, b, c, d] = [0, 8, 16, 24].map(
    (before) => (0xff00 >> Math.min(8, Math.max(0, Number(bits) - before))) & 0xff,
  );
  return { address: rawIpv4(address), mask: a | (b << 8) | (c << 16) | (d << 24) };
}

const PROTOCOLS: Readonly<Record<string, number>> = { tcp: 6, udp: 17 };

/** A mapping whose text was checked by `ipv4Mapping`. Protocol 0: whole addresses are mapped. */
export function rawMapping(text: string): {
  readonly protocol: number;
  readonly externalAddress: number;
  readonly externalPort: number;
  readonly internalAddress: number;
  readonly internalPort: number;
} {
  const words = text.split(' ');
  const [external, internal] = [words.at(-3) ?? '', words.at(-1) ?? ''].map((end) => end.split(':'));
  return {
    protocol: words.length === 3 ? 0 : PROTOCOLS[words[0]],
    externalAddress: rawIpv4(external[0]),
    externalPort: Number(external[1] ?? 0),
    internalAddress: rawIpv4(internal[0]),
    internalPort: Number(internal[1] ?? 0),
  };
}
