import { strict as assert } from 'node:assert';
import { Rank } from '../../../../shm/objects/nat/nat-binding.js';
import { fragmentsOf, reassembled } from '../../support/fragmented.js';
import { describeFrame, frame } from '../../support/frames.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';

/**
 * What comes out when these fragments go in, in this order: the whole packet they make, for people.
 */
function through(site: NatSite, port: number, fragments: readonly Uint8Array[]): string | null {
  const sent = site.plane.passFrames(...fragments.map((bytes) => ({ port, frame: bytes })));
  const whole = reassembled(sent.map((one) => one.frame));
  return whole === null ? null : `${sent[0].port}: ${describeFrame(whole)}`;
}

const portOf = (packet: string | null): string => (packet ?? '').split(/[: ]/)[4];

describe('fragments through the NAT', () => {
  for (const filtering of ['endpoint-independent', 'address-and-port-dependent'])
    it(`are translated both ways, in any order, and make whole packets with right checksums (${filtering})`, () => {
      const site = new NatSite({ options: { filtering } });
      for (const [protocol, flags] of [
        ['udp', ''],
        ['tcp', ' A'],
      ]) {
        const [first, second, third] = fragmentsOf(
          frame(`${protocol} 10.0.0.5:4000 > 198.51.100.7:53${flags} len 100`),
          40,
          7,
        );
        const out = through(site, INSIDE, [third, first, second]);
        const port = portOf(out);
        assert.equal(out, `1: ${protocol} 203.0.113.1:${port} > 198.51.100.7:53${flags} ttl 63 len 100`);
        const back = fragmentsOf(frame(`${protocol} 198.51.100.7:53 > 203.0.113.1:${port}${flags} len 100`), 40, 8);
        assert.equal(
          through(site, OUTSIDE, back.toReversed()),
          `0: ${protocol} 198.51.100.7:53 > 10.0.0.5:4000${flags} ttl 63 len 100`,
        );
      }
      assert.equal(site.plane.counts()['nat_bound'], 2);
    });

  it('of large pings too', () => {
    const site = new NatSite();
    const out = through(site, INSIDE, fragmentsOf(frame('icmp 10.0.0.5 > 198.51.100.7 echo 77 len 100'), 48));
    const identifier = /echo (\d+)/.exec(out ?? '')?.[1];
    assert.equal(out, `1: icmp 203.0.113.1 > 198.51.100.7 echo ${identifier} ttl 63 len 100`);
    const reply = fragmentsOf(frame(`icmp 198.51.100.7 > 203.0.113.1 reply ${identifier} len 100`), 48);
    assert.equal(through(site, OUTSIDE, reply), '0: icmp 198.51.100.7 > 10.0.0.5 reply 77 ttl 63 len 100');
  });

  it('are turned round', () => {
    const site = new NatSite();
    const port = portOf(through(site, INSIDE, [frame('udp 10.0.0.6:5000 > 198.51.100.7:53')]));
    const turned = through(site, INSIDE, fragmentsOf(frame(`udp 10.0.0.5:4000 > 203.0.113.1:${port} len 100`), 40));
    assert.match(turned ?? '', /^0: udp 203\.0\.113\.1:\d+ > 10\.0\.0\.6:5000 ttl 63 len 100$/);
  });

  it('are one packet for a binding: the second datagram establishes it, if it was answered', () => {
    const site = new NatSite();
    const rank = () => [...site.bindings.entries(site.now)].find((entry) => entry !== null)?.rank;
    const datagram = (id: number) => fragmentsOf(frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 100'), 40, id);
    const port = portOf(through(site, INSIDE, datagram(1)));
    assert.equal(rank(), Rank.NEW);
    const answer = frame(`udp 198.51.100.7:53 > 203.0.113.1:${port} len 100`);
    assert.notEqual(through(site, OUTSIDE, fragmentsOf(answer, 40)), null);
    assert.equal(rank(), Rank.NEW);
    through(site, INSIDE, datagram(2));
    assert.equal(rank(), Rank.ESTABLISHED);
  });

  it('of what got no binding are dropped, and those of ICMP errors', () => {
    const site = new NatSite({ options: { first_port: 2000, last_port: 2000 } });
    through(site, INSIDE, [frame('udp 10.0.0.6:5000 > 198.51.100.7:53')]);
    const refused = fragmentsOf(frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 100'), 40);
    // The first is refused, and its sender told.
    assert.equal(through(site, INSIDE, refused), '0: icmp 198.51.100.7 > 10.0.0.5 type 3 len 60');
    const stranger = fragmentsOf(frame('udp 198.51.100.7:53 > 203.0.113.1:4000 len 100'), 40);
    assert.equal(through(site, OUTSIDE, stranger), null);
    const { nat_bound, nat_outbound, nat_fragment, nat_refused, nat_unsolicited } = site.plane.counts();
    assert.deepEqual([nat_bound, nat_outbound, nat_fragment, nat_refused, nat_unsolicited], [1, 1, 2, 1, 3]);
    const error = frame('icmp 198.51.100.9 > 203.0.113.1 type 3 len 100');
    assert.equal(through(site, OUTSIDE, fragmentsOf(error, 48)), null);
    assert.equal(site.plane.counts()['nat_fragmented_error'], 3);
  });
});
