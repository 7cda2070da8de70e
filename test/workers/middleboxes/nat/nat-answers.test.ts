/**
 * The rows of the table of docs/nat.md about who establishes a binding or a session, at one site
 * and at two.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { NatSessions } from '../../../../shm/objects/nat/nat-sessions.js';
import { Rank } from '../../../../shm/objects/nat/nat-tables.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { parseIpv4 } from '../../../../workers/packet/ipv4.js';
import { entriesOf } from '../../../shm/objects/nat/nat-model.js';
import { timerOf } from '../../../support/idle.js';
import { scaled } from '../../../support/scale.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on } from '../../support/plane.js';

const BY_PORT = { filtering: 'address-and-port-dependent', sessions: 1024 };
const REMOTE = '198.51.100.7:80';
const HOST = '10.0.0.5:4000';

function sites(count: number, options: Readonly<Record<string, unknown>> = {}): NatSite[] {
  return Array.from({ length: count }, (_, member) => new NatSite({ member, members: count, options }));
}

/** Carries all records. Returns how many there were. */
function replicate(all: readonly NatSite[]): number {
  return all.reduce((records, from) => records + from.replicateTo(...all.filter((other) => other !== from)), 0);
}

/**
 * Rank and seconds left of the one binding, and of the one session if there are sessions: as the
 * timer of a refresh now.
 */
function states(site: NatSite): number[][] {
  const sessions = site.objects[1];
  const listed = sessions instanceof NatSessions ? [...sessions.list(site.now)].filter((entry) => entry !== null) : [];
  return [...entriesOf(site.bindings, site.now), ...listed].map(({ rank, expires }) => [
    rank,
    timerOf(expires - site.now),
  ]);
}

/** The external port of the one binding of `HOST` that a packet from inside shows. */
const portOf = (out: readonly string[]): string => out[0].split(/[: ]/)[4];

const fromInside = (site: NatSite, flags: string) => site.pass(on(INSIDE, `tcp ${HOST} > ${REMOTE} ${flags}`));
const fromOutside = (site: NatSite, port: string, flags: string, remote = REMOTE) =>
  site.pass(on(OUTSIDE, `tcp ${remote} > 203.0.113.1:${port} ${flags}`));

/** Waits `seconds`, with the timers of each site at work. */
function wait(all: readonly NatSite[], seconds: number): void {
  for (const site of all) {
    site.later(seconds);
    site.plane.idle(10_000, 100);
  }
}

describe('a NAT binding that nobody answered', () => {
  for (const [what, ...flags] of [
    ['acknowledgements', 'S', 'A', 'PA', 'A'],
    ['a FIN', 'S', 'FA'],
    ['a RST', 'S', 'R'],
    ['an ACK without a SYN', 'A', 'A'],
    ['SYNs with ACK', 'S', 'SA', 'SA'],
  ]) {
    it(`stays half-open, whatever the inside sends: ${what}`, () => {
      for (const options of [{}, BY_PORT]) {
        const [site] = sites(1, options);
        for (const flag of flags) fromInside(site, flag);
        wait([site], 0);
        for (const state of states(site)) assert.equal(state[0], Rank.NEW);
        assert.ok(states(site).every(([, left]) => left <= 240));
        assert.equal(site.bindings.describe(site.now)['half_open'], 1);
      }
    });
  }

  it('stays half-open with packets to several remotes', () => {
    const [site] = sites(1);
    for (const remote of ['1.1.1.1:80', '2.2.2.2:80'])
      for (const flags of ['S', 'A']) site.pass(on(INSIDE, `tcp ${HOST} > ${remote} ${flags}`));
    assert.deepEqual(states(site), [[Rank.NEW, 240]]);
  });

  it('stays within the quota as UDP and ICMP of a one-sided sender', () => {
    for (const packet of [`udp ${HOST} > ${REMOTE}`, 'icmp 10.0.0.5 > 198.51.100.7 echo 7'])
      for (const options of [{}, BY_PORT]) {
        const [site] = sites(1, options);
        for (let n = 0; n < 5; n++) site.pass(on(INSIDE, packet));
        wait([site], 0);
        for (const state of states(site)) assert.equal(state[0], Rank.NEW);
        assert.equal(site.bindings.describe(site.now)['half_open'], 1);
      }
  });
});

describe('a NAT binding that was answered', () => {
  for (const options of [{}, BY_PORT]) {
    const by = options === BY_PORT ? ', by filtering with sessions' : '';

    it(`is established by the inside's next packet, with no record more than two${by}`, () => {
      const all = sites(2, options);
      const port = portOf(fromInside(all[0], 'S'));
      const tables = states(all[0]).length;
      assert.equal(replicate(all), tables);
      fromOutside(all[0], port, 'SA');
      assert.equal(replicate(all), 0);
      fromInside(all[0], 'A');
      assert.equal(replicate(all), tables);
      for (const site of all) for (const state of states(site)) assert.deepEqual(state, [Rank.ESTABLISHED, 7440]);
    });

    it(`is not refreshed by the answer${by}`, () => {
      const all = sites(2, options);
      const port = portOf(fromInside(all[0], 'S'));
      replicate(all);
      wait(all, 90);
      for (const site of all) fromOutside(site, port, 'SA');
      replicate(all);
      for (const site of all) for (const [, left] of states(site)) assert.ok(left < 160, `${left} s`);
    });

    it(`is established where the routes are asymmetric, by the inside's next packet${by}`, () => {
      const [a, b] = sites(2, options);
      const port = portOf(fromInside(a, 'S'));
      replicate([a, b]);
      fromOutside(b, port, 'SA');
      for (const [rank] of states(b)) assert.equal(rank, Rank.ANSWERED);
      assert.equal(replicate([a, b]), states(a).length);
      fromInside(a, 'A');
      replicate([a, b]);
      for (const site of [a, b]) for (const state of states(site)) assert.deepEqual(state, [Rank.ESTABLISHED, 7440]);
    });

    it(`is established where the inside went on before its site heard of the answer, and is silent since${by}`, () => {
      const [a, b] = sites(2, options);
      const port = portOf(fromInside(a, 'S'));
      replicate([a, b]);
      fromOutside(b, port, 'SA');
      fromInside(a, 'A');
      for (const [rank] of states(a)) assert.equal(rank, Rank.NEW, 'not heard of the answer');
      replicate([a, b]);
      wait([a, b], 1);
      replicate([a, b]);
      for (const site of [a, b])
        for (const [rank, left] of states(site)) {
          assert.equal(rank, Rank.ESTABLISHED);
          assert.ok(left > 7400);
        }
    });

    it(`is established where the inside goes on by a third site${by}`, () => {
      const all = sites(3, options);
      const port = portOf(fromInside(all[0], 'S'));
      replicate(all);
      fromOutside(all[0], port, 'SA');
      fromInside(all[2], 'A');
      for (let n = 0; n < 3; n++) {
        wait(all, 1);
        replicate(all);
      }
      for (const site of all) for (const [rank] of states(site)) assert.equal(rank, Rank.ESTABLISHED);
    });
  }

  for (const [what, flags] of [
    ['a reset', 'RA seq 0 ack 2'],
    ['a SYN', 'S'],
    ['a FIN without ACK', 'F'],
  ])
    it(`is not answered by ${what} from outside`, () => {
      const [a, b] = sites(2);
      const port = portOf(fromInside(a, 'S'));
      replicate([a, b]);
      for (const site of [a, b]) fromOutside(site, port, flags);
      replicate([a, b]);
      fromInside(a, 'A');
      assert.deepEqual(states(a), [[Rank.NEW, 240]]);
    });

  it('is not answered by an ICMP error, nor by a remote that filtering does not admit', () => {
    const [site] = sites(1, BY_PORT);
    const port = portOf(fromInside(site, 'S'));
    assert.deepEqual(fromOutside(site, port, 'SA', '198.51.100.8:80'), []);
    fromInside(site, 'A');
    for (const state of states(site)) assert.deepEqual(state, [Rank.NEW, 240]);
  });

  it('is answered by another inside host, turned round, and not by itself', () => {
    const [site] = sites(1);
    const port = portOf(fromInside(site, 'S'));
    site.pass(on(INSIDE, `tcp 10.0.0.5:5000 > 203.0.113.1:${port} SA`));
    fromInside(site, 'A');
    const rankOf = (internal: string) =>
      entriesOf(site.bindings, site.now).find((entry) => entry.internalAddress === parseIpv4(internal))?.rank;
    assert.equal(rankOf('10.0.0.5'), Rank.NEW);
    site.pass(on(INSIDE, `tcp 10.0.0.6:80 > 203.0.113.1:${port} SA`));
    fromInside(site, 'A');
    const [binding] = entriesOf(site.bindings, site.now, (entry) => entry.internalPort === 4000);
    assert.equal(binding.rank, Rank.ESTABLISHED);
  });

  it('replicates answers within the budget of half-open records', () => {
    const [a] = sites(2);
    const [, b] = sites(2, { half_open_records: 20 });
    const ports = Array.from({ length: 50 }, (_, n) =>
      portOf(a.pass(on(INSIDE, `tcp 10.0.1.${n}:4000 > ${REMOTE} S`))),
    );
    a.replicateTo(b);
    for (const port of ports) fromOutside(b, port, 'SA');
    assert.equal(b.replicateTo(a), 20);
  });
});

describe('a flood of SYNs that a server answers, and that no inside host goes on with', () => {
  const FLOWS = 1024;
  const QUOTA = FLOWS / 4;
  for (const options of [{}, { ...BY_PORT, sessions: FLOWS }])
    for (const count of [1, 2]) {
      const where = count === 1 ? 'at the same site' : 'at another site';
      it(`stays within the quota, answered ${where}, and leaves ports to others: ${JSON.stringify(options)}`, function () {
        this.timeout(60_000);
        const ports = { first_port: 20_001, last_port: 20_000 + FLOWS };
        const all = sites(count, { flows: FLOWS, per_subscriber: FLOWS, ...ports, ...options });
        const [there, back] = [all[0], all[count - 1]];
        const held = there.exchange(on(INSIDE, `tcp ${HOST} > ${REMOTE} S`));
        fromInside(there, 'A');
        replicate(all);
        let passed = 0;
        for (let second = 0; second < 30; second++) {
          for (let n = 0; n < 60; n++) {
            const [out] = there.pass(on(INSIDE, `tcp 10.0.${second + 1}.${n % 4}:${5000 + n} > ${REMOTE} S`));
            replicate(all);
            if (out?.startsWith(`${OUTSIDE}:`)) {
              passed++;
              fromOutside(back, portOf([out]), 'SA');
            }
            replicate(all);
          }
          wait(all, 1);
          replicate(all);
        }
        // More than there are ports: evicted ones do not keep theirs.
        assert.ok(passed > 1.5 * FLOWS, `${passed} of 1800 passed`);
        for (const site of all) {
          for (const object of 'filtering' in options ? site.objects : [site.bindings]) {
            const { half_open, half_open_evicted, used } = object.describe(site.now) as Record<string, number>;
            assert.ok(half_open > QUOTA / 2 && half_open <= QUOTA, `${half_open} half-open of ${QUOTA}`);
            assert.ok(used < FLOWS, `${used} used`);
            assert.ok(half_open_evicted > 0);
          }
          assert.ok(entriesOf(site.bindings, site.now).some(({ rank }) => rank === Rank.ESTABLISHED));
        }
        assert.deepEqual(fromInside(there, 'A'), [held[0].replace('S ttl', 'A ttl')]);
        assert.equal(there.establish('tcp 10.0.77.1:4000 > 198.51.100.8:443') !== undefined, true);
      });
    }
});

describe('packets of one side alone', () => {
  const packet = fc.record({
    site: fc.nat(1),
    port: fc.integer({ min: 4000, max: 4003 }),
    host: fc.integer({ min: 1, max: 3 }),
    what: fc.constantFrom('tcp S', 'tcp A', 'tcp FA', 'tcp R', 'tcp SA', 'udp', 'icmp'),
    wait: fc.constantFrom(0, 0, 0, 1, 40),
  });
  for (const options of [{}, BY_PORT, { ...BY_PORT, udp_short: 10, udp_short_ports: [53] }])
    it(`leave nothing that outlives the half-open timer or is beyond the quota: ${JSON.stringify(options)}`, () => {
      fc.assert(
        fc.property(fc.array(packet, { minLength: 5, maxLength: 60 }), (packets) => {
          const all = sites(2, { flows: 64, sessions: 64, ...options });
          for (const { site, port, host, what, wait: seconds } of packets) {
            const [protocol, flags = ''] = what.split(' ');
            const text =
              protocol === 'icmp'
                ? `icmp 10.0.0.${host} > 198.51.100.7 echo ${port}`
                : `${protocol} 10.0.0.${host}:${port} > 198.51.100.${host}:53 ${flags}`.trim();
            all[site].pass(on(INSIDE, text));
            // What comes from outside to no binding changes nothing either.
            all[1 - site].pass(on(OUTSIDE, 'tcp 198.51.100.9:80 > 203.0.113.1:1 A'));
            if (seconds > 0) wait(all, seconds);
            replicate(all);
            for (const each of all) {
              for (const [rank, left] of states(each)) {
                assert.equal(rank, Rank.NEW);
                assert.ok(left <= 300);
              }
              for (const object of each.objects) {
                const { half_open, half_open_quota, used } = object.describe(each.now);
                assert.ok(half_open <= half_open_quota && used <= 64);
              }
            }
          }
          wait(all, idleExpiry(0, 300));
          for (const each of all) assert.deepEqual(states(each), []);
        }),
        { numRuns: scaled(15, 40) },
      );
    });
});
