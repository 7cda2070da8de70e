/**
 * Firewalls at two sites, each of which sees one direction: real programs, IPv4 and IPv6, a flood,
 * and rules that are replaced.
 */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { scaled } from '../support/scale.js';
import { CLIENT_IPV6, Firewalls, SERVER_IPV6 } from '../testbed/firewalls.js';
import { fetchAll, startLoad, startServer } from '../testbed/http/fetch.js';
import type { Fetched } from '../testbed/http/load.js';
import { converged } from '../testbed/instance.js';
import { assertAllFetched, CLIENTS_OF_A, connectTimes, ORIGIN, withNetwork } from './support.js';

const RULES = `
define clients = { 10.1.0.0/16, fd01::/64 }
zone lan = { port left, $clients }
policy drop
from lan tcp dport { 80, 8080 } hold 1 within 2000 ms accept
from lan meta l4proto { icmp, icmpv6 } hold 1 within 2000 ms accept
iif right tcp dport 113 reject with tcp reset
iif right tcp dport 1-100 counter drop comment "scans"
`;

/** What curl exits with when the connection was refused, and when time was up. */
const REFUSED = 7;
const TIME_UP = 28;
const CONNECTIONS = 4096;
const QUOTA = CONNECTIONS / 4;
const DOWNLOADS = scaled(30, 100);
const FLOOD_PACKETS = scaled(3000, 8000);
/** How often each site's rules are replaced while downloads go on. */
const RELOADS = scaled(1, 4);

describe('end to end: firewalls', function () {
  this.timeout(180_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'tool:ping', 'tool:nmap', 'tool:hping3', 'file:/proc/net/if_inet6');
  });

  async function withFirewalls(mode: 'wire' | 'route', test: (firewalls: Firewalls) => Promise<void>): Promise<void> {
    const options = { mode, wan: { delay_ms: 20 }, rules: RULES, firewall: { connections: CONNECTIONS } };
    await withNetwork(await Firewalls.build(options), async (firewalls) => {
      await firewalls.start();
      await startServer(firewalls.testbed, 'server', 80, '::');
      await startServer(firewalls.testbed, 'client', 80, '::');
      await test(firewalls);
    });
  }

  /** Exit code of a program in a node. */
  async function exit({ testbed }: Firewalls, node: string, ...argv: string[]): Promise<number> {
    return (await testbed.run(node, argv, true)).code;
  }
  /** The kernel would take an address of the link. */
  const from = (url: string): string[] => {
    if (url.includes(SERVER_IPV6)) return ['--interface', CLIENT_IPV6];
    return url.includes(CLIENT_IPV6) ? ['--interface', SERVER_IPV6] : [];
  };
  const curl = (firewalls: Firewalls, node: string, url: string, seconds = 20) =>
    exit(firewalls, node, 'curl', ...from(url), '-sfg', '-o', '/dev/null', '--max-time', String(seconds), url);

  /**
   * Replies come by the site that did not see the requests; who is outside gets nothing that nobody
   * asked for.
   */
  async function assertFiltered(firewalls: Firewalls): Promise<void> {
    assert.equal(await curl(firewalls, 'client', 'http://198.51.100.1/500000/1'), 0);
    assert.equal(await exit(firewalls, 'client', 'ping', '-c2', '-i0.2', '-W5', '198.51.100.1'), 0);
    assert.equal(await curl(firewalls, 'client', `http://[${SERVER_IPV6}]/500000/1`), 0);
    assert.equal(
      await exit(firewalls, 'client', 'ping', '-6', '-I', CLIENT_IPV6, '-c2', '-i0.2', '-W5', SERVER_IPV6),
      0,
    );
    assert.equal(await curl(firewalls, 'server', 'http://10.1.0.1/10/1', 1), TIME_UP);
    assert.equal(await curl(firewalls, 'server', 'http://10.1.0.1:113/'), REFUSED);
    assert.equal(await curl(firewalls, 'server', `http://[${CLIENT_IPV6}]/10/1`, 1), TIME_UP);
    assert.equal(await curl(firewalls, 'server', `http://[${CLIENT_IPV6}]:113/`), REFUSED);
    const argv = ['nmap', '-Pn', '-n', '-sS', '--max-retries', '0', '-p', '79-82', '10.1.0.1'];
    const { stdout } = await firewalls.testbed.run('server', argv, true);
    assert.doesNotMatch(stdout, / open /);
    const [flow] = await firewalls.b.flows(`proto=tcp remote=198.51.100.1:80`);
    assert.equal(flow.inside.address, '10.1.0.1');
    const addresses = (await firewalls.b.flows('object=firewall.ipv6')).map(({ inside, remote }) => [
      inside.address,
      remote?.address,
    ]);
    assert.deepEqual(addresses[0], [CLIENT_IPV6, SERVER_IPV6]);
    const seen = await firewalls.b.counters();
    assert.equal(seen['firewall_invalid'], 0, 'no reply was faster than the state');
    assert.ok(seen['firewall_passed'] > 100 && seen['firewall_denied'] > 3, JSON.stringify(seen));
  }

  it('as wires: let downloads go on while a flood of SYNs fills the quota and rules are replaced', async () => {
    await withFirewalls('wire', async (firewalls) => {
      const { testbed, a, b } = firewalls;
      await assertFiltered(firewalls);

      const load = { origins: [ORIGIN], bytes: 300_000, count: DOWNLOADS, concurrency: 20, sources: CLIENTS_OF_A };
      const flood = `-S -q -a 10.1.9.9 -s 1024 -p 80 -i u400 -c ${FLOOD_PACKETS} 198.51.100.1`.split(' ');
      const flooding = testbed.start('client', 'flood', ['hping3', ...flood]);
      const fetched: Fetched[] = [];
      const { done } = startLoad(testbed, 'client', load, (one) => fetched.push(one));
      for (let n = 1; n <= RELOADS; n++) {
        for (const site of [a, b]) {
          // Every other time the downloads are let in by another rule than before.
          site.write(RULES.replace('{ 80, 8080 }', n % 2 === 0 ? '{ 80, 8080 }' : '{ 80, 81-90 }'));
          const { code, stderr } = await site.client('reload', 'rules');
          assert.equal(code, 0, stderr);
        }
        a.write('tcp dport 80 acept\nfrom lna accept');
        const { code, stderr } = await a.client('reload', 'rules');
        assert.equal(code, 1);
        assert.match(
          stderr,
          /a\.rules:1:14: "acept" is nothing .* did you mean "accept"\?; .*a\.rules:2:6: there is no zone/,
        );
      }
      await done;
      assertAllFetched(fetched, DOWNLOADS);
      await flooding.exited;
      const [table] = (await a.objects()).filter(({ name }) => name === 'firewall.ipv4');
      const { half_open } = table.figures;
      assert.ok(half_open > 0.9 * QUOTA && half_open <= QUOTA, `the flood filled it: ${half_open}`);
      assert.ok(table.figures['half_open_evicted'] + table.figures['half_open_refused'] > 1000);
      console.log(`      ${connectTimes(fetched)}`);

      const { stdout } = await a.client('show', 'rules', 'hits');
      assert.match(stdout, /firewall +6 +2 +\d+ +from lan meta l4proto/, 'counted before the reloads');
      // Half-open connections that were put out are not the same at both: what is established is.
      const [ipv6] = (await b.objects()).filter(({ name }) => name === 'firewall.ipv6');
      assert.equal(ipv6.digest, (await a.objects()).find(({ name }) => name === 'firewall.ipv6')?.digest);
    });
  });

  it('as routers', async () => {
    await withFirewalls('route', async (firewalls) => {
      await assertFiltered(firewalls);
      const load = { origins: [ORIGIN], bytes: 20_000, count: DOWNLOADS / 2, concurrency: 25, sources: CLIENTS_OF_A };
      assertAllFetched(await fetchAll(firewalls.testbed, 'client', load), DOWNLOADS / 2);
      // A worker that is started again has the rules in force, and takes others.
      assert.equal((await firewalls.a.client('restart', 'worker-0')).code, 0);
      await firewalls.a.attach(firewalls.a.program);
      assertAllFetched(await fetchAll(firewalls.testbed, 'client', load), DOWNLOADS / 2);
      assert.equal((await firewalls.a.client('reload', 'rules')).code, 0);
      // What systemctl reload does.
      firewalls.a.write(`${RULES}from lan tcp dport 99 accept`);
      firewalls.a.program.kill('SIGHUP');
      const loaded = async (): Promise<boolean> =>
        (await firewalls.a.client('show', 'rules', 'dport 99')).stdout.includes('from lan tcp dport 99 accept');
      for (let tries = 0; !(await loaded()); tries++) assert.ok(tries < 20, 'the signal loads rules');
      await converged([firewalls.a, firewalls.b]);
    });
  });
});
