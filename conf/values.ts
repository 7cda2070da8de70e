/** The kinds of single value a configuration is made of, each with the words its errors use. */

import { z } from 'zod';
import { expected } from './messages.js';

const OCTET = '(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
const IPV4 = `(${OCTET}\\.){3}${OCTET}`;
const MAC = '[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}';

/** Text of one form. The pattern also goes into the JSON Schema, so that an editor checks it. */
function form(pattern: string, what: string) {
  const error = expected(what);
  return z.string({ error }).regex(new RegExp(`^${pattern}$`), { error });
}

export const ipv4 = () => form(IPV4, 'an IPv4 address such as 10.0.0.1');
export const mac = () => form(MAC, 'a MAC address such as 02:00:00:00:00:01');
export const ipv4OrMac = () => form(`(${IPV4}|${MAC})`, 'an IPv4 address such as 10.0.0.1, or a MAC address');

/** What people name members and ports with: it appears in tables, metrics and commands. */
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

/** A share of all messages, 0 to 1. */
export const probability = () => z.number().min(0).max(1);

export const powerOfTwo = (min: number, max: number) =>
  whole(min, max).refine((value) => Number.isInteger(Math.log2(value)), {
    error: (issue) => {
      const below = 2 ** Math.floor(Math.log2(Number(issue.input)));
      return `must be a power of two, such as ${below} or ${below * 2}, not ${issue.input}`;
    },
  });

/**
 * An IPv4 address as a raw word: its four bytes read as one little-endian word, as they lie in a packet
 * (workers/batch.ts works on these). The text must have been checked by `ipv4`.
 */
export function rawIpv4(text: string): number {
  const [a, b, c, d] = text.split('.').map(Number);
  return a | (b << 8) | (c << 16) | (d << 24);
}

/** An IPv4 address as a number in the order people read it, 0 … 2^32 − 1, for comparing and counting on. */
export function numericIpv4(text: string): number {
  return text.split('.').reduce((number, octet) => number * 256 + Number(octet), 0);
}
