/**
 * First packets over asymmetric routes: replies come by a site that does not know yet what they
 * belong to. Counts only: what they cost is measured by `npm run bench -- first_packets`.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import type { Case } from '../testbed/first-packets/exchange.js';
import { type Figures, FirstPackets } from '../testbed/first-packets/first-packets.js';
import { openNetwork, type Setup, setWanDelay } from '../testbed/first-packets/networks.js';
import { converged, eventually } from '../testbed/instance.js';
import { withNetwork } from './support.js';

const WAN_MS = 50;
/** Without what takes longer than the rest together, and traceroute, whose routers limit errors. */
const CASES: readonly Case[] = ['dns', 'stun', 'udp', 'ping', 'curl'];
/** On a busy machine, a reply that is not lost may take long. */
const PATIENCE_MS = 5000;
const APART_MS = 600;

/** What was lost, if anything was. TCP says it only by its times, so site b's counters say it. */
const lost = (figures: readonly Figures[]): string[] =>
  figures
    .filter(({ what, lost }) => lost > 0 && what !== 'curl')
    .map(({ what, server, lost, sent }) => `${what}, ${server.node}: ${lost} of ${sent}`);

const SETUPS: readonly Setup[] = [
  { middlebox: 'nat', workers: 1, roundTripsMs: [1, 80], remedy: 'early' },
  { middlebox: 'firewall', workers: 2, roundTripsMs: [1, 80], remedy: 'early' },
];

/** What a site counts of packets that no state lets in. */
const DROPS = { nat: ['nat_unsolicited'], firewall: ['firewall_denied', 'firewall_invalid'] };

describe('end to end: first packets', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'tool:ping');
  });

  for (const setup of SETUPS)
    it(`no first reply is lost while sites hear each other: ${setup.middlebox}, workers: ${setup.workers}`, async () => {
      await withNetwork(await openNetwork(setup), async (network) => {
        const { testbed, place, sites } = network;
        const [, b] = sites;
        const drops = (counters: Record<string, number>): number =>
          DROPS[setup.middlebox].reduce((sum, name) => sum + counters[name], 0);
        await setWanDelay(network, setup, WAN_MS);
        const first = await FirstPackets.open(testbed, place);
        const open = (cases: readonly Case[], reply_ms_max: number): Promise<Figures[]> =>
          first.measure(WAN_MS, { cases, reply_ms_max, timed: false });

        const figures = await open(CASES, PATIENCE_MS);
        assert.deepEqual(lost(figures), []);
        assert.deepEqual([...new Set(figures.map(({ what }) => what))], CASES, 'all cases were there');
        assert.ok(figures.every(({ sent, reordered }) => sent > 0 && reordered === 0));
        const then = await b.counters();
        assert.equal(drops(then), 0);
        assert.ok(then['early_replies'] > 0, 'replies waited');
        assert.equal(then['early_replies_known'], then['early_replies'], 'all of them until the state came');

        // Apart for longer than a reply waits: it is dropped and counted, as if it had not waited.
        await testbed.relay.cut('wan', 'site-a', 'site-b');
        for (const { sent, lost } of await open(['dns'], APART_MS)) assert.equal(lost, sent);
        const apart = await eventually('replies to be dropped', async () => {
          const counters = await b.counters();
          return counters['waiting_replies'] === 0 ? counters : null;
        });
        const waited = apart['early_replies'] - then['early_replies'];
        assert.ok(waited > 0, 'replies waited in vain');
        assert.equal(apart['early_replies_expired'], waited);
        assert.equal(apart['early_replies_known'], then['early_replies_known']);
        assert.equal(drops(apart), 2 * 4 * 2, 'two to each of four sockets at each of two servers');

        await testbed.relay.heal('wan', 'site-a', 'site-b');
        await converged(sites);
        assert.deepEqual(lost(await open(['dns'], PATIENCE_MS)), []);
        assert.equal(drops(await b.counters()), drops(apart));
        await first.close();
      });
    });
});
