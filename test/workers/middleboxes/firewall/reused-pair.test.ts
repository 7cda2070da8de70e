/**
 * A SYN on a pair whose old connection is still open here: the RST that refuses it passes, and no
 * other does.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { FirewallSite } from '../../support/firewall-site.js';
import { frame6 } from '../../support/frames6.js';
import { on } from '../../support/plane.js';

const INSIDE = 0;
const OUTSIDE = 1;
const RULES = `zone lan = { port inside }
from lan tcp dport 80 accept`;
const ESTABLISHED = 1;

type Packet = ReturnType<typeof on>;

const from = (words: string): Packet => on(INSIDE, `tcp 10.0.0.5:4000 > 198.51.100.7:80 ${words}`);
const back = (words: string): Packet => on(OUTSIDE, `tcp 198.51.100.7:80 > 10.0.0.5:4000 ${words}`);
const OPEN = [
  from('S seq 1000 scale 0 win 1000'),
  back('SA seq 5000 ack 1001 scale 0 win 1000'),
  from('A seq 1001 ack 5001 win 1000'),
  back('PA seq 5001 ack 1001 win 1000 len 10'),
  from('A seq 1001 ack 5011 win 1000'),
];
/** Far from all that the old connection expects. */
const SYN = from('S seq 900000 scale 0 win 1000');
const REFUSAL = back('RA seq 0 ack 900001');

const passes = (site: FirewallSite, packet: Packet): boolean => site.plane.passFrames(packet).length === 1;
function opened(rules = RULES): FirewallSite {
  const site = new FirewallSite({ rules });
  for (const packet of OPEN) assert.ok(passes(site, packet));
  return site;
}
function rank(site: FirewallSite): number {
  const ranks: number[] = [];
  site.ipv4.forEach(site.now, (entry) => ranks.push(entry[2]));
  assert.equal(ranks.length, 1);
  return ranks[0];
}

describe('firewall: a pair of ports used again while its old connection is open', () => {
  it('lets the RST that refuses the new SYN through, and the old connection stays', () => {
    const site = opened();
    assert.ok(!passes(site, REFUSAL), 'there was no SYN');
    assert.ok(passes(site, SYN));
    assert.ok(passes(site, REFUSAL));
    assert.equal(rank(site), ESTABLISHED);
    // The next try may be accepted, and goes on.
    for (const packet of [
      from('S seq 950000 scale 0 win 1000'),
      back('SA seq 70000 ack 950001 scale 0 win 1000'),
      from('A seq 950001 ack 70001 win 1000'),
      back('PA seq 70001 ack 950001 win 1000 len 10'),
    ])
      assert.ok(passes(site, packet));
    assert.ok(!passes(site, REFUSAL));
    assert.equal(site.counts()['reset_window'], 2);
  });

  it('lets no other RST through', () => {
    for (const forged of [
      back('RA seq 0 ack 900000'),
      back('RA seq 0 ack 900002'),
      back('R seq 0'),
      back('R seq 900001'),
      from('RA seq 0 ack 900001'),
    ]) {
      const site = opened();
      passes(site, SYN);
      assert.ok(!passes(site, forged));
      assert.equal(rank(site), ESTABLISHED);
      assert.ok(passes(site, REFUSAL), 'the right one, afterwards');
    }
  });

  it('does not believe a forger at one end, or a SYN that its sender has gone on after', () => {
    const site = opened();
    // Whoever forges the server's packets sends the SYN and the RST.
    passes(site, back('S seq 900000'));
    assert.ok(!passes(site, REFUSAL));
    assert.ok(!passes(site, back('RA seq 0 ack 900001')));
    passes(site, SYN);
    passes(site, back('S seq 3'));
    assert.ok(!passes(site, REFUSAL), 'the last SYN is another end’s');
    passes(site, SYN);
    assert.ok(passes(site, from('A seq 1001 ack 5011 win 1000')));
    assert.ok(!passes(site, REFUSAL), 'the old connection goes on');
    assert.equal(rank(site), ESTABLISHED);
  });

  it('does so with IPv6', () => {
    const site = new FirewallSite({ rules: RULES });
    const text = (words: string, isBack: boolean) =>
      isBack ? `tcp 2001:db8::7 80 > fd00::5 4000 ${words}` : `tcp fd00::5 4000 > 2001:db8::7 80 ${words}`;
    const send = (words: string, isBack = false): boolean =>
      passes(site, { port: isBack ? OUTSIDE : INSIDE, frame: frame6(text(words, isBack)) });
    send('S seq 1000 win 1000');
    send('SA seq 5000 ack 1001 win 1000', true);
    send('A seq 1001 ack 5001 win 1000');
    send('A seq 5001 ack 1001 win 1000', true);
    assert.ok(!send('RA seq 0 ack 900001', true));
    assert.ok(send('S seq 900000'));
    assert.ok(!send('RA seq 0 ack 900002', true));
    assert.ok(send('RA seq 0 ack 900001', true));
  });

  it('at two sites: passes where the client is not heard, and where the SYN passed', () => {
    const world = () => {
      const sites = [0, 1].map((member) => new FirewallSite({ rules: RULES, member, members: 2 }));
      return sites as [FirewallSite, FirewallSite];
    };
    // The client's packets pass the first site, the server's the second.
    const [there, here] = world();
    for (const packet of OPEN) {
      passes(packet.port === INSIDE ? there : here, packet);
      FirewallSite.settle(there, here);
    }
    assert.ok(passes(there, SYN));
    assert.ok(passes(here, REFUSAL));
    // Both pass the first site, and then the client's SYN the second one alone: the first does not
    // know of it.
    const [before, after] = world();
    for (const packet of OPEN) {
      passes(before, packet);
      FirewallSite.settle(before, after);
    }
    assert.ok(passes(after, SYN));
    assert.ok(!passes(before, REFUSAL));
    for (const site of [before, after]) site.later(61);
    assert.ok(passes(before, REFUSAL), 'its knowledge of the client is too old to judge by');
  });

  it('passes exactly the RSTs that refuse their receiver’s last segment, whatever came before (property)', () => {
    const numbers = [900_000, 910_000, 920_000];
    const segment = fc.record({
      isBack: fc.boolean(),
      kind: fc.constantFrom('syn', 'ack', 'refusal'),
      number: fc.constantFrom(...numbers),
    });
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 30 }), (segments) => {
        const site = opened();
        /**
         * Of each end: the sequence number of its SYN, if that was its last segment, and no SYN of
         * the other end came after.
         */
        const last: (number | null)[] = [null, null];
        for (const { isBack, kind, number } of segments) {
          const end = Number(isBack);
          const send = isBack ? back : from;
          if (kind === 'syn') {
            assert.ok(passes(site, send(`S seq ${number}`)));
            last[end] = number;
            last[1 - end] = null;
          } else if (kind === 'ack') {
            assert.ok(passes(site, send(isBack ? 'A seq 5011 ack 1001 win 1000' : 'A seq 1001 ack 5011 win 1000')));
            last[end] = null;
          } else assert.equal(passes(site, send(`RA seq 0 ack ${number + 1}`)), last[1 - end] === number);
          assert.equal(rank(site), ESTABLISHED);
        }
      }),
      { numRuns: 60 },
    );
  });
});
