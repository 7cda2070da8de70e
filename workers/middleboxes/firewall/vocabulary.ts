/** The names that stand for numbers in rules, as nftables has them. */

import { Unreachable } from '../../api.js';

/** States a packet may be in, as bits. */
export const State = { NEW: 1, ESTABLISHED: 2, RELATED: 4, INVALID: 8 } as const;

export const STATES: Readonly<Record<string, number>> = {
  new: State.NEW,
  established: State.ESTABLISHED,
  related: State.RELATED,
  invalid: State.INVALID,
};

/** IANA protocol numbers. */
export const PROTOCOLS: Readonly<Record<string, number>> = {
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  dccp: 33,
  gre: 47,
  esp: 50,
  ah: 51,
  icmpv6: 58,
  'ipv6-icmp': 58,
  ospf: 89,
  pim: 103,
  vrrp: 112,
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

/** RFC 4443, RFC 2710, RFC 4861, RFC 3810. */
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
  'nd-router-solicit': 133,
  'nd-router-advert': 134,
  'nd-neighbor-solicit': 135,
  'nd-neighbor-advert': 136,
  'nd-redirect': 137,
  'mld2-listener-report': 143,
};

/** Of the IANA registry, those that people write by name. */
export const SERVICES: Readonly<Record<string, number>> = {
  'ftp-data': 20,
  ftp: 21,
  ssh: 22,
  telnet: 23,
  smtp: 25,
  domain: 53,
  bootps: 67,
  bootpc: 68,
  tftp: 69,
  http: 80,
  kerberos: 88,
  pop3: 110,
  sunrpc: 111,
  ntp: 123,
  imap2: 143,
  snmp: 161,
  'snmp-trap': 162,
  bgp: 179,
  ldap: 389,
  https: 443,
  'microsoft-ds': 445,
  submissions: 465,
  isakmp: 500,
  syslog: 514,
  'dhcpv6-client': 546,
  'dhcpv6-server': 547,
  submission: 587,
  ldaps: 636,
  imaps: 993,
  pop3s: 995,
  openvpn: 1194,
  mysql: 3306,
  'ms-wbt-server': 3389,
  'ipsec-nat-t': 4500,
  sip: 5060,
  postgresql: 5432,
};

/** What `reject with icmp …` says, as codes of ICMP (RFC 1812 §5.2.7.1); of IPv6 the framework makes the nearest of RFC 4443. */
export const REJECT_CODES: Readonly<Record<string, number>> = {
  'net-unreachable': Unreachable.NET,
  'host-unreachable': Unreachable.HOST,
  'prot-unreachable': Unreachable.PROTOCOL,
  'port-unreachable': Unreachable.PORT,
  'net-prohibited': Unreachable.NET_PROHIBITED,
  'host-prohibited': Unreachable.HOST_PROHIBITED,
  'admin-prohibited': Unreachable.PROHIBITED,
  'no-route': Unreachable.NET,
  'addr-unreachable': Unreachable.HOST,
};
