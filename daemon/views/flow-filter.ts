/**
 * The filter of `show flows`: terms such as `proto=tcp inside=10.0.0.0/8 port=80`. A flow must
 * match all of them.
 */

import { BlockList, isIP } from 'node:net';
import { suggestion } from '../../conf/suggest.js';
import { RANK_NAMES } from '../../shm/objects/nat/nat-tables.js';
import { UsageError } from '../base/command-errors.js';
import type { AddressFamily, Endpoint, EndpointFilter, FlowFilter, FlowRow } from './source.js';

/** Possible values of `FlowRow.state`. */
const FLOW_STATES: readonly string[] = [...RANK_NAMES, 'dead', 'static'];

export const FLOW_FILTER_HELP = [
  'proto=tcp|udp|icmp|NUMBER    IP protocol',
  'inside=ADDRESS[/BITS][:PORT] client; with a port IPv6 stands in brackets: [2001:db8::1]:80',
  'external=…                   translated address',
  'remote=…                     other end; a NAT binding has none, it is for any',
  'port=NUMBER                  port of any of these',
  `state=WORD                   ${FLOW_STATES.join(', ')}`,
  'object=NAME                  state object',
  'limit=NUMBER                 rows at most',
];

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

type Term = (filter: Mutable<FlowFilter>, value: string) => void;

const TERMS: Readonly<Record<string, Term>> = {
  proto: (filter, value) => {
    filter.protocol = parseProtocol(value);
  },
  inside: (filter, value) => {
    filter.inside = parseEndpoint(value);
  },
  external: (filter, value) => {
    filter.external = parseEndpoint(value);
  },
  remote: (filter, value) => {
    filter.remote = parseEndpoint(value);
  },
  port: (filter, value) => {
    filter.port = parseWhole(value, 65_535, 'a port');
  },
  state: (filter, value) => {
    if (!FLOW_STATES.includes(value)) throw new Error(`expected ${FLOW_STATES.join(', ')}`);
    filter.state = value;
  },
  object: (filter, value) => {
    filter.object = value;
  },
  limit: (filter, value) => {
    filter.limit = parseWhole(value, Number.MAX_SAFE_INTEGER, 'a number of rows');
  },
};

/** Parses the terms. Throws a `UsageError` that names the term. */
export function parseFlowFilter(words: readonly string[]): FlowFilter {
  const filter: Mutable<FlowFilter> = {
    protocol: null,
    inside: null,
    external: null,
    remote: null,
    port: null,
    state: null,
    object: null,
    limit: Number.POSITIVE_INFINITY,
  };
  const seen = new Set<string>();
  for (const word of words) {
    const [key, value] = splitTerm(word);
    if (seen.has(key)) throw new UsageError(`${key}= is given twice`);
    seen.add(key);
    try {
      TERMS[key](filter, value);
    } catch (error) {
      throw new UsageError(`${word}: ${(error as Error).message}`);
    }
  }
  return filter;
}

function splitTerm(word: string): [key: string, value: string] {
  const equals = word.indexOf('=');
  const key = equals < 0 ? word : word.slice(0, equals);
  if (!Object.hasOwn(TERMS, key)) {
    const known = Object.keys(TERMS);
    throw new UsageError(`unknown term "${key}"${suggestion(key, known) || `; known: ${known.join(', ')}`}`);
  }
  if (equals < 0 || equals === word.length - 1) throw new UsageError(`${key} needs a value: ${key}=…`);
  return [key, word.slice(equals + 1)];
}

export function matchesFlow(filter: FlowFilter, flow: FlowRow): boolean {
  return (
    (filter.protocol === null || filter.protocol === flow.protocol) &&
    (filter.state === null || filter.state === flow.state) &&
    (filter.object === null || filter.object === flow.object) &&
    matchesEndpoint(filter.inside, flow.inside) &&
    matchesEndpoint(filter.external, flow.external) &&
    matchesEndpoint(filter.remote, flow.remote) &&
    (filter.port === null ||
      filter.port === flow.inside.port ||
      filter.port === flow.external?.port ||
      filter.port === flow.remote?.port)
  );
}

function matchesEndpoint(filter: EndpointFilter | null, endpoint: Endpoint | null): boolean {
  if (filter === null) return true;
  if (endpoint === null || (filter.port !== null && filter.port !== endpoint.port)) return false;
  const family = familyOf(endpoint.address);
  return family === filter.family && filter.addresses.check(endpoint.address, family);
}

const PROTOCOL_NUMBERS: Readonly<Record<string, number>> = { icmp: 1, tcp: 6, udp: 17 };

function parseProtocol(text: string): number {
  const name = text.toLowerCase();
  if (Object.hasOwn(PROTOCOL_NUMBERS, name)) return PROTOCOL_NUMBERS[name];
  return parseWhole(text, 255, 'tcp, udp, icmp or a protocol number');
}

/** The name of a protocol as people write it. */
export function protocolName(number: number): string {
  const known = Object.entries(PROTOCOL_NUMBERS).find(([, candidate]) => candidate === number);
  return known?.[0] ?? String(number);
}

/** ADDRESS or ADDRESS/BITS, optionally followed by :PORT. With a port, IPv6 is in brackets. */
const ENDPOINT = /^(?:\[(?<bracketed>[^\]]*)\]|(?<plain>[^/[\]]*?))(?:\/(?<bits>\d{1,3}))?(?::(?<port>\d{1,5}))?$/;

function parseEndpoint(text: string): EndpointFilter {
  // A bare IPv6 address contains colons, so it is tested first.
  const {
    bracketed,
    plain = bracketed,
    bits,
    port,
  } = (isIP(text) === 6 ? { plain: text } : ENDPOINT.exec(text)?.groups) ?? ({} as Record<string, string | undefined>);
  if (plain === undefined || isIP(plain) === 0)
    throw new Error('expected an IPv4 or IPv6 address, perhaps with /BITS or :PORT behind it');
  const longest = isIP(plain) === 4 ? 32 : 128;
  const addresses = new BlockList();
  const length = bits === undefined ? longest : parseWhole(bits, longest, `at most ${longest} bits`);
  const family = familyOf(plain);
  addresses.addSubnet(plain, length, family);
  return { family, addresses, port: port === undefined ? null : parseWhole(port, 65_535, 'a port') };
}

function familyOf(address: string): AddressFamily {
  return address.includes(':') ? 'ipv6' : 'ipv4';
}

function parseWhole(text: string, max: number, what: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= max)) throw new Error(`expected ${what}`);
  return value;
}
