/** Floods through the NAT of two real sites, while 100 downloads complete: out by one site, back by the other. */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { startLoad, startServer } from '../testbed/http/fetch.js';
import type { Fetched } from '../testbed/http/load.js';
import { converged, eventually } from '../testbed/instance.js';
import { SERVER, SERVICE_PORT, type TwoSites } from '../testbed/two-sites.js';
import { assertAllFetched, CLIENTS_OF_A, connectTimes, ORIGIN, withTwoSites } from './support.js';

const LOAD = { origins: [ORIGIN], bytes: 300_000, count: 100, concurrency: 20, sources: CLIENTS_OF_A };
/** Of nobody: what comes back to it is lost. Its source ports follow each other, so that each packet needs a binding. */
const FLOODER = '10.1.9.9';
const PACKETS = 8000;
const PACKET_US = 400;
/** The first packets of the downloads' flows wait for the other site, by which their replies come. */
const HOLD = { hold_members: 1, hold_ms: 200 };
const FLOWS = 16_384;

/** 100 downloads and a flood at once; all of the downloads have to complete. Returns what site a counted. */
async function downloadsIn(flood: readonly string[], { testbed, a }: TwoSites): Promise<Record<string, number>> {
  const sent = ['-q', '-a', FLOODER, '-s', '1024', '-i', `u${PACKET_US}`, '-c', String(PACKETS)];
  const flooding = testbed.start('client', 'flood', ['hping3', ...flood, ...sent, SERVER]);
  await eventually('the flood', async () => ((await a.counters())['nat_bound'] > PACKETS / 8 ? true : null));
  const fetched: Fetched[] = [];
  await startLoad(testbed, 'client', LOAD, (one) => fetched.push(one)).done;
  assertAllFetched(fetched, LOAD.count);
  await flooding.exited;
  console.log(`      ${connectTimes(fetched)}`);
  return a.counters();
}

describe('end to end: floods', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'tool:hping3');
  });

  it('of SYNs fill the quota of half-open bindings, and put out nothing else', async () => {
    const nat = { ...HOLD, flows: FLOWS, half_open: 25 };
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 }, nat }, async (sites) => {
      await startServer(sites.testbed, 'server');
      const counters = await downloadsIn(['-S', '-p', String(SERVICE_PORT)], sites);
      const [bindings] = await sites.a.objects();
      const { half_open, half_open_evicted, half_open_refused } = bindings.figures;
      assert.ok(half_open > 0.9 * 0.25 * FLOWS && half_open <= 0.25 * FLOWS, `the quota is full: ${half_open}`);
      assert.ok(half_open_evicted + half_open_refused > 1000);
      assert.ok(counters['nat_outbound'] > PACKETS / 2);
    });
  });

  it('of UDP take every port, of which TCP has its own, and who gets none is told', async () => {
    const nat = { ...HOLD, flows: FLOWS, first_port: 10_000, last_port: 11_023 };
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 }, nat }, async (sites) => {
      await startServer(sites.testbed, 'server');
      const counters = await downloadsIn(['--udp', '-p', '9'], sites);
      assert.ok(counters['nat_exhausted'] + counters['nat_refused'] > PACKETS / 2, 'no port was left');
      assert.ok(counters['nat_refused'] > 0);
      await converged([sites.a, sites.b]);
    });
  });
});
