/** Names that stand for numbers in rules, as in nftables. */

import { Unreachable } from '../../api/api.js';

/** Connection states of a packet, as bits. */
export const State = { NEW: 1, ESTABLISHED: 2, RELATED: 4, INVALID: 8, UNTRACKED: 16 } as const;

export const ALL_STATES = State.NEW | State.ESTABLISHED | State.RELATED | State.INVALID | State.UNTRACKED;
/** States of the packets that a rule applies to if it names no state. */
export const UNNAMED_STATES = State.NEW | State.INVALID | State.UNTRACKED;

export const STATES: Readonly<Record<string, number>> = {
  new: State.NEW,
  established: State.ESTABLISHED,
  related: State.RELATED,
  invalid: State.INVALID,
  untracked: State.UNTRACKED,
};

/** IANA protocol numbers. */
export const PROTOCOLS: Readonly<Record<string, number>> = {
  icmp: 1,
  igmp: 2,
  ipencap: 4,
  tcp: 6,
  udp: 17,
  dccp: 33,
  ipv6: 41,
  gre: 47,
  esp: 50,
  ah: 51,
  icmpv6: 58,
  'ipv6-icmp': 58,
  ospf: 89,
  pim: 103,
  comp: 108,
  ipcomp: 108,
  vrrp: 112,
  l2tp: 115,
  sctp: 132,
  udplite: 136,
};

export const TCP_FLAGS: Readonly<Record<string, number>> = {
  fin: 1,
  syn: 2,
  rst: 4,
  psh: 8,
  ack: 16,
  urg: 32,
  ecn: 64,
  cwr: 128,
};

/** RFC 792, RFC 1256, RFC 950. */
export const ICMP_TYPES: Readonly<Record<string, number>> = {
  'echo-reply': 0,
  'destination-unreachable': 3,
  'source-quench': 4,
  redirect: 5,
  'echo-request': 8,
  'router-advertisement': 9,
  'router-solicitation': 10,
  'time-exceeded': 11,
  'parameter-problem': 12,
  'timestamp-request': 13,
  'timestamp-reply': 14,
  'info-request': 15,
  'info-reply': 16,
  'address-mask-request': 17,
  'address-mask-reply': 18,
};

/** RFC 4443, RFC 2710, RFC 4861, RFC 2894, RFC 3122, RFC 3810. */
export const ICMPV6_TYPES: Readonly<Record<string, number>> = {
  'destination-unreachable': 1,
  'packet-too-big': 2,
  'time-exceeded': 3,
  'parameter-problem': 4,
  'echo-request': 128,
  'echo-reply': 129,
  'mld-listener-query': 130,
  'mld-listener-report': 131,
  'mld-listener-done': 132,
  'mld-listener-reduction': 132,
  'nd-router-solicit': 133,
  'nd-router-advert': 134,
  'nd-neighbor-solicit': 135,
  'nd-neighbor-advert': 136,
  'nd-redirect': 137,
  'router-renumbering': 138,
  'ind-neighbor-solicit': 141,
  'ind-neighbor-advert': 142,
  'mld2-listener-report': 143,
};

/** Codes named by `icmp code` and `icmpv6 code` (RFC 792, RFC 1812, RFC 4443). */
export const ICMP_CODES: Readonly<Record<string, number>> = {
  'net-unreachable': 0,
  'host-unreachable': 1,
  'prot-unreachable': 2,
  'port-unreachable': 3,
  'frag-needed': 4,
  'net-prohibited': 9,
  'host-prohibited': 10,
  'admin-prohibited': 13,
};

export const ICMPV6_CODES: Readonly<Record<string, number>> = {
  'no-route': 0,
  'admin-prohibited': 1,
  'addr-unreachable': 3,
  'port-unreachable': 4,
  'policy-fail': 5,
  'reject-route': 6,
};

/** Code points of differentiated services (RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622). */
export const DSCP: Readonly<Record<string, number>> = {
  be: 0,
  df: 0,
  lephb: 1,
  cs0: 0,
  cs1: 8,
  cs2: 16,
  cs3: 24,
  cs4: 32,
  cs5: 40,
  cs6: 48,
  cs7: 56,
  af11: 10,
  af12: 12,
  af13: 14,
  af21: 18,
  af22: 20,
  af23: 22,
  af31: 26,
  af32: 28,
  af33: 30,
  af41: 34,
  af42: 36,
  af43: 38,
  va: 44,
  ef: 46,
};

type Codes = Readonly<Record<string, number>>;

/**
 * Codes for `reject with icmp …`, `icmpv6` and `icmpx`. They are ICMP codes (RFC 1812 §5.2.7.1).
 * For IPv6 the framework sends the corresponding codes of RFC 4443.
 */
export const REJECT_CODES: Readonly<Record<'icmp' | 'icmpv6' | 'icmpx', Codes>> = {
  icmp: {
    'net-unreachable': Unreachable.NET,
    'host-unreachable': Unreachable.HOST,
    'prot-unreachable': Unreachable.PROTOCOL,
    'port-unreachable': Unreachable.PORT,
    'net-prohibited': Unreachable.NET_PROHIBITED,
    'host-prohibited': Unreachable.HOST_PROHIBITED,
    'admin-prohibited': Unreachable.PROHIBITED,
  },
  icmpv6: {
    'no-route': Unreachable.NET,
    'admin-prohibited': Unreachable.PROHIBITED,
    'addr-unreachable': Unreachable.HOST,
    'port-unreachable': Unreachable.PORT,
  },
  icmpx: {
    'no-route': Unreachable.NET,
    'port-unreachable': Unreachable.PORT,
    'host-unreachable': Unreachable.HOST,
    'admin-prohibited': Unreachable.PROHIBITED,
  },
};
