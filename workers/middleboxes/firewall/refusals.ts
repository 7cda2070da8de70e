/** Words of nftables that rules here do not support, each with the reason and an alternative. */

import type { Cursor } from './cursor.js';
import type { Token } from './tokens.js';

const ADDRESS_CHANGE = 'the firewall changes no addresses: the NAT of `middleboxes` does (docs/nat.md)';
const HOST_ONLY = 'it is about the host itself, whose own traffic no rule sees: leave it to nftables';
const LINK = 'rules see IP packets, not what is around them: docs/frames.md has what a wire lets pass';
const MARKS = 'packets have no marks here';
const NO_TABLE = 'a table is translated by `constellation import-nft FILE`: rules here stand at the top or in a chain';
const NOT_KEPT = 'of a connection only its state can be asked';
const DYNAMIC = 'rules change no sets: write its elements, and reload the rules to change them';

const REFUSED: Readonly<Record<string, string>> = {
  masquerade: ADDRESS_CHANGE,
  snat: ADDRESS_CHANGE,
  dnat: ADDRESS_CHANGE,
  redirect: ADDRESS_CHANGE,
  tproxy: HOST_ONLY,
  queue: 'no program of the host decides about packets: a middlebox of your own can (docs/tutorial.md)',
  notrack: 'every connection is tracked: it is one lookup a packet',
  synproxy: 'half-open connections are bounded by `half_open` instead',
  flow: 'packets of open connections pass without a look at the rules already',
  dup: 'packets are not copied',
  fwd: 'packets leave by the other port: rules choose none',
  quota: 'rules count packets and do not act on their number',
  meter: DYNAMIC,
  update: DYNAMIC,
  add: DYNAMIC,
  delete: DYNAMIC,
  socket: HOST_ONLY,
  fib: 'routes are not asked: write the addresses that can come in by a port (ip saddr != 10.0.0.0/8 drop)',
  rt: 'routes are not asked: write addresses',
  osf: 'the sender is not guessed from its packets',
  ether: LINK,
  vlan: LINK,
  arp: LINK,
  numgen: 'no match depends on chance',
  jhash: 'no match depends on a hash',
  symhash: 'no match depends on a hash',
  ah: 'write "meta l4proto ah"',
  esp: 'write "meta l4proto esp"',
  comp: 'write "meta l4proto comp"',
  igmp: 'write "meta l4proto igmp"',
  exthdr: 'extension headers cannot be asked for',
  frag: 'fragments pass with the connection of the first',
  hbh: 'extension headers cannot be asked for',
  dst: 'extension headers cannot be asked for',
  mh: 'extension headers cannot be asked for',
  srh: 'extension headers cannot be asked for',
  xt: 'an extension of iptables has no text: write what it matches',
  table: NO_TABLE,
  type: NO_TABLE,
  flush: 'loading rules replaces all of them',
  include: 'rules are one file',
  continue: 'a rule without a verdict continues: leave it out',
  'ct mark': MARKS,
  'ct status': NOT_KEPT,
  'ct direction': NOT_KEPT,
  'ct count': 'connections are not counted by rule: `limit rate` bounds how many begin in a time',
  'ct helper': 'no helper reads FTP or SIP: open the ports that they use',
  'ct zone': NOT_KEPT,
  'ct l3proto': 'write "meta nfproto"',
  'ct expiration': NOT_KEPT,
  'ct bytes': NOT_KEPT,
  'ct packets': NOT_KEPT,
  'ct original': NOT_KEPT,
  'ct reply': NOT_KEPT,
  'ct label': NOT_KEPT,
  'meta mark': MARKS,
  'meta skuid': HOST_ONLY,
  'meta skgid': HOST_ONLY,
  'meta cgroup': HOST_ONLY,
  'meta cpu': 'which worker has a packet is no property of the packet',
  'meta pkttype': LINK,
  'meta length': 'lengths cannot be asked for',
  'meta priority': 'packets have no priority here; "ip dscp" reads what they carry',
  'meta nftrace': 'rules are not traced: "count" and "log" show what meets one',
  'meta ibrname': LINK,
  'meta obrname': LINK,
  'meta time': 'rules have no times: load others with `constellation reload rules`',
  'meta day': 'rules have no times: load others with `constellation reload rules`',
  'meta hour': 'rules have no times: load others with `constellation reload rules`',
  'meta random': 'no match depends on chance',
  'meta secmark': MARKS,
  'meta iifgroup': 'ports have no groups: name them',
  'meta oifgroup': 'ports have no groups: name them',
  'meta iiftype': LINK,
  'meta oiftype': LINK,
  'ip ttl': 'the time to live cannot be asked for',
  'ip6 hoplimit': 'the hop limit cannot be asked for',
  'ip length': 'lengths cannot be asked for',
  'ip6 length': 'lengths cannot be asked for',
  'ip id': 'the identification cannot be asked for',
  'ip version': 'write "meta nfproto"',
  'ip6 version': 'write "meta nfproto"',
  'ip ecn': 'ECN cannot be asked for',
  'ip6 ecn': 'ECN cannot be asked for',
  'ip6 flowlabel': 'flow labels cannot be asked for',
  'ip frag-off': 'fragments pass with the connection of the first',
  'ip option': '`source_routes` drops what is dangerous among the options; others cannot be asked for',
  'ip hdrlength': 'lengths cannot be asked for',
  'tcp option': 'options cannot be asked for; `clamp_mss` lowers the MSS',
  'tcp sequence': 'sequence numbers are checked by the connection table',
  'tcp window': 'windows are checked by the connection table',
  'tcp doff': 'malformed headers are dropped before the rules',
  'udp length': 'malformed headers are dropped before the rules',
  'icmp id': 'a reply belongs to its query already',
  'icmpv6 id': 'a reply belongs to its query already',
  'icmp mtu': 'the MTU that an error quotes cannot be asked for',
};

export function isRefused(words: string): boolean {
  return Object.hasOwn(REFUSED, words);
}

/** Returns a sentence that says why the words are refused. */
export function refusal(words: string): string {
  return `"${words}" is not possible: ${REFUSED[words]}`;
}

/** Ends the statement with an error if the words belong to nftables and are not supported. */
export function refuse(cursor: Cursor, token: Token, words: string): void {
  if (isRefused(words)) cursor.fail(token, refusal(words));
}
