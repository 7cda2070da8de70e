/**
 * Endpoints whose first packets leave by two sites at once, and connections that lose their port.
 */

import { strict as assert } from 'node:assert';
import { INSIDE, NatSite, type NatSiteOptions, OUTSIDE } from '../../support/nat-site.js';
import { on } from '../../support/plane.js';

/** One port of each parity: two endpoints with even ports take the same one. */
const TWO_PORTS = { allocation: 'shared', first_port: 3000, last_port: 3001 };

function pair(options: NatSiteOptions['options'], more: Partial<NatSiteOptions> = {}): [NatSite, NatSite] {
  const site = (member: number): NatSite => new NatSite({ member, members: 2, ...more, options: { ...options } });
  return [site(0), site(1)];
}

/** Each hears what the other has done. */
function meet([a, b]: readonly [NatSite, NatSite]): void {
  a.replicateTo(b);
  b.replicateTo(a);
}

/** The external endpoint of a packet from inside. */
function sentFrom(site: NatSite, packet: string): string {
  const [out = ''] = site.pass(on(INSIDE, packet));
  return out.startsWith(`${OUTSIDE}:`) ? out.split(' ')[2] : out;
}

function counted(site: NatSite, name: string): number {
  site.plane.idle(1100);
  return site.plane.counts()[`nat_${name}`] ?? 0;
}

describe('a NAT at two sites', () => {
  for (const allocation of ['keyed', 'hybrid'])
    it(`shows two servers one external endpoint of a socket that asks both at once: ${allocation}`, () => {
      const sites = pair({ allocation });
      for (let n = 0; n < 20; n++) {
        const socket = `udp 10.0.0.${n + 5}:${40_000 + n}`;
        const seen = sites.map((site, s) => sentFrom(site, `${socket} > 198.51.100.${s + 1}:3478`));
        assert.match(seen[0], /^203\.0\.113\.1:/);
        assert.equal(seen[0], seen[1]);
      }
      meet(sites);
      for (const site of sites) {
        assert.equal(counted(site, 'split'), 0);
        assert.equal(counted(site, 'collided'), 0);
        assert.equal(site.bindings.digest(site.now), sites[0].bindings.digest(site.now));
      }
    });

  it('counts an endpoint that was bound to two ports, at both, where ports are leased', () => {
    const sites = pair({ allocation: 'leased' });
    const socket = 'udp 10.0.0.5:40000';
    const seen = sites.map((site, s) => sentFrom(site, `${socket} > 198.51.100.${s + 1}:3478`));
    assert.notEqual(seen[0], seen[1]);
    meet(sites);
    const after = sites.map((site) => sentFrom(site, `${socket} > 198.51.100.9:3478`));
    assert.equal(after[0], after[1]);
    for (const site of sites) {
      assert.equal(counted(site, 'split'), 1);
      assert.equal(counted(site, 'collided'), 0);
      assert.equal(counted(site, 'port_lost'), 0, 'what nobody has answered only begins anew');
    }
  });

  it('gives endpoints their old ports after it was started again alone, so that connections go on', () => {
    for (const allocation of ['keyed', 'hybrid']) {
      const [before, after] = [0, 1].map(() => new NatSite({ options: { allocation } }));
      for (let n = 0; n < 50; n++) {
        const connection = `tcp 10.0.0.5:${40_000 + n} > 198.51.100.1:443`;
        const port = before.establish(connection);
        assert.equal(sentFrom(after, `${connection} A`), `203.0.113.1:${port}`);
      }
    }
  });

  it('leases ports where the cluster has no key, and says so', () => {
    const site = new NatSite({ options: { allocation: 'keyed' }, clusterSecret: new Int32Array(4), members: 2 });
    assert.equal(site.bindings.proposesByKey, false);
    site.plane.idle(1100);
    const said = site.plane.logged.read().map(({ text }) => text);
    assert.equal(said.filter((text) => /leased, not keyed, since cluster\.key_file is not set/.test(text)).length, 1);
  });
});

describe('a connection that lost its port to another endpoint', () => {
  const smaller = '10.0.0.1:4000';
  const larger = '10.0.0.2:4000';

  /** Both sites took the one port; each host has established what it began. */
  function collide(kind: 'tcp' | 'udp'): [NatSite, NatSite] {
    const sites = pair(TWO_PORTS);
    sites[0].establish(`${kind} ${smaller} > 198.51.100.1:443`);
    sites[1].establish(`${kind} ${larger} > 198.51.100.1:443`);
    meet(sites);
    return sites;
  }

  it('is reset with its next packet, at either site; the other goes on', () => {
    const sites = collide('tcp');
    for (const site of sites) {
      const [reset, ...more] = site.pass(on(INSIDE, `tcp ${smaller} > 198.51.100.1:443 A`));
      assert.match(reset, /^0: tcp 198\.51\.100\.1:443 > 10\.0\.0\.1:4000 R/);
      assert.deepEqual(more, []);
      assert.equal(sentFrom(site, `tcp ${larger} > 198.51.100.1:443 A`), '203.0.113.1:3000');
      assert.equal(counted(site, 'port_lost'), 1);
      assert.equal(counted(site, 'collided'), 1);
      assert.deepEqual(site.pass(on(INSIDE, `tcp ${smaller} > 198.51.100.1:443 R`)), [], 'no reset answers a reset');
    }
  });

  it('is told by an ICMP error once if it is UDP, and goes on with another port', () => {
    const [a, b] = collide('udp');
    const packet = `udp ${smaller} > 198.51.100.1:443`;
    const [error, ...more] = a.pass(on(INSIDE, packet));
    assert.match(error, /^0: icmp .* > 10\.0\.0\.1 type 3/);
    assert.deepEqual(more, []);
    a.replicateTo(b);
    for (const site of [a, b]) assert.equal(sentFrom(site, packet), '203.0.113.1:3001');
    assert.equal(counted(a, 'port_lost'), 1);
  });

  it('begins anew with a SYN', () => {
    const [a, b] = collide('tcp');
    assert.equal(sentFrom(a, `tcp ${smaller} > 198.51.100.1:443 S`), '203.0.113.1:3001');
    assert.equal(sentFrom(a, `tcp ${smaller} > 198.51.100.1:443 A`), '203.0.113.1:3001');
    assert.equal(sentFrom(b, `tcp ${larger} > 198.51.100.1:443 A`), '203.0.113.1:3000');
  });
});

describe('a connection of an endpoint that went on with another port', () => {
  const inside = '10.0.0.1:4000';
  const servers = ['198.51.100.1:443', '198.51.100.2:443'];

  /**
   * The endpoint has a connection by each site, each on a port of its own; then the sites hear of
   * each other.
   */
  function split(kind: 'tcp' | 'udp') {
    const sites = pair({ allocation: 'leased' });
    const ports = sites.map((site, s) => Number(site.establish(`${kind} ${inside} > ${servers[s]}`)));
    assert.notEqual(ports[0], ports[1]);
    meet(sites);
    const lost = ports[0] < ports[1] ? 0 : 1;
    return { sites, ports, lost, kept: 1 - lost };
  }

  it('is reset with its next packet; the connection of the other site goes on, by either', () => {
    const { sites, ports, lost, kept } = split('tcp');
    const port = `203.0.113.1:${ports[kept]}`;
    for (const site of sites) assert.equal(sentFrom(site, `tcp ${inside} > ${servers[kept]} A`), port);
    for (let n = 0; n < 2; n++) {
      const [reset] = sites[lost].pass(on(INSIDE, `tcp ${inside} > ${servers[lost]} A`));
      assert.match(reset, /^0: tcp 198\.51\.100\.[12]:443 > 10\.0\.0\.1:4000 R/);
    }
    assert.equal(counted(sites[lost], 'port_lost'), 2);
    assert.equal(counted(sites[kept], 'port_lost'), 0);
    // It begins anew, on the port that stayed.
    assert.equal(sentFrom(sites[lost], `tcp ${inside} > ${servers[lost]} S`), port);
    assert.equal(sentFrom(sites[lost], `tcp ${inside} > ${servers[lost]} A`), port);
  });

  it('is told by an ICMP error once if it is UDP, and goes on with the other port', () => {
    const { sites, ports, lost, kept } = split('udp');
    const packet = `udp ${inside} > ${servers[lost]}`;
    const [error] = sites[lost].pass(on(INSIDE, packet));
    assert.match(error, /^0: icmp .* > 10\.0\.0\.1 type 3/);
    for (const site of sites) assert.equal(sentFrom(site, packet), `203.0.113.1:${ports[kept]}`);
    assert.equal(counted(sites[lost], 'port_lost'), 1);
    assert.equal(counted(sites[kept], 'port_lost'), 0);
  });
});
