import { strict as assert } from 'node:assert';
import { FirewallSite } from '../../support/firewall-site.js';
import { errorAbout, frame } from '../../support/frames.js';
import { frame6, icmpv6Error } from '../../support/frames6.js';
import { SeenMembers } from '../../support/plane.js';

const INSIDE = 0;
const OUTSIDE = 1;
const LAN = 'zone lan = { port inside }\n';
const OUT = `${LAN}from lan accept\n`;

/** Two sites: requests leave by the first, replies come by the second. */
function sites(rules = OUT, options: Readonly<Record<string, unknown>> = {}): [FirewallSite, FirewallSite] {
  const site = (member: number) =>
    new FirewallSite({
      rules,
      options,
      member,
      members: 2,
      plane: { early: new SeenMembers([member !== 0, member !== 1]) },
    });
  return [site(0), site(1)];
}

function counts(site: FirewallSite): Record<string, number> {
  const { timer_runs, ...counted } = site.counts();
  return counted;
}

function pass(site: FirewallSite, port: number, ...frames: Uint8Array[]): Uint8Array[] {
  return site.plane.passFrames(...frames.map((bytes) => ({ port, frame: bytes }))).map(({ frame: bytes }) => bytes);
}

const REQUEST = frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 8');
const REQUEST6 = frame6('udp 2001:db8::5 4000 > fd00::8 53 len 8');

const CASES: readonly [what: string, request: Uint8Array, reply: Uint8Array][] = [
  [
    'a SYN-ACK',
    frame('tcp 10.0.0.5:4000 > 198.51.100.7:80 S'),
    frame('tcp 198.51.100.7:80 > 10.0.0.5:4000 SA ack 1001'),
  ],
  ['a reset', frame('tcp 10.0.0.5:4000 > 198.51.100.7:80 S'), frame('tcp 198.51.100.7:80 > 10.0.0.5:4000 RA ack 1001')],
  ['a datagram', REQUEST, frame('udp 198.51.100.7:53 > 10.0.0.5:4000')],
  ['a reply to a ping', frame('icmp 10.0.0.5 > 198.51.100.7 echo 7'), frame('icmp 198.51.100.7 > 10.0.0.5 reply 7')],
  ['another protocol', frame('ip 10.0.0.5 > 198.51.100.7 proto 47'), frame('ip 198.51.100.7 > 10.0.0.5 proto 47')],
  ['an error', REQUEST, errorAbout('icmp 192.0.2.9 > 10.0.0.5 type 11', 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 8')],
  [
    'an IPv6 SYN-ACK',
    frame6('tcp 2001:db8::5 4000 > fd00::8 80 S'),
    frame6('tcp fd00::8 80 > 2001:db8::5 4000 SA ack 1001'),
  ],
  ['an IPv6 datagram', REQUEST6, frame6('udp fd00::8 53 > 2001:db8::5 4000')],
  [
    'a reply to an IPv6 ping',
    frame6('icmp 2001:db8::5 > fd00::8 echo 7'),
    frame6('icmp fd00::8 > 2001:db8::5 reply 7'),
  ],
  ['an IPv6 error', REQUEST6, icmpv6Error('2001:db8:9::1', '2001:db8::5', 3, REQUEST6)],
];

describe('firewall, replies that come before their connection', () => {
  for (const [what, request, reply] of CASES)
    it(`${what} waits for it`, () => {
      const [a, b] = sites();
      assert.equal(pass(a, INSIDE, request).length, 1);
      assert.deepEqual(pass(b, OUTSIDE, reply), []);
      assert.deepEqual(counts(b), { early_replies: 1, waiting_replies: 1 });
      a.replicateTo(b);
      b.plane.nowMs += 5;
      assert.deepEqual(pass(b, OUTSIDE), [reply]);
      assert.equal(counts(b)['early_replies_known'], 1);
      assert.equal(b.plane.dropped(), 0);
    });

  it('meet the rules when their time is over', () => {
    for (const [rules, reply, count] of [
      [OUT, CASES[0][2], { invalid: 1 }],
      [OUT, CASES[2][2], { denied: 1 }],
      [`${OUT}policy reject`, CASES[2][2], { rejected: 1 }],
    ] as const) {
      const [, b] = sites(rules);
      pass(b, OUTSIDE, reply);
      b.plane.nowMs += 151;
      pass(b, OUTSIDE);
      assert.deepEqual(counts(b), { early_replies: 1, early_replies_expired: 1, ...count });
    }
  });

  it('do not wait if the rules accept them alone, or would not accept their request', () => {
    for (const [rules, port, packet, count] of [
      [`${OUT}ct state invalid accept`, OUTSIDE, CASES[0][2], {}],
      [`${LAN}policy accept`, OUTSIDE, CASES[2][2], { opened: 1 }],
      [`${LAN}from lan tcp dport 80 accept`, OUTSIDE, CASES[2][2], { denied: 1 }],
      [`${LAN}from lan tcp dport 443 accept`, OUTSIDE, CASES[0][2], { invalid: 1 }],
      [`${LAN}from lan udp dport 53 accept`, INSIDE, frame('udp 10.0.0.5:1 > 198.51.100.7:99'), { denied: 1 }],
      [OUT, OUTSIDE, frame('tcp 198.51.100.7:80 > 10.0.0.5:4000 S'), { denied: 1 }],
      [OUT, OUTSIDE, frame('tcp 198.51.100.7:80 > 10.0.0.5:4000 A'), { invalid: 1 }],
      [OUT, OUTSIDE, frame('tcp 198.51.100.7:80 > 10.0.0.5:4000 R'), { invalid: 1 }],
      [OUT, OUTSIDE, frame('icmp 198.51.100.7 > 10.0.0.5 echo 7'), { denied: 1 }],
    ] as const) {
      const [, b] = sites(rules);
      pass(b, port, packet);
      assert.deepEqual(counts(b), count, rules);
    }
  });

  it('log and count a rule once, when it decides', () => {
    const [, b] = sites(`${LAN}from lan accept\nlog drop\n`);
    pass(b, OUTSIDE, CASES[2][2]);
    const records = (): number => b.plane.recorded.read(10, () => {});
    assert.equal(records(), 0);
    b.plane.nowMs += 151;
    pass(b, OUTSIDE);
    assert.equal(records(), 1);
  });

  it('wait with what comes behind them', () => {
    const [a, b] = sites();
    pass(a, INSIDE, CASES[0][1]);
    const rest = frame('tcp 198.51.100.7:80 > 10.0.0.5:4000 A ack 1001');
    assert.deepEqual(pass(b, OUTSIDE, CASES[0][2], rest), []);
    a.replicateTo(b);
    assert.deepEqual(pass(b, OUTSIDE, rest), [CASES[0][2], rest, rest]);
  });
});
