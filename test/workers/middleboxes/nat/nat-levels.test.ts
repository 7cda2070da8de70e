/**
 * NATs that are configured with different levels of filtering, as while it is changed at one site
 * after another.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { FILTERINGS } from '../../../../shm/objects/nat/filter-level.js';
import { scaled } from '../../../support/scale.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on } from '../../support/plane.js';

const BY_ADDRESS = 1;
const BY_PORT = 2;
const HOST = '10.0.0.5:4000';
const UDP_S = 300;
/** Members learn of each other's configuration within this time. */
const LEARNED_WITHIN_S = 5;

const make = (member: number, level: number, options: object = {}): NatSite =>
  new NatSite({
    member,
    members: 3,
    options: { filtering: FILTERINGS[level], udp: UDP_S, sessions: 256, flows: 256, ...options },
  });
const sends = (site: NatSite, remote: string, host = HOST, protocol = 'udp', flags = ''): string | undefined =>
  site.pass(on(INSIDE, `${protocol} ${host} > ${remote} ${flags}`))[0]?.split(/[: ]/)[4];
const passes = (site: NatSite, remote: string, port: string | undefined, rest = '', protocol = 'udp'): boolean =>
  site.pass(on(OUTSIDE, `${protocol} ${remote} > 203.0.113.1:${port} ${rest}`)).length === 1;
const sessionsOf = (site: NatSite): Record<string, number> => site.objects[1].describe(site.now);

function wait(seconds: number, ...sites: readonly NatSite[]): void {
  for (const site of sites) site.later(seconds);
}

describe('NATs whose levels of filtering differ', () => {
  it('filter as loosely as the loosest member, and say so', () => {
    for (const [own, other, expected] of [
      [0, BY_PORT, 0],
      [BY_ADDRESS, 0, 0],
      [BY_PORT, 0, 0],
      [BY_PORT, BY_ADDRESS, BY_ADDRESS],
      [BY_ADDRESS, BY_PORT, BY_ADDRESS],
      [BY_PORT, BY_PORT, BY_PORT],
    ]) {
      const site = make(0, own);
      const [, said] = site.heed(make(1, other), make(2, BY_PORT));
      if (expected === own) assert.equal(said, null);
      else assert.match(said ?? '', new RegExp(`filtering is ${FILTERINGS[expected]} and not yet ${FILTERINGS[own]}`));
      const { filtering, filtering_configured } = sessionsOf(site);
      assert.deepEqual([filtering, filtering_configured], [expected, own]);
      wait(LEARNED_WITHIN_S + 1, site);
      const port = sends(site, '198.51.100.7:53');
      assert.deepEqual(
        [
          passes(site, '198.51.100.7:53', port),
          passes(site, '198.51.100.7:54', port),
          passes(site, '198.51.100.8:53', port),
        ],
        [true, expected < BY_PORT, expected < BY_ADDRESS],
        `${FILTERINGS[own]} beside ${FILTERINGS[other]}`,
      );
    }
  });

  it('are strict by default: where nothing is known of the others', () => {
    const site = make(0, BY_PORT);
    const port = sends(site, '198.51.100.7:53');
    assert.equal(passes(site, '198.51.100.7:54', port), false);
    assert.equal(site.heed()[1], null);
    assert.equal(passes(site, '198.51.100.7:54', port), false, 'a binding made before main had looked');
  });

  it('drop nothing at a level that is not in force: for want of room, or a reset outside its window', () => {
    const site = make(0, BY_PORT, { sessions: 64, half_open: 100, tcp_established: 7440 });
    site.heed(make(1, 0));
    for (let n = 0; n < 400; n++) assert.ok(sends(site, `198.51.100.7:${1000 + n}`), `remote ${n}`);
    const { nat_table_full, nat_half_open } = site.plane.counts();
    assert.deepEqual([nat_table_full, nat_half_open], [undefined, undefined]);
    for (const [level, isPassed] of [
      [0, true],
      [BY_PORT, false],
    ] as const) {
      const opened = make(0, BY_PORT);
      opened.heed(make(1, level));
      const port = sends(opened, '198.51.100.7:80', HOST, 'tcp', 'S seq 100 scale 0');
      passes(opened, '198.51.100.7:80', port, 'SA seq 5000 ack 101', 'tcp');
      sends(opened, '198.51.100.7:80', HOST, 'tcp', 'A seq 101 ack 5001 win 1000');
      assert.equal(passes(opened, '198.51.100.7:80', port, 'R seq 7000', 'tcp'), isPassed);
    }
  });

  it('let what is older than a level pass without a session, for as long as it can be idle at most, and count it', () => {
    const site = make(0, BY_PORT);
    const other = make(1, 0);
    site.heed(other);
    // Bound elsewhere, without a session.
    const port = sends(other, '198.51.100.7:53');
    other.replicateTo(site);
    assert.equal(sessionsOf(site)['used'], 0);
    site.heed(make(1, BY_PORT));
    wait(LEARNED_WITHIN_S + 1, site, other);
    const newer = sends(site, '198.51.100.7:53', '10.0.0.6:4000');
    assert.equal(passes(site, '198.51.100.9:53', newer), false, 'a newer binding');
    assert.equal(passes(site, '198.51.100.7:53', port), true);
    assert.equal(site.plane.counts()['nat_unfiltered'], 1);
    wait(UDP_S - 60, site);
    sends(site, '198.51.100.8:53');
    assert.equal(passes(site, '198.51.100.9:53', port), true, 'from anywhere: nobody knows whom it has sent to');
    wait(UDP_S / 8 + 60 + 1, site);
    assert.equal(passes(site, '198.51.100.9:53', port), false, 'what it had before would have ended by now');
    assert.equal(passes(site, '198.51.100.8:53', port), true);
    site.heed(make(1, BY_PORT), make(2, BY_PORT));
    assert.equal(passes(site, '198.51.100.9:53', port), false, 'hearing the same again opens nothing');
  });

  it('keep no session where nothing is filtered, lose none to an operator, and have equal digests', () => {
    const [strict, none] = [make(0, BY_PORT), make(1, 0)];
    for (const [site, other] of [
      [strict, none],
      [none, strict],
    ])
      site.heed(other);
    wait(LEARNED_WITHIN_S, strict, none);
    for (let n = 0; n < 60; n++) sends(strict, '198.51.100.7:53', `10.0.1.${n}:4000`);
    strict.replicateTo(none);
    assert.deepEqual([sessionsOf(none)['used'], sessionsOf(strict)['used']], [0, 60]);
    assert.equal(strict.objects[1].digest(strict.now, true), none.objects[1].digest(none.now, true));
    const joiner = make(2, 0);
    assert.equal(joiner.mergeFrom(strict), 0, 'entries that found no room');
    assert.equal(sessionsOf(joiner)['used'], 0);
  });

  it('know from a snapshot since when sessions are whole, and filter at once where they are', () => {
    const donor = make(0, BY_PORT);
    donor.heed(make(1, BY_PORT));
    const port = sends(donor, '198.51.100.7:53');
    const joiner = make(1, BY_PORT);
    joiner.heed(donor);
    joiner.mergeFrom(donor);
    joiner.heed(donor);
    assert.equal(passes(joiner, '198.51.100.8:53', port), false);
    assert.equal(passes(joiner, '198.51.100.7:53', port), true);
    // One whose level has been in force for a while may have bindings without a session.
    const [before, after] = [make(2, 0), make(0, BY_PORT)];
    after.heed(before);
    const old = sends(before, '198.51.100.7:53', '10.0.0.8:4000');
    before.replicateTo(after);
    after.heed(donor);
    const heir = make(1, BY_PORT);
    heir.heed(donor);
    wait(UDP_S - 60, after, heir);
    sends(after, '198.51.100.9:53', '10.0.0.8:4000');
    heir.mergeFrom(after);
    heir.heed(donor);
    assert.equal(passes(heir, '198.51.100.7:53', old), true);
    wait(UDP_S / 8 + 60 + LEARNED_WITHIN_S + 1, heir);
    assert.equal(passes(heir, '198.51.100.7:53', old), false, 'the time did not begin anew');
    // One of a looser level has fewer sessions.
    const loose = make(0, 0);
    const bare = sends(loose, '198.51.100.7:53', '10.0.0.9:4000');
    const late = make(1, BY_PORT);
    late.heed(donor);
    late.mergeFrom(loose);
    late.heed(donor);
    assert.equal(passes(late, '198.51.100.7:53', bare), true);
  });

  it('make sessions for members that have not learned yet that a looser level is gone', () => {
    const member = make(0, BY_PORT);
    for (const started of [true, false]) {
      const site = make(1, BY_PORT);
      const first = make(0, BY_ADDRESS);
      member.heed(first);
      // It starts when the looser level is gone, or learns that it is gone before the other does.
      if (!started) site.heed(first);
      site.heed(member);
      const send = (host: string): string | undefined => sends(site, '198.51.100.7:53', host);
      const port = send('10.0.0.5:4000');
      site.replicateTo(member);
      assert.equal(passes(member, '198.51.100.7:54', port), true, 'the remote has been sent to');
      assert.equal(passes(site, '198.51.100.7:54', port), !started, 'a binding may lack sessions after a change');
      member.heed(site);
      wait(LEARNED_WITHIN_S + 1, member, site);
      const used = sessionsOf(site)['used'];
      send('10.0.0.6:4000');
      assert.equal(sessionsOf(site)['used'], used + 1, 'of one level once all have learned');
    }
  });

  describe('whose operator changes it at one site after another', () => {
    type Step =
      | { readonly do: 'send'; readonly site: number; readonly host: number; readonly remote: number }
      | { readonly do: 'restart'; readonly site: number; readonly level: number }
      | { readonly do: 'learn'; readonly site: number }
      | { readonly do: 'wait'; readonly seconds: number };
    const site = fc.nat(2);
    const step: fc.Arbitrary<Step> = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ do: fc.constant('send' as const), site, host: fc.nat(3), remote: fc.nat(5) }),
      },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('restart' as const), site, level: fc.nat(2) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('learn' as const), site }) },
      {
        weight: 2,
        arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.constantFrom(1, 3, 40, 400) }),
      },
    );
    const first = fc.tuple(fc.nat(2), fc.nat(2), fc.nat(2));
    const remoteOf = (n: number): string => `198.51.100.${7 + (n >> 1)}:${53 + (n & 1)}`;

    /**
     * Sites and what has become of them: each learns of a change within `LEARNED_WITHIN_S`, or just
     * now.
     */
    class Run {
      readonly sites: NatSite[];
      readonly levels: number[];
      /** By host and remote: when it was last sent to. */
      readonly sent = new Map<string, { port: string; at: number; host: number; remote: number }>();
      private seconds = 0;
      private readonly changedAt = [0, 0, 0];

      constructor(levels: readonly number[]) {
        this.levels = [...levels];
        this.sites = levels.map((level, member) => make(member, level));
        for (let member = 0; member < 3; member++) this.learn(member);
      }

      learn(member: number): void {
        this.sites[member].heed(...this.others(member));
      }

      private others(member: number): NatSite[] {
        return this.sites.filter((_, other) => other !== member);
      }

      private replicate(member: number): void {
        this.sites[member].replicateTo(...this.others(member));
      }

      do(step: Step): void {
        if (step.do === 'wait') this.wait(step.seconds);
        else if (step.do === 'learn') this.learn(step.site);
        else if (step.do === 'send') this.send(step);
        else this.restart(step);
      }

      private wait(seconds: number): void {
        // What is long enough ago is known everywhere.
        const steps = seconds > LEARNED_WITHIN_S ? [LEARNED_WITHIN_S - 1, seconds - LEARNED_WITHIN_S + 1] : [seconds];
        for (const each of steps) {
          wait(each, ...this.sites);
          this.seconds += each;
          for (let member = 0; member < 3; member++)
            if (seconds > LEARNED_WITHIN_S || this.changedAt.some((at) => at <= this.seconds - LEARNED_WITHIN_S + 1))
              this.learn(member);
        }
      }

      private send({ site, host, remote }: Step & { do: 'send' }): void {
        const port = sends(this.sites[site], remoteOf(remote), `10.0.0.${host + 1}:4000`);
        assert.ok(port, 'it has a binding');
        this.replicate(site);
        this.sent.set(`${host} ${remote}`, { port, at: this.seconds, host, remote });
      }

      private restart({ site, level }: Step & { do: 'restart' }): void {
        const again = make(site, level);
        again.plane.nowMs = this.sites[site].plane.nowMs;
        this.sites[site] = again;
        const isLooser = level < this.levels[site];
        this.levels[site] = level;
        this.changedAt[site] = this.seconds;
        again.mergeFrom(this.sites[(site + 1) % 3]);
        this.learn(site);
        // It takes packets once the others have asked; that they learn of a stricter level may take
        // longer.
        if (isLooser) for (const other of [0, 1, 2]) this.learn(other);
      }

      /** Whatever an inside host is waiting for passes, at every site. */
      check(): void {
        for (const { port, at, remote } of this.sent.values()) {
          if (this.seconds - at >= UDP_S) continue;
          for (const [member, site] of this.sites.entries()) {
            assert.ok(passes(site, remoteOf(remote), port), `a reply of ${remoteOf(remote)} at site ${member}`);
            this.replicate(member);
          }
        }
      }

      /** In the end each filters as the loosest does. */
      checkStrict(): void {
        this.wait(2 * UDP_S);
        this.wait(2 * UDP_S);
        const level = Math.min(...this.levels);
        const port = sends(this.sites[0], '198.51.100.7:53', '10.0.9.9:4000');
        this.replicate(0);
        for (const site of this.sites) {
          assert.equal(sessionsOf(site)['filtering'], level);
          assert.equal(passes(site, '198.51.100.7:54', port), level < BY_PORT);
          assert.equal(passes(site, '198.51.100.99:53', port), level < BY_ADDRESS);
        }
      }
    }

    it('lose no reply at any moment, and filter in the end as the loosest does', function () {
      this.timeout(120_000);
      fc.assert(
        fc.property(first, fc.array(step, { minLength: 5, maxLength: 25 }), (levels, steps) => {
          const run = new Run(levels);
          for (const each of steps) {
            run.do(each);
            run.check();
          }
          run.checkStrict();
        }),
        { numRuns: scaled(15, 300) },
      );
    });
  });
});
