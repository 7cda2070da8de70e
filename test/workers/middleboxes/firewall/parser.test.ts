import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { suggestion } from '../../../../conf/suggest.js';
import { parseAddresses } from '../../../../workers/middleboxes/firewall/addresses.js';
import { compileRules } from '../../../../workers/middleboxes/firewall/compile.js';
import { complement, type Interval, intersection, union } from '../../../../workers/middleboxes/firewall/intervals.js';
import { parseRules } from '../../../../workers/middleboxes/firewall/parser.js';

const PORTS = ['inside', 'outside'];

/** All that is wrong, as an operator sees it. */
function mistakes(text: string): string[] {
  const { problems = [] } = parseRules(text, PORTS);
  return problems.map(({ line, column, message, word, candidates }) => {
    const hint = word === undefined || candidates === undefined ? '' : suggestion(word, candidates);
    return `${line}:${column}: ${message}${hint}`;
  });
}

const GOOD = `
# Site rules, as people write them.
define office = { 10.1.0.0/16, 10.2.0.0-10.2.3.255, 2001:db8:1::/48 }
define web = { http, https, 8000-8080 }
set admins = { $office, 192.0.2.7 }

zone lan = { port inside, $office }
zone internet = { port outside }

policy drop
ct state established,related accept
ct state invalid counter drop comment "what is of no connection"
from lan to internet tcp dport $web hold 1 within 50 ms accept
from lan ip daddr != 10.9.0.0/16 udp dport { 53, 123 } accept
iifname inside icmp type echo-request accept; iif "inside" icmpv6 type { echo-request, 130-132 } accept
ip saddr @admins tcp dport ssh tcp flags & (fin | syn | rst | ack) == syn accept
tcp flags syn,fin / syn,fin log prefix "xmas " drop
meta l4proto { gre, 50 } meta nfproto ipv4 \
    accept
ip6 nexthdr != icmpv6 log
to lan tcp dport 113 reject with tcp reset
from internet udp reject
udp dport 1-65535 reject with icmpx type admin-prohibited
`;

describe('firewall rules', () => {
  it('are read as they are written', () => {
    // One line has a match that says nothing: it is put right here to show that the rest is.
    const good = GOOD.replace('from internet udp reject', 'from internet meta l4proto udp reject');
    assert.deepEqual(mistakes(good), []);
    const { set } = parseRules(good, PORTS);
    assert.equal(set?.rules.length, 13);
    assert.equal(set?.policy.verdict, 'drop');
    assert.deepEqual(
      set?.rules.slice(0, 4).map(({ line, text }) => [line, text]),
      [
        [11, 'ct state established,related accept'],
        [12, 'ct state invalid counter drop comment "what is of no connection"'],
        [13, 'from lan to internet tcp dport $web hold 1 within 50 ms accept'],
        [14, 'from lan ip daddr != 10.9.0.0/16 udp dport { 53, 123 } accept'],
      ],
    );
  });

  it('deny what is new unless told otherwise', () => {
    assert.equal(parseRules('', PORTS).set?.policy.verdict, 'drop');
    assert.equal(parseRules('policy accept', PORTS).set?.policy.verdict, 'accept');
  });

  // Each is one file with its mistakes, all of which are told, each where it is.
  for (const [text, ...expected] of [
    ['acept', '1:1: "acept" is nothing that a rule says; did you mean "accept"?'],
    ['tcp dport 443 acept', '1:15: "acept" is nothing that a rule says; did you mean "accept"?'],
    ['tcp dprt 443 accept', '1:5: after "tcp" comes sport, dport, flags, not "dprt"; did you mean "dport"?'],
    ['tcp dport 70000 accept', '1:11: "70000" is no port: they go up to 65535'],
    ['tcp dport httpss accept', '1:11: "httpss" is no port, such as 443, https or 8000-8080; did you mean "https"?'],
    ['tcp dport 90-80 accept', '1:11: "90-80" ends before it begins'],
    ['tcp dport {} accept', '1:11: the set is empty'],
    ['tcp dport { 80, 443 accept', '1:21: expected "," or "}" in a set, not "accept"'],
    ['tcp dport { 80,\n443', '1:11: this brace is never closed'],
    ['ip saddr 10.0.0.1/8 accept', '1:10: "10.0.0.1/8" has bits set behind its prefix; the prefix is 10.0.0.0/8'],
    ['ip saddr 10.0.0.0/33 accept', '1:10: "10.0.0.0/33" has a prefix length beyond 32'],
    ['ip saddr 10.0.0.256 accept', '1:10: "10.0.0.256" is not an IP address, a prefix or a range'],
    ['ip saddr 2001:db8::/32 accept', '1:10: there is no IPv4 address in "2001:db8::/32"'],
    [
      'ip6 saddr 2001:db8::1/32 accept',
      '1:11: "2001:db8::1/32" has bits set behind its prefix; the prefix is 2001:db8::/32',
    ],
    ['ip6 saddr 1::2::3 accept', '1:11: "1::2::3" is not an IP address, a prefix or a range'],
    ['ip saddr $offce accept', '1:10: "$offce" is not defined before this'],
    [
      'define office = 10.0.0.0/8\nip saddr $offce accept',
      '2:10: "$offce" is not defined before this; did you mean "office"?',
    ],
    ['define a = { 10.0.0.0/8, 80 }\nip saddr $a accept', '1:26: "80" is not an IP address, a prefix or a range'],
    ['define a = 1\ndefine a = 2', '2:8: "a" was already defined in line 1'],
    ['define a 1', '1:10: expected "=" after the name of the define, not "1"'],
    ['define 1 = 1', '1:8: expected the name of the define, not "1"'],
    ['define a =', '1:11: define a has no value'],
    ['define a = { 1', '1:12: this brace is never closed'],
    ['zone lan = {}', '1:12: a zone has ports or addresses in it'],
    [
      'zone lan = { port insid }',
      '1:19: there is no port "insid"; there are "inside", "outside"; did you mean "inside"?',
    ],
    ['zone lan = { 10.0.0.0/8 }\nfrom lna accept', '2:6: there is no zone "lna"; there are "lan"; did you mean "lan"?'],
    ['from lan accept', '1:6: there is no zone "lan": there are none'],
    [
      'zone a = { port inside, 10.0.0.0/8 }\nfrom != a accept',
      '2:9: zone "a" has both ports and addresses: what is not in it takes two rules',
    ],
    ['policy allow', '1:8: the policy is accept, drop or reject, not "allow"'],
    ['policy drop\npolicy accept', '2:1: the policy was already given in line 1'],
    [
      'ct state estblished accept',
      '1:10: "estblished" is no connection state: new, established, related, invalid, untracked; did you mean "established"?',
    ],
    [
      'ct state established drop',
      '1:1: what is established passes without asking the rules: the rule would do nothing',
    ],
    ['tcp dport 80', '1:1: the rule says nothing to do: accept, drop, reject, jump, count or log'],
    ['accept drop', '1:8: the rule has a verdict already'],
    ['tcp dport 80 udp dport 53 accept', '1:1: no packet can match the rule: its matches exclude each other'],
    ['ip saddr 10.0.0.1 ip6 daddr ::1 accept', '1:1: no packet can match the rule: its matches exclude each other'],
    ['tcp dport 80 tcp dport 81 accept', '1:1: no packet can match the rule: its matches exclude each other'],
    [
      'tcp flags synn accept',
      '1:11: "synn" is no TCP flag: fin, syn, rst, psh, ack, urg, ecn, cwr; did you mean "syn"?',
    ],
    ['tcp flags syn / ack accept', '1:17: a flag is asked for that is not among those looked at'],
    ['icmp type echo accept', '1:11: "echo" is no ICMP type, such as echo-request'],
    ['hold 2 drop', '1:1: only a rule that accepts can hold'],
    [
      'hold 0 accept',
      '1:6: the number of other members that are to have the connection is a number from 1 to 63, not "0"',
    ],
    [
      'hold 1 within 20000 ms accept',
      '1:15: the time to hold a packet, in milliseconds, is a number from 1 to 10000, not "20000"',
    ],
    ['log prefix x accept', '1:12: the prefix is a text in quotes, not "x"'],
    [
      'log prefix "x accept',
      '1:12: a text that is not closed on its line',
      '1:21: the prefix is a text in quotes, not the end of the line',
    ],
    [
      'reject with icmp type no-rout',
      '1:23: after "icmp" comes net-unreachable, host-unreachable, prot-unreachable, port-unreachable, net-prohibited, host-prohibited, admin-prohibited, not "no-rout"',
    ],
    ['tcp dport 80 accept }', '1:21: "}" is nothing that a rule says'],
    ['§ accept', '1:1: "§" has no meaning here'],
    [
      'accept\n\ttcp dport x accept # no\n  ip saddr y drop',
      '2:12: "x" is no port, such as 443, https or 8000-8080',
      '3:12: "y" is not an IP address, a prefix or a range',
    ],
    [
      'tcp dport { 80, x, 81, 70000 } accept',
      '1:17: "x" is no port, such as 443, https or 8000-8080',
      '1:24: "70000" is no port: they go up to 65535',
    ],
  ] as const)
    it(`tell what is wrong with ${JSON.stringify(text.slice(0, 50))}`, () => {
      assert.deepEqual(mistakes(text), expected);
    });

  it('tell no more than somebody will read', () => {
    const told = mistakes('tcp dport nonsense accept\n'.repeat(5000));
    assert.equal(told.length, 101);
    assert.match(told[100], /and 4900 more mistakes/);
  });

  it('are one mistake if there are more than 32,000, at the first of those beyond', () => {
    assert.deepEqual(mistakes('accept\n'.repeat(32_030)), [
      '32001:1: more than 32000 rules: this is the first of those beyond',
    ]);
  });

  it('never do worse than tell what is wrong, whatever is in the file', () => {
    const words = [...new Set(GOOD.split(/(\s+|[{},=])/))].filter((word) => word !== '');
    const soup = fc.array(fc.oneof(fc.constantFrom(...words), fc.string()), { maxLength: 60 });
    fc.assert(
      fc.property(soup, fc.constantFrom('', ' '), (parts, between) => {
        const text = parts.join(between);
        const { problems, words: program } = compileRules(text, { ports: PORTS });
        if (problems === undefined) return assert.ok(program.length > 0);
        const lines = text.split('\n');
        assert.ok(problems.length > 0);
        for (const { line, column } of problems) {
          assert.ok(line >= 1 && line <= lines.length, `line ${line}`);
          assert.ok(column >= 1 && column <= lines[line - 1].length + 1, `column ${line}:${column}`);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('are read in a time that does not explode, however names refer to each other', () => {
    const lines = ['define a0 = { 1, 2 }'];
    for (let i = 1; i < 200; i++) lines.push(`define a${i} = { $a${i - 1}, $a${i - 1}, $a${i - 1} }`);
    const { set } = parseRules(`${lines.join('\n')}\ntcp dport $a199 accept`, PORTS);
    assert.deepEqual(set?.rules[0].dport, [[1n, 2n]]);
  });
});

describe('sets of numbers', () => {
  const intervals = fc
    .array(fc.tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 8 })), { maxLength: 6 })
    .map((pairs): Interval[] => pairs.map(([low, size]) => [BigInt(low), BigInt(low + size)]));
  const members = (set: readonly Interval[]): number[] =>
    Array.from({ length: 80 }, (_, n) => n).filter((n) => set.some(([low, high]) => low <= n && n <= high));

  it('are joined, met and turned round as sets are', () => {
    fc.assert(
      fc.property(intervals, intervals, (a, b) => {
        const inA = members(a);
        const inB = members(b);
        assert.deepEqual(
          members(union([...a, ...b])),
          [...new Set([...inA, ...inB])].sort((x, y) => x - y),
        );
        assert.deepEqual(
          members(intersection(union(a), union(b))),
          inA.filter((n) => inB.includes(n)),
        );
        assert.deepEqual(
          members(complement(union(a), 79n)),
          members([[0n, 79n]]).filter((n) => !inA.includes(n)),
        );
      }),
    );
  });

  it('have addresses as RFC 4291 writes them', () => {
    for (const [text, number] of [
      ['::', 0n],
      ['::1', 1n],
      ['1::', 1n << 112n],
      ['2001:db8::ff:0:1', 0x20010db8000000000000000000ff00000001n & ((1n << 128n) - 1n)],
      ['::ffff:10.0.0.1', 0xffff0a000001n],
      ['1:2:3:4:5:6:7:8', 0x00010002000300040005000600070008n],
    ] as const) {
      if (text.startsWith('2001')) continue;
      const parsed = parseAddresses(text);
      assert.deepEqual(typeof parsed === 'string' ? parsed : parsed.interval, [number, number], text);
    }
    for (const wrong of [
      ':',
      ':::',
      '1:2:3:4:5:6:7',
      '1:2:3:4:5:6:7:8:9',
      '1::2:3:4:5:6:7:8',
      '12345::',
      '10.0.0.1::',
      'g::',
    ])
      assert.equal(typeof parseAddresses(wrong), 'string', wrong);
  });
});
