/**
 * Who gets ports where they are short: floods of half-open bindings, and the default limit of a
 * subscriber.
 */

import { strict as assert } from 'node:assert';
import type { NatBinding } from '../../../../shm/objects/nat/nat-binding.js';
import { entriesOf } from '../../../shm/objects/nat/nat-model.js';
import { frame, seal } from '../../support/frames.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on } from '../../support/plane.js';

const KINDS = ['tcp 10.0.0.66:1024 > 198.51.100.7:80 S', 'udp 10.0.0.66:1024 > 198.51.100.7:80', 'icmp'] as const;
const L3 = 14;
const SOURCE = L3 + 12;
const PORT = L3 + 20;
const IDENTIFIER = L3 + 24;

/**
 * First packets of `host` (the last two bytes of its address) from `count` ports on from `first`.
 */
function flood(kind: (typeof KINDS)[number], host: number, first: number, count: number): Uint8Array[] {
  const base = frame(kind === 'icmp' ? 'icmp 10.0.0.66 > 198.51.100.7 echo 1' : kind);
  const at = kind === 'icmp' ? IDENTIFIER : PORT;
  return Array.from({ length: count }, (_, n) => {
    const copy = base.slice();
    copy[SOURCE + 2] = host >> 8;
    copy[SOURCE + 3] = host & 255;
    copy[at] = (first + n) >> 8;
    copy[at + 1] = (first + n) & 255;
    seal(copy);
    return copy;
  });
}

/** Passes frames from inside, a batch at a time. */
function pass(site: NatSite, frames: readonly Uint8Array[], others: readonly NatSite[] = []): void {
  const { driver, dataPlane } = site.plane;
  for (let n = 0; n < frames.length; n += 40) {
    for (const each of frames.slice(n, n + 40)) driver.inject(INSIDE, each);
    while (dataPlane.doWork() > 0);
    driver.sent.splice(0);
    site.replicateTo(...others);
  }
}

/** Whether a host that nobody heard of gets a binding of each protocol. */
function isServed(site: NatSite, host: number): boolean {
  const sent = [
    `tcp 10.1.0.${host}:30000 > 198.51.100.9:443 S`,
    `udp 10.1.0.${host}:30000 > 198.51.100.9:53`,
    `icmp 10.1.0.${host} > 198.51.100.9 echo 5`,
  ].map((packet) => site.pass(on(INSIDE, packet)).some((out) => out.startsWith(`${OUTSIDE}:`)));
  return !sent.includes(false);
}

const described = (bindings: NatBinding, site: NatSite) => bindings.describe(site.now);

describe('ports of a NAT', () => {
  it('are not all one host can have: others get theirs at once, at both sites', function () {
    this.timeout(120_000);
    const options = { flows: 1 << 18 };
    const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2, options }));
    for (const kind of KINDS) pass(a, flood(kind, 66, 1024, 64_512), [b]);
    a.replicateTo(b);
    const limit = (65_535 - 1023) >>> 1;
    assert.equal(a.bindings.bindingsOf(entriesOf(a.bindings, a.now)[0].internalAddress), limit);
    // It is told so, and what is over the rate of errors is counted.
    const { nat_refused, nat_subscriber_limit } = a.plane.counts();
    assert.equal(nat_refused + nat_subscriber_limit, 3 * 64_512 - limit);
    for (const [n, site] of [a, b].entries())
      for (let host = 0; host < 20; host++) assert.ok(isServed(site, 20 * n + host));
  });

  for (const allocation of ['leased', 'shared'])
    it(`stay to be had while many hosts flood, ${allocation}, at the site of the flood and at another`, function () {
      this.timeout(240_000);
      // 4000 ports: what 64,000 would be for a flood of sixteen times the rate.
      const options = { flows: 1 << 16, first_port: 20_001, last_port: 24_000, allocation, half_open_records: 100_000 };
      const [a, b] = [0, 1].map((member) => new NatSite({ member, members: 2, options }));
      const served = { a: 0, b: 0 };
      for (let second = 0; second < 20; second++) {
        for (let tenth = 0; tenth < 10; tenth++) {
          for (const kind of KINDS)
            for (let host = 0; host < 4; host++)
              pass(a, flood(kind, 512 + host, 1024 + 100 * second + 10 * tenth, 10), [b]);
          for (const site of [a, b]) site.plane.idle(100, 5);
          b.replicateTo(a);
        }
        if (second < 10) continue;
        if (isServed(a, second)) served.a++;
        if (isServed(b, second)) served.b++;
        b.replicateTo(a);
      }
      assert.deepEqual(served, { a: 10, b: 10 });
      const { exhausted, half_open_evicted, collisions } = described(a.bindings, a);
      assert.ok(half_open_evicted > 1000, `${half_open_evicted} evicted`);
      assert.ok(exhausted < 1000, `${exhausted} of 24,000 found no port`);
      assert.ok(described(b.bindings, b)['half_open_evicted'] > 0);
      assert.ok(collisions + described(b.bindings, b)['collisions'] < 20, 'what was evicted is no collision');
    });

  it('are to be had with the next tries of a host once a flood took all of them in its first second', () => {
    const options = { flows: 1 << 16, first_port: 20_001, last_port: 21_000, per_subscriber: 65_535 };
    const site = new NatSite({ options });
    for (const kind of KINDS) pass(site, flood(kind, 66, 1024, 2000));
    assert.equal(isServed(site, 1), false, 'all are younger than a second');
    // As TCP tries again: after 1, 3 and 7 seconds.
    const served: number[] = [];
    for (const [wait, at] of [
      [1, 1],
      [2, 3],
      [4, 7],
    ]) {
      site.later(wait);
      site.plane.idle(50, 5);
      if (isServed(site, 1)) served.push(at);
    }
    assert.ok(served.includes(7), `after ${served} s`);
  });

  it('rest after bindings that were answered, and not after others where ports are short', () => {
    const options = { first_port: 20_001, last_port: 20_064, udp: 10, reuse: 120 };
    const site = new NatSite({ options });
    const portsOf = (hosts: number, answered: boolean): Set<string> => {
      const ports = new Set<string>();
      for (let host = 0; host < hosts; host++) {
        const packet = on(INSIDE, `udp 10.2.${Number(answered)}.${host}:4000 > 198.51.100.7:53`);
        const [out] = answered ? site.exchange(packet) : site.pass(packet);
        if (out?.startsWith(`${OUTSIDE}:`)) ports.add(out.split(/[: ]/)[4]);
      }
      return ports;
    };
    const used = portsOf(32, true);
    const unused = portsOf(32, false);
    assert.deepEqual([used.size, unused.size], [32, 32]);
    site.later(20);
    const next = new Set<string>();
    for (let n = 0; n < 40; n++) {
      const [out] = site.pass(on(INSIDE, `udp 10.3.0.${n}:4000 > 198.51.100.7:53`));
      if (out?.startsWith(`${OUTSIDE}:`)) next.add(out.split(/[: ]/)[4]);
    }
    assert.ok(next.size > 0);
    for (const port of next) assert.ok(unused.has(port), `${port} rests`);
    site.later(121);
    site.plane.idle(60_000, 100);
    assert.ok([...portsOf(60, false)].some((port) => used.has(port)));
  });

  it('of answered bindings are not taken from them, nor those of established ones', () => {
    const options = { flows: 1 << 16, first_port: 20_001, last_port: 20_200, per_subscriber: 65_535 };
    const site = new NatSite({ options });
    const established = Array.from({ length: 20 }, (_, n) => site.establish(`tcp 10.0.3.${n}:4000 > 198.51.100.7:80`));
    for (let n = 0; n < 20; n++) site.exchange(on(INSIDE, `tcp 10.0.4.${n}:4000 > 198.51.100.7:80 S`));
    for (let second = 0; second < 10; second++) {
      pass(site, flood(KINDS[0], 66, 1024 + 200 * second, 200));
      site.later(1);
      site.plane.idle(50, 5);
    }
    assert.ok(described(site.bindings, site)['half_open_evicted'] > 0);
    for (const [n, port] of established.entries())
      assert.deepEqual(site.pass(on(INSIDE, `tcp 10.0.3.${n}:4000 > 198.51.100.7:80 A`)), [
        `1: tcp 203.0.113.1:${port} > 198.51.100.7:80 A ttl 63`,
      ]);
    assert.equal(
      entriesOf(site.bindings, site.now).filter(({ internalAddress }) => ((internalAddress >>> 16) & 255) === 4).length,
      20,
    );
  });
});
