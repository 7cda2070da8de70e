import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Phase } from '../../../../shm/control.js';
import type { FlowView } from '../../../../workers/api/middlebox.js';
import type { RecordFields } from '../../../../workers/api/records.js';
import { renderLogged } from '../../../../workers/middleboxes/firewall/logged.js';
import { shownConnection } from '../../../../workers/middleboxes/firewall/shown.js';
import { timerOf } from '../../../support/idle.js';
import { FirewallSite } from '../../support/firewall-site.js';
import { frame, seal } from '../../support/frames.js';
import { describe6, frame6, icmpv6Error } from '../../support/frames6.js';
import { on } from '../../support/plane.js';

const INSIDE = 0;
const OUTSIDE = 1;
const OUT = 'zone lan = { port inside }\nfrom lan accept\n';

const v6 = (port: number, text: string) => ({ port, frame: frame6(text) });

/** How many of these come out. */
function through(site: FirewallSite, ...packets: { port: number; frame: Uint8Array }[]): number {
  return packets.reduce((sum, packet) => sum + site.plane.passFrames(packet).length, 0);
}

const SYN = on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S');
const SYN_ACK = on(OUTSIDE, 'tcp 198.51.100.7:80 > 10.0.0.5:4000 SA seq 5000 ack 1001');
const ACK = on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 A seq 1001 ack 5001 win 1000');
const DATA = on(OUTSIDE, 'tcp 198.51.100.7:80 > 10.0.0.5:4000 PA seq 5001 ack 1001 win 1000 len 100');
const FIN = on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 FA seq 1001 ack 5001 win 1000');
const RST = on(OUTSIDE, 'tcp 198.51.100.7:80 > 10.0.0.5:4000 R seq 5001');

/** The one connection a site has: rank and seconds left. */
function only(site: FirewallSite, table = site.ipv4): [number, number] {
  const found: [number, number][] = [];
  table.forEach(site.now, (entry) => found.push([entry[2], timerOf(entry[1] - site.now)]));
  assert.equal(found.length, 1, `${found.length} connections`);
  return found[0];
}

describe('firewall', () => {
  it('asks the rules about the first packet, and lets the connection pass both ways', () => {
    const site = new FirewallSite({ rules: OUT });
    assert.deepEqual(site.pass(DATA, SYN_ACK), [], 'nobody began it');
    assert.equal(through(site, SYN), 1);
    assert.deepEqual(only(site), [0, 60]);
    assert.equal(through(site, SYN_ACK), 1);
    assert.deepEqual(only(site), [0, 60], 'an answer alone establishes nothing');
    assert.equal(through(site, ACK, DATA), 2);
    assert.deepEqual(only(site), [1, 7440]);
    assert.equal(through(site, on(OUTSIDE, 'tcp 198.51.100.7:80 > 10.0.0.6:4000 S')), 0);
    assert.equal(through(site, FIN, DATA), 2);
    assert.deepEqual(only(site), [2, 120]);
    assert.equal(through(site, RST), 1);
    assert.deepEqual(only(site), [3, 10]);
    assert.deepEqual(site.counts(), { opened: 1, passed: 6, invalid: 2, denied: 1 });
    site.later(13);
    assert.equal(through(site, DATA), 0);
  });

  it('lets packets of one batch pass together', () => {
    const site = new FirewallSite({ rules: OUT });
    assert.equal(site.pass(SYN, SYN, SYN_ACK, ACK, DATA).length, 5);
    assert.equal(site.counts()['opened'], 1);
  });

  it('begins a connection anew where the old one is ending, if the rules still accept it', () => {
    const site = new FirewallSite({ rules: OUT });
    assert.equal(through(site, SYN, SYN_ACK, ACK, FIN), 4);
    assert.equal(through(site, on(OUTSIDE, 'tcp 198.51.100.7:80 > 10.0.0.5:4000 S')), 0, 'not from outside');
    assert.equal(through(site, SYN), 1);
    assert.deepEqual(only(site), [0, 60]);
    assert.equal(site.counts()['opened'], 2);
  });

  it('knows UDP, ICMP queries and other protocols to be established once they are answered', () => {
    for (const [first, answer, fresh, answered] of [
      ['udp 10.0.0.5:4000 > 198.51.100.7:53', 'udp 198.51.100.7:53 > 10.0.0.5:4000', 30, 180],
      ['icmp 10.0.0.5 > 198.51.100.7 echo 77', 'icmp 198.51.100.7 > 10.0.0.5 reply 77', 30, 30],
      ['ip 10.0.0.5 > 198.51.100.7 proto 47 len 30', 'ip 198.51.100.7 > 10.0.0.5 proto 47 len 30', 600, 600],
    ] as const) {
      const site = new FirewallSite({ rules: OUT });
      assert.equal(through(site, on(OUTSIDE, answer)), 0, answer);
      assert.equal(through(site, on(INSIDE, first), on(INSIDE, first)), 2, first);
      assert.deepEqual(only(site), [0, fresh]);
      assert.equal(through(site, on(OUTSIDE, answer)), 1, answer);
      assert.deepEqual(only(site), [1, answered]);
    }
  });

  it('does the same with IPv6', () => {
    const site = new FirewallSite({ rules: OUT });
    const back = 'tcp fd00::8 80 > 2001:db8::5 4000';
    assert.equal(through(site, v6(OUTSIDE, `${back} SA`)), 0);
    const out = 'tcp 2001:db8::5 4000 > fd00::8 80';
    assert.equal(through(site, v6(INSIDE, `${out} S`), v6(OUTSIDE, `${back} SA seq 7 ack 1001`)), 2);
    assert.deepEqual(only(site, site.ipv6), [0, 60]);
    assert.equal(through(site, v6(INSIDE, `${out} A ack 8`), v6(OUTSIDE, `${back} A seq 8 ack 1001`)), 2);
    assert.deepEqual(only(site, site.ipv6), [1, 7440]);
    assert.equal(
      through(site, v6(INSIDE, 'icmp 2001:db8::5 > fd00::8 echo 7'), v6(OUTSIDE, 'icmp fd00::8 > 2001:db8::5 reply 7')),
      2,
    );
    assert.equal(through(site, v6(OUTSIDE, 'icmp fd00::8 > 2001:db8::5 reply 8')), 0);
  });

  for (const flags of ['SF', 'SR', 'F', 'FPU', 'FR', 'SAF', 'P', 'U', 'SRAFPU'])
    it(`drops TCP with the flags ${flags}, also of an open connection`, () => {
      const site = new FirewallSite({ rules: 'policy accept' });
      const strange = on(INSIDE, `tcp 10.0.0.5:4000 > 198.51.100.7:80 ${flags}`);
      assert.equal(through(site, strange), 0);
      assert.equal(through(site, SYN, SYN_ACK, ACK, strange), 3);
      assert.equal(site.counts()['tcp_flags'], 2);
      assert.deepEqual(only(site), [1, 7440]);
    });

  describe('FINs and resets', () => {
    const IN = 'tcp 198.51.100.7:80 > 10.0.0.5:4000';
    const OUT_ = 'tcp 10.0.0.5:4000 > 198.51.100.7:80';
    /**
     * Open; the inside expects 5001 next in a window of 8 × 1000 bytes, the outside 1001 in one of
     * 2000.
     */
    function connected(): FirewallSite {
      const site = new FirewallSite({ rules: OUT });
      const segments = [
        on(INSIDE, `${OUT_} S seq 1000 scale 3`),
        on(OUTSIDE, `${IN} SA seq 5000 ack 1001 scale 0`),
        on(INSIDE, `${OUT_} A seq 1001 ack 5001 win 1000`),
        on(OUTSIDE, `${IN} A seq 5001 ack 1001 win 2000`),
      ];
      assert.equal(through(site, ...segments), 4);
      return site;
    }

    for (const [port, segment, ends] of [
      [OUTSIDE, `${IN} R seq 5001`, true],
      [OUTSIDE, `${IN} R seq ${5001 + 8000}`, true],
      [OUTSIDE, `${IN} R seq ${5001 + 8001}`, false],
      [OUTSIDE, `${IN} RA seq 5000 ack 1001`, false],
      [OUTSIDE, `${IN} R seq ${5001 + 0x7000_0000}`, false],
      [INSIDE, `${OUT_} R seq 1001`, true],
      [INSIDE, `${OUT_} R seq ${1001 + 2000}`, true],
      [INSIDE, `${OUT_} R seq ${1001 + 2001}`, false],
      [OUTSIDE, `${IN} FA seq 5001 ack 1001`, true],
      [OUTSIDE, `${IN} FA seq 99 ack 1001`, false],
      [INSIDE, `${OUT_} FA seq 1001 ack 5001`, true],
      [INSIDE, `${OUT_} FA seq 9999 ack 5001`, false],
    ] as const)
      it(`${segment} ${ends ? 'ends its connection' : 'ends nothing, out of the window'}`, () => {
        const site = connected();
        const isReset = / RA? /.test(segment);
        const isDropped = isReset && !ends;
        assert.equal(through(site, on(port, segment)), isDropped ? 0 : 1);
        assert.equal(site.counts()['reset_window'] ?? 0, isDropped ? 1 : 0);
        const ended = isReset ? [3, 10] : [2, 120];
        assert.deepEqual(only(site), ends ? ended : [1, 7440]);
      });

    it('have to answer the SYN of what is opening', () => {
      for (const [flags, passes] of [
        ['RA seq 0 ack 1001', 1],
        ['RA seq 0 ack 1002', 0],
        ['R seq 0', 0],
      ] as const) {
        const site = new FirewallSite({ rules: OUT });
        assert.equal(through(site, on(INSIDE, `${OUT_} S seq 1000`)), 1);
        assert.equal(through(site, on(OUTSIDE, `${IN} ${flags}`)), passes, flags);
      }
    });

    it('end nothing by a SYN forged in the middle of the connection', () => {
      const site = connected();
      // It may be the SYN of a client that lost its connection, so its refusal passes:
      // reused-pair.test.ts.
      assert.equal(through(site, on(INSIDE, `${OUT_} S seq 70000`), on(OUTSIDE, `${IN} RA seq 0 ack 70001`)), 2);
      assert.deepEqual(only(site), [1, 7440]);
    });

    it('know nothing of the life before', () => {
      const site = connected();
      assert.equal(through(site, FIN, on(INSIDE, `${OUT_} S seq 90000`)), 2);
      assert.equal(through(site, on(OUTSIDE, `${IN} R seq 5001`)), 0);
      assert.equal(through(site, on(OUTSIDE, `${IN} RA seq 0 ack 90001`)), 1);
    });

    it('are checked with IPv6 too', () => {
      const site = new FirewallSite({ rules: OUT });
      const [out, back] = ['tcp 2001:db8::5 4000 > fd00::8 80', 'tcp fd00::8 80 > 2001:db8::5 4000'];
      const opened = [v6(INSIDE, `${out} S`), v6(OUTSIDE, `${back} SA seq 7 ack 1001`), v6(INSIDE, `${out} A ack 8`)];
      assert.equal(through(site, ...opened), 3);
      assert.equal(through(site, v6(OUTSIDE, `${back} R seq 9`)), 0);
      assert.equal(site.counts()['reset_window'], 1);
      assert.deepEqual(only(site, site.ipv6), [1, 7440]);
    });

    it('are believed again where those they are for were not heard of late', () => {
      for (const [seconds, passes] of [
        [60, 0],
        [61, 1],
      ]) {
        const site = connected();
        site.later(seconds);
        assert.equal(through(site, on(OUTSIDE, `${IN} R seq 99`)), passes);
      }
    });

    it('pass where those they are for send by another site', () => {
      const [a, b] = [0, 1].map((member) => new FirewallSite({ rules: OUT, member, members: 2 }));
      assert.equal(through(a, SYN), 1);
      a.replicateTo(b);
      assert.equal(through(b, SYN_ACK), 1);
      assert.equal(through(a, ACK), 1);
      FirewallSite.settle(a, b);
      assert.equal(through(b, on(OUTSIDE, `${IN} R seq 77`)), 1);
      assert.deepEqual(only(b), [3, 10]);
    });
  });

  describe('asymmetric paths', () => {
    /** One site sees what goes out, the other what comes in. */
    function twoSites(options: Readonly<Record<string, unknown>> = {}) {
      const a = new FirewallSite({ rules: OUT, member: 0, members: 2, options });
      const b = new FirewallSite({ rules: OUT, member: 1, members: 2, options });
      const share = (): void => {
        a.replicateTo(b);
        b.replicateTo(a);
      };
      return { a, b, share };
    }

    it('share one state, whichever site sees which direction', () => {
      const { a, b, share } = twoSites();
      assert.equal(through(a, SYN), 1);
      share();
      assert.equal(through(b, SYN_ACK), 1);
      assert.equal(through(a, ACK), 1);
      share();
      assert.deepEqual(only(b)[0], 0, 'neither site knows of both ends yet');
      FirewallSite.settle(a, b);
      assert.deepEqual(only(b)[0], 1);
      assert.equal(through(b, DATA, DATA), 2);
      assert.equal(through(a, FIN), 1);
      share();
      assert.deepEqual(
        [only(a), only(b)],
        [
          [2, 120],
          [2, 120],
        ],
      );
      assert.equal(through(b, RST), 1);
      share();
      assert.deepEqual(
        [only(a), only(b)],
        [
          [3, 10],
          [3, 10],
        ],
      );
      assert.equal(a.ipv4.digest(a.now), b.ipv4.digest(b.now));
    });

    it('do to any packets what one site would do that sees all of them, when what they share is as fast as packets', () => {
      const flags = fc.constantFrom('S', 'SA', 'A', 'PA', 'FA', 'RA', 'RA', 'SF', '');
      // All lie in the windows: of what does not, sites know as much as they see.
      const packet = fc
        .tuple(fc.boolean(), fc.constantFrom(4000, 4001), fc.constantFrom('tcp', 'tcp', 'udp', 'icmp'), flags)
        .map(([out, port, kind, shown]) => {
          const [from, to] = out ? ['10.0.0.5', '198.51.100.7'] : ['198.51.100.7', '10.0.0.5'];
          const [fromPort, toPort] = out ? [port, 80] : [80, port];
          if (kind === 'icmp') return on(out ? 0 : 1, `icmp ${from} > ${to} ${out ? 'echo' : 'reply'} ${port}`);
          const numbers = `${shown} seq ${/[FR]/.test(shown) ? 2 : 1} ack 2`;
          return on(out ? 0 : 1, `${kind} ${from}:${fromPort} > ${to}:${toPort} ${kind === 'tcp' ? numbers : ''}`);
        });
      const step = fc.record({ packet, at: fc.constantFrom('a', 'b'), pause: fc.constantFrom(0, 0, 0, 5, 40, 200) });
      fc.assert(
        fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom('strict', 'loose'), (steps, pickup) => {
          const { share, ...sites } = twoSites({ pickup });
          const alone = new FirewallSite({ rules: OUT, options: { pickup } });
          for (const [n, { packet: sent, at, pause }] of steps.entries()) {
            for (const site of [sites.a, sites.b, alone]) site.later(pause);
            assert.equal(through(sites[at as 'a' | 'b'], sent), through(alone, sent), `step ${n}`);
            share();
            FirewallSite.settle(sites.a, sites.b);
            FirewallSite.settle(alone);
          }
          assert.equal(sites.a.ipv4.digest(sites.a.now), sites.b.ipv4.digest(sites.b.now));
        }),
        { numRuns: 60 },
      );
    });

    it('hear of UDP answers by the other site', () => {
      const { a, b, share } = twoSites();
      assert.equal(through(a, on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53')), 1);
      share();
      assert.equal(through(b, on(OUTSIDE, 'udp 198.51.100.7:53 > 10.0.0.5:4000')), 1);
      share();
      assert.deepEqual(only(a), [1, 180]);
    });

    it('drop an answer that is faster than the state, unless connections are picked up', () => {
      const strict = twoSites();
      assert.equal(through(strict.a, SYN), 1);
      assert.equal(through(strict.b, SYN_ACK), 0);
      strict.share();
      assert.equal(through(strict.b, SYN_ACK), 1, 'sent again');
      const loose = twoSites({ pickup: 'loose' });
      assert.equal(through(loose.a, SYN), 1);
      assert.equal(through(loose.b, SYN_ACK, DATA), 2);
      loose.share();
      assert.equal(through(loose.a, ACK), 1);
      loose.share();
      assert.deepEqual(
        [only(loose.a), only(loose.b)],
        [
          [1, 7440],
          [1, 7440],
        ],
      );
      assert.equal(loose.a.ipv4.digest(loose.a.now), loose.b.ipv4.digest(loose.b.now));
    });
  });

  it('picks up only what the rules would have accepted, one way or the other', () => {
    const site = new FirewallSite({ rules: `${OUT}from lan tcp dport 25 drop`, options: { pickup: 'loose' } });
    assert.equal(through(site, ACK), 1);
    assert.equal(through(site, on(OUTSIDE, 'tcp 198.51.100.7:443 > 10.0.0.5:4000 PA len 9')), 1);
    assert.equal(through(site, RST), 1, 'of what was picked up');
    assert.equal(through(site, on(OUTSIDE, 'tcp 198.51.100.7:9 > 10.0.0.5:4000 R')), 0);
    const closed = new FirewallSite({ rules: 'policy drop', options: { pickup: 'loose' } });
    assert.equal(through(closed, ACK, DATA, SYN_ACK), 0);
    assert.deepEqual(closed.counts(), { denied: 3 });
  });

  describe('ICMP errors', () => {
    function errorAbout(text: string, packet: string): Uint8Array {
      const quoted = frame(packet).subarray(14);
      const whole = frame(`${text} len ${quoted.length}`);
      whole.set(quoted, 14 + 28);
      return seal(whole);
    }
    const about = errorAbout('icmp 192.0.2.1 > 10.0.0.5 type 3', 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 20');

    it('are related to the connection they quote, and to no other', () => {
      const site = new FirewallSite({ rules: OUT });
      assert.equal(through(site, { port: OUTSIDE, frame: about }), 0);
      assert.equal(through(site, on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 20')), 1);
      assert.equal(through(site, { port: OUTSIDE, frame: about }), 1);
      const astray = errorAbout('icmp 192.0.2.1 > 10.0.0.6 type 3', 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 20');
      assert.equal(through(site, { port: OUTSIDE, frame: astray }), 0, 'to somebody else');
      assert.deepEqual(site.counts(), { opened: 1, related: 1, invalid: 2 });
    });

    it('are the same in ICMPv6', () => {
      const site = new FirewallSite({ rules: OUT });
      const sent = v6(INSIDE, 'udp 2001:db8::5 4000 > fd00::8 53 len 20');
      const error = { port: OUTSIDE, frame: icmpv6Error('fd00::9', '2001:db8::5', 1, sent.frame) };
      const astray = { port: OUTSIDE, frame: icmpv6Error('fd00::9', '2001:db8::6', 1, sent.frame) };
      assert.equal(through(site, error), 0);
      assert.equal(through(site, sent, error), 2);
      assert.equal(through(site, astray), 0);
      assert.deepEqual(site.counts(), { opened: 1, related: 1, invalid: 2 });
    });

    it('pass unless a rule about related packets says otherwise', () => {
      const site = new FirewallSite({ rules: `ct state related icmp type 3 drop\n${OUT}` });
      assert.equal(through(site, on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53 len 20')), 1);
      assert.equal(through(site, { port: OUTSIDE, frame: about }), 0);
      assert.deepEqual(site.counts(), { opened: 1, denied: 1 });
    });
  });

  it('lets fragments pass with the first of them, and no others', () => {
    const site = new FirewallSite({ rules: `${OUT}iif outside udp dport 53 drop` });
    const parts = (port: number, text: string) => [
      on(port, `udp ${text} more len 16 id 7`),
      on(port, `udp ${text} offset 24 len 16 id 7`.replace(/:\d+/g, '')),
    ];
    assert.equal(through(site, ...parts(INSIDE, '10.0.0.5:4000 > 198.51.100.7:53')), 2);
    assert.equal(through(site, ...parts(OUTSIDE, '198.51.100.8:4000 > 10.0.0.5:53')), 0);
    assert.equal(site.counts()['denied'], 1);
  });

  it('rejects with a reset, or with an ICMP error', () => {
    const rules =
      'tcp dport 113 reject with tcp reset\nudp dport 9 reject\ntcp dport 25 reject with icmp type admin-prohibited\ntcp dport 26 reject';
    const site = new FirewallSite({ rules });
    assert.deepEqual(site.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:113 S')), [
      '0: tcp 198.51.100.7:113 > 10.0.0.5:4000 RA',
    ]);
    assert.match(site.pass(on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:9'))[0], /^0: icmp .* > 10\.0\.0\.5 type 3/);
    assert.match(site.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:25 S'))[0], /^0: icmp .* > 10\.0\.0\.5 type 3/);
    const [reset] = site.plane.passFrames(v6(INSIDE, 'tcp 2001:db8::5 4000 > fd00::8 113 S'));
    assert.match(describe6(reset.frame), /^tcp fd00::8 113 > 2001:db8::5 4000 RA/);
    const [error] = site.plane.passFrames(v6(INSIDE, 'udp 2001:db8::5 4000 > fd00::8 9'));
    assert.match(describe6(error.frame), /^icmp \S+ > 2001:db8::5 type 1/);
    // As in nftables, TCP is not answered with a reset unless the rule says so.
    assert.match(site.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:26 S'))[0], /^0: icmp .* > 10\.0\.0\.5 type 3/);
    assert.deepEqual(site.counts(), { rejected: 6 });
  });

  it('counts what each rule applied to, also those that only count', () => {
    const rules = 'meta l4proto tcp counter\ntcp dport 80 accept\nudp dport 53 accept';
    const site = new FirewallSite({ rules });
    through(site, SYN, ACK, on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:81 S'));
    const counted = [0, 1, 2, 3].map((entry) => site.boards[0].count(entry).packets);
    assert.deepEqual(counted, [2, 1, 0, 1]);
  });

  it('shows connections by who began them', () => {
    const site = new FirewallSite({ rules: 'policy accept' });
    through(
      site,
      SYN,
      on(OUTSIDE, 'udp 198.51.100.7:53 > 10.0.0.5:4000'),
      v6(INSIDE, 'tcp fd00::8 80 > 2001:db8::5 4000 S'),
    );
    const shown: FlowView[] = [];
    for (const entry of site.ipv4.entries(site.now)) if (entry !== null) shown.push(shownConnection(entry, 1));
    const texts = shown.map(({ protocol, inside, remote, state }) =>
      [protocol, `${inside.address}:${inside.port}`, `${remote?.address}:${remote?.port}`, state].join(' '),
    );
    assert.deepEqual(texts.sort(), ['17 198.51.100.7:53 10.0.0.5:4000 new', '6 10.0.0.5:4000 198.51.100.7:80 new']);
    const [ipv6] = [...site.ipv6.entries(site.now)].filter((entry) => entry !== null);
    assert.deepEqual(shownConnection(ipv6, 4).inside, { address: 'fd00::8', port: 80 });
  });

  it('logs packets as records', () => {
    const site = new FirewallSite({ rules: 'tcp dport 80 log prefix "web " accept\nmeta l4proto udp log drop' });
    through(site, SYN, on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53'));
    const lines: RecordFields[] = [];
    site.plane.recorded.read(9, (_kind, _unixMs, words) => lines.push(renderLogged(words)));
    assert.deepEqual(
      lines.map(({ rule_line, verdict, prefix, src_ip, src_port, dest_ip, dest_port, proto }) => [
        rule_line,
        verdict,
        prefix,
        `${src_ip}:${src_port} > ${dest_ip}:${dest_port} ${proto}`,
      ]),
      [
        [1, 'accept', 'web ', '10.0.0.5:4000 > 198.51.100.7:80 6'],
        [2, 'drop', undefined, '10.0.0.5:4000 > 198.51.100.7:53 17'],
      ],
    );
  });

  it('lets connections go on when rules are replaced, or has them pass the new ones', () => {
    for (const recheck of [false, true]) {
      const site = new FirewallSite({ rules: OUT, options: { recheck } });
      assert.equal(through(site, SYN, SYN_ACK, ACK), 3);
      site.load('tcp dport 443 accept');
      assert.equal(through(site, DATA), recheck ? 0 : 1);
      assert.equal(
        through(site, on(INSIDE, 'tcp 10.0.0.5:4001 > 198.51.100.7:80 S')),
        0,
        'what is new meets new rules',
      );
      site.load('tcp dport 80 accept');
      assert.equal(through(site, DATA, ACK), 2);
      assert.equal(site.counts()['rechecked'] ?? 0, recheck ? 1 : 0);
    }
  });

  describe('with recheck', () => {
    const HTTPS = 'tcp dport 443 accept';

    it('asks the rules in force about every connection, also after the worker was started again', () => {
      const site = new FirewallSite({ rules: OUT, options: { recheck: true } });
      assert.equal(through(site, SYN, SYN_ACK, ACK), 3);
      site.restartWorker();
      assert.equal(through(site, DATA, ACK), 2, 'the rules accept it');
      site.load(HTTPS);
      assert.equal(through(site, DATA, ACK), 0);
      site.restartWorker();
      assert.equal(through(site, DATA, ACK), 0);
      assert.equal(site.counts()['rechecked'], 4);
    });

    it('asks them about connections of other sites', () => {
      const a = new FirewallSite({ rules: OUT, member: 0, members: 2 });
      const b = new FirewallSite({ rules: HTTPS, member: 1, members: 2, options: { recheck: true } });
      assert.equal(through(a, SYN), 1);
      a.replicateTo(b);
      assert.equal(through(b, SYN_ACK), 0);
      assert.equal(b.counts()['rechecked'], 1);
    });

    it('takes no connection for the one that had its slot before', () => {
      const a = new FirewallSite({ rules: HTTPS, member: 0, members: 2, options: { recheck: true, connections: 64 } });
      const b = new FirewallSite({ rules: 'policy accept', member: 1, members: 2, options: { connections: 64 } });
      const udp = (n: number, port: number) => on(INSIDE, `udp 10.0.1.${n}:4000 > 198.51.100.7:${port}`);
      a.load('udp dport 443 accept');
      for (let round = 0; round < 10; round++) {
        for (let n = 1; n <= 12; n++) assert.equal(through(a, udp(n, 443)), 1);
        // They are forgotten, and others of the other site have their slots.
        for (const site of [a, b]) {
          site.later(150);
          site.ipv4.sweep(site.now, 1024);
        }
        a.replicateTo();
        for (let n = 1; n <= 12; n++) assert.equal(through(b, udp(n + 12 * round, 53)), 1);
        b.replicateTo(a);
        for (let n = 1; n <= 12; n++) assert.equal(through(a, udp(n + 12 * round, 53)), 0, `round ${round}`);
        for (const site of [a, b]) site.later(150);
        for (const site of [a, b]) site.ipv4.sweep(site.now, 1024);
      }
      assert.equal(a.counts()['rechecked'], 120);
    });

    it('has a reply to a ping pass the rule about the ping', () => {
      const site = new FirewallSite({ rules: 'iif inside icmp type echo-request accept', options: { recheck: true } });
      assert.equal(through(site, on(INSIDE, 'icmp 10.0.0.5 > 198.51.100.7 echo 7')), 1);
      site.restartWorker();
      assert.equal(through(site, on(OUTSIDE, 'icmp 198.51.100.7 > 10.0.0.5 reply 7')), 1);
    });
  });

  it('keeps established connections while half-open ones fill their quota', () => {
    const site = new FirewallSite({ rules: OUT, options: { connections: 64, half_open: 25 } });
    assert.equal(through(site, SYN, SYN_ACK, ACK), 3);
    for (let n = 0; n < 2000; n++) {
      site.pass(on(INSIDE, `tcp 10.0.${n >> 8}.${n & 255}:${1024 + n} > 198.51.100.7:80 S`));
      if (n % 100 === 0) assert.equal(through(site, DATA), 1);
    }
    assert.equal(site.ipv4.describe(site.now)['half_open'], 16);
    assert.ok(site.counts()['half_open'] > 1000);
    assert.equal(through(site, ACK, DATA), 2);
  });

  it('takes no more connections than it has room for, and keeps those it has', () => {
    const site = new FirewallSite({ rules: OUT, options: { connections: 64, half_open: 100 } });
    const connect = (n: number) =>
      through(site, ...['S', 'A'].map((flags) => on(INSIDE, `tcp 10.0.1.${n}:${1024 + n} > 198.51.100.7:80 ${flags}`)));
    const taken = Array.from({ length: 200 }, (_, n) => connect(n)).filter((out) => out === 2).length;
    assert.equal(taken, 64);
    assert.equal(site.counts()['table_full'], 136);
    assert.equal(through(site, on(INSIDE, 'tcp 10.0.1.3:1027 > 198.51.100.7:80 A')), 1);
  });

  it('makes no connections while it is drained, and keeps the others', () => {
    const site = new FirewallSite({ rules: OUT });
    through(site, SYN, SYN_ACK, ACK);
    site.plane.control.setPhase(Phase.DRAIN);
    assert.equal(through(site, DATA, on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53')), 1);
    assert.equal(site.counts()['draining'], 1);
  });
});
