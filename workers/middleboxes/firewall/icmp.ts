/** ICMP and ICMPv6 as the firewall sees them: queries and their replies are connections, each kind by its request's type. */

import { IcmpType, Icmpv6Type, Protocol } from '../../api.js';

const { ICMPV6 } = Protocol;
const { ECHO, ECHO_REPLY, TIMESTAMP, TIMESTAMP_REPLY } = IcmpType;
const { ECHO: ECHO6, ECHO_REPLY: ECHO_REPLY6 } = Icmpv6Type;

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
