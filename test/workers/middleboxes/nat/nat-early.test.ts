import { strict as assert } from 'node:assert';
import { describeFrame, errorAbout, frame } from '../../support/frames.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on, SeenMembers } from '../../support/plane.js';

const CLIENT = '10.0.0.5';
const SERVER = '198.51.100.7';

/** Two sites: requests leave by the first, replies come by the second. */
function sites(options: Readonly<Record<string, unknown>> = {}): [NatSite, NatSite] {
  const site = (member: number) =>
    new NatSite({
      member,
      members: 2,
      options,
      plane: { early: new SeenMembers([member !== 0, member !== 1]) },
    });
  return [site(0), site(1)];
}

/** The record comes to a site, and what waited there leaves. */
function record(from: NatSite, to: NatSite): string[] {
  from.replicateTo(to);
  to.plane.nowMs += 5;
  return to.pass();
}

function counts(site: NatSite): Record<string, number> {
  const { timer_runs, timer_missed, ...counts } = site.plane.counts();
  return counts;
}

/** The external endpoint of a packet that left. */
function externalOf(out: string): string {
  return out.split(' ')[2];
}

interface Case {
  readonly what: string;
  readonly request: string;
  /** What comes of it, of the packet that left and its external endpoint. */
  reply(external: string, out: Uint8Array): Uint8Array;
  readonly arrives: string;
}

const SYN = `tcp ${CLIENT}:4000 > ${SERVER}:80 S`;
const CASES: readonly Case[] = [
  {
    what: 'a SYN-ACK',
    request: SYN,
    reply: (external) => frame(`tcp ${SERVER}:80 > ${external} SA`),
    arrives: `tcp ${SERVER}:80 > ${CLIENT}:4000 SA ttl 63`,
  },
  {
    what: 'a reset that refuses a SYN',
    request: SYN,
    reply: (external) => frame(`tcp ${SERVER}:80 > ${external} RA`),
    arrives: `tcp ${SERVER}:80 > ${CLIENT}:4000 RA ttl 63`,
  },
  {
    what: 'a datagram',
    request: `udp ${CLIENT}:4000 > ${SERVER}:53`,
    reply: (external) => frame(`udp ${SERVER}:53 > ${external}`),
    arrives: `udp ${SERVER}:53 > ${CLIENT}:4000 ttl 63`,
  },
  {
    what: 'a reply to a ping',
    request: `icmp ${CLIENT} > ${SERVER} echo 77`,
    reply: (external, out) => frame(`icmp ${SERVER} > ${external} reply ${(out[38] << 8) | out[39]}`),
    arrives: `icmp ${SERVER} > ${CLIENT} reply 77 ttl 63`,
  },
  {
    what: 'an error of a router on the way',
    request: `udp ${CLIENT}:4000 > ${SERVER}:33434`,
    reply: (external, out) => errorAbout(`icmp 192.0.2.9 > ${external.split(':')[0]} type 11`, describeFrame(out)),
    arrives: `icmp 192.0.2.9 > ${CLIENT} type 11 ttl 63 len 28`,
  },
];

describe('NAT, replies that come before their binding', () => {
  for (const filtering of ['endpoint-independent', 'address-and-port-dependent'])
    for (const { what, request, reply, arrives } of CASES)
      it(`${what} waits for it (${filtering})`, () => {
        const [a, b] = sites({ filtering });
        const [out] = a.plane.passFrames(on(INSIDE, request));
        const external = externalOf(`1: ${describeFrame(out.frame)}`);
        assert.deepEqual(b.pass({ port: OUTSIDE, frame: reply(external, out.frame) }), []);
        assert.equal(counts(b)['waiting_replies'], 1);
        assert.deepEqual(record(a, b), [`0: ${arrives}`]);
        assert.deepEqual(counts(b), { early_replies: 1, early_replies_known: 1, nat_inbound: 1 });
      });

  it('meet the fate of an unsolicited packet at last, which is counted once', () => {
    const [a, b] = sites();
    const external = externalOf(a.pass(on(INSIDE, SYN))[0]);
    b.pass(on(OUTSIDE, `tcp ${SERVER}:80 > ${external} SA`));
    b.plane.nowMs += 250;
    assert.deepEqual(b.pass(), []);
    assert.deepEqual(counts(b), { early_replies: 1, early_replies_expired: 1, nat_unsolicited: 1 });
  });

  it('do not wait if they are no replies, or if no other site can have bound the port', () => {
    const [a, b] = sites({ allocation: 'leased' });
    const external = externalOf(a.pass(on(INSIDE, SYN))[0]);
    const packets = ['S', 'A', 'R', 'FA', 'SAF'].map((flags) => on(OUTSIDE, `tcp ${SERVER}:80 > ${external} ${flags}`));
    b.pass(...packets, on(OUTSIDE, `udp ${SERVER}:80 > 203.0.113.9:4000`));
    assert.deepEqual(counts(b), { nat_unsolicited: 5, nat_not_external: 1 });
    // Ports in turn, 64 at a time.
    const own = (64 * 101 + 5).toString();
    const other = (64 * 100 + 5).toString();
    b.pass(
      on(OUTSIDE, `udp ${SERVER}:80 > 203.0.113.1:${own}`),
      on(OUTSIDE, `udp ${SERVER}:80 > 203.0.113.1:${other}`),
    );
    assert.deepEqual(counts(b), { nat_unsolicited: 6, nat_not_external: 1, early_replies: 1, waiting_replies: 1 });
  });

  for (const allocation of ['shared', 'keyed', 'hybrid'])
    it(`wait for any port if ports are not leased: ${allocation}`, () => {
      const [, b] = sites({ allocation });
      for (let n = 0; n < 4; n++) b.pass(on(OUTSIDE, `udp ${SERVER}:80 > 203.0.113.1:${64 * (100 + n)}`));
      assert.deepEqual(counts(b), { early_replies: 4, waiting_replies: 4 });
      // With hybrid, TCP ports are leased.
      for (let n = 0; n < 4; n++) b.pass(on(OUTSIDE, `tcp ${SERVER}:80 > 203.0.113.1:${64 * (100 + n)} SA`));
      assert.equal(counts(b)['early_replies'], allocation === 'hybrid' ? 6 : 8);
    });

  it('wait for a session where the binding is known', () => {
    const [a, b] = sites({ filtering: 'address-dependent' });
    const [out] = a.pass(on(INSIDE, `udp ${CLIENT}:4000 > ${SERVER}:53`));
    record(a, b);
    a.pass(on(INSIDE, `udp ${CLIENT}:4000 > 192.0.2.77:53`));
    b.pass(on(OUTSIDE, `udp 192.0.2.77:53 > ${externalOf(out)}`));
    assert.deepEqual(record(a, b), [`0: udp 192.0.2.77:53 > ${CLIENT}:4000 ttl 63`]);
  });

  it('of one inside host to another wait', () => {
    const [a, b] = sites();
    // Both sites know the server inside; the client's first packet leaves by the first.
    const [served] = a.pass(on(INSIDE, 'udp 10.0.0.9:53 > 192.0.2.1:1'));
    record(a, b);
    const [asked] = a.pass(on(INSIDE, `udp ${CLIENT}:4000 > ${externalOf(served)}`));
    const client = asked.split(' ')[2];
    assert.deepEqual(b.pass(on(INSIDE, `udp 10.0.0.9:53 > ${client}`)), []);
    assert.deepEqual(record(a, b), [`0: udp ${externalOf(served)} > ${CLIENT}:4000 ttl 63`]);
  });

  it('of one inside host to another wait for a session where the binding is known', () => {
    const [a, b] = sites({ filtering: 'address-and-port-dependent' });
    const [served] = a.pass(on(INSIDE, 'udp 10.0.0.9:53 > 192.0.2.1:1'));
    const [asks] = a.pass(on(INSIDE, `udp ${CLIENT}:4000 > 192.0.2.1:1`));
    record(a, b);
    // Both send to each other; each has a session with the other then.
    assert.deepEqual(b.pass(on(INSIDE, `udp 10.0.0.9:53 > ${externalOf(asks)}`)), []);
    b.plane.nowMs += 1000;
    b.pass();
    record(b, a);
    const [asked] = a.pass(on(INSIDE, `udp ${CLIENT}:4000 > ${externalOf(served)}`));
    assert.equal(asked, `0: udp ${externalOf(asks)} > 10.0.0.9:53 ttl 63`);
    assert.deepEqual(b.pass(on(INSIDE, `udp 10.0.0.9:53 > ${externalOf(asks)}`)), []);
    assert.deepEqual(record(a, b), [`0: udp ${externalOf(served)} > ${CLIENT}:4000 ttl 63`]);
  });

  for (const filtering of ['endpoint-independent', 'address-and-port-dependent'])
    it(`an error of one inside host to another waits (${filtering})`, () => {
      const [a, b] = sites({ filtering });
      const [served] = a.pass(on(INSIDE, 'udp 10.0.0.9:53 > 192.0.2.1:1'));
      const external = externalOf(served).split(':')[0];
      if (filtering !== 'endpoint-independent') {
        const [asks] = a.pass(on(INSIDE, `udp ${CLIENT}:4000 > 192.0.2.1:1`));
        a.pass(on(INSIDE, `udp 10.0.0.9:53 > ${externalOf(asks)}`));
      }
      record(a, b);
      const [asked] = a.plane.passFrames(on(INSIDE, `udp ${CLIENT}:4000 > ${externalOf(served)}`));
      const error = errorAbout(`icmp 10.0.0.9 > ${external} type 3 code 3`, describeFrame(asked.frame));
      assert.deepEqual(b.pass({ port: INSIDE, frame: error }), []);
      assert.deepEqual(record(a, b), [`0: icmp ${external} > ${CLIENT} type 3 ttl 63 len 28`]);
    });

  it('come to no port of another site, since an endpoint keeps its own alone', () => {
    const [a, b] = sites({ tcp_closing: 5 });
    const [out] = b.exchange(on(INSIDE, SYN));
    for (const flags of ['A', 'R']) b.pass(on(INSIDE, `tcp ${CLIENT}:4000 > ${SERVER}:80 ${flags}`));
    record(b, a);
    for (const site of [a, b]) site.plane.nowMs += 12_000;
    const [again] = a.pass(on(INSIDE, `tcp ${CLIENT}:4000 > 192.0.2.77:80 S`));
    assert.notEqual(externalOf(again), externalOf(out));
    b.pass(on(OUTSIDE, `tcp 192.0.2.77:80 > ${externalOf(again)} SA`));
    assert.deepEqual(record(a, b), [`0: tcp 192.0.2.77:80 > ${CLIENT}:4000 SA ttl 63`]);
  });

  it('wait with all of their fragments', () => {
    const [a, b] = sites();
    const external = externalOf(a.pass(on(INSIDE, `udp ${CLIENT}:4000 > ${SERVER}:53`))[0]);
    b.pass(on(OUTSIDE, `udp ${SERVER}:53 > ${external} id 9 len 32 more`));
    b.pass(on(OUTSIDE, `udp ${SERVER} > ${external.split(':')[0]} id 9 len 16 offset 40`));
    assert.equal(record(a, b).length, 2);
    assert.deepEqual(counts(b), { early_replies: 2, early_replies_known: 2, nat_inbound: 2 });
  });
});
