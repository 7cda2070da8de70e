/**
 * What rules of nftables say: constructs that mean the same here, and those that are refused with a
 * reason.
 */

import { strict as assert } from 'node:assert';
import { compileRules } from '../../../../workers/middleboxes/firewall/compile.js';
import { renderLogged } from '../../../../workers/middleboxes/firewall/logged.js';
import { parseRules } from '../../../../workers/middleboxes/firewall/parser.js';
import { FirewallSite } from '../../support/firewall-site.js';
import { frame6 } from '../../support/frames6.js';
import { on } from '../../support/plane.js';

const PORTS = ['inside', 'outside'];

function mistakes(text: string): string[] {
  const { problems = [] } = parseRules(text, PORTS);
  return problems.map(({ line, column, message }) => `${line}:${column}: ${message}`);
}

/** Which packets pass, by name, each to a firewall of its own. */
function passing(rules: string, packets: Readonly<Record<string, string>>): string[] {
  return Object.keys(packets).filter((name) => new FirewallSite({ rules }).pass(on(0, packets[name])).length === 1);
}

const PACKETS = {
  ssh: 'tcp 10.0.0.5:4000 > 198.51.100.7:22 S',
  web: 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S',
  high: 'tcp 10.0.0.5:4000 > 198.51.100.7:8080 S',
  dns: 'udp 10.0.0.5:4000 > 198.51.100.7:53',
  ntp: 'udp 10.0.1.5:4000 > 198.51.100.7:123',
  ping: 'icmp 10.0.0.5 > 198.51.100.7 echo 77',
} as const;

describe('firewall rules as nftables writes them', () => {
  for (const [rules, ...expected] of [
    ['iifname { "inside", "outside" } tcp dport 22 accept', 'ssh'],
    ['iifname "in*" udp dport 53 accept', 'dns'],
    ['define lan = "inside"\niifname $lan udp dport 53 accept', 'dns'],
    ['define all = { "inside", "outside" }\niifname != $all accept'],
    ['meta iifname "inside" meta oifname "outside" tcp dport 80 accept', 'web'],
    ['tcp dport >= 80 accept', 'web', 'high'],
    ['tcp dport > 80 accept', 'high'],
    ['tcp dport < 80 accept', 'ssh'],
    ['th dport le domain accept', 'ssh', 'dns'],
    ['ip saddr > 10.0.0.255 accept', 'ntp'],
    ['tcp dport http-alt accept', 'high'],
    ['tcp dport 0x16 accept', 'ssh'],
    ['tcp dport vmap { 22 : accept, 80: drop, 8000-9000 : accept }', 'ssh', 'high'],
    ['tcp dport vmap { 22 : drop, * : accept }', 'web', 'high'],
    ['ct state vmap { established : accept, related : accept, invalid : drop, new : accept }', ...Object.keys(PACKETS)],
    [
      'meta l4proto vmap { tcp : jump t, udp : goto u }\nchain t { tcp dport 80 accept }\nchain u { accept }\nicmp type 8 accept',
      'web',
      'dns',
      'ntp',
      'ping',
    ],
    [
      'map ports { type inet_service : verdict; elements = { 22 : accept, 53 : accept } }\nth dport vmap @ports',
      'ssh',
      'dns',
    ],
    [
      'set hosts {\n type ipv4_addr\n flags interval\n auto-merge\n elements = { 10.0.0.0/24 comment "lan",\n 10.0.2.1 }\n}\nip saddr @hosts udp dport 1-1024 accept',
      'dns',
    ],
    ['set nobody { type ipv4_addr; }\nip saddr @nobody accept\nip saddr != @nobody tcp dport 22 accept', 'ssh'],
    ['tcp dport 22 counter packets 12 bytes 3456 accept', 'ssh'],
    ['tcp dport 22 log prefix "ssh: " level info counter accept', 'ssh'],
    ['counter tcp dport 22 log prefix "x" ip saddr 10.0.0.5 accept', 'ssh'],
    ['icmp type echo-request icmp code 0 accept', 'ping'],
    ['icmp code != 0 accept'],
    ['ip dscp { cs0, ef } tcp dport 22 accept', 'ssh'],
    ['ip dscp != be accept'],
    ['meta protocol ip tcp dport 22 accept', 'ssh'],
    ['meta nfproto { ipv4, ipv6 } tcp dport 22 accept', 'ssh'],
    ['tcp dport 22 return\ntcp dport 1-80 accept', 'web'],
    ['ct state established,related,untracked accept\nct state new tcp dport 22 accept', 'ssh'],
  ] as const)
    it(`mean the same: ${JSON.stringify(rules.slice(0, 70))}`, () => {
      assert.deepEqual(mistakes(rules), []);
      assert.deepEqual(passing(rules, PACKETS), expected);
    });

  it('read the code of ICMP errors and the DSCP of both versions', () => {
    const rules = 'ip6 dscp ef accept\nip6 dscp af11 tcp dport 22 accept';
    const frame = (trafficClass: number): Uint8Array => {
      const made = frame6('tcp 2001:db8::5 4000 > fd00::8 22 S');
      const l3 = made.length - 60;
      made[l3] = 0x60 | (trafficClass >> 4);
      made[l3 + 1] = (trafficClass & 0xf) << 4;
      return made;
    };
    assert.deepEqual(
      [46 << 2, (46 << 2) | 3, 10 << 2, 0, 12 << 2].map(
        (tos) => new FirewallSite({ rules }).plane.passFrames({ port: 0, frame: frame(tos) }).length,
      ),
      [1, 1, 1, 0, 0],
    );
  });

  it('log once for each rule that logs, with its level', () => {
    const site = new FirewallSite({ rules: 'log prefix "all "\ntcp dport 22 log prefix "ssh " level info accept' });
    site.pass(on(0, PACKETS.ssh));
    const records: unknown[][] = [];
    site.plane.recorded.read(9, (_kind, _unixMs, words) => {
      const { prefix, level, verdict } = renderLogged(words);
      records.push([prefix, level, verdict]);
    });
    assert.deepEqual(records, [
      ['all ', undefined, 'none'],
      ['ssh ', 'info', 'accept'],
    ]);
  });

  it('log where they return behind a counter', () => {
    const site = new FirewallSite({ rules: 'meta l4proto tcp counter tcp dport 22 log prefix "x" return' });
    site.pass(on(0, PACKETS.ssh));
    const prefixes: unknown[] = [];
    site.plane.recorded.read(9, (_kind, _unixMs, words) => {
      const { prefix } = renderLogged(words);
      prefixes.push(prefix);
    });
    assert.deepEqual(prefixes, ['x']);
    assert.equal(site.boards[0].count(0).packets, 1);
  });

  it('count where the counter stands', () => {
    const site = new FirewallSite({ rules: 'tcp dport 1-100 counter ip saddr 10.0.0.5 counter accept\ncounter' });
    site.pass(on(0, PACKETS.ssh), on(0, 'tcp 10.0.0.6:4000 > 198.51.100.7:22 S'));
    assert.deepEqual(
      [0, 1].map((entry) => site.boards[0].count(entry).packets),
      [2, 1],
    );
  });

  for (const [text, ...expected] of [
    // One mistake in a set is one error.
    ['tcp dport { 22, x } accept', '1:17: "x" is no port, such as 443, https or 8000-8080'],
    ['tcp dport { x } accept', '1:13: "x" is no port, such as 443, https or 8000-8080'],
    ['ip saddr { 10.0.0.256 } accept', '1:12: "10.0.0.256" is not an IP address, a prefix or a range'],
    ['tcp dport { 22 80 } accept', '1:16: expected "," or "}" in a set, not "80"'],
    [
      'define a = { 10.0.0.0/8, x }\nip saddr $a accept\nip daddr { $a, 10.0.0.1 } drop\nip daddr $a drop',
      '1:26: "x" is not an IP address, a prefix or a range',
    ],
    [
      'define web = { 80, 443 }\ntcp dport $web accept\nip saddr $web accept',
      '3:10: "$web", defined in line 1, is no address: "80" is not an IP address, a prefix or a range',
    ],
    [
      'set a {\n type ipv4_addr\n flags dynamic,timeout\n timeout 1h\n}\nip saddr @a drop',
      '3:8: "update" is not possible: rules change no sets: write its elements, and reload the rules to change them',
    ],
    [
      'ct state vmap { established : acept, new : drop }',
      '1:31: "acept" is no verdict: accept, drop, return, jump, goto',
    ],
    [
      'ct state vmap { estblished : accept }',
      '1:17: "estblished" is no connection state: new, established, related, invalid, untracked',
    ],
    [
      'ct state vmap { established accept }',
      '1:29: expected ":" between what is matched and its verdict, not "accept"',
    ],
    ['tcp dport vmap { 22 : accept } tcp sport 1 accept', '1:32: a match comes before "vmap"'],
    ['define p = { 22 }\ntcp dport vmap @p', '2:16: "$p" is no map of verdicts'],
    [
      'map m { type inet_service : verdict; elements = { 22 : accept } }\ntcp dport @m accept',
      '2:11: "$m" is a map: it stands after "vmap"',
    ],
    [
      'set m { type ipv4_addr . inet_service; }',
      '1:24: a concatenation (".") is not possible: write a set for each field',
    ],
    ['map m { type ipv4_addr : mark; }', '1:26: only verdicts are mapped: the type of a map ends with ": verdict"'],
    // What does not mean the same is refused.
    [
      'limit rate 1/second tcp dport 22 accept',
      '1:21: a match comes before "limit": a packet that does not match would use up the rate',
    ],
    ['log limit rate 1/second accept', '1:5: "limit" comes before "log": what stands before it is not limited'],
    [
      'limit rate 10 kbytes/second drop',
      '1:15: a limit counts packets that begin connections, not bytes: write it as packets, such as 10/second',
    ],
    ['limit rate 0/second drop', '1:12: the rate is a number from 1 to 1000000000, not "0"'],
    ['limit rate 2000000/second drop', '1:12: a limit is at most 1000000/second, not 2000000 in 1 s'],
    ['limit name "x" drop', '1:7: "limit name" is not possible: each rule has its own limit'],
    ['log group 2 drop', '1:5: "log group" is not possible: records go to the file of records, not to a netlink group'],
    [
      'ip saddr & 255.0.0.0 == 10.0.0.0 accept',
      '1:10: "&" stands only after "tcp flags": write a prefix, a range or a set',
    ],
    [
      'ip saddr . tcp dport { 10.0.0.1 . 22 } accept',
      '1:10: a concatenation (".") is not possible: write a rule for each pair',
    ],
    ['ct state > new accept', '1:10: ">" compares numbers: here stands "!="'],
    ['tcp dport > 65535 accept', '1:13: no value is > "65535"'],
    ['tcp dport > { 1, 2 } accept', '1:13: after ">" comes one value, not "{"'],
    [
      'masquerade',
      '1:1: "masquerade" is not possible: the firewall changes no addresses: the NAT of `middleboxes` does (docs/nat.md)',
    ],
    [
      'ct count over 10 drop',
      '1:4: "ct count" is not possible: connections are not counted by rule: `limit rate` bounds how many begin in a time',
    ],
    ['meta mark 1 accept', '1:6: "meta mark" is not possible: packets have no marks here'],
    [
      'tcp option maxseg size set 1400',
      '1:5: "tcp option" is not possible: options cannot be asked for; `clamp_mss` lowers the MSS',
    ],
    [
      'ct state established drop',
      '1:1: what is established passes without asking the rules: the rule would do nothing',
    ],
    ['define a = $a\nip saddr $a accept', '1:8: "a" is defined by itself'],
    ['set a { elements = { @a } }\ntcp dport @a accept', '1:5: "a" is defined by itself'],
    ['define a = $b\ndefine b = { $a, 10.0.0.1 }\nip saddr $b accept', '2:8: "b" is defined by itself'],
    [
      'tcp dport vmap { 22 : accept } log prefix "x"',
      '1:32: "log" comes before "vmap", whose branches decide: write a rule for packets of no branch',
    ],
    [
      'tcp dport vmap { 22 : accept } counter',
      '1:32: "counter" comes before "vmap", whose branches decide: write a rule for packets of no branch',
    ],
    [
      'tcp dport vmap { 22 : accept } limit rate 1/second',
      '1:32: "limit" comes before "vmap", whose branches decide: write a rule for packets of no branch',
    ],
    [
      'ct state vmap { established : drop }',
      '1:1: what is established passes without asking the rules: the rule would do nothing',
    ],
    ['iifname "eth*" accept', '1:9: there is no port whose name begins with "eth"; there are "inside", "outside"'],
    [
      'table inet filter {',
      '1:1: "table" is not possible: a table is translated by `constellation import-nft FILE`: rules here stand at the top or in a chain',
    ],
  ] as const)
    it(`are refused: ${JSON.stringify(text.slice(0, 70))}`, () => {
      assert.deepEqual(mistakes(text), expected);
    });

  it('are noted if nothing uses them, or could', () => {
    const notes = (text: string): string[] => {
      const compiled = compileRules(text, { ports: PORTS });
      if (compiled.problems !== undefined) assert.fail(compiled.problems.map(({ message }) => message).join());
      return (compiled.notes ?? []).map(({ line, column, message }) => `${line}:${column}: ${message}`);
    };
    assert.deepEqual(notes('define a = 22\nzone z = { port inside }\nchain c { accept }\nset s { type ipv4_addr; }'), [
      '1:8: "a" is not used',
      '2:6: zone "z" is not used',
      '3:7: chain "c" is not used: no rule jumps to it',
      '4:5: "s" is not used',
    ]);
    assert.deepEqual(notes('define a = { 10.0.0.0/8, 80 }'), [
      '1:8: "a" is not used, and nothing that a rule could use: "80" is not an IP address, a prefix or a range',
    ]);
    assert.deepEqual(
      notes('define a = 22\nzone z = { port inside }\nchain c { tcp dport $a accept }\nfrom z jump c'),
      [],
    );
  });
});
