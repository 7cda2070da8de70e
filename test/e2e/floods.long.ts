/**
 * Floods through the NAT of two real sites, while 100 downloads complete: out by one site, back by
 * the other. Each test has the options with which another limit is the first to be reached.
 */

import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { needs } from '../support/require.js';
import { startLoad, startServer } from '../testbed/http/fetch.js';
import type { Fetched } from '../testbed/http/load.js';
import { converged, eventually } from '../testbed/instance.js';
import type { Site } from '../testbed/site.js';
import { clientOfA, SERVER, SERVICE_PORT, type TwoSites } from '../testbed/two-sites.js';
import { assertAllFetched, CLIENTS_OF_A, connectTimes, ORIGIN, UdpFlows, withTwoSites } from './support.js';

const LOAD = { origins: [ORIGIN], bytes: 300_000, count: 100, concurrency: 20, sources: CLIENTS_OF_A };
/**
 * An address of no host: what comes back to it is lost. The source ports follow each other, so each
 * packet needs a binding.
 */
const FLOODER = '10.1.9.9';
const PACKETS = 8000;
const PACKET_US = 400;
/**
 * The first packets of the downloads' flows wait for the other site, by which their replies come.
 */
const HOLD = { hold_members: 1, hold_ms: 200 };
const FLOWS = 16_384;
/** No limit of a subscriber: one address floods as many would. */
const MANY = { per_subscriber: 200_000 };

/** Options of a flood. */
interface Flood {
  readonly packets?: number;
  readonly packetUs?: number;
  /** Bindings at which the downloads begin. */
  readonly begun: number;
  /** What else is done while the flood goes on. */
  readonly meanwhile?: () => Promise<void>;
}

/**
 * 100 downloads and a flood at once; all of the downloads have to complete. Returns what site a
 * counted.
 */
async function downloadsIn(
  kind: readonly string[],
  { testbed, a }: TwoSites,
  { packets = PACKETS, packetUs = PACKET_US, begun, meanwhile }: Flood,
): Promise<Record<string, number>> {
  const sent = ['-q', '-a', FLOODER, '-s', '1024', '-i', `u${packetUs}`, '-c', String(packets)];
  const flooding = testbed.start('client', 'flood', ['hping3', ...kind, ...sent, SERVER]);
  await eventually('the flood', async () => ((await a.counters())['nat_bound'] >= begun ? true : null));
  const fetched: Fetched[] = [];
  await startLoad(testbed, 'client', LOAD, (one) => fetched.push(one)).done;
  assertAllFetched(fetched, LOAD.count);
  await meanwhile?.();
  await flooding.exited;
  console.log(`      ${connectTimes(fetched)}`);
  return a.counters();
}

const bindingsOf = async (site: Site): Promise<Readonly<Record<string, number>>> => (await site.objects())[0].figures;

/** ICMP errors that say "unreachable" and reached the clients. */
async function toldClients({ testbed }: TwoSites): Promise<number> {
  const { stdout } = await testbed.run('client', ['cat', '/proc/net/snmp']);
  const [names, values] = stdout.split('\n').filter((line) => line.startsWith('Icmp:'));
  return Number(values.split(' ')[names.split(' ').indexOf('InDestUnreachs')]);
}

/**
 * Sends from `count` new ports of a client, `tries` times at most. Returns those that got replies.
 */
async function repliesOf(sites: TwoSites, count: number, tries = 5): Promise<Set<string>> {
  const flows = await UdpFlows.open(sites, clientOfA(77), 30_000, count);
  try {
    for (let n = 0; n < tries; n++) {
      await flows.send();
      await sleep(1000);
      if (flows.portsReplied.size === count) break;
    }
    return flows.portsReplied;
  } finally {
    await flows.close();
  }
}

/** Establishes `count` bindings of a client. */
async function establish(sites: TwoSites, source: string, count: number): Promise<void> {
  const flows = await UdpFlows.open(sites, source, 20_000, count);
  try {
    for (let tries = 0; tries < 10 && flows.portsReplied.size < count; tries++) {
      await flows.send();
      await sleep(500);
    }
    assert.equal(flows.portsReplied.size, count);
    await flows.send();
  } finally {
    await flows.close();
  }
}

describe('end to end: floods', function () {
  this.timeout(180_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'tool:hping3');
  });

  it('of SYNs that a server answers fill the quota of half-open bindings, and evict nothing else', async () => {
    const nat = { ...HOLD, ...MANY, flows: FLOWS, half_open: 25 };
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 }, nat }, async (sites) => {
      await startServer(sites.testbed, 'server');
      const flood = ['-S', '-p', String(SERVICE_PORT)];
      const counters = await downloadsIn(flood, sites, { begun: PACKETS / 8 });
      const { half_open, half_open_evicted, half_open_refused, exhausted } = await bindingsOf(sites.a);
      assert.ok(half_open > 0.9 * 0.25 * FLOWS && half_open <= 0.25 * FLOWS, `the quota is full: ${half_open}`);
      assert.ok(half_open_evicted + half_open_refused > 1000);
      assert.equal(exhausted, 0, 'there are ports for all');
      assert.ok(counters['nat_outbound'] > PACKETS / 2);
      const there = await bindingsOf(sites.b);
      assert.ok(there['half_open'] <= 0.25 * FLOWS, `and at the other site: ${there['half_open']}`);
    });
  });

  it('of UDP by one host end at half the ports, and others get ports at once', async () => {
    const ports = { first_port: 10_000, last_port: 11_023 };
    const nat = { ...HOLD, flows: FLOWS, ...ports };
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 }, nat }, async (sites) => {
      await startServer(sites.testbed, 'server');
      await UdpFlows.serve(sites);
      const meanwhile = async (): Promise<void> => assert.equal((await repliesOf(sites, 100)).size, 100);
      const counters = await downloadsIn(['--udp', '-p', '9'], sites, { begun: 512, meanwhile });
      const refused = counters['nat_refused'] + counters['nat_subscriber_limit'];
      assert.ok(refused > PACKETS / 2 && counters['nat_refused'] > 0, `${refused} refused`);
      const { exhausted, subscriber_limited } = await bindingsOf(sites.a);
      assert.deepEqual([exhausted, subscriber_limited], [0, refused]);
    });
  });

  it('of UDP by many hosts evict their own where ports are short, and others get ports', async () => {
    const ports = { first_port: 10_000, last_port: 12_047 };
    // A flood takes all 2048 ports in 8 s, as one of 8000 packets a second takes those of an
    // address.
    const rate = { packets: 6000, packetUs: 4000, begun: 1600 };
    const nat = { ...HOLD, ...MANY, flows: FLOWS, ...ports };
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 }, nat }, async (sites) => {
      await startServer(sites.testbed, 'server');
      await UdpFlows.serve(sites);
      const meanwhile = async (): Promise<void> => {
        await eventually('evictions', async () => ((await bindingsOf(sites.a))['half_open_evicted'] > 0 ? true : null));
        assert.equal((await repliesOf(sites, 100)).size, 100);
      };
      const counters = await downloadsIn(['--udp', '-p', '9'], sites, { ...rate, meanwhile });
      const { half_open_evicted, exhausted } = await bindingsOf(sites.a);
      assert.ok(half_open_evicted > 1000, `${half_open_evicted} evicted`);
      assert.equal(exhausted, 0, 'the flood found ports, too');
      assert.equal(counters['nat_exhausted'] + counters['nat_refused'], 0);
    });
  });

  it('of UDP that take every port leave TCP its own, and a host that gets none is told', async () => {
    const ports = { first_port: 10_000, last_port: 11_023 };
    const nat = { ...HOLD, ...MANY, flows: FLOWS, ...ports };
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 }, nat }, async (sites) => {
      await startServer(sites.testbed, 'server');
      await UdpFlows.serve(sites);
      // Answered bindings are never evicted for their ports, so these keep all of them.
      for (let n = 0; n < 8; n++) await establish(sites, clientOfA(n), 128);
      const before = await toldClients(sites);
      const meanwhile = async (): Promise<void> => assert.equal((await repliesOf(sites, 20, 3)).size, 0);
      const counters = await downloadsIn(['--udp', '-p', '9'], sites, { begun: 1024, meanwhile });
      assert.ok((await toldClients(sites)) - before > 0, 'the host is told');
      const { exhausted, half_open_evicted } = await bindingsOf(sites.a);
      assert.ok(exhausted >= PACKETS, `${exhausted} found no port`);
      assert.equal(half_open_evicted, 0);
      assert.ok(counters['nat_refused'] > 0);
      await converged([sites.a, sites.b]);
    });
  });
});
