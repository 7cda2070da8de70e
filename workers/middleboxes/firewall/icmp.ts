/**
 * ICMP and ICMPv6 for connection tracking. Queries and their replies are connections. The type of
 * the request is part of the key.
 */

import { IcmpType, Icmpv6Type, isError as isForwardedError, Protocol } from '../../api/api.js';

const { ICMPV6 } = Protocol;
const { ECHO, ECHO_REPLY, TIMESTAMP, TIMESTAMP_REPLY } = IcmpType;
const { ECHO: ECHO6, ECHO_REPLY: ECHO_REPLY6 } = Icmpv6Type;
const { LISTENER_QUERY, LISTENER_REPORT_2, NEIGHBOUR_ADVERTISEMENT } = Icmpv6Type;

/** Returned for a message that is neither a query nor a reply to one. */
export const NO_QUERY = -1;

/** Returns the type of the request that a query is, or that a reply answers, or `NO_QUERY`. */
export function queryOf(type: number, carried: number): number {
  if (carried === ICMPV6) return type === ECHO6 || type === ECHO_REPLY6 ? ECHO6 : NO_QUERY;
  if (type === ECHO || type === ECHO_REPLY) return ECHO;
  return type === TIMESTAMP || type === TIMESTAMP_REPLY ? TIMESTAMP : NO_QUERY;
}

export function isReply(type: number, carried: number): boolean {
  if (carried === ICMPV6) return type === ECHO_REPLY6;
  return type === ECHO_REPLY || type === TIMESTAMP_REPLY;
}

/** Classes of messages for connection tracking, as in the Linux kernel. */
export const IcmpClass = { QUERY: 0, ERROR: 1, NEW: 2, UNTRACKED: 3, INVALID: 4 } as const;

const INFO = 15;
const ADDRESS_MASK = 17;
const NODE_INFORMATION = 139;
const ROUTER_ADVERTISEMENT_MULTICAST = 151;
const ROUTER_SOLICITATION_MULTICAST = 152;
const SOURCE_QUENCH = 4;
const REDIRECT = 5;

/**
 * Returns true for group membership, discovery of neighbours and routers except redirects, and
 * discovery of multicast routers (RFC 4286).
 */
function isOfLink(type: number): boolean {
  if (type >= LISTENER_QUERY && type <= NEIGHBOUR_ADVERTISEMENT) return true;
  return (
    type === LISTENER_REPORT_2 || type === ROUTER_ADVERTISEMENT_MULTICAST || type === ROUTER_SOLICITATION_MULTICAST
  );
}

/**
 * Returns the class of a message. Queries have connections. Information and address mask requests,
 * which RFC 6918 deprecates, and node information queries are new each time. Discovery and group
 * membership of IPv6 are untracked. Other types that are not errors are invalid, and so is ICMP of
 * the other IP version.
 */
export function classOf(type: number, carried: number, version: number): number {
  if ((carried === ICMPV6) !== (version === 6)) return IcmpClass.INVALID;
  if (queryOf(type, carried) !== NO_QUERY) return IcmpClass.QUERY;
  if (carried === ICMPV6) {
    if (type < ECHO6) return IcmpClass.ERROR;
    if (isOfLink(type)) return IcmpClass.UNTRACKED;
    return type === NODE_INFORMATION ? IcmpClass.NEW : IcmpClass.INVALID;
  }
  if (type === INFO || type === ADDRESS_MASK) return IcmpClass.NEW;
  const isError = type === SOURCE_QUENCH || type === REDIRECT || isForwardedError(type);
  return isError ? IcmpClass.ERROR : IcmpClass.INVALID;
}
