/**
 * Rules mean what they mean in nftables: which packets each counts, and which forms are refused.
 */

import { strict as assert } from 'node:assert';
import { Cursor, Problems } from '../../../../workers/middleboxes/firewall/cursor.js';
import { readFlags } from '../../../../workers/middleboxes/firewall/flag-parser.js';
import { parseRules } from '../../../../workers/middleboxes/firewall/parser.js';
import { tokenize } from '../../../../workers/middleboxes/firewall/tokens.js';
import { FirewallSite } from '../../support/firewall-site.js';
import { frame } from '../../support/frames.js';
import { frame6 } from '../../support/frames6.js';
import { withExtensions } from '../../support/headers.js';
import { on } from '../../support/plane.js';

const INSIDE = 0;
const OUTSIDE = 1;
const SYN = 2;
const ACK = 16;
const SYN_ACK = SYN | ACK;

/** A packet of a protocol whose header begins with these ports. */
function ported(port: number, protocol: number, sport: number, dport: number): { port: number; frame: Uint8Array } {
  const bytes = frame(`ip 10.0.0.5 > 198.51.100.7 proto ${protocol} len 16`);
  new DataView(bytes.buffer).setUint32(34, (sport << 16) | dport);
  return { port, frame: bytes };
}

const answer = (protocol: number, sport: number, dport: number) => {
  const bytes = frame(`ip 198.51.100.7 > 10.0.0.5 proto ${protocol} len 16`);
  new DataView(bytes.buffer).setUint32(34, (sport << 16) | dport);
  return { port: OUTSIDE, frame: bytes };
};

/** Packets that each rule counts. */
function counted(site: FirewallSite, rules: number): number[] {
  return Array.from({ length: rules }, (_, entry) => site.boards[0].count(entry).packets);
}

/** Whether flags match, by the value of their byte. */
function flagsOf(text: string): (shown: number) => boolean {
  const set = readFlags(new Cursor(tokenize(text).tokens, new Problems()));
  return (shown) => set.some(([low, high]) => low <= shown && shown <= high);
}

describe('firewall: the meaning of rules', () => {
  const forms: readonly [string, (shown: number) => boolean][] = [
    ['syn', (shown) => (shown & SYN) !== 0],
    ['syn,ack', (shown) => (shown & SYN_ACK) !== 0],
    ['syn | ack', (shown) => (shown & SYN_ACK) !== 0],
    ['== syn', (shown) => shown === SYN],
    ['!= syn', (shown) => shown !== SYN],
    ['== syn,ack', (shown) => shown === SYN_ACK],
    ['!= syn|ack', (shown) => shown !== SYN_ACK],
    ['== 0x0', (shown) => shown === 0],
    ['!= 0', (shown) => shown !== 0],
    ['{ syn, ack }', (shown) => shown === SYN || shown === ACK],
    ['{ syn, syn|ack, 0x0 }', (shown) => shown === SYN || shown === SYN_ACK || shown === 0],
    ['!= { syn, syn|ack }', (shown) => shown !== SYN && shown !== SYN_ACK],
    ['syn / syn,ack', (shown) => (shown & SYN_ACK) === SYN],
    ['!= syn / syn,ack', (shown) => (shown & SYN_ACK) !== SYN],
    ['0x0 / syn,ack', (shown) => (shown & SYN_ACK) === 0],
    ['& (syn | ack) == syn', (shown) => (shown & SYN_ACK) === SYN],
    ['& (syn | ack) syn', (shown) => (shown & SYN_ACK) === SYN],
    ['& (syn | ack) != 0', (shown) => (shown & SYN_ACK) !== 0],
    ['& syn == 0', (shown) => (shown & SYN) === 0],
    ['& (syn | ack) == { syn, ack }', (shown) => (shown & SYN_ACK) === SYN || (shown & SYN_ACK) === ACK],
    ['& 0x12 == 2', (shown) => (shown & SYN_ACK) === SYN],
  ];
  for (const [text, expected] of forms)
    it(`tcp flags ${text}: of all 256 values those that nftables matches`, () => {
      const matches = flagsOf(text);
      for (let shown = 0; shown < 256; shown++)
        assert.equal(matches(shown), expected(shown), `0x${shown.toString(16)}`);
    });

  for (const [text, message] of [
    ['tcp flags 0x0 drop', 'without "==" this asks for any of no flags, which no packet has: write tcp flags == 0x0'],
    [
      'tcp flags { syn } drop',
      'nftables reads a set of one element as any of its flags: write it with == or without braces',
    ],
    ['tcp flags & syn | ack == syn drop', 'several flags after "&" stand in parentheses: & (syn | ack)'],
    ['tcp flags & syn == ack drop', 'a flag is asked for that is not among those looked at'],
    [
      'tcp flags == (syn,ack) drop',
      'expected ")" after the flags; inside parentheses flags are joined by "|", not ","',
    ],
    ['ct state != new,related drop', 'no packet has several states at once: write != { … } around them'],
    ['ct state == new,related drop', 'no packet has several states at once: write == { … } around them'],
    ['tcp dport 010 drop', '"010" begins with 0, which nftables reads as octal: write it without'],
    ['tcp dport 1-010 drop', '"1-010" begins with 0, which nftables reads as octal: write it without'],
    ['drop tcp dport 22', 'a match comes before the verdict: nothing is asked after it'],
  ] as const)
    it(`refuses ${text}`, () => {
      assert.equal(parseRules(text, ['inside', 'outside']).problems?.[0].message, message);
    });

  for (const protocol of [33, 132, 136])
    it(`protocol ${protocol}: ports are matched, and an accepted association opens no other`, () => {
      const site = new FirewallSite({ rules: `meta l4proto ${protocol} th dport 5000 accept\ncounter` });
      assert.equal(site.plane.passFrames(ported(INSIDE, protocol, 4000, 5000)).length, 1);
      assert.equal(site.plane.passFrames(answer(protocol, 5000, 4000)).length, 1);
      for (const other of [ported(INSIDE, protocol, 4000, 5001), answer(protocol, 5000, 4001)])
        assert.equal(site.plane.passFrames(other).length, 0);
      assert.deepEqual(counted(site, 3), [1, 2, 2]);
    });

  it('th is the first bytes of a transport header, of whatever protocol', () => {
    const site = new FirewallSite({ rules: 'th dport 53 counter\nth dport != 53 counter\nmeta l4proto 47 counter' });
    site.plane.passFrames(
      on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53'),
      ported(INSIDE, 47, 0, 53),
      ported(INSIDE, 47, 0, 54),
      on(INSIDE, 'ip 10.0.0.5 > 198.51.100.7 proto 47'), // no bytes: no port, neither this one nor another
    );
    assert.deepEqual(counted(site, 3), [2, 1, 3]);
  });

  it('ip6 nexthdr is the first next header, meta l4proto the last', () => {
    const rules =
      'ip6 nexthdr tcp counter\nip6 nexthdr 60 counter\nmeta l4proto tcp counter\nip6 nexthdr != 60 counter';
    const site = new FirewallSite({ rules });
    const plain = frame6('tcp fd00::5 4000 > fd00::8 80 S');
    const extended = withExtensions(plain, [{ header: 60, bytes: 8, start: [1, 4] }]);
    site.plane.passFrames({ port: INSIDE, frame: plain }, { port: INSIDE, frame: extended });
    assert.deepEqual(counted(site, 4), [1, 1, 2, 1]);
  });

  describe('packets that are invalid', () => {
    const NULL = on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80');
    const XMAS = on(INSIDE, 'tcp 10.0.0.5:4001 > 198.51.100.7:80 FPU');
    const ACKS = on(INSIDE, 'tcp 10.0.0.5:4002 > 198.51.100.7:80 A');

    it('are counted by rules that name the state, also NULL and XMAS', () => {
      const rules =
        'ct state invalid tcp flags == 0x0 counter\nct state invalid tcp flags & (fin|psh|urg) == fin|psh|urg drop';
      const site = new FirewallSite({ rules });
      assert.deepEqual(site.pass(NULL, XMAS, ACKS), []);
      assert.deepEqual(counted(site, 2), [1, 1]);
      assert.deepEqual(site.counts(), { tcp_flags: 1, denied: 1, invalid: 1 });
    });

    it('are counted and dropped by rules that name no state', () => {
      const site = new FirewallSite({
        rules: 'tcp flags == 0x0 counter drop\nmeta l4proto tcp counter\npolicy accept',
      });
      assert.deepEqual(site.pass(NULL, XMAS, ACKS), []);
      assert.deepEqual(counted(site, 2), [1, 2]);
      assert.deepEqual(site.counts(), { denied: 1, tcp_flags: 1, invalid: 1 });
    });

    it('are neither accepted nor answered by rules that name no state, and no later rule is asked', () => {
      const site = new FirewallSite({ rules: 'tcp dport 80 accept\nreject\ndrop' });
      assert.deepEqual(site.pass(NULL, XMAS, ACKS), []);
      assert.deepEqual(counted(site, 3), [0, 0, 0]);
      const rejecting = new FirewallSite({ rules: 'tcp dport 80 reject\ncounter drop' });
      assert.deepEqual(rejecting.pass(NULL, XMAS, ACKS), []);
      assert.deepEqual(counted(rejecting, 2), [0, 0]);
    });

    it('are those with impossible flags of an open connection, too', () => {
      const site = new FirewallSite({ rules: 'ct state invalid counter\niif inside accept' });
      site.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S'));
      assert.deepEqual(site.pass(NULL), []);
      assert.deepEqual(counted(site, 2), [1, 1]);
    });
  });
});
