import { strict as assert } from 'node:assert';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import type { RecordFields } from '../../../../workers/api/records.js';
import { bindingKind } from '../../../../workers/middleboxes/nat/binding-log.js';
import { parseIpv4 } from '../../../../workers/packet/ipv4.js';
import { timerOf } from '../../../support/idle.js';
import { converse } from '../../support/converse.js';
import { describeFrame, errorAbout, frame, seal } from '../../support/frames.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on } from '../../support/plane.js';

/**
 * What the operator decides about a NAT: what is mapped by hand, what is left alone, and how much
 * anyone gets.
 */
describe("NAT by the operator's rules", () => {
  const TCP = 6;
  const mapping = (
    protocol: number,
    external: string,
    externalPort: number,
    internal: string,
    internalPort: number,
  ) => ({
    protocol,
    externalAddress: parseIpv4(external),
    externalPort,
    internalAddress: parseIpv4(internal),
    internalPort,
  });

  describe('logs the bindings made here, if that is wanted', () => {
    const logged = (site: NatSite): RecordFields[] => {
      const lines: RecordFields[] = [];
      site.plane.recorded.read(1000, (_kind, _unixMs, words) => lines.push(bindingKind.render(words)));
      return lines;
    };
    const packet = on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53');
    const LOGGING = { log_bindings: true, udp: 120 };
    const bound = (site: NatSite) => {
      const [sent] = site.pass(packet, packet);
      const external_port = Number(sent.split(/[: ]/)[4]);
      return { proto: 'UDP', src_ip: '10.0.0.5', src_port: 4000, external_ip: '203.0.113.1', external_port };
    };

    it('once each, and not with whom (RFC 6888 REQ-12)', () => {
      const silent = new NatSite();
      silent.pass(packet);
      assert.deepEqual(logged(silent), []);
      const site = new NatSite({ options: LOGGING });
      const binding = bound(site);
      assert.deepEqual(logged(site), [{ action: 'bound', ...binding }]);
    });

    it('and that they are over, from when to when', () => {
      const site = new NatSite({ options: LOGGING });
      const started = site.plane.nowMs;
      const binding = bound(site);
      logged(site);
      site.plane.idle(100_000, 500);
      site.pass(packet);
      assert.deepEqual(logged(site), [], 'it goes on');
      site.plane.idle(150_000, 500);
      const time = (seconds: number) => new Date(started + seconds * 1000).toISOString();
      assert.deepEqual(logged(site), [
        {
          action: 'ended',
          ...binding,
          start: time(0),
          end: time(100 + idleExpiry(0, 120)),
          duration_s: 100 + idleExpiry(0, 120),
        },
      ]);
      site.plane.idle(130_000, 500);
      assert.deepEqual(logged(site), [], 'once');
      assert.deepEqual(bound(site).src_port, 4000);
      assert.equal(logged(site).length, 1);
    });

    it('at the site where they were made alone, also where the other keeps them alive', () => {
      const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2, options: LOGGING }));
      bound(a);
      a.replicateTo(b);
      for (let n = 0; n < 4; n++) {
        for (const site of [a, b]) site.plane.idle(60_000, 500);
        b.pass(packet);
        b.replicateTo(a);
      }
      for (const site of [a, b]) site.plane.idle(200_000, 500);
      assert.deepEqual(
        logged(a).map(({ action, duration_s }) => [action, duration_s]),
        [
          ['bound', undefined],
          ['ended', 240 + idleExpiry(0, 120)],
        ],
      );
      assert.deepEqual(logged(b), []);
    });

    it('also those that give way in a flood, and such as lose their port to another site', () => {
      const site = new NatSite({ options: { ...LOGGING, flows: 64, half_open: 25, new_per_subscriber: 0 } });
      for (let n = 0; n < 60; n++) {
        site.pass(on(INSIDE, `tcp 10.0.1.${n}:4000 > 198.51.100.7:80 S`));
        site.plane.idle(1000, 100);
      }
      site.plane.idle(3000, 100);
      const lines = logged(site);
      const ends = lines.filter(({ action }) => action === 'ended');
      const { half_open_evicted } = site.bindings.describe(site.now);
      assert.ok(half_open_evicted > 30);
      assert.equal(ends.length, half_open_evicted);
      assert.equal(new Set(ends.map(({ src_ip }) => src_ip)).size, ends.length);

      const options = { ...LOGGING, allocation: 'shared', first_port: 5000, last_port: 5000 };
      const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2, options }));
      a.pass(on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:53'));
      b.pass(on(INSIDE, 'udp 10.0.0.9:4000 > 198.51.100.7:53'));
      a.replicateTo(b);
      b.replicateTo(a);
      for (const each of [a, b]) each.plane.idle(1500, 100);
      assert.deepEqual(
        [a, b].map((each) => logged(each).map(({ action, src_ip }) => `${src_ip} ${action}`)),
        [['10.0.0.5 bound', '10.0.0.5 ended'], ['10.0.0.9 bound']],
      );
    });
  });

  describe('mapped by hand', () => {
    const site = (options: Readonly<Record<string, unknown>> = {}) =>
      new NatSite({
        options: {
          ...options,
          static: [mapping(TCP, '203.0.113.1', 80, '10.0.0.9', 8080), mapping(0, '203.0.113.2', 0, '10.0.0.8', 0)],
        },
      });

    it('an endpoint is reached from outside, answers from there, and others have the rest of the address', () => {
      const { plane } = converse(
        site(),
        `
        > 1: tcp 198.51.100.7:5000 > 203.0.113.1:80 S
        < 0: tcp 198.51.100.7:5000 > 10.0.0.9:8080 S ttl 63
        > 0: tcp 10.0.0.9:8080 > 198.51.100.7:5000 SA
        < 1: tcp 203.0.113.1:80 > 198.51.100.7:5000 SA ttl 63
        > 1: udp 198.51.100.7:5000 > 203.0.113.1:80
        > 0: tcp 10.0.0.9:8081 > 198.51.100.7:80 S
        < 1: tcp 203.0.113.1:$a > 198.51.100.7:80 S ttl 63
        > 0: tcp 10.0.0.5:4000 > 203.0.113.1:80 S
        < 0: tcp 203.0.113.1:$b > 10.0.0.9:8080 S ttl 63
        > 0: tcp 10.0.0.9:8080 > 203.0.113.1:$b SA
        < 0: tcp 203.0.113.1:80 > 10.0.0.5:4000 SA ttl 63
        `,
      );
      assert.deepEqual(plane.counts(), {
        nat_outbound: 2,
        nat_inbound: 1,
        nat_hairpinned: 2,
        nat_bound: 2,
        nat_unsolicited: 1,
      });
    });

    it('an address has every port and identifier, from both sides', () => {
      converse(
        site(),
        `
        > 1: udp 198.51.100.7:5000 > 203.0.113.2:1234
        < 0: udp 198.51.100.7:5000 > 10.0.0.8:1234 ttl 63
        > 0: udp 10.0.0.8:1234 > 198.51.100.7:5000
        < 1: udp 203.0.113.2:1234 > 198.51.100.7:5000 ttl 63
        > 1: icmp 198.51.100.7 > 203.0.113.2 echo 5
        < 0: icmp 198.51.100.7 > 10.0.0.8 echo 5 ttl 63
        > 0: icmp 10.0.0.8 > 198.51.100.7 reply 5
        < 1: icmp 203.0.113.2 > 198.51.100.7 reply 5 ttl 63
        > 0: icmp 10.0.0.8 > 198.51.100.7 echo 6
        < 1: icmp 203.0.113.2 > 198.51.100.7 echo 6 ttl 63
        > 0: icmp 10.0.0.5 > 203.0.113.2 echo 7
        < 0: icmp 203.0.113.1 > 10.0.0.8 echo $a ttl 63
        > 1: icmp 198.51.100.7 > 203.0.113.1 echo 5
        > 0: icmp 10.0.0.5 > 198.51.100.7 reply 5
        `,
      );
    });

    describe('an address is queried from inside', () => {
      const MAPPED = '203.0.113.2';
      const [ECHO, TIMESTAMP] = [8, 13];
      const REPLY_TO = new Map([
        [ECHO, 0],
        [TIMESTAMP, 14],
      ]);
      const ICMP_AT = 34;
      /** An ICMP query or reply of any type. */
      const query = (addresses: string, type: number, identifier: number): Uint8Array => {
        const bytes = frame(`icmp ${addresses} echo ${identifier} len 12`);
        bytes[ICMP_AT] = type;
        return seal(bytes);
      };
      const typeOf = (bytes: Uint8Array): number => bytes[ICMP_AT];
      const identifierOf = (bytes: Uint8Array): number => (bytes[ICMP_AT + 4] << 8) | bytes[ICMP_AT + 5];
      /** Source, destination, type and identifier, and whether the checksums are right. */
      const read = (bytes: Uint8Array): string => {
        const [, source, , destination] = describeFrame(bytes).split(' ');
        const wrong = describeFrame(bytes).includes('bad') ? ' bad' : '';
        return `${source} > ${destination} ${typeOf(bytes)} ${identifierOf(bytes)}${wrong}`;
      };

      for (const filtering of ['endpoint-independent', 'address-dependent', 'address-and-port-dependent'])
        for (const type of [ECHO, TIMESTAMP])
          it(`(type ${type}, ${filtering}): the reply and errors about both come back to the host that asked`, () => {
            const { plane } = site({ filtering });
            const turned = (bytes: Uint8Array): Uint8Array => {
              const out = plane.passFrames({ port: INSIDE, frame: bytes });
              assert.deepEqual(
                out.map(({ port }) => port),
                [INSIDE],
                JSON.stringify(plane.counts()),
              );
              return out[0].frame;
            };
            const asked = turned(query(`10.0.0.5 > ${MAPPED}`, type, 7));
            const bound = identifierOf(asked);
            assert.equal(read(asked), `203.0.113.1 > 10.0.0.8 ${type} ${bound}`);
            const reply = REPLY_TO.get(type) as number;
            const replied = turned(query('10.0.0.8 > 203.0.113.1', reply, bound));
            assert.equal(read(replied), `${MAPPED} > 10.0.0.5 ${reply} 7`);

            // A router inside that says no to the query as it got it, and to the reply.
            for (const [about, quoted] of [
              [`icmp 203.0.113.1 > 10.0.0.8 echo ${bound}`, `10.0.0.5 > ${MAPPED} 8 7`],
              [`icmp ${MAPPED} > 10.0.0.5 reply 7`, `10.0.0.8 > 203.0.113.1 0 ${bound}`],
            ]) {
              const to = about.split(' ')[1];
              const error = turned(errorAbout(`icmp 10.0.0.1 > ${to} type 11`, about));
              assert.ok(!describeFrame(error).includes('bad'), describeFrame(error));
              const inner = Uint8Array.of(...error.subarray(0, 14), ...error.subarray(42));
              assert.equal(read(inner), quoted);
            }
            assert.deepEqual(
              Object.keys(plane.counts()).filter((name) => !/bound|hairpinned|sessions/.test(name)),
              [],
            );
          });

      it('a reply to an identifier that nobody bound, and a query to one that is bound, are dropped', () => {
        const { plane } = site();
        const [{ frame: asked }] = plane.passFrames({ port: INSIDE, frame: query(`10.0.0.5 > ${MAPPED}`, ECHO, 7) });
        const bound = identifierOf(asked);
        for (const wrong of [
          query('10.0.0.8 > 203.0.113.1', 0, bound ^ 1),
          query('10.0.0.8 > 203.0.113.1', ECHO, bound),
          query('10.0.0.6 > 203.0.113.1', ECHO, bound),
        ])
          assert.deepEqual(plane.passFrames({ port: INSIDE, frame: wrong }), []);
        assert.equal(plane.counts()['nat_unsolicited'], 3);
        // From a host that is not mapped a reply answers nothing.
        assert.deepEqual(plane.passFrames({ port: INSIDE, frame: query('10.0.0.6 > 203.0.113.1', 0, bound) }), []);
        assert.equal(plane.counts()['nat_icmp_other'], 1);
      });
    });

    it('is never given to a binding', () => {
      const options = { first_port: 80, last_port: 81, static: [mapping(TCP, '203.0.113.1', 80, '10.0.0.9', 8080)] };
      const full = new NatSite({ options });
      const out = full.pass(...[1, 2].map((host) => on(INSIDE, `tcp 10.0.0.${host}:80 > 1.1.1.1:80 S`)));
      assert.deepEqual(
        out.filter((packet) => packet.startsWith('1:')),
        ['1: tcp 203.0.113.1:81 > 1.1.1.1:80 S ttl 63'],
      );
      assert.equal(full.plane.counts()['nat_refused'], 1);
    });

    it('has ICMP errors translated both ways', () => {
      const at = site();
      const pass = (port: number, frame: Uint8Array) => {
        const [out] = at.plane.passFrames({ port, frame });
        return [
          describeFrame(out.frame).replace(/ len \d+/, ''),
          describeFrame(Uint8Array.of(...out.frame.subarray(0, 14), ...out.frame.subarray(42))),
        ];
      };
      const about = 'tcp 203.0.113.1:80 > 198.51.100.7:5000 SA';
      assert.deepEqual(pass(OUTSIDE, errorAbout('icmp 5.5.5.5 > 203.0.113.1 type 3', about)), [
        'icmp 5.5.5.5 > 10.0.0.9 type 3 ttl 63',
        'tcp 10.0.0.9:8080 > 198.51.100.7:5000 SA',
      ]);
      const into = errorAbout('icmp 10.0.0.8 > 198.51.100.7 type 3', 'udp 198.51.100.7:53 > 10.0.0.8:1234');
      assert.deepEqual(pass(INSIDE, into), [
        'icmp 203.0.113.2 > 198.51.100.7 type 3 ttl 63',
        'udp 198.51.100.7:53 > 203.0.113.2:1234',
      ]);
    });
  });

  it('leaves alone what bypasses it, both ways, whatever it carries (RFC 6888 REQ-6)', () => {
    const bypass = [{ address: parseIpv4('192.0.2.0'), mask: parseIpv4('255.255.255.0') }];
    const { plane } = converse(
      new NatSite({ options: { bypass } }),
      `
      > 0: tcp 10.0.0.5:4000 > 192.0.2.7:80 S
      < 1: tcp 10.0.0.5:4000 > 192.0.2.7:80 S ttl 63
      > 1: tcp 192.0.2.7:80 > 10.0.0.5:4000 SA
      < 0: tcp 192.0.2.7:80 > 10.0.0.5:4000 SA ttl 63
      > 0: ip 10.0.0.5 > 192.0.2.7 proto 47 len 8
      < 1: ip 10.0.0.5 > 192.0.2.7 proto 47 ttl 63 len 8
      > 0: tcp 10.0.0.5:4000 > 192.0.3.7:80 S
      < 1: tcp 203.0.113.1:$a > 192.0.3.7:80 S ttl 63
      > 1: tcp 192.0.2.7:80 > 203.0.113.1:$a R
      < 0: tcp 192.0.2.7:80 > 10.0.0.5:4000 R ttl 63
      > 1: tcp 192.0.3.7:80 > 10.0.0.5:4000 SA
      `,
    );
    assert.deepEqual(plane.counts(), {
      nat_bypassed: 3,
      nat_outbound: 1,
      nat_inbound: 1,
      nat_bound: 1,
      nat_not_external: 1,
    });
  });

  it('gives a subscriber so many bindings at all sites, and so many new ones a second, and tells it (RFC 6888 REQ-4, REQ-5)', () => {
    const options = { per_subscriber: 6, new_per_subscriber: 4, udp: 300, reuse: 0 };
    const a = new NatSite({ options, member: 0, members: 2 });
    const b = new NatSite({ options, member: 1, members: 2 });
    const from = (site: NatSite, host: number, port: number) =>
      site.pass(on(INSIDE, `udp 10.0.0.${host}:${port} > 1.1.1.1:53`)).map((packet) => packet.slice(0, 6));
    const told = ['0: icm'];
    const sent = ['1: udp'];
    for (let n = 0; n < 4; n++) assert.deepEqual(from(a, 1, 4000 + n), sent);
    assert.deepEqual(from(a, 1, 4004), told, 'too fast');
    assert.deepEqual(from(a, 2, 4004), sent, 'another is not concerned');
    a.replicateTo(b);
    assert.equal(b.bindings.bindingsOf(parseIpv4('10.0.0.1')), 4);
    assert.deepEqual(from(b, 1, 4004), sent, 'the rate is that of one site');
    assert.deepEqual(from(b, 1, 4005), sent);
    assert.deepEqual(from(b, 1, 4006), told, 'the limit is that of all');
    b.replicateTo(a);
    a.later(1);
    assert.deepEqual(from(a, 1, 4006), told);
    assert.deepEqual(from(a, 1, 4000), sent, 'what it has it keeps');
    assert.equal(a.plane.counts()['nat_refused'], 2);
    for (const site of [a, b]) {
      site.later(idleExpiry(0, 300) + 60);
      site.bindings.sweep(site.now, 2048);
      assert.equal(site.bindings.bindingsOf(parseIpv4('10.0.0.1')), 0, 'all of it ran out');
    }
    assert.deepEqual(from(a, 1, 5000), sent);
  });

  it('does not use a port again for two minutes, where it was bound and elsewhere (RFC 6888 REQ-8)', () => {
    const options = { first_port: 3000, last_port: 3000, udp: 300 };
    const sites = [0, 1].map((member) => new NatSite({ options, member, members: 2 }));
    const packet = (host: number) => on(INSIDE, `udp 10.0.0.${host}:4000 > 1.1.1.1:53`);
    const isSent = (site: NatSite, host: number) => site.pass(packet(host))[0].startsWith('1:');
    sites[0].establish('udp 10.0.0.1:4000 > 1.1.1.1:53');
    sites[0].replicateTo(sites[1]);
    for (const seconds of [300, 39, 61, 57]) {
      for (const site of sites) {
        site.later(seconds);
        site.bindings.sweep(site.now, 2048);
        assert.ok(!isSent(site, 2), `${seconds} s on`);
      }
    }
    // What it was bound to had it again for as long as that was remembered; now anyone may.
    for (const site of sites) site.later(2);
    assert.ok(isSent(sites[1], 2));
  });

  it('has a shorter timer for well-known destinations alone, which shortens no other (RFC 4787 REQ-5)', () => {
    const left = (...destinations: string[]) => {
      const site = new NatSite({ options: { udp: 300, udp_short: 20 } });
      for (const destination of destinations) site.pass(on(INSIDE, `udp 10.0.0.5:4000 > ${destination}`));
      const entry = [...site.bindings.entries(site.now)].find((one) => one !== null);
      return timerOf((entry?.expires ?? 0) - site.now);
    };
    assert.equal(left('1.1.1.1:53'), 20);
    assert.equal(left('1.1.1.1:53', '1.1.1.1:53'), 20);
    assert.equal(left('1.1.1.1:54'), 300);
    assert.equal(left('1.1.1.1:54', '1.1.1.1:53'), 300);
    assert.equal(left('1.1.1.1:53', '1.1.1.1:5353'), 300);
  });

  it('drops ICMP errors whose checksum is wrong (RFC 5508 REQ-3)', () => {
    const site = new NatSite({ options: { first_port: 3000, last_port: 3000 } });
    site.pass(on(INSIDE, 'udp 10.0.0.5:4000 > 8.8.8.8:53'));
    const error = errorAbout('icmp 5.5.5.5 > 203.0.113.1 type 3', 'udp 203.0.113.1:3000 > 8.8.8.8:53');
    assert.equal(site.pass({ port: OUTSIDE, frame: error }).length, 1);
    error[36] ^= 1;
    assert.equal(site.pass({ port: OUTSIDE, frame: error }).length, 0);
    assert.equal(site.plane.counts()['nat_icmp_checksum'], 1);
  });

  it('counts the ports that two sites took at once', () => {
    const options = { allocation: 'shared', first_port: 3000, last_port: 3000 };
    const sites = [0, 1].map((member) => new NatSite({ member, members: 2, options }));
    for (const [n, site] of sites.entries()) site.pass(on(INSIDE, `udp 10.0.0.${n + 1}:3000 > 8.8.8.8:53`));
    sites[0].replicateTo(sites[1]);
    sites[1].replicateTo(sites[0]);
    for (const site of sites) {
      site.plane.idle(1100);
      assert.equal(site.plane.counts()['nat_collided'], 1);
    }
  });
});
