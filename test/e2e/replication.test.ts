/** What two sites know of each other over a bad path, and after a time without any. */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { converged, eventually } from '../testbed/instance.js';
import type { Site } from '../testbed/site.js';
import { clientOfA, clientOfB } from '../testbed/two-sites.js';
import { UdpFlows, withTwoSites } from './support.js';

const FLOWS_AT_ONCE = 200;

describe('end to end: replication', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp');
  });

  for (const kind of ['multicast', 'unicast'] as const)
    it(`loses no record over 50 ms and 1 % loss, by ${kind}`, async () => {
      const wan = { delay_ms: 50, jitter_ms: 5, loss: 0.01, duplicate: 0.01, reorder: 0.01 };
      await withTwoSites({ wan, transport: { kind } }, async (sites) => {
        const { testbed, a, b } = sites;
        let flows = 0;
        let lost = 0;
        for (let round = 0; round < 40 && lost < 3; round++) {
          const first = 10_000 + round * FLOWS_AT_ONCE;
          const clients = [clientOfA(1), clientOfB(1)];
          const opened = await Promise.all(clients.map((client) => UdpFlows.open(sites, client, first, FLOWS_AT_ONCE)));
          await Promise.all(opened.map((udp) => udp.send()));
          await Promise.all(opened.map((udp) => udp.close()));
          flows += 2 * FLOWS_AT_ONCE;
          const stats = await Promise.all([
            testbed.relay.stats('wan', 'site-a', 'site-b'),
            testbed.relay.stats('wan', 'site-b', 'site-a'),
          ]);
          lost = stats[0].lost + stats[1].lost;
        }
        for (const site of [a, b])
          await eventually('all bindings', async () =>
            (await site.counters())['nat_bound'] === flows / 2 ? true : null,
          );
        await converged([a, b]);
        assert.ok(lost > 0, 'some messages were lost');
        for (const site of [a, b]) {
          const counters = await site.counters();
          assert.equal(counters['state_rx_records_changed'], flows / 2, `records that reached site ${site.name}`);
          assert.equal(counters['state_rx_records_skipped'], 0);
          assert.equal((await site.flows()).length, flows);
        }
        console.log(`      ${flows} flows known at both sites; ${lost} frames lost between them`);
      });
    });

  it('one port taken by both at once: the same flow has it at both, the other’s binding is dead at both', async () => {
    const nat = { allocation: 'shared', first_port: 5000, last_port: 5001 };
    await withTwoSites({ nat, wan: { delay_ms: 10 } }, async (sites) => {
      const { a, b, testbed } = sites;
      await UdpFlows.serve(sites);
      // Of two ports, a flow gets the one of its own parity.
      const fromA = await UdpFlows.open(sites, clientOfA(0), 4000, 1);
      const fromB = await UdpFlows.open(sites, clientOfB(0), 4000, 1);
      await testbed.relay.cut('wan', 'site-a', 'site-b');
      await fromA.send();
      await fromB.send();
      // Half-open, it would be evicted after a while, since ports are short.
      await fromB.replies(1);
      await fromB.send();
      for (const site of [a, b]) {
        const [flow] = await eventually('a binding', async () =>
          (await site.flows()).length > 0 ? site.flows() : null,
        );
        assert.equal(flow.external?.port, 5000, `site ${site.name} gave away the port without knowing of the other`);
      }
      await testbed.relay.heal('wan', 'site-a', 'site-b');
      await converged([a, b]);
      const held = await holders(a);
      assert.deepEqual(await holders(b), held, 'both sites say the same');
      assert.deepEqual(
        held.map((flow) => flow.split(' ').slice(1).join(' ')),
        ['5000 dead', '5000 established'],
      );
      // Site a may take its half-open binding for one that site b evicted, if that is old enough by
      // now.
      assert.equal((await b.objects())[0].figures['collisions'], 1, 'counted where the binding was in use');

      // The loser's next packet is bound anew, and then both have their replies.
      const [loser, winner] = [fromA, fromB];
      assert.ok(held[0].startsWith(clientOfA(0)), 'the larger address has the port');
      await loser.send();
      for (const site of [a, b])
        await eventually('the loser to be bound anew', async () => {
          const ports = (await holders(site)).map((flow) => flow.split(' ')[1]);
          return ports.sort().join() === '5000,5001' ? true : null;
        });
      const [lost, won] = [loser.replied, winner.replied];
      await loser.send();
      await winner.send();
      await Promise.all([loser.replies(lost + 1), winner.replies(won + 1)]);
      await converged([a, b]);
    });
  });
});

/** `inside port state` of each binding, dead ones first. */
async function holders(site: Site): Promise<string[]> {
  const flows = await site.flows();
  return flows
    .map((flow) => `${flow.inside.address} ${flow.external?.port} ${flow.state}`)
    .sort((x, y) => Number(y.endsWith('dead')) - Number(x.endsWith('dead')));
}
