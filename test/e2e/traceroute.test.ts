/**
 * What traceroute and tracepath see through the NAT: every hop by its own address, and the server
 * as the client knows it.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { EXTERNAL, serverAddress } from '../testbed/two-sites.js';
import { withTwoSites } from './support.js';

/**
 * Of site a, of the router behind it, on the side of site b, by which it answers, and of the
 * server.
 */
const HOPS = ['10.0.1.1', '192.0.2.5', serverAddress(0)];

describe('end to end: traceroute', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:traceroute', 'tool:tracepath', 'tool:ping');
  });

  it('shows every hop, out by one site and back by the other, by UDP, ICMP and TCP, and the path MTU', async () => {
    const nat = { hold_members: 1, hold_ms: 1000 };
    const servers = [{ name: 'far', delay_ms: 2 }];
    await withTwoSites({ routing: 'asymmetric', wan: { delay_ms: 5 }, servers, nat }, async ({ testbed, b }) => {
      const run = async (...argv: string[]): Promise<string> => {
        const { stdout, stderr } = await testbed.run('client', argv, true);
        return `${stdout}${stderr}`;
      };
      /** The address at each hop. */
      const hops = (output: string): string[] =>
        [...output.matchAll(/^ ?(\d+):? +(\d+\.\d+\.\d+\.\d+)/gm)].map(([, , address]) => address);
      for (const how of ['-U', '-I', '-T']) {
        const output = await run('traceroute', '-n', how, '-q', '1', '-N', '1', '-w', '3', serverAddress(0));
        assert.deepEqual(hops(output), HOPS, `${how}\n${output}`);
      }
      // The link behind the router is narrower: its error says so, and quotes the packet as the
      // client sent it.
      await testbed.configure('internet', 'link set far mtu 1300');
      const output = await run('tracepath', '-n', serverAddress(0));
      assert.match(output, /pmtu 1300/, output);
      assert.deepEqual([...new Set(hops(output))].slice(-3), HOPS, output);
      const inbound = (await b.counters())['nat_inbound'];
      assert.ok(inbound > 8, `${inbound} errors and answers came back by the other site, to ${EXTERNAL}`);
      // From outside nothing of the inside is seen: the path ends at the site.
      const { stdout } = await testbed.run(
        'far',
        ['traceroute', '-n', '-q', '1', '-w', '1', '-m', '4', EXTERNAL],
        true,
      );
      assert.doesNotMatch(stdout, /10\.1\.0\./);
    });
  });
});
