/**
 * One socket that asks two servers, each by another site, has one external endpoint: as STUN shows
 * it.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { type Figures, FirstPackets } from '../testbed/first-packets/first-packets.js';
import { placeOfTwoSites, spreadClients } from '../testbed/first-packets/networks.js';
import { converged } from '../testbed/instance.js';
import { serverAddress } from '../testbed/two-sites.js';
import { withTwoSites } from './support.js';

/**
 * Round trips of the servers: shorter than the delay between the sites, so both have answered
 * before these meet.
 */
const ROUND_TRIPS_MS = [1, 10];
const WAN_MS = 50;
/** Of eight sockets. */
const ROUNDS = 3;

describe('end to end: external ports', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp');
  });

  it('are the same for a socket whose first packets leave by two sites at once', async () => {
    const servers = ROUND_TRIPS_MS.map((ms) => ({ name: `rtt-${ms}`, delay_ms: ms / 2 }));
    await withTwoSites({ routing: 'asymmetric', servers, wan: { delay_ms: WAN_MS } }, async ({ testbed, a, b }) => {
      await spreadClients(testbed);
      const place = placeOfTwoSites(
        ROUND_TRIPS_MS.map((roundTripMs, i) => ({
          node: `rtt-${roundTripMs}`,
          address: serverAddress(i),
          roundTripMs,
        })),
      );
      const first = await FirstPackets.open(testbed, place, false);
      const figures: Figures[] = [];
      for (let round = 0; round < ROUNDS; round++)
        figures.push(...(await first.measure(WAN_MS, { cases: ['stun_spread'], timed: false })));
      await first.close();
      const pairs = figures.reduce((sum, one) => sum + one.pairs, 0);
      const split = figures.reduce((sum, one) => sum + one.split, 0);
      console.log(`      ${split} of ${pairs} sockets had two external endpoints`);
      assert.ok(pairs >= 20, `${pairs} sockets were answered by both servers`);
      assert.equal(split, 0);
      await converged([a, b]);
      for (const site of [a, b]) {
        const counters = await site.counters();
        assert.ok(counters['nat_outbound'] > 0, 'requests left by it');
        assert.equal(counters['nat_split'], 0);
        assert.equal(counters['nat_port_lost'], 0);
      }
    });
  });
});
