/** What a rule matches: a set of values for each field. Also the intersection of two matches. */

import { type Intervals, intersection } from './intervals.js';

export const IPV4 = 1;
export const IPV6 = 2;
export const ANY_PORT = 0xffff;

/** A field that is null matches every packet. Ports are bits by index. */
export interface Match {
  /** Bits of `State`; null: the rule names none. */
  readonly states: number | null;
  readonly source4: Intervals | null;
  readonly destination4: Intervals | null;
  readonly source6: Intervals | null;
  readonly destination6: Intervals | null;
  /** IP versions that the rule applies to: 1 IPv4, 2 IPv6. */
  readonly versions: number;
  readonly protocol: Intervals | null;
  readonly sport: Intervals | null;
  readonly dport: Intervals | null;
  readonly icmpType: Intervals | null;
  readonly icmpCode: Intervals | null;
  readonly dscp: Intervals | null;
  /** Values of the TCP flags byte. */
  readonly tcpFlags: Intervals | null;
  /** Values of the next header field of the fixed IPv6 header. */
  readonly nextHeader: Intervals | null;
  readonly inPorts: number | null;
  readonly outPorts: number | null;
}

/** A match that is being read. */
export type Draft = { -readonly [Field in keyof Match]: Match[Field] };

export type Field =
  | 'source4'
  | 'destination4'
  | 'source6'
  | 'destination6'
  | 'protocol'
  | 'sport'
  | 'dport'
  | 'icmpType'
  | 'icmpCode'
  | 'dscp'
  | 'tcpFlags'
  | 'nextHeader';

const FIELDS: readonly Field[] = [
  'source4',
  'destination4',
  'source6',
  'destination6',
  'protocol',
  'sport',
  'dport',
  'icmpType',
  'icmpCode',
  'dscp',
  'tcpFlags',
  'nextHeader',
];

/** Fields that packets of both IP versions have. */
export const NUMBERS = FIELDS.slice(4);

/** Matches every packet. */
export function anything(): Draft {
  return {
    states: null,
    source4: null,
    destination4: null,
    source6: null,
    destination6: null,
    versions: IPV4 | IPV6,
    protocol: null,
    sport: null,
    dport: null,
    icmpType: null,
    icmpCode: null,
    dscp: null,
    tcpFlags: null,
    nextHeader: null,
    inPorts: null,
    outPorts: null,
  };
}

export function narrow(draft: Draft, field: Field, values: Intervals): void {
  const known = draft[field];
  draft[field] = known === null ? values : intersection(known, values);
}

export function narrowBits(draft: Draft, field: 'states' | 'inPorts' | 'outPorts', bits: number): void {
  draft[field] = (draft[field] ?? bits) & bits;
}

/**
 * Returns the IP versions of packets that can match. An empty set of addresses excludes its
 * version.
 */
function versionsOf({ versions, source4, destination4, source6, destination6 }: Match): number {
  let left = versions;
  if ([source4, destination4].some(isEmpty)) left &= ~IPV4;
  if ([source6, destination6].some(isEmpty)) left &= ~IPV6;
  return left;
}

/** Returns the intersection of two matches, or null if no packet can match. */
export function both(a: Match, b: Match): Match | null {
  const draft: Draft = { ...a, versions: a.versions & b.versions };
  for (const field of FIELDS) {
    const values = b[field];
    if (values !== null) narrow(draft, field, values);
  }
  for (const field of ['states', 'inPorts', 'outPorts'] as const) {
    const bits = b[field];
    if (bits !== null) narrowBits(draft, field, bits);
  }
  return possible(draft);
}

/** Returns the match with its possible IP versions, or null if no packet can match. */
export function possible(match: Match): Match | null {
  const versions = versionsOf(match);
  if (versions === 0 || match.states === 0 || match.inPorts === 0 || match.outPorts === 0) return null;
  if (NUMBERS.some((field) => isEmpty(match[field]))) return null;
  return { ...match, versions };
}

function isEmpty(set: Intervals | null): boolean {
  return set !== null && set.length === 0;
}
