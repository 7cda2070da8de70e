/** Whole instances that find each other through a real etcd. */

import { strict as assert } from 'node:assert';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { askJson } from '../../../daemon/admin/client.js';
import type { MemberRow } from '../../../daemon/views/source.js';
import { Etcd } from '../../support/etcd.js';
import { LoopbackCluster } from '../../support/loopback-cluster.js';
import { needs } from '../../support/require.js';
import { eventually, type Instance } from '../../testbed/instance.js';
import type { Program } from '../../testbed/program.js';

const FLOWS = 100;
/** Longer than the first waits between two tries. */
const SOME_TRIES_MS = 1000;

describe('instances that find each other through etcd', () => {
  let etcd: Etcd;
  let cluster: LoopbackCluster;

  before(async function () {
    needs(this, 'tool:etcd');
    etcd = await Etcd.start();
    cluster = await LoopbackCluster.create();
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') console.log(cluster.report());
  });

  after(async () => {
    await cluster?.down();
    await etcd?.down();
  });

  async function start(name: string, flows?: number): Promise<Instance> {
    const { instance, program } = launch(name, flows);
    await instance.attach(program);
    return instance;
  }

  function launch(name: string, flows?: number): { instance: Instance; program: Program } {
    const membership = { kind: 'etcd', endpoints: [etcd.endpoint], lease_ttl_s: 2 };
    const lost = [
      '/bin/sh',
      '-c',
      `echo $CONSTELLATION_REASON $CONSTELLATION_MEMBER >> ${cluster.folder}/lost-${name}`,
    ];
    return cluster.launch(name, {
      cluster: { address: cluster.address(name), membership },
      sections: { hooks: { on_ready: touch('ready', name), on_drain: touch('drain', name), on_member_lost: lost } },
      ...(flows !== undefined && { flows }),
    });
  }

  const touch = (event: string, name: string): string[] => ['/usr/bin/touch', join(cluster.folder, `${event}-${name}`)];
  const touched = (event: string, name: string): boolean => existsSync(join(cluster.folder, `${event}-${name}`));

  const list = async (instance: Instance): Promise<string[]> =>
    ((await askJson(instance.socket, 'member list')) as MemberRow[])
      .toSorted((a, b) => a.name.localeCompare(b.name))
      .map(({ name, role, state }) => `${name} ${role} ${state}`);

  it('share state; one killed is lost to the others and comes back to its place; one that ends has left', async () => {
    const a = await start('a', FLOWS);
    await eventually('flows', async () => ((await a.objects())[0].figures['used'] === FLOWS ? true : null));
    const [b, c] = await Promise.all([start('b'), start('c')]);
    for (const newcomer of [b, c])
      assert.deepEqual(
        (await newcomer.objects())[0].digest,
        (await a.objects())[0].digest,
        'it has the state when it is ready',
      );
    await eventually('all to hear all', async () =>
      (await list(a)).join().match(/reachable/g)?.length === 2 ? true : null,
    );
    const { id } = await c.status();
    await c.program.stop('SIGKILL');
    await eventually('the lease to lapse', async () =>
      (await list(a)).some((line) => line.startsWith('c evicted')) ? true : null,
    );
    await eventually('the hook', async () => {
      const file = join(cluster.folder, 'lost-a');
      return existsSync(file) && /^evicted c$/m.test(readFileSync(file, 'utf8')) ? true : null;
    });
    const again = await start('c');
    assert.equal((await again.status()).id, id);
    assert.deepEqual((await again.objects())[0].digest, (await a.objects())[0].digest);
    assert.deepEqual([touched('ready', 'b'), touched('drain', 'b')], [true, false]);
    assert.deepEqual(await b.program.stop(), { code: 0, signal: null });
    assert.ok(touched('drain', 'b'));
    await eventually('it to have left', async () => ((await list(a)).includes('b left -') ? true : null));
    assert.doesNotMatch(readFileSync(join(cluster.folder, 'lost-a'), 'utf8'), /b/, 'who leaves is not lost');
    await eventually('c to be heard', async () => ((await list(a)).includes('c member reachable') ? true : null));
  });

  it('go on while etcd is away', async () => {
    const [d, e] = await Promise.all([start('d', FLOWS), start('e')]);
    await etcd.kill();
    await eventually('it to be missed', async () =>
      (await d.status()).membership.includes('not followed') && (await e.status()).membership.includes('not followed')
        ? true
        : null,
    );
    assert.equal((await d.status()).state, 'ready');
    await eventually('the same state', async () =>
      (await d.objects())[0].digest === (await e.objects())[0].digest ? true : null,
    );
    await etcd.up();
    await eventually('it to be back', async () =>
      (await d.status()).membership.includes('not followed') ? null : true,
    );
  });

  it('wait for etcd if it is away when they start, and say so', async () => {
    await etcd.kill();
    const starting = launch('f');
    const { instance, program } = starting;
    await eventually('it to say what it waits for', async () => {
      if (!program.running) throw new Error(program.tail());
      const status = await instance.status().catch(() => null);
      return status?.state === 'waiting' && /etcd cannot be reached.*ECONNREFUSED/.test(status.state_reason)
        ? true
        : null;
    });
    await assert.rejects(askJson(instance.socket, 'show objects'), /the instance is starting: etcd cannot be reached/);
    const joined = askJson(instance.socket, 'join');
    await sleep(SOME_TRIES_MS);
    await etcd.up();
    await instance.attach(program);
    assert.equal(((await joined) as { state: string }[])[0].state, 'ready');
  });

  it('end when an operator stops them while they wait for etcd', async () => {
    await etcd.kill();
    const { instance, program } = launch('g');
    await eventually('it to answer', async () => ((await instance.status().catch(() => null)) === null ? null : true));
    await askJson(instance.socket, 'shutdown');
    assert.deepEqual(await program.exited, { code: 0, signal: null });
    assert.match(program.output, /stopped before it had started/);
    await etcd.up();
  });
});
