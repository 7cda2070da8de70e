/** Options and counters of the NAT. */

import {
  ALLOCATIONS,
  allSites,
  FILTERINGS,
  HOLD_MS_MAX,
  HOT,
  MSS_MAX,
  MSS_MIN,
  option,
  rollingLosing,
} from '../../api/api.js';

const leases = allSites('blocks of ports are leased to sites by their place between these two');

export const OPTIONS = {
  inside: option.port('port on the private side'),
  outside: option.port('port on the public side'),
  external: option.addresses('public IPv4 addresses to translate to, routed to this instance', {
    change: rollingLosing('bindings of an address that is taken out'),
  }),
  static: option.mappings(
    'what always is an internal endpoint outside: "tcp 203.0.113.1:80 -> 10.0.0.5:8080", or a whole address: "203.0.113.2 -> 10.0.0.6". A binding that has such a port keeps it until it ends',
    { change: HOT },
  ),
  bypass: option.prefixes('destinations outside that packets go to, and come from, untranslated (RFC 6888 REQ-6)', {
    change: HOT,
  }),
  inside_networks: option.prefixes(
    'networks on the private side: packets from inside with other sources get no binding; 0.0.0.0/0: any source does; none: the subnets of the inside port, where it has no next_hop, else any',
    { change: HOT },
  ),
  filtering: option.choice(
    'what passes from outside to a port that is bound: from anywhere; from addresses, or addresses and ports, the inside has sent to from there. While members differ, the loosest is in force at all',
    FILTERINGS,
    'endpoint-independent',
  ),
  sessions: option.count('remotes held at most, where filtering asks for them', 1 << 19, {
    min: 64,
    max: 1 << 24,
    change: rollingLosing('sessions that find no room'),
  }),
  flows: option.count('bindings held at most', 1 << 18, {
    min: 64,
    max: 1 << 24,
    change: rollingLosing('bindings that find no room'),
  }),
  half_open: option.count('share of them that may be not established: newer ones evict older ones', 25, {
    min: 1,
    max: 100,
    unit: 'percent',
    change: HOT,
  }),
  half_open_records: option.count('such bindings replicated in a second, at most', 16_384, { min: 0, change: HOT }),
  per_subscriber: option.count(
    'bindings of one internal address at most, of all protocols, at all sites; 0: half the ports of one external address',
    0,
    { min: 0, max: 200_000, change: HOT },
  ),
  new_per_subscriber: option.count('new ones of it in a second at most, at this instance; 0: no limit', 0, {
    min: 0,
    max: 65_535,
    change: HOT,
  }),
  hold_members: option.count(
    'other sites that must have a new binding before its packets leave, in order; 0: they leave at once. From 0 to more it needs a restart, which makes the memory for it',
    0,
    { min: 0, max: 63, change: HOT },
  ),
  hold_ms: option.count('time after which the packets of a new binding leave all the same', 100, {
    max: HOLD_MS_MAX,
    unit: 'ms',
    change: HOT,
  }),
  first_port: option.count('lowest external port used', 1, { max: 65_535, change: leases }),
  last_port: option.count('highest external port used', 65_535, { max: 65_535, change: leases }),
  allocation: option.choice(
    'how an external port is chosen. leased: at random from blocks of ports of the instance; keyed: computed from the inside endpoint and the cluster key, the same at every site; hybrid: keyed for UDP and ICMP, and for TCP computed from the blocks of the instance; shared: at random from all ports. Without cluster.key_file keyed and hybrid are leased',
    ALLOCATIONS,
    'hybrid',
  ),
  pooling: option.choice(
    'paired: an internal address has ports of one external address alone; any: of others too when these are used up',
    ['paired', 'any'],
    'paired',
  ),
  reuse: option.seconds('time past the end of a binding in which nobody else gets its port (RFC 6888 REQ-8)', 120, {
    min: 0,
    max: 3600,
    change: HOT,
  }),
  tcp_established: option.seconds('idle time of established connections (RFC 5382 REQ-5: 7440 or more)', 7440, {
    change: HOT,
  }),
  tcp_opening: option.seconds(
    'idle time of connections that are not yet established (RFC 5382 REQ-5: 240 or more)',
    240,
    { change: HOT },
  ),
  tcp_closing: option.seconds('idle time of connections that were ended (RFC 5382 REQ-5: 240 or more)', 240, {
    change: HOT,
  }),
  udp: option.seconds('idle time of UDP bindings (RFC 4787 REQ-5: 120 or more)', 300, { change: HOT }),
  udp_short: option.seconds('idle time of UDP to udp_short_ports; 0: as other UDP', 0, { min: 0, change: HOT }),
  udp_short_ports: option.counts('well-known destination ports that udp_short is for', [53], {
    max: 1023,
    change: HOT,
  }),
  icmp: option.seconds('idle time of ICMP queries (RFC 5508 REQ-2: 60 or more)', 60, { change: HOT }),
  clamp_mss: option.flagOrCount(
    'lowers the maximum segment size that TCP connections announce. true: to what the MTUs of both ports allow; a number: to that many bytes; false: not',
    false,
    { min: MSS_MIN, max: MSS_MAX, change: HOT },
  ),
  log_bindings: option.flag(
    'whether bindings made here are records, when they begin and when they are over: lines of JSON in the file of records',
    false,
  ),
} as const;

export const COUNTERS = {
  outbound: 'packets translated from inside to outside',
  inbound: 'packets translated from outside to inside',
  hairpinned: 'packets translated from inside to inside',
  bypassed: 'packets to and from destinations that bypass the translation',
  bound: 'bindings made',
  mss_clamped: 'SYNs and SYN-ACKs whose maximum segment size was lowered (clamp_mss)',
  sessions: 'sessions made, where filtering asks for the remote',
  unfiltered:
    'packets from outside that passed without a session: their binding was made before `filtering` became stricter at all sites',
  collided: 'ports that two sites took for two bindings: the larger internal endpoint has them, at every site',
  split: 'endpoints that two sites bound to two ports: one of the two stays, at every site',
  port_lost: 'packets of connections whose port was lost to another binding, answered by a TCP reset or an ICMP error',
  refused: 'new bindings refused; the sender received an ICMP error (administratively prohibited)',
  exhausted: 'dropped: no external port is free',
  table_full: 'dropped: as many bindings, or sessions, as can be held',
  half_open: 'dropped: a new binding or session beyond the quota of those with a single packet from inside',
  subscriber_limit: 'dropped: a new binding of an internal address that has as many as one may',
  subscriber_rate: 'dropped: a new binding of an internal address that makes them too fast',
  log_full: 'dropped: a new binding could not be logged, the send thread is behind',
  contended: 'dropped: other threads held the binding too long',
  draining: 'dropped: a new binding while the instance is being drained',
  stray: 'dropped: a TCP reset from inside of a connection that has no binding',
  unsolicited: 'dropped: from outside to an external port that nobody inside is bound to',
  filtered: 'dropped: from outside to a port that is bound, by a remote that nobody inside has sent to from there',
  reset_window: 'dropped: a TCP reset from outside that does not lie in the window of the connection',
  not_external: 'dropped: from outside to an address that is not an external one',
  ipv6: 'dropped: IPv6, which is not translated, where no other middlebox handles it',
  fragment: 'dropped: a later fragment from inside of a packet that got no binding or session',
  fragmented_error: 'dropped: a fragment of an ICMP error',
  icmp_other: 'dropped: ICMP other than queries from inside, replies from outside, and errors',
  icmp_error: 'dropped: an ICMP error about a packet of no binding, or that quotes too little of it',
  icmp_checksum: 'dropped: an ICMP error whose checksum is wrong',
  own_source:
    'dropped: the source is an external address of the NAT, so forged or already translated; or a host would send to itself',
  inside_source:
    'dropped: from inside, of a source that is in none of `inside_networks`, or, without these, not on the link of the inside port',
  protocol: 'dropped: neither TCP, UDP nor ICMP, and its address is not mapped whole by `static`; or AH',
} as const;
