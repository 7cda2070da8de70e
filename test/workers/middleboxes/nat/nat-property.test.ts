import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { parseIpv4 } from '../../../../workers/packet/ipv4.js';
import { scaled } from '../../../support/scale.js';
import { INSIDE, NatSite, OUTSIDE } from '../../support/nat-site.js';
import { on } from '../../support/plane.js';

const SITES = 3;
const EXTERNAL = ['203.0.113.1', '203.0.113.2'];
const UDP_IDLE_S = 300;
/**
 * What is awake after so long for sure, and asleep: a refresh is told only when it moves the expiry
 * by a good part.
 */
const AWAKE_S = UDP_IDLE_S / 2;
const ASLEEP_S = 2 * UDP_IDLE_S;

type Event =
  | { readonly do: 'out'; readonly site: number; readonly host: number; readonly port: number; readonly remote: number }
  | { readonly do: 'in'; readonly site: number; readonly pick: number; readonly remote: number }
  | { readonly do: 'stranger'; readonly site: number; readonly port: number; readonly remote: number }
  | {
      readonly do: 'hairpin';
      readonly site: number;
      readonly host: number;
      readonly port: number;
      readonly pick: number;
    }
  | { readonly do: 'error'; readonly site: number; readonly pick: number; readonly remote: number }
  | { readonly do: 'wait'; readonly long: boolean };

const PORTS = [53, 500, 1023, 1024, 4000, 4001, 40_000];
const site = fc.integer({ min: 0, max: SITES - 1 });
const host = fc.integer({ min: 1, max: 5 });
const port = fc.constantFrom(...PORTS);
const remote = fc.integer({ min: 1, max: 9 });
const pick = fc.nat(1000);
const EVENTS: fc.Arbitrary<Event> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('out' as const), site, host, port, remote }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('in' as const), site, pick, remote }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('stranger' as const), site, port: fc.nat(65_535), remote }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('hairpin' as const), site, host, port, pick }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('error' as const), site, pick, remote }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), long: fc.boolean() }) },
);

interface Mapping {
  readonly inside: string;
  readonly external: string;
}

/**
 * A NAT of several sites as RFC 4787 has it, each of which knows at once what another has done: one
 * mapping an inside endpoint, for whatever remote, found from whichever site.
 */
class Model {
  private readonly byInside = new Map<string, Mapping>();
  private readonly byExternal = new Map<string, Mapping>();
  private readonly pairs = new Map<string, string>();

  /** A packet from `inside` was seen outside as from `external`. */
  sent(inside: string, external: string): void {
    const known = this.byInside.get(inside);
    if (known !== undefined) {
      assert.equal(external, known.external, 'REQ-1: one mapping, whatever the remote and the site');
      return;
    }
    assert.ok(!this.byExternal.has(external), 'REQ-3: no port is given twice');
    const [address, port] = external.split(':');
    const [hostOf, own] = inside.split(':');
    assert.ok(EXTERNAL.includes(address));
    assert.equal(Number(port) < 1024, Number(own) < 1024, 'REQ-3: well-known ports stay well-known');
    assert.equal(Number(port) % 2, Number(own) % 2, 'REQ-4: parity');
    const paired = this.pairs.get(hostOf);
    if (paired !== undefined) assert.equal(address, paired, 'REQ-2: paired pooling');
    this.pairs.set(hostOf, address);
    const mapping = { inside, external };
    this.byInside.set(inside, mapping);
    this.byExternal.set(external, mapping);
  }

  get mappings(): Mapping[] {
    return [...this.byInside.values()];
  }

  insideOf(external: string): string | null {
    return this.byExternal.get(external)?.inside ?? null;
  }

  /**
   * Nothing was heard for so long that all is over; a host may be paired with another address then.
   */
  forget(): void {
    this.byInside.clear();
    this.byExternal.clear();
    this.pairs.clear();
  }
}

class Run {
  private readonly sites: readonly NatSite[];
  private readonly model = new Model();
  /** Seconds in which nothing came from inside. */
  private quietS = 0;

  constructor() {
    const options = { external: EXTERNAL.map(parseIpv4), udp: UDP_IDLE_S, hold_members: 0 };
    this.sites = Array.from({ length: SITES }, (_, member) => new NatSite({ member, members: SITES, options }));
  }

  step(event: Event): void {
    if (event.do === 'wait') this.wait(event.long);
    else if (event.do === 'out') this.out(event);
    else if (event.do === 'stranger') this.arrive(event.site, `${EXTERNAL[0]}:${event.port}`, remoteOf(event.remote));
    else {
      const { mappings } = this.model;
      if (mappings.length === 0) return;
      const { external } = mappings[event.pick % mappings.length];
      if (event.do === 'in') this.arrive(event.site, external, remoteOf(event.remote));
      else if (event.do === 'hairpin') this.hairpin(event, external);
      else this.sites[event.site].pass(on(OUTSIDE, `icmp 192.0.2.${event.remote} > ${external.split(':')[0]} type 3`));
    }
    this.replicate();
  }

  private replicate(): void {
    for (const from of this.sites) from.replicateTo(...this.sites.filter((other) => other !== from));
  }

  private out({ site, host, port, remote }: Extract<Event, { do: 'out' }>): void {
    const inside = `10.0.0.${host}:${port}`;
    const sent = this.sites[site].pass(on(INSIDE, `udp ${inside} > ${remoteOf(remote)}`));
    const [, external] = /^1: udp (\S+) > /.exec(sent[0] ?? '') ?? [];
    assert.ok(external !== undefined, `${inside} was not sent on: ${sent}`);
    assert.deepEqual(sent, [`1: udp ${external} > ${remoteOf(remote)} ttl 63`]);
    this.model.sent(inside, external);
    this.refreshed();
  }

  private arrive(at: number, external: string, from: string): void {
    const inside = this.model.insideOf(external);
    const came = this.sites[at].pass(on(OUTSIDE, `udp ${from} > ${external}`));
    assert.deepEqual(
      came,
      inside === null ? [] : [`0: udp ${from} > ${inside} ttl 63`],
      'REQ-8: from anyone, to who is bound',
    );
  }

  private hairpin({ site, host, port }: Extract<Event, { do: 'hairpin' }>, external: string): void {
    const inside = `10.0.0.${host}:${port}`;
    const [turned] = this.sites[site].pass(on(INSIDE, `udp ${inside} > ${external}`));
    if (this.model.insideOf(external) === inside) {
      assert.equal(turned, undefined, 'no host sends to itself');
      return this.refreshed();
    }
    const [, own, to] = /^0: udp (\S+) > (\S+) ttl 63$/.exec(turned ?? '') ?? [];
    assert.equal(to, this.model.insideOf(external), 'REQ-9: hairpinning');
    this.model.sent(inside, own);
    this.refreshed();
  }

  /**
   * Others may have been quiet for longer: then the model would not know whether they are still
   * awake.
   */
  private refreshed(): void {
    if (this.quietS === 0) return;
    this.quietS = 0;
    this.replicate();
    for (const { inside } of this.model.mappings) this.sites[0].pass(on(INSIDE, `udp ${inside} > ${remoteOf(1)}`));
  }

  private wait(long: boolean): void {
    const seconds = long ? ASLEEP_S : Math.max(0, AWAKE_S - this.quietS - 1);
    for (const one of this.sites) {
      one.later(seconds);
      one.plane.idle(50);
    }
    this.quietS += seconds;
    if (long) {
      this.model.forget();
      this.quietS = 0;
    }
  }
}

const remoteOf = (n: number): string => `198.51.100.${n}:${50 + n}`;

describe('NAT of three sites', () => {
  it('is what a simple model says, whatever comes from inside and outside, at whichever site', () => {
    fc.assert(
      fc.property(fc.array(EVENTS, { minLength: 20, maxLength: 120 }), (events) => {
        const run = new Run();
        for (const event of events) run.step(event);
      }),
      { numRuns: scaled(60, 150) },
    );
  });
});
