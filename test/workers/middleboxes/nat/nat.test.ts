import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Phase } from '../../../../shm/control.js';
import { Rank } from '../../../../shm/objects/nat/nat-binding.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { MemoryDriver } from '../../../../workers/drivers/memory.js';
import { BATCH_CAPACITY } from '../../../../workers/packet/batch.js';
import { parseIpv4 } from '../../../../workers/packet/ipv4.js';
import { entriesOf } from '../../../shm/objects/nat/nat-model.js';
import { timerOf } from '../../../support/idle.js';
import { converse } from '../../support/converse.js';
import { checksums, describeFrame, errorAbout, frame, seal } from '../../support/frames.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on } from '../../support/plane.js';

describe('NAT', () => {
  it('translates UDP out and back, whatever the remote', () => {
    const site = new NatSite();
    converse(
      site,
      `
      > 0: udp 10.0.0.5:4000 > 198.51.100.7:53 len 20
      < 1: udp 203.0.113.1:$a > 198.51.100.7:53 ttl 63 len 20
      > 0: udp 10.0.0.5:4000 > 192.0.2.99:123 len 3
      < 1: udp 203.0.113.1:$a > 192.0.2.99:123 ttl 63 len 3
      > 1: udp 198.51.100.7:53 > 203.0.113.1:$a len 101
      < 0: udp 198.51.100.7:53 > 10.0.0.5:4000 ttl 63 len 101
      > 1: udp 192.0.2.1:9999 > 203.0.113.1:$a
      < 0: udp 192.0.2.1:9999 > 10.0.0.5:4000 ttl 63
      `,
    );
    assert.deepEqual(site.plane.counts(), { nat_outbound: 2, nat_inbound: 2, nat_bound: 1 });
  });

  it('gives two internal endpoints two external ports, and protocols ports of their own', () => {
    const site = new NatSite();
    const ports = [
      'udp 10.0.0.5:4000 > 198.51.100.7:53',
      'udp 10.0.0.6:4000 > 198.51.100.7:53',
      'udp 10.0.0.5:4001 > 198.51.100.7:53',
    ].map((packet) => site.pass(on(INSIDE, packet))[0].split(/[: ]/)[4]);
    assert.equal(new Set(ports).size, 3);
    converse(
      site,
      `
      > 0: tcp 10.0.0.5:4000 > 198.51.100.7:80 S
      < 1: tcp 203.0.113.1:$a > 198.51.100.7:80 S ttl 63
      > 1: tcp 198.51.100.7:80 > 203.0.113.1:$a SA
      < 0: tcp 198.51.100.7:80 > 10.0.0.5:4000 SA ttl 63
      `,
    );
  });

  it('translates ICMP queries by their identifier', () => {
    converse(
      new NatSite(),
      `
      > 0: icmp 10.0.0.5 > 198.51.100.7 echo 77 len 56
      < 1: icmp 203.0.113.1 > 198.51.100.7 echo $a ttl 63 len 56
      > 1: icmp 198.51.100.7 > 203.0.113.1 reply $a len 56
      < 0: icmp 198.51.100.7 > 10.0.0.5 reply 77 ttl 63 len 56
      `,
    );
  });

  it('keeps IP options, VLAN tags and absent UDP checksums', () => {
    converse(
      new NatSite(),
      `
      > 0: udp 10.0.0.5:4000 > 198.51.100.7:53 len 5 vlan 5.7 options 3 nosum
      < 1: udp 203.0.113.1:$a > 198.51.100.7:53 ttl 63 len 5 vlan 5.7 nosum
      > 0: tcp 10.0.0.5:4000 > 198.51.100.7:80 S options 10
      < 1: tcp 203.0.113.1:$b > 198.51.100.7:80 S ttl 63
      `,
    );
  });

  it('turns round what is sent inside to an external address', () => {
    const site = new NatSite();
    converse(
      site,
      `
      > 0: udp 10.0.0.5:4000 > 198.51.100.7:53
      < 1: udp 203.0.113.1:$a > 198.51.100.7:53 ttl 63
      > 0: udp 10.0.0.6:5000 > 203.0.113.1:$a len 8
      < 0: udp 203.0.113.1:$b > 10.0.0.5:4000 ttl 63 len 8
      > 0: udp 10.0.0.5:4000 > 203.0.113.1:$b len 9
      < 0: udp 203.0.113.1:$a > 10.0.0.6:5000 ttl 63 len 9
      > 0: udp 10.0.0.5:4000 > 203.0.113.1:1
      > 0: icmp 10.0.0.5 > 203.0.113.1 echo 5
      `,
    );
    assert.equal(site.plane.counts()['nat_hairpinned'], 2);
    assert.equal(site.plane.counts()['nat_unsolicited'], 2);
  });

  for (const [what, port, packet, reason] of [
    ['to a port nobody owns', OUTSIDE, 'udp 198.51.100.7:53 > 203.0.113.1:4000', 'nat_unsolicited'],
    ['to an address that is not external', OUTSIDE, 'udp 198.51.100.7:53 > 10.0.0.5:4000', 'nat_not_external'],
    ['an echo request from outside', OUTSIDE, 'icmp 198.51.100.7 > 203.0.113.1 echo 5', 'nat_icmp_other'],
    ['an echo reply from inside', INSIDE, 'icmp 10.0.0.5 > 198.51.100.7 reply 5', 'nat_icmp_other'],
    ['another protocol', INSIDE, 'ip 10.0.0.5 > 198.51.100.7 proto 47 len 30', 'nat_protocol'],
    ['a reset that belongs to nothing', INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 R', 'nat_stray'],
  ] as const) {
    it(`drops ${what}`, () => {
      const site = new NatSite();
      assert.deepEqual(site.pass(on(port, packet)), []);
      assert.deepEqual(site.plane.counts(), { [reason]: 1 });
    });
  }

  it('drops what is new, not what is bound, once ports, table or log are full', () => {
    // A binding that was answered is established by its second packet.
    for (const [options, times, reason] of [
      [{ first_port: 2000, last_port: 2009 }, 1, 'nat_exhausted'],
      [{ flows: 64 }, 2, 'nat_table_full'],
      [{ flows: 64 }, 1, 'nat_half_open'],
    ] as const) {
      const site = new NatSite({ options });
      const first = on(INSIDE, 'udp 10.0.2.1:5000 > 1.1.1.1:53');
      site.establish('udp 10.0.2.1:5000 > 1.1.1.1:53');
      const packets = Array.from({ length: 500 }, (_, i) =>
        on(INSIDE, `udp 10.0.1.${Math.trunc(i / times) % 250}:${5000 + Math.trunc(i / times)} > 1.1.1.1:53`),
      );
      const sent = times === 1 ? site.pass(...packets) : packets.flatMap((packet) => site.exchange(packet));
      const out = sent.filter((packet) => packet.startsWith(`${OUTSIDE}:`)).length;
      assert.ok(out >= 1 && out <= 64 * times, `${out} got through`);
      // Their senders are told, as fast as a second's errors go (RFC 5508 REQ-8).
      const told = sent.filter((packet) => /^0: icmp 1.1.1.1 > 10.0.1.\d+ type 3 len/.test(packet)).length;
      assert.equal(told, sent.length - out);
      // Who is beyond the quota alone may have more luck with the next try, which an error would
      // keep him from.
      assert.equal(told > 0, reason !== 'nat_half_open', `${told} were told`);
      assert.equal(site.plane.counts()['nat_refused'] ?? 0, told);
      assert.equal(site.plane.counts()[reason], 500 - out - told);
      assert.equal(site.pass(first).length, 1);
    }
  });

  it('makes no new bindings while it is drained, and keeps the others', () => {
    const site = new NatSite();
    site.pass(on(INSIDE, 'udp 10.0.0.5:4000 > 1.1.1.1:53'));
    site.plane.control.setPhase(Phase.DRAIN);
    assert.equal(site.pass(on(INSIDE, 'udp 10.0.0.5:4000 > 1.1.1.1:53')).length, 1);
    assert.equal(site.pass(on(INSIDE, 'udp 10.0.0.5:4001 > 1.1.1.1:53')).length, 0);
    assert.equal(site.plane.counts()['nat_draining'], 1);
  });

  describe('ICMP errors', () => {
    /** An error that came out, and what it quotes. */
    function read({ port, frame: out }: { port: number; frame: Uint8Array }): string[] {
      const quoted = Uint8Array.of(...out.subarray(0, 14), ...out.subarray(14 + 28));
      return [`${port}: ${describeFrame(out)}`.replace(/ len \d+/, ''), describeFrame(quoted)];
    }

    /** A site with 10.0.0.5:4000 bound to port 3000, by each protocol. */
    function bound(): NatSite {
      const site = new NatSite({ options: { first_port: 3000, last_port: 3001 } });
      for (const packet of ['udp 10.0.0.5:4000 > 8.8.8.8:53', 'tcp 10.0.0.5:4000 > 8.8.8.8:53 S'])
        site.pass(on(INSIDE, packet));
      site.pass(on(INSIDE, 'icmp 10.0.0.5 > 8.8.8.8 echo 4000'));
      site.replicateTo();
      return site;
    }
    const external = (site: NatSite, protocol: string) => {
      const number = { icmp: 1, tcp: 6, udp: 17 }[protocol];
      for (const binding of entriesOf(site.bindings, site.now))
        if (binding.protocol === number) return binding.externalPort;
      return assert.fail('no binding');
    };

    it('come in with the packet they are about as its sender knows it', () => {
      const site = bound();
      for (const [sent, known] of [
        [`udp 203.0.113.1:${external(site, 'udp')} > 8.8.8.8:53 len 9`, 'udp 10.0.0.5:4000 > 8.8.8.8:53 len 9'],
        [`udp 203.0.113.1:${external(site, 'udp')} > 8.8.8.8:53 nosum`, 'udp 10.0.0.5:4000 > 8.8.8.8:53 nosum'],
        [`tcp 203.0.113.1:${external(site, 'tcp')} > 8.8.8.8:53 S`, 'tcp 10.0.0.5:4000 > 8.8.8.8:53 S'],
        [`icmp 203.0.113.1 > 8.8.8.8 echo ${external(site, 'icmp')}`, 'icmp 10.0.0.5 > 8.8.8.8 echo 4000'],
      ])
        for (const type of [3, 11, 12]) {
          const [out] = site.plane.passFrames({
            port: OUTSIDE,
            frame: errorAbout(`icmp 5.5.5.5 > 203.0.113.1 type ${type}`, sent),
          });
          assert.deepEqual(read(out), [`0: icmp 5.5.5.5 > 10.0.0.5 type ${type} ttl 63`, known]);
        }
      assert.equal(site.replicateTo(), 0, 'and refresh nothing');
    });

    it('go out with the packet they are about as its sender knows it', () => {
      const site = bound();
      const [out] = site.plane.passFrames({
        port: INSIDE,
        frame: errorAbout('icmp 10.0.0.5 > 8.8.8.8 type 3', 'udp 8.8.8.8:53 > 10.0.0.5:4000 len 30'),
      });
      assert.deepEqual(read(out), [
        '1: icmp 203.0.113.1 > 8.8.8.8 type 3 ttl 63',
        `udp 8.8.8.8:53 > 203.0.113.1:${external(site, 'udp')} len 30`,
      ]);
    });

    it('are turned round like the packets they are about', () => {
      const site = bound();
      const first = external(site, 'udp');
      const [sent] = site.pass(on(INSIDE, `udp 10.0.0.6:5000 > 203.0.113.1:${first}`));
      const second = sent.split(/[: ]/)[4];
      const about = `udp 203.0.113.1:${second} > 10.0.0.5:4000`;
      const [out] = site.plane.passFrames({
        port: INSIDE,
        frame: errorAbout('icmp 10.0.0.5 > 203.0.113.1 type 3', about),
      });
      assert.deepEqual(read(out), [
        '0: icmp 203.0.113.1 > 10.0.0.6 type 3 ttl 63',
        `udp 10.0.0.6:5000 > 203.0.113.1:${first}`,
      ]);
    });

    it('may quote no more than 8 bytes, and keep their own checksum right', () => {
      const site = bound();
      const about = `tcp 203.0.113.1:${external(site, 'tcp')} > 8.8.8.8:53 S len 99`;
      const [out] = site.plane.passFrames({
        port: OUTSIDE,
        frame: errorAbout('icmp 5.5.5.5 > 203.0.113.1 type 11', about, 28),
      });
      assert.equal(describeFrame(out.frame), 'icmp 5.5.5.5 > 10.0.0.5 type 11 ttl 63 len 28');
    });

    it('are dropped when they are about no binding, or cannot be understood', () => {
      const site = bound();
      const port = external(site, 'udp');
      const error = 'icmp 5.5.5.5 > 203.0.113.1 type 3';
      const wrong: [number, Uint8Array][] = [
        [OUTSIDE, errorAbout(error, 'udp 203.0.113.1:9 > 8.8.8.8:53')],
        [OUTSIDE, errorAbout(error, `udp 203.0.113.9:${port} > 8.8.8.8:53`)],
        [OUTSIDE, errorAbout(error, `udp 203.0.113.1:${port} > 8.8.8.8:53`, 27)],
        [OUTSIDE, errorAbout(error, `udp 203.0.113.1:${port} > 8.8.8.8:53`, 0)],
        [OUTSIDE, errorAbout(error, `udp 203.0.113.1:${port} > 8.8.8.8:53 options 3`, 39)],
        [OUTSIDE, errorAbout(error, 'ip 203.0.113.1 > 8.8.8.8 proto 47 len 20')],
        [OUTSIDE, errorAbout(error, `udp 203.0.113.1:${port} > 8.8.8.8:53 offset 80 len 20`)],
        [OUTSIDE, errorAbout(error, 'icmp 203.0.113.1 > 8.8.8.8 type 3')],
        [OUTSIDE, errorAbout('icmp 5.5.5.5 > 203.0.113.2 type 3', `udp 203.0.113.1:${port} > 8.8.8.8:53`)],
        [INSIDE, errorAbout('icmp 10.0.0.5 > 8.8.8.8 type 3', 'udp 8.8.8.8:53 > 10.0.0.5:4001')],
      ];
      for (const [port, bytes] of wrong) assert.deepEqual(site.pass({ port, frame: bytes }), []);
      assert.equal(site.plane.counts()['nat_icmp_error'], wrong.length);
    });

    it('do no harm however they are damaged', () => {
      const site = bound();
      const seed = errorAbout(
        'icmp 5.5.5.5 > 203.0.113.1 type 3',
        `udp 203.0.113.1:${external(site, 'udp')} > 8.8.8.8:53`,
      );
      const edits = fc.array(fc.tuple(fc.integer({ min: 34, max: seed.length - 1 }), fc.nat(255)), { maxLength: 5 });
      fc.assert(
        fc.property(edits, fc.nat(40), fc.nat(1), (list, cut, port) => {
          const bytes = seed.slice();
          for (const [at, value] of list) bytes[at] = value;
          bytes[17] = Math.max(28, bytes[17] - cut);
          const [out] = site.plane.passFrames({ port, frame: seal(bytes) });
          if (out !== undefined) assert.ok(checksums(out.frame).ip);
        }),
        { numRuns: 500 },
      );
    });
  });

  describe('timers', () => {
    const OUT = 'udp 10.0.0.5:4000 > 1.1.1.1:53';
    const portOf = (packet: string) => packet.split(/[: ]/)[4];
    const isBound = (site: NatSite, protocol: string, port: string) =>
      site.pass(on(OUTSIDE, `${protocol} 1.1.1.1:53 > 203.0.113.1:${port}`)).length === 1;

    it('end an idle binding, and only packets from inside prolong it', () => {
      const site = new NatSite({ options: { udp: 300 } });
      const port = portOf(site.pass(on(INSIDE, OUT))[0]);
      site.later(300);
      assert.ok(isBound(site, 'udp', port));
      site.later(idleExpiry(0, 300) - 300);
      assert.ok(!isBound(site, 'udp', port));

      const again = portOf(site.pass(on(INSIDE, OUT))[0]);
      for (let i = 0; i < 10; i++) {
        site.later(200);
        site.pass(on(INSIDE, OUT));
      }
      assert.ok(isBound(site, 'udp', again));
    });

    it('have what ran out forgotten while no packets come', () => {
      const site = new NatSite();
      site.pass(...Array.from({ length: 20 }, (_, n) => on(INSIDE, `udp 10.0.0.5:${n + 1} > 8.8.8.8:53`)));
      assert.equal(site.bindings.describe(site.now)['used'], 20);
      site.plane.idle(2000);
      assert.equal(site.bindings.describe(site.now)['used'], 20);
      site.later(300 + 120);
      site.plane.idle(60_000, 100);
      assert.equal(site.bindings.describe(site.now)['used'], 0);
    });

    it('log a refresh only when it moves the expiry by a good part', () => {
      const site = new NatSite({ options: { udp: 300 } });
      site.pass(on(INSIDE, OUT));
      assert.equal(site.replicateTo(), 1);
      for (let i = 0; i < 30; i++) {
        site.later(10);
        site.pass(on(INSIDE, OUT));
      }
      const records = site.replicateTo();
      assert.ok(records >= 5 && records <= 10, `${records} records`);
    });

    /**
     * Sends TCP segments with these flags from inside, or, after `<`, from outside, then gives the
     * rank and idle time of the binding.
     */
    function afterSending(...flags: string[]): [number, number] {
      const site = new NatSite();
      let port = '';
      for (const flag of flags)
        if (flag.startsWith('<')) site.pass(on(OUTSIDE, `tcp 1.1.1.1:80 > 203.0.113.1:${port} ${flag.slice(1)}`));
        else port = portOf(site.pass(on(INSIDE, `tcp 10.0.0.5:4000 > 1.1.1.1:80 ${flag}`))[0]);
      const [binding] = entriesOf(site.bindings, site.now);
      return [binding.rank, timerOf(binding.expires - site.now)];
    }

    it('follow what TCP shows from inside', () => {
      assert.deepEqual(afterSending('S'), [Rank.NEW, 240]);
      assert.deepEqual(afterSending('S', 'S'), [Rank.NEW, 240]);
      const open = ['S', '<SA', 'A'];
      assert.deepEqual(afterSending(...open), [Rank.ESTABLISHED, 7440]);
      assert.deepEqual(afterSending(...open, 'PA', 'S'), [Rank.ESTABLISHED, 7440]);
      assert.deepEqual(afterSending(...open, 'FA'), [Rank.CLOSING, 240]);
      assert.deepEqual(afterSending(...open, 'FA', 'A'), [Rank.CLOSING, 240]);
      assert.deepEqual(afterSending(...open, 'R'), [Rank.CLOSING, 240]);
      assert.deepEqual(afterSending(...open, 'FA', 'S'), [Rank.NEW, 240]);
      assert.deepEqual(afterSending(...open, 'FA', 'S', 'A'), [Rank.NEW, 240], 'an answer counts for its generation');
      assert.deepEqual(afterSending(...open, 'FA', ...open), [Rank.ESTABLISHED, 7440]);
      // Simultaneous open: the SYN's acknowledgement is not yet an established connection.
      assert.deepEqual(afterSending('S', '<S', 'SA'), [Rank.NEW, 240]);
      assert.deepEqual(afterSending('S', '<S', 'SA', '<SA', 'A'), [Rank.ESTABLISHED, 7440]);
    });

    it('outlast the end of one of several connections they carry (RFC 5382 REQ-5)', () => {
      /** `HOST FLAGS…`: sent to that remote, which answers a SYN. */
      const carrying = (...sent: string[]): [number, number] => {
        const site = new NatSite();
        for (const each of sent) {
          const [host, ...flags] = each.split(' ');
          const [out] = site.pass(on(INSIDE, `tcp 10.0.0.5:4000 > 1.1.1.${host}:80 ${flags.join(' ')}`));
          if (each.endsWith(' S')) site.pass(on(OUTSIDE, `tcp 1.1.1.${host}:80 > 203.0.113.1:${portOf(out)} SA`));
        }
        const [binding] = entriesOf(site.bindings, site.now);
        return [binding.rank, timerOf(binding.expires - site.now)];
      };
      const shared = [Rank.SHARED, 7440];
      assert.deepEqual(carrying('1 S', '1 A', '2 S'), shared, 'a second one begins');
      assert.deepEqual(carrying('1 S', '1 A', '2 S', '2 A', '2 FA', '1 FA', '1 A'), shared, 'whatever ends');
      assert.deepEqual(carrying('1 S', '1 A', '2 S', '2 R', '3 S'), shared);
      assert.deepEqual(carrying('1 S', '2 S'), [Rank.NEW, 240], 'the inside did not go on yet');
      assert.deepEqual(carrying('1 S', '2 S', '1 S', '1 A'), shared, 'several begin at once');
      assert.deepEqual(carrying('1 S', '1 A', '2 FA'), shared, 'the end of one whose beginning was not seen');
      assert.deepEqual(carrying('1 S', '1 A', '1 FA', '2 A'), shared, 'one goes on when the other ended');
      assert.deepEqual(carrying('1 S', '1 A', '1 FA', '1 A', '1 FA'), [Rank.CLOSING, 240], 'it was alone');
      assert.deepEqual(
        carrying('1 S', '1 A', '1 FA', '2 S', '2 A', '2 FA'),
        [Rank.CLOSING, 240],
        'one after the other',
      );
      // Resets of connections that there are not: anyone outside can have the inside send them.
      const established = [Rank.ESTABLISHED, 7440];
      assert.deepEqual(carrying('1 S', '1 A', '2 RA seq 0'), established);
      assert.deepEqual(carrying('1 S', '1 A', '1 RA seq 0'), established);
      assert.deepEqual(carrying('1 S', '1 A', '2 R seq 77'), established);
      assert.deepEqual(carrying('1 S', '1 A', '1 R seq 77'), [Rank.CLOSING, 240]);
    });

    it('are shared by connections at two sites, also where neither sees both', () => {
      const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2 }));
      const send = (site: NatSite, host: number, flags: string) =>
        site.pass(on(INSIDE, `tcp 10.0.0.5:4000 > 1.1.1.${host}:80 ${flags}`));
      const ranks = () => [a, b].map(({ bindings, now }) => entriesOf(bindings, now)[0].rank);
      const [out] = send(a, 1, 'S');
      a.pass(on(OUTSIDE, `tcp 1.1.1.1:80 > 203.0.113.1:${portOf(out)} SA`));
      send(a, 1, 'A');
      a.replicateTo(b);
      send(b, 2, 'A'); // of a connection that came here from elsewhere
      send(a, 1, 'FA');
      a.replicateTo(b);
      b.replicateTo(a);
      assert.deepEqual(ranks(), [Rank.CLOSING, Rank.CLOSING]);
      send(b, 2, 'A');
      b.replicateTo(a);
      assert.deepEqual(ranks(), [Rank.SHARED, Rank.SHARED]);
    });

    it('are not touched from outside, by resets least of all', () => {
      const site = new NatSite();
      const port = site.establish('tcp 10.0.0.5:4000 > 1.1.1.1:80');
      site.later(100);
      site.replicateTo();
      assert.equal(site.pass(on(OUTSIDE, `tcp 1.1.1.1:80 > 203.0.113.1:${port} R`)).length, 1);
      assert.equal(site.pass(on(OUTSIDE, `tcp 6.6.6.6:80 > 203.0.113.1:${port} FA`)).length, 1);
      assert.equal(site.replicateTo(), 0);
      const [binding] = entriesOf(site.bindings, site.now);
      assert.deepEqual([binding.rank, binding.expires - site.now + 100], [Rank.ESTABLISHED, idleExpiry(0, 7440)]);
    });
  });

  describe('at two sites', () => {
    it('translates at one what was bound at the other, once the record is there', () => {
      const a = new NatSite({ member: 0, members: 2 });
      const b = new NatSite({ member: 1, members: 2 });
      const [out] = a.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S'));
      const port = out.split(/[: ]/)[4];
      const reply = on(OUTSIDE, `tcp 198.51.100.7:80 > 203.0.113.1:${port} SA`);

      assert.deepEqual(b.pass(reply), [], 'before the record came');
      assert.equal(b.plane.counts()['nat_unsolicited'], 1);

      a.replicateTo(b);
      assert.deepEqual(b.pass(reply), ['0: tcp 198.51.100.7:80 > 10.0.0.5:4000 SA ttl 63']);
      assert.deepEqual(
        b.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 A')),
        [`1: tcp 203.0.113.1:${port} > 198.51.100.7:80 A ttl 63`],
        'the connection moves to the other site',
      );
      b.replicateTo(a);
      assert.equal(a.bindings.digest(), b.bindings.digest());
    });

    it('has room for its own when the other is flooded', () => {
      const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2, options: { flows: 64, half_open: 25 } }));
      for (let n = 0; n < 16; n++) a.pass(on(INSIDE, `tcp 10.0.1.${n}:4000 > 198.51.100.7:80 S`));
      a.replicateTo(b); // the quota of b is full of these
      const own = (n: number) => b.pass(on(INSIDE, `tcp 10.0.2.${n}:4000 > 198.51.100.7:80 S`)).length;
      assert.equal(own(1), 0, 'they are too young');
      b.later(3);
      assert.deepEqual([1, 2, 3, 4].map(own), [1, 1, 1, 1]);
    });

    it('tells again what it is asked again, for a site that had no room for it', () => {
      const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2, options: { flows: 64, half_open: 25 } }));
      for (let n = 0; n < 16; n++) b.pass(on(INSIDE, `tcp 10.0.1.${n}:4000 > 198.51.100.7:80 S`)); // its quota
      const syn = on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:80 S');
      const port = a.pass(syn)[0].split(/[: ]/)[4];
      const reply = on(OUTSIDE, `tcp 198.51.100.7:80 > 203.0.113.1:${port} SA`);
      a.replicateTo(b);
      assert.deepEqual(b.pass(reply), []);
      for (const site of [a, b]) site.later(3);
      a.pass(syn);
      a.replicateTo(b);
      assert.deepEqual(b.pass(reply), ['0: tcp 198.51.100.7:80 > 10.0.0.5:4000 SA ttl 63']);
    });

    it('carries conversations through either site at random', () => {
      const sites = [new NatSite({ member: 0, members: 2 }), new NatSite({ member: 1, members: 2 })];
      const step = fc.record({
        host: fc.nat(30),
        out: fc.nat(1),
        back: fc.nat(1),
        protocol: fc.constantFrom('udp', 'tcp S'),
      });
      fc.assert(
        fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
          for (const { host, out, back, protocol } of steps) {
            const [kind, flags = ''] = protocol.split(' ');
            const inside = `10.0.0.${host}:${4000 + host}`;
            const [sent] = sites[out].pass(on(INSIDE, `${kind} ${inside} > 8.8.8.8:53 ${flags}`.trim()));
            sites[out].replicateTo(sites[1 - out]);
            const external = sent.split(' ')[2];
            const returned = sites[back].pass(on(OUTSIDE, `${kind} 8.8.8.8:53 > ${external} ${flags}`.trim()));
            assert.deepEqual(returned, [`0: ${kind} 8.8.8.8:53 > ${inside} ${flags} ttl 63`.replace('  ', ' ')]);
          }
          assert.equal(sites[0].bindings.digest(), sites[1].bindings.digest());
        }),
        { numRuns: 30 },
      );
    });

    it('kills one binding of two that took the same port, the same at both', () => {
      const options = { allocation: 'shared', first_port: 3000, last_port: 3000 };
      const sites = [new NatSite({ member: 0, members: 2, options }), new NatSite({ member: 1, members: 2, options })];
      const outs = sites.map((site, n) => site.pass(on(INSIDE, `udp 10.0.0.${n + 1}:3000 > 8.8.8.8:53`))[0]);
      assert.deepEqual(new Set(outs), new Set(['1: udp 203.0.113.1:3000 > 8.8.8.8:53 ttl 63']));
      sites[0].replicateTo(sites[1]);
      sites[1].replicateTo(sites[0]);
      const back = sites.map((site) => site.pass(on(OUTSIDE, 'udp 8.8.8.8:53 > 203.0.113.1:3000')));
      assert.deepEqual(back[0], back[1]);
      assert.equal(back[0].length, 1);
    });
  });

  it('keeps every checksum what a recomputation gives, and every wrong one wrong', () => {
    const site = new NatSite({ options: { flows: 4096 } });
    const packet = fc.record({
      kind: fc.constantFrom('udp', 'udp nosum', 'tcp S', 'tcp A', 'icmp'),
      host: fc.nat(255),
      port: fc.integer({ min: 1, max: 65_535 }),
      length: fc.nat(40),
      fill: fc.uint8Array({ minLength: 40, maxLength: 40 }),
      damaged: fc.boolean(),
    });
    fc.assert(
      fc.property(packet, ({ kind, host, port, length, damaged }) => {
        const [protocol, word = ''] = kind.split(' ');
        const ports = protocol === 'icmp' ? ['', ''] : [`:${port}`, ':80'];
        const query = protocol === 'icmp' ? `echo ${port}` : '';
        const bytes = frame(
          `${protocol} 10.1.0.${host}${ports[0]} > 9.9.9.9${ports[1]} ${query} ${word} len ${length}`.replace(
            / +/g,
            ' ',
          ),
        );
        if (damaged && length > 0) bytes[bytes.length - 1] ^= 0x10;
        const before = checksums(bytes);
        const [out] = site.plane.passFrames({ port: INSIDE, frame: bytes });
        if (out === undefined) return; // all ports taken by earlier runs
        assert.deepEqual(checksums(out.frame), before, describeFrame(out.frame));
      }),
      { numRuns: 400 },
    );
  });

  it('allocates nothing for a packet', () => {
    const frames = Array.from({ length: 640 }, (_, i) =>
      on(INSIDE, `tcp 10.0.0.${i & 127}:${5000 + i} > 8.8.8.8:80 A len 9`),
    );
    const driver = new MemoryDriver({ ports: 2, frames, loop: true, capture: false });
    const { dataPlane } = new NatSite({ plane: { openDriver: () => driver } }).plane;
    const rounds = 3000;
    const run = () => {
      for (let i = 0; i < rounds; i++) dataPlane.doWork();
    };
    run(); // until it is compiled
    run();
    const before = process.memoryUsage().heapUsed;
    run();
    const bytes = (process.memoryUsage().heapUsed - before) / (rounds * BATCH_CAPACITY);
    assert.ok(bytes < 2, `${bytes} bytes a packet`); // a number on the heap is 12, an object more
  });

  it('refuses a declaration that cannot be', () => {
    assert.throws(() => new NatSite({ options: { external: [] } }), /middlebox nat: 0 external addresses/);
    assert.throws(() => new NatSite({ options: { first_port: 9, last_port: 3 } }), /middlebox nat: port range 9–3/);
    assert.throws(() => new NatSite({ options: { extra: 1 } }), /middlebox nat: there is no option extra/);
    const external = [parseIpv4('203.0.113.1'), parseIpv4('203.0.113.1')];
    assert.throws(
      () => new NatSite({ options: { external } }),
      /middlebox nat: external address 203\.0\.113\.1 is given twice/,
    );
  });
});
