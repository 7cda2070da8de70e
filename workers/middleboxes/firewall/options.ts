/** Options and counters of the firewall. */

import { allSites, HOT, MSS_MAX, MSS_MIN, option, rollingLosing } from '../../api/api.js';
import { compileRules } from './compile.js';

const change = rollingLosing('connections that find no room');

export const OPTIONS = {
  rules: option.rules(
    'the rules (docs/firewall.md): the path of their file, or the rules themselves, on several lines',
    {
      compile: compileRules,
    },
  ),
  connections: option.count('IPv4 connections held at most', 1 << 18, { min: 64, max: 1 << 24, change }),
  connections_ipv6: option.count('IPv6 connections held at most', 1 << 16, { min: 64, max: 1 << 24, change }),
  half_open: option.count('share of them that may be half-open: newer ones evict older ones', 25, {
    min: 1,
    max: 100,
    unit: 'percent',
    change: HOT,
  }),
  half_open_records: option.count('such connections replicated in a second, at most', 16_384, { min: 0, change: HOT }),
  pickup: option.choice(
    'TCP without a connection that does not begin one. strict: it is invalid; loose: it goes on with one, if the rules would accept its first packet, one way or the other',
    ['strict', 'loose'],
    'strict',
    { change: HOT },
  ),
  clamp_mss: option.flagOrCount(
    'lowers the maximum segment size that TCP connections announce. true: to what the MTUs of both ports allow; a number: to that many bytes; false: not',
    false,
    { min: MSS_MIN, max: MSS_MAX, change: HOT },
  ),
  recheck: option.flag(
    'whether the rules in force have to accept open connections, also those that began under other rules',
    false,
  ),
  bind_ports: option.flag(
    'whether the packets of each direction of a connection must arrive by the port that its first one arrived by. All sites need the same names of ports, and the same value here',
    true,
    { change: allSites('a site would refuse packets of connections that another accepts, or not know their ports') },
  ),
  tcp_new: option.seconds('idle time of TCP connections that are not established', 60, { change: HOT }),
  tcp_established: option.seconds('idle time of established TCP connections (RFC 5382 REQ-5: 7440 or more)', 7440, {
    change: HOT,
  }),
  tcp_closing: option.seconds('idle time of TCP connections after the first FIN', 120, { change: HOT }),
  tcp_closed: option.seconds('idle time of TCP connections after a RST', 10, { change: HOT }),
  udp_new: option.seconds('idle time of UDP that nobody has answered', 30, { change: HOT }),
  udp: option.seconds('idle time of UDP that was answered', 180, { change: HOT }),
  icmp: option.seconds('idle time of ICMP queries', 30, { change: HOT }),
  other: option.seconds('idle time of other protocols', 600, { change: HOT }),
};

export const COUNTERS = {
  opened: 'connections made: the rules accepted their first packets',
  passed: 'packets of open connections',
  related: 'ICMP errors about open connections that passed',
  untracked:
    'packets that rules accepted and no connection is kept of: IGMP, and ICMP that is neither an error nor a query with a reply',
  picked_up: 'of the connections made, those that began elsewhere (pickup: loose)',
  mss_clamped: 'SYNs and SYN-ACKs whose maximum segment size was lowered (clamp_mss)',
  rejected: 'packets answered with a TCP reset or an ICMP error, as a rule says',
  denied: 'dropped: by a rule or the policy',
  reject_silent: 'dropped: by a rule that rejects, where no answer may be sent',
  invalid: 'dropped: belongs to no connection and cannot begin one',
  tcp_flags: 'dropped: a combination of TCP flags that does not exist',
  reset_window: 'dropped: a TCP reset that does not lie in the window of whom it is for',
  rechecked: 'dropped: of an open connection that the rules loaded later do not accept',
  table_full: 'dropped: as many connections as can be held',
  half_open: 'dropped: a new connection beyond the quota of those that nobody has answered',
  log_full: 'dropped: a new connection could not be logged, the send thread is behind',
  contended: 'dropped: other threads held the connection too long',
  draining: 'dropped: a new connection while the instance is being drained',
  fragment: 'dropped: a later fragment of a packet of no connection',
  unlogged: 'packets that rules log and that were not recorded: too many at once',
} as const;
