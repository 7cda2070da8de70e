/**
 * An IDPS in the wires of two sites, met by nmap and by ordinary clients; answers come by one site,
 * whichever way was asked.
 */

import { strict as assert } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { askJson } from '../../daemon/admin/client.js';
import type { RecordRow } from '../../daemon/views/source.js';
import { needs } from '../support/require.js';
import { startServer } from '../testbed/http/fetch.js';
import { eventually, type Instance } from '../testbed/instance.js';
import { Testbed } from '../testbed/testbed.js';
import { SITES, startWireSite, twoWires } from '../testbed/two-wires.js';
import { UDP_FLOWS, withNetwork } from './support.js';

/** Who is routed by site b, and by which table. */
const UID = 12_345;
const BY_B = 100;
/** What curl exits with when it waited in vain. */
const TIMED_OUT = 28;

describe('end to end: IDPS at two sites', function () {
  this.timeout(180_000);
  let testbed: Testbed;
  let sites: Instance[] = [];

  before(async function () {
    needs(this, 'af_xdp', 'tool:nmap', 'tool:curl', 'tool:hping3');
    testbed = await Testbed.build(twoWires(5));
    sites = await Promise.all(SITES.map((site) => startWireSite(testbed, site, { answer_seconds: 2 })));
    await startServer(testbed, 'hosts');
    await testbed.start('hosts', 'dns', [process.execPath, UDP_FLOWS, 'echo', '53']).waitFor(/^ready$/m);
  });
  after(() => testbed?.down());

  /** The test's own network is there already: only what it says when it fails is wanted. */
  const over = (test: () => Promise<void>) => withNetwork({ testbed, down: async () => {} }, test);

  const nmap = (...words: string[]) =>
    testbed.run('outside', ['nmap', '-n', '-Pn', '--max-retries', '1', '--host-timeout', '8s', ...words], true);

  const alerts = async (): Promise<RecordRow[]> => {
    const rows = await Promise.all(sites.map((site) => askJson(site.socket, 'show alerts limit=0')));
    return rows.flat() as RecordRow[];
  };

  /** Signatures of the alerts about a source, by both sites. */
  const about = async (source: string): Promise<unknown[]> =>
    (await alerts())
      .filter((row) => row['src_ip'] === source)
      .map((row) => (row['alert'] as Record<string, unknown>)['signature_id']);

  const found = (source: string) =>
    eventually(
      `an alert about ${source}`,
      async () => {
        const signatures = await about(source);
        return signatures.length > 0 ? signatures : null;
      },
      20_000,
    );

  const curl = async (source: string, url: string): Promise<number> =>
    (
      await testbed.run(
        'outside',
        ['curl', '-s', '-o', '/dev/null', '--max-time', '2', '--interface', source, url],
        true,
      )
    ).code;

  it('flags nobody who browses and asks, by both sites, though answers come by one', () =>
    over(async () => {
      const browse = ['curl', '-sf', '-Z', '--parallel-max', '50', '--interface', '10.1.0.2', '-o', '/dev/null'];
      await testbed.run('outside', [...browse, 'http://198.51.100.[80-179]/2000/1']);
      for (const server of ['198.51.100.5', '198.51.100.200']) {
        const argv = [process.execPath, UDP_FLOWS, '10.1.0.2', '20000', '60', server, '53'];
        const flows = testbed.start('outside', `asks-${server}`, argv);
        await flows.waitFor(/^ready$/m);
        flows.write('1\n');
        const replies = (): number => flows.output.split('\n').filter((line) => line.startsWith('reply')).length;
        await flows.until(() => (replies() >= 60 ? true : null), '60 replies', 20_000);
        await flows.stop('SIGKILL');
      }
      for (let n = 1; n <= 5; n++) await curl('10.1.0.2', `http://198.51.100.${n}:81/1/1`); // a few that are down
      await new Promise((resolve) => setTimeout(resolve, 4000));
      assert.deepEqual(await alerts(), []);
    }));

  it('finds and blocks nmap in its usual modes, at both sites, and says so once of each', () =>
    over(async () => {
      const ports = ['-p', '1-100', '198.51.100.7'];
      const raw = (n: number, mode: string, more: string[]) => nmap(mode, '-S', `10.1.0.${n}`, '-e', 'a', ...more);
      const runs: [string, Promise<unknown>][] = [
        ['10.1.0.11', raw(11, '-sS', ports)],
        ['10.1.0.12', raw(12, '-sU', ['-p', '1-40', '198.51.100.7'])],
        ['10.1.0.13', raw(13, '-sF', ports)],
        ['10.1.0.14', raw(14, '-sN', ports)],
        ['10.1.0.15', raw(15, '-sX', ports)],
        ['10.1.0.16', raw(16, '-sA', ports)],
        ['10.1.0.17', raw(17, '-sS', ['-T2', '--scan-delay', '300ms', '-p', '1-20', '198.51.100.8'])],
        ['10.1.0.18', raw(18, '-sS', ['-T5', '-p', '22', '198.51.100.10-60'])],
      ];
      await testbed.configure('outside', 'route add 198.51.100.9/32 via 10.9.1.2 src 10.1.0.19');
      runs.push(['10.1.0.19', nmap('-sT', '-p', '1-100', '198.51.100.9')]);
      await Promise.all(runs.map(([, run]) => run));
      for (const [source] of runs)
        assert.deepEqual(await found(source), [source === '10.1.0.18' ? 1002 : 1001], source);
      // A block is one at both sites, and for all ports.
      const sources = [...runs.map(([source]) => source), '10.1.0.2'];
      const codes = await Promise.all(sources.map((source) => curl(source, 'http://198.51.100.200/1/1')));
      assert.deepEqual(codes, [...runs.map(() => TIMED_OUT), 0]);
    }));

  it('finds a scan that is split over the sites, of which neither alone sees enough', () =>
    over(async () => {
      const half = async (n: number, hosts: string, egress: string): Promise<void> => {
        await nmap('-sS', '-S', `10.1.0.${n}`, '-e', egress, '-p', '2222', hosts);
      };
      await half(30, '198.51.100.1-9', 'a');
      await half(31, '198.51.100.129-137', 'b');
      await Promise.all([half(32, '198.51.100.1-9', 'a'), half(32, '198.51.100.129-137', 'b')]);
      // Once, or by both, if both find it within the time it takes to tell each other.
      assert.deepEqual([...new Set(await found('10.1.0.32'))], [1002]);
      assert.deepEqual([...(await about('10.1.0.30')), ...(await about('10.1.0.31'))], []);
      const hosts = ['198.51.100.5', '198.51.100.200'];
      const codes = await Promise.all(hosts.map((host) => curl('10.1.0.32', `http://${host}/1/1`)));
      assert.deepEqual(codes, [TIMED_OUT, TIMED_OUT]);
    }));

  it('finds a SYN flood by both sites, of which neither alone sees enough, and lets clients in all the same', () =>
    over(async () => {
      const target = '198.51.100.77';
      // Half of the flood goes by either site, some 750 SYNs a second, of the 1000 that are one.
      await testbed.configure('outside', `route add default via 10.9.2.2 table ${BY_B}`);
      await testbed.configure('outside', `rule add uidrange ${UID}-${UID} lookup ${BY_B}`);
      const hping = ['hping3', '-q', '-S', '--rand-source', '-p', '80', '-i', 'u1200', '-c', '7000', target];
      const asUser = [
        'setpriv',
        '--reuid',
        String(UID),
        '--clear-groups',
        '--inh-caps',
        '+net_raw',
        '--ambient-caps',
        '+net_raw',
      ];
      const floods = [hping, [...asUser, ...hping]].map((argv, n) => testbed.start('outside', `syn-flood-${n}`, argv));
      await eventually('the flood to be found', async () => {
        const counters = await Promise.all(sites.map((site) => site.counters()));
        return counters.every((seen) => seen['idps_syn_first'] > 100) ? counters : null;
      });
      // A first SYN is dropped, the client's second one, a second later, is not.
      const browse = ['-s', '-Z', '--parallel-max', '20', '--max-time', '20', '--interface', '10.1.0.2'];
      const got = await testbed.run(
        'outside',
        ['curl', '-f', ...browse, '-o', '/dev/null', `http://${target}/2000/[1-20]`],
        true,
      );
      assert.equal(got.code, 0, got.stderr);
      await Promise.all(floods.map(({ exited }) => exited));
      const rates = (await alerts()).filter((row) => row['dest_ip'] === target);
      assert.deepEqual(
        [...new Set(rates.map((row) => (row['alert'] as Record<string, unknown>)['signature_id']))],
        [2002],
      );
      assert.deepEqual(await about('10.1.0.2'), []);
    }));

  it('shows blocks and lifts them, at both sites', () =>
    over(async () => {
      const [a, b] = sites;
      const blocks = async (site: Instance): Promise<Record<string, unknown>[]> =>
        (await askJson(site.socket, 'show blocks')) as Record<string, unknown>[];
      const of = async (site: Instance, source: string) =>
        (await blocks(site)).find(({ blocked }) => blocked === source)?.['state'];
      assert.deepEqual([await of(a, '10.1.0.11'), await of(b, '10.1.0.11')], ['blocked', 'blocked']);
      await askJson(b.socket, 'unblock 10.1.0.11');
      await eventually('the block to be lifted at a', async () =>
        (await of(a, '10.1.0.11')) === 'lifted' ? true : null,
      );
      assert.equal(await curl('10.1.0.11', 'http://198.51.100.5/1/1'), 0);
      assert.equal(await of(a, '10.1.0.13'), 'blocked');
    }));

  it('lets who is blocked pass once he is on the list of those allowed, read anew', () =>
    over(async () => {
      const [a] = sites;
      assert.equal(await curl('10.1.0.13', 'http://198.51.100.5/1/1'), TIMED_OUT);
      writeFileSync(join(testbed.folder, 'a.allow'), '10.1.0.13 # ours\n10.1.0.300\n');
      await assert.rejects(askJson(a.socket, 'reload rules'), /a\.allow:2:1: "10\.1\.0\.300" is not an IPv4 address/);
      writeFileSync(join(testbed.folder, 'a.allow'), '10.1.0.13 # ours\n');
      await askJson(a.socket, 'reload rules');
      assert.equal(await curl('10.1.0.13', 'http://198.51.100.5/1/1'), 0);
      const [rule] = (await askJson(a.socket, 'show rules')) as Record<string, unknown>[];
      assert.equal(rule['text'], '10.1.0.13');
      assert.ok(Number(rule['packets']) > 3);
    }));

  it('has written the alerts to the files of records, as lines of JSON', () =>
    over(async () => {
      const lines = SITES.flatMap((site) =>
        readFileSync(join(testbed.folder, `${site}.json`), 'utf8')
          .split('\n')
          .slice(0, -1),
      ).map((line) => JSON.parse(line) as RecordRow);
      assert.deepEqual(lines.length, (await alerts()).length);
      for (const { event_type, site, proto, alert } of lines as Record<string, unknown>[]) {
        assert.equal(event_type, 'alert');
        assert.ok(site === 'a' || site === 'b');
        assert.ok(proto === 'TCP' || proto === 'UDP');
        assert.equal((alert as Record<string, unknown>)['action'], 'blocked');
      }
    }));

  it('judges silence while both are heard, and says in status and log when it does not, for one is gone', () =>
    over(async () => {
      const [a, b] = sites;
      assert.deepEqual((await a.status()).conditions, []);
      await b.program.stop('SIGKILL');
      // Nobody answers at its socket any more.
      sites = [a];
      const [condition] = await eventually('site a to say so', async () => {
        const { conditions } = await a.status();
        return conditions.length > 0 ? conditions : null;
      });
      assert.match(condition, /^idps: silence is not judged \(b is .*\); refusals are$/);
      await eventually(
        'the log to say so',
        async () => /idps: silence is not judged: b is /.test(a.program.output) || null,
      );
      // A scan that nothing answers is not judged, one that is refused is.
      await nmap('-sS', '-S', '10.1.0.40', '-e', 'a', '-p', '1-30', '198.51.100.7');
      assert.deepEqual([...new Set(await found('10.1.0.40'))], [1001]);
    }));
});
