/**
 * ICMP and ICMPv6 as the firewall sees them: queries and their replies are connections, each kind
 * by its request's type.
 */

import { IcmpType, Icmpv6Type, isError as isForwardedError, Protocol } from '../../api.js';

const { ICMPV6 } = Protocol;
const { ECHO, ECHO_REPLY, TIMESTAMP, TIMESTAMP_REPLY } = IcmpType;
const { ECHO: ECHO6, ECHO_REPLY: ECHO_REPLY6 } = Icmpv6Type;
const { LISTENER_QUERY, LISTENER_REPORT_2, NEIGHBOUR_ADVERTISEMENT } = Icmpv6Type;

/** Of a message that is neither a query nor a reply to one. */
export const NO_QUERY = -1;

/** The type of the request: that of a query, or that a reply answers; or `NO_QUERY`. */
export function queryOf(type: number, carried: number): number {
  if (carried === ICMPV6) return type === ECHO6 || type === ECHO_REPLY6 ? ECHO6 : NO_QUERY;
  if (type === ECHO || type === ECHO_REPLY) return ECHO;
  return type === TIMESTAMP || type === TIMESTAMP_REPLY ? TIMESTAMP : NO_QUERY;
}

export function isReply(type: number, carried: number): boolean {
  if (carried === ICMPV6) return type === ECHO_REPLY6;
  return type === ECHO_REPLY || type === TIMESTAMP_REPLY;
}

/** What a message is to connection tracking, with the same classes as in the kernel. */
export const IcmpClass = { QUERY: 0, ERROR: 1, NEW: 2, UNTRACKED: 3, INVALID: 4 } as const;

const INFO = 15;
const ADDRESS_MASK = 17;
const NODE_INFORMATION = 139;
const ROUTER_ADVERTISEMENT_MULTICAST = 151;
const ROUTER_SOLICITATION_MULTICAST = 152;
const SOURCE_QUENCH = 4;
const REDIRECT = 5;

/**
 * Group membership, discovery of neighbours and routers, but redirects, and discovery of multicast
 * routers (RFC 4286).
 */
function isOfLink(type: number): boolean {
  if (type >= LISTENER_QUERY && type <= NEIGHBOUR_ADVERTISEMENT) return true;
  return (
    type === LISTENER_REPORT_2 || type === ROUTER_ADVERTISEMENT_MULTICAST || type === ROUTER_SOLICITATION_MULTICAST
  );
}

/**
 * The class of a message. Connections are kept of queries. Information and address mask requests,
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
