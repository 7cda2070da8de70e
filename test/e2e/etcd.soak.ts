/**
 * Real downloads through three sites that find each other by etcd, while etcd is away, and comes
 * back without its records.
 */

import { strict as assert } from 'node:assert';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findTool, needs } from '../support/require.js';
import { startServer } from '../testbed/http/fetch.js';
import { eventually } from '../testbed/instance.js';
import { ManySites, SITE_NAMES, type SiteName, stateAddress } from '../testbed/many-sites.js';
import type { Program } from '../testbed/program.js';
import { whileDownloading } from './restarts.js';
import { ALL, WAIT_MS_MAX } from './three-sites.js';

const DOWNLOADS = { count: 30, bytes: 500_000, rate: 12_000 };

describe('end to end: downloads through three sites that find each other by etcd survive', function () {
  this.timeout(300_000);
  const ETCD = `http://${stateAddress('d')}:2379`;
  const LEASE_S = 3;
  let sites: ManySites;
  let etcd: Program;
  let lives = 0;

  /** etcd, in a node of its own on the state network. */
  async function startEtcd(): Promise<void> {
    const { testbed } = sites;
    const peer = `http://${stateAddress('d')}:2380`;
    etcd = testbed.start('site-d', `etcd-${++lives}`, [
      ...[findTool('etcd') ?? 'etcd', '--data-dir', join(testbed.folder, 'etcd'), '--log-level', 'error'],
      ...['--listen-client-urls', ETCD, '--advertise-client-urls', ETCD],
      ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', `default=${peer}`],
    ]);
    await eventually('etcd to answer', async () => {
      const { code } = await testbed.run('site-d', ['curl', '-sf', `${ETCD}/health`], true);
      return code === 0 ? true : null;
    });
  }

  before(async function () {
    needs(this, 'af_xdp', 'tool:curl', 'tool:etcd');
    sites = await ManySites.build({
      ...{ sites: SITE_NAMES, members: ALL, cluster: { slots: 4 } },
      etcd: { endpoint: ETCD, lease_ttl_s: LEASE_S },
    });
    await startServer(sites.testbed, 'server');
    await startEtcd();
    await sites.start(...ALL);
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') console.log(sites?.testbed.report());
  });

  after(() => sites?.down());

  const membership = async (name: SiteName): Promise<string> => (await sites.site(name).status()).membership;

  /** Nobody was lost, and all have their places in etcd. */
  async function whole(): Promise<void> {
    for (const name of ALL) {
      await eventually(
        `${name} to follow etcd, where all have their places`,
        async () => (/not followed|kept though/.test(await membership(name)) ? null : true),
        WAIT_MS_MAX,
      );
      const status = await sites.site(name).status();
      assert.deepEqual([status.state, status.peers_reachable], ['ready', 2]);
    }
    assert.doesNotMatch(sites.testbed.report(), /is evicted/);
  }

  it('an outage of etcd that is longer than leases', async () => {
    await whileDownloading(sites, ALL, DOWNLOADS, async () => {
      await etcd.stop('SIGKILL');
      await sleep(3 * LEASE_S * 1000);
      for (const name of ALL) assert.match(await membership(name), /not followed/);
      await startEtcd();
      await whole();
    });
  });

  it('an etcd that comes back empty', async () => {
    await whileDownloading(sites, ALL, DOWNLOADS, async () => {
      await etcd.stop('SIGKILL');
      rmSync(join(sites.testbed.folder, 'etcd'), { recursive: true });
      await startEtcd();
      await sleep(2 * LEASE_S * 1000);
      await whole();
    });
    assert.match(sites.testbed.report(), /records are older than what was seen|it was written again/);
  });
});
