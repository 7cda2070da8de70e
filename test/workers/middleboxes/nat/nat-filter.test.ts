import { strict as assert } from 'node:assert';
import { type NatSession, NatSessions } from '../../../../shm/objects/nat/nat-sessions.js';
import { Rank } from '../../../../shm/objects/nat/nat-tables.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { parseIpv4 } from '../../../../workers/packet/ipv4.js';
import { timerOf } from '../../../support/idle.js';
import { converse } from '../../support/converse.js';
import { errorAbout } from '../../support/frames.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on } from '../../support/plane.js';

const BY_PORT = { filtering: 'address-and-port-dependent' };
const BY_ADDRESS = { filtering: 'address-dependent' };

function sessionsOf(site: NatSite): NatSession[] {
  const sessions = site.objects[1];
  assert.ok(sessions instanceof NatSessions);
  // Where they lie, and so their order, is each site's secret.
  return [...sessions.list(site.now)].filter((entry) => entry !== null).sort((x, y) => x.remotePort - y.remotePort);
}

describe('NAT that filters by remote', () => {
  it('lets addresses and ports in that the inside has sent to, from there (RFC 4787 REQ-8)', () => {
    const site = converse(
      new NatSite({ options: BY_PORT }),
      `
      > 0: udp 10.0.0.5:4000 > 198.51.100.7:53
      < 1: udp 203.0.113.1:$a > 198.51.100.7:53 ttl 63
      > 1: udp 198.51.100.7:53 > 203.0.113.1:$a
      < 0: udp 198.51.100.7:53 > 10.0.0.5:4000 ttl 63
      > 1: udp 198.51.100.7:54 > 203.0.113.1:$a
      > 1: udp 198.51.100.8:53 > 203.0.113.1:$a
      > 0: udp 10.0.0.5:4000 > 198.51.100.8:53
      < 1: udp 203.0.113.1:$a > 198.51.100.8:53 ttl 63
      > 1: udp 198.51.100.8:53 > 203.0.113.1:$a
      < 0: udp 198.51.100.8:53 > 10.0.0.5:4000 ttl 63
      > 0: udp 10.0.0.6:4000 > 198.51.100.9:53
      < 1: udp 203.0.113.1:$b > 198.51.100.9:53 ttl 63
      > 1: udp 198.51.100.9:53 > 203.0.113.1:$a
      `,
    );
    assert.deepEqual(site.plane.counts(), {
      nat_outbound: 3,
      nat_inbound: 2,
      nat_bound: 2,
      nat_sessions: 3,
      nat_filtered: 3,
    });
  });

  it('or addresses, with any port', () => {
    const site = converse(
      new NatSite({ options: BY_ADDRESS }),
      `
      > 0: udp 10.0.0.5:4000 > 198.51.100.7:53
      < 1: udp 203.0.113.1:$a > 198.51.100.7:53 ttl 63
      > 1: udp 198.51.100.7:54 > 203.0.113.1:$a
      < 0: udp 198.51.100.7:54 > 10.0.0.5:4000 ttl 63
      > 1: udp 198.51.100.8:53 > 203.0.113.1:$a
      > 0: udp 10.0.0.5:4000 > 198.51.100.7:99
      < 1: udp 203.0.113.1:$a > 198.51.100.7:99 ttl 63
      `,
    );
    assert.deepEqual(
      sessionsOf(site).map(({ remoteAddress, remotePort, internalPort }) => [remoteAddress, remotePort, internalPort]),
      [[parseIpv4('198.51.100.7'), 0, 4000]],
    );
  });

  it('filters queries, errors, and what is turned round, by who was asked', () => {
    const site = converse(
      new NatSite({ options: BY_PORT }),
      `
      > 0: icmp 10.0.0.5 > 198.51.100.7 echo 77
      < 1: icmp 203.0.113.1 > 198.51.100.7 echo $a ttl 63
      > 1: icmp 198.51.100.7 > 203.0.113.1 reply $a
      < 0: icmp 198.51.100.7 > 10.0.0.5 reply 77 ttl 63
      > 1: icmp 198.51.100.8 > 203.0.113.1 reply $a
      > 0: udp 10.0.0.5:4000 > 198.51.100.7:53
      < 1: udp 203.0.113.1:$b > 198.51.100.7:53 ttl 63
      > 0: udp 10.0.0.6:5000 > 203.0.113.1:$b
      > 0: udp 10.0.0.6:5000 > 198.51.100.7:53
      < 1: udp 203.0.113.1:$c > 198.51.100.7:53 ttl 63
      > 0: udp 10.0.0.5:4000 > 203.0.113.1:$c
      < 0: udp 203.0.113.1:$b > 10.0.0.6:5000 ttl 63
      > 0: udp 10.0.0.6:5000 > 203.0.113.1:$b
      < 0: udp 203.0.113.1:$c > 10.0.0.5:4000 ttl 63
      `,
    );
    const [entry] = [...site.bindings.entries(site.now)].filter((one) => one?.internalPort === 4000);
    const error = (remote: string) =>
      site.pass({
        port: OUTSIDE,
        frame: errorAbout('icmp 5.5.5.5 > 203.0.113.1 type 3', `udp 203.0.113.1:${entry?.externalPort} > ${remote}`),
      }).length;
    assert.equal(error('198.51.100.7:53'), 1);
    assert.equal(error('198.51.100.7:54'), 0, 'about a packet that was never sent');
  });

  it('at another site too, once it was told, and holds first packets of sessions for it', () => {
    const options = { ...BY_PORT, hold_members: 1, hold_ms: 10_000 };
    const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 3, options }));
    assert.deepEqual(a.pass(on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53')), []);
    assert.equal(a.replicateTo(b), 2, 'a record of the binding and one of the session');
    const [binding] = [...b.bindings.entries(b.now)].filter((one) => one !== null);
    const from = (remote: string) => b.pass(on(OUTSIDE, `udp ${remote} > 203.0.113.1:${binding?.externalPort}`)).length;
    assert.equal(from('198.51.100.7:53'), 1);
    assert.equal(from('198.51.100.7:54'), 0);
    a.pass(on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:54'));
    assert.equal(a.replicateTo(b), 1, 'a second session');
    assert.equal(from('198.51.100.7:54'), 1);
    assert.equal(a.plane.holds.held, 2);
    assert.equal(b.replicateTo(a), 3, 'the answers: of the binding and of two sessions');
    assert.deepEqual(sessionsOf(a), sessionsOf(b));
  });

  it('has a simultaneous open, and no answer to a SYN nobody waits for (RFC 5382 REQ-2, REQ-4)', () => {
    converse(
      new NatSite({ options: BY_PORT }),
      `
      > 0: udp 10.0.0.5:4000 > 198.51.100.7:99
      < 1: udp 203.0.113.1:$u > 198.51.100.7:99 ttl 63
      > 0: tcp 10.0.0.5:4000 > 198.51.100.8:99 S
      < 1: tcp 203.0.113.1:$a > 198.51.100.8:99 S ttl 63
      > 1: tcp 198.51.100.7:80 > 203.0.113.1:$a S
      > 0: tcp 10.0.0.5:4000 > 198.51.100.7:80 S
      < 1: tcp 203.0.113.1:$a > 198.51.100.7:80 S ttl 63
      > 1: tcp 198.51.100.7:80 > 203.0.113.1:$a S
      < 0: tcp 198.51.100.7:80 > 10.0.0.5:4000 S ttl 63
      > 0: tcp 10.0.0.5:4000 > 198.51.100.7:80 SA
      < 1: tcp 203.0.113.1:$a > 198.51.100.7:80 SA ttl 63
      > 1: tcp 198.51.100.7:80 > 203.0.113.1:$a SA
      < 0: tcp 198.51.100.7:80 > 10.0.0.5:4000 SA ttl 63
      `,
    );
  });

  it('does not filter what is mapped by hand', () => {
    const mapped = {
      protocol: 6,
      externalAddress: parseIpv4('203.0.113.1'),
      externalPort: 80,
      internalAddress: parseIpv4('10.0.0.9'),
      internalPort: 80,
    };
    const site = converse(
      new NatSite({ options: { ...BY_PORT, static: [mapped] } }),
      `
      > 1: tcp 198.51.100.7:5000 > 203.0.113.1:80 S
      < 0: tcp 198.51.100.7:5000 > 10.0.0.9:80 S ttl 63
      > 0: tcp 10.0.0.9:80 > 198.51.100.7:5000 SA
      < 1: tcp 203.0.113.1:80 > 198.51.100.7:5000 SA ttl 63
      `,
    );
    assert.deepEqual(sessionsOf(site), []);
  });

  it('follows a session with another inside host like one with the outside', () => {
    const [ADDRESS, EXTERNAL_PORT] = ['203.0.113.1', 80];
    const mapped = {
      protocol: 6,
      externalAddress: parseIpv4(ADDRESS),
      externalPort: EXTERNAL_PORT,
      internalAddress: parseIpv4('10.0.0.9'),
      internalPort: 80,
    };
    const site = new NatSite({ options: { ...BY_PORT, static: [mapped] } });
    const there = (words: string) => site.pass(on(INSIDE, `tcp 10.0.0.5:4000 > ${ADDRESS}:${EXTERNAL_PORT} ${words}`));
    const [asked] = there('S seq 1000 win 1000');
    const port = asked.split(/[: ]/)[4];
    const back = (words: string) => site.pass(on(INSIDE, `tcp 10.0.0.9:80 > ${ADDRESS}:${port} ${words}`));
    const rank = () => sessionsOf(site).map((session) => session.rank);
    assert.deepEqual(back('SA seq 5000 ack 1001 win 1000'), [
      `0: tcp ${ADDRESS}:${EXTERNAL_PORT} > 10.0.0.5:4000 SA ttl 63`,
    ]);
    there('A seq 1001 ack 5001 win 1000');
    assert.deepEqual(rank(), [Rank.ESTABLISHED], 'it was answered');
    // Idle for longer than a session that is opening: the server can still speak first.
    site.later(600);
    assert.equal(back('PA seq 5001 ack 1001 win 1000 len 9').length, 1);
    there('A seq 1001 ack 5010 win 1000');
    assert.deepEqual(back('R seq 99'), [], 'out of the window');
    assert.equal(site.plane.counts()['nat_reset_window'], 1);
    assert.deepEqual(rank(), [Rank.ESTABLISHED]);
    assert.equal(back('R seq 5010').length, 1);
    assert.deepEqual(rank(), [Rank.CLOSING]);
  });

  it('refuses sessions beyond the quota and the table, and keeps what is established', () => {
    const site = new NatSite({ options: { ...BY_PORT, sessions: 64 } });
    const first = on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53');
    site.establish('udp 10.0.0.5:4000 > 198.51.100.7:53');
    /** ICMP errors that there is no room for a session, when 300 are begun. */
    const refusals = (send: (packet: { port: number; frame: Uint8Array }) => string[]): number =>
      Array.from({ length: 300 }, (_, n) => send(on(INSIDE, `udp 10.0.0.5:4000 > 9.9.${n >> 8}.${n & 255}:53`)))
        .flat()
        .filter((packet) => packet.startsWith('0: icmp 9.9.0')).length;
    assert.equal(
      refusals((packet) => site.pass(packet)),
      0,
      'another try may have more luck',
    );
    assert.ok(site.plane.counts()['nat_half_open'] > 0);
    assert.ok(refusals((packet) => [...site.exchange(packet), ...site.pass(packet)]) > 0, 'the table is full');
    assert.equal(site.pass(first).length, 1);
    assert.ok(sessionsOf(site).length <= 64);
    const [binding] = [...site.bindings.entries(site.now)].filter((one) => one !== null);
    assert.equal(site.pass(on(OUTSIDE, `udp 198.51.100.7:53 > 203.0.113.1:${binding?.externalPort}`)).length, 1);
  });

  describe('TCP', () => {
    /**
     * A connection open from 10.0.0.5, which expects 5001 next in a window of 1000 × 2^scale bytes;
     * and its external port.
     */
    function connected(scale = 0): { site: NatSite; port: string } {
      const site = new NatSite({ options: { ...BY_PORT, tcp_closing: 241 } });
      const out = 'tcp 10.0.0.5:4000 > 198.51.100.7:80';
      const [sent] = site.pass(on(INSIDE, `${out} S seq 100 scale ${scale}`));
      const port = sent.split(/[: ]/)[4];
      site.pass(on(OUTSIDE, `tcp 198.51.100.7:80 > 203.0.113.1:${port} SA seq 5000 ack 101`));
      site.pass(on(INSIDE, `${out} A seq 101 ack 5001 win 1000`));
      site.replicateTo();
      return { site, port };
    }
    const end = ({ site, port }: { site: NatSite; port: string }, flags: string) =>
      site.pass(on(OUTSIDE, `tcp 198.51.100.7:80 > 203.0.113.1:${port} ${flags}`)).length;
    const left = (site: NatSite) => sessionsOf(site).map(({ rank, expires }) => [rank, expires - site.now])[0];
    /** The rank and timer of the session, after a packet that refreshed it. */
    const life = (site: NatSite) => {
      const [rank, seconds] = left(site);
      return [rank, timerOf(seconds)];
    };

    it('is reset by what lies in its window alone (RFC 7857)', () => {
      for (const [scale, sequence, passes] of [
        [0, 5001, true],
        [0, 5001 + 1000, true],
        [0, 5001 + 1001, false],
        [3, 5001 + 1001, true],
        [3, 5001 + 8001, false],
        [0, 5000, false],
        [0, 5001 + 0x7000_0000, false],
      ] as const) {
        const open = connected(scale);
        assert.deepEqual(life(open.site), [Rank.ESTABLISHED, 7440]);
        assert.equal(end(open, `R seq ${sequence}`), passes ? 1 : 0, `${sequence}, scale ${scale}`);
        assert.deepEqual(life(open.site), passes ? [Rank.CLOSING, 241] : [Rank.ESTABLISHED, 7440]);
        assert.equal(open.site.plane.counts()['nat_reset_window'] ?? 0, passes ? 0 : 1);
        assert.equal(open.site.replicateTo(), passes ? 1 : 0);
      }
    });

    it('keeps its state for the closing time then, which resets do not prolong', () => {
      const open = connected();
      end(open, 'R seq 5001');
      open.site.later(200);
      assert.equal(end(open, 'R seq 5001'), 1);
      assert.deepEqual(left(open.site), [Rank.CLOSING, idleExpiry(0, 241) - 200]);
      assert.equal(end(open, 'PA seq 5001'), 1);
      assert.deepEqual(left(open.site), [Rank.CLOSING, idleExpiry(0, 241) - 200]);
    });

    it('is left to the hosts when nothing of the inside has passed for a minute: it may pass another site', () => {
      const open = connected();
      open.site.later(61);
      assert.equal(end(open, 'R seq 9999'), 1);
      assert.deepEqual(left(open.site), [Rank.ESTABLISHED, idleExpiry(0, 7440) - 61]);
      assert.equal(end(open, 'R seq 5001'), 1);
      assert.deepEqual(life(open.site), [Rank.CLOSING, 241]);
    });

    it('is closed by a FIN in its window, and by none outside, which passes', () => {
      const open = connected();
      assert.equal(end(open, 'FA seq 9999 ack 101'), 1);
      assert.deepEqual(life(open.site), [Rank.ESTABLISHED, 7440]);
      assert.equal(end(open, 'FA seq 5001 ack 101'), 1);
      assert.deepEqual(life(open.site), [Rank.CLOSING, 241]);
    });

    it('that is opening is reset by an answer to its SYN alone', () => {
      for (const [flags, rank] of [
        ['RA seq 0 ack 101', Rank.CLOSING],
        ['RA seq 0 ack 102', Rank.NEW],
        ['R seq 0', Rank.NEW],
      ] as const) {
        const site = new NatSite({ options: BY_PORT });
        const [sent] = site.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S seq 100'));
        assert.equal(end({ site, port: sent.split(/[: ]/)[4] }, flags), rank === Rank.CLOSING ? 1 : 0);
        assert.equal(life(site)[0], rank);
      }
    });

    it('is not touched by resets where the inside does not pass', () => {
      const options = BY_PORT;
      const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2, options }));
      const [sent] = a.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S seq 100'));
      const at = { site: b, port: sent.split(/[: ]/)[4] };
      a.replicateTo(b);
      end(at, 'SA seq 5000 ack 101');
      assert.equal(b.replicateTo(a), 2, 'the answer: of the binding and of the session');
      a.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 A seq 101 ack 5001 win 1000'));
      a.replicateTo(b);
      assert.equal(end(at, 'R seq 77'), 1, 'translated: it may be right');
      assert.deepEqual(life(b), [Rank.ESTABLISHED, 7440]);
      assert.equal(b.replicateTo(), 0);
    });

    it('begins a new life with a SYN after its end, at every site', () => {
      const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2, options: BY_PORT }));
      for (const flags of ['S', 'A', 'FA', 'S']) a.pass(on(INSIDE, `tcp 10.0.0.5:4000 > 198.51.100.7:80 ${flags}`));
      a.replicateTo(b);
      assert.deepEqual(life(a), [Rank.NEW, 240]);
      assert.deepEqual(life(b), [Rank.NEW, 240]);
    });

    it('has a session for each of several connections of one port, of which one may end', () => {
      const site = new NatSite({ options: BY_PORT });
      for (const remote of ['198.51.100.7:80', '198.51.100.8:80']) site.establish(`tcp 10.0.0.5:4000 > ${remote}`);
      site.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.8:80 FA'));
      assert.deepEqual(
        sessionsOf(site)
          .map(({ rank, remoteAddress }) => [remoteAddress >>> 24, rank])
          .sort(),
        [
          [7, Rank.ESTABLISHED],
          [8, Rank.CLOSING],
        ],
      );
    });
  });
});
