/**
 * Whole instances while etcd cannot be reached for longer than their leases, and after it has lost
 * what it knew.
 */

import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { askJson } from '../../../daemon/admin/client.js';
import type { MemberRow } from '../../../daemon/views/source.js';
import { Etcd, EtcdGate } from '../../support/etcd.js';
import { LoopbackCluster } from '../../support/loopback-cluster.js';
import { needs } from '../../support/require.js';
import { eventually, type Instance } from '../../testbed/instance.js';
import type { Program } from '../../testbed/program.js';

const FLOWS = 100;
const TTL_S = 2;
/** Only what never happens takes so long: the machine may be busy. */
const WAIT_MS_MAX = 120_000;
const TEST_MS_MAX = 300_000;

describe('instances whose etcd is away for longer than a lease, or was restored', () => {
  let etcd: Etcd;
  let gate: EtcdGate;
  let cluster: LoopbackCluster;
  const running = new Map<string, Instance>();
  /** What each was given. */
  const ids = new Map<string, number>();

  before(async function () {
    needs(this, 'tool:etcd');
    etcd = await Etcd.start();
    gate = await EtcdGate.open(etcd);
    cluster = await LoopbackCluster.create();
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') console.log(cluster.report());
  });

  after(async () => {
    await cluster?.down();
    gate?.close();
    await etcd?.down();
  });

  async function start(name: string, flows?: number): Promise<void> {
    const membership = { kind: 'etcd', endpoints: [gate.endpoint], lease_ttl_s: TTL_S };
    const { instance, program } = cluster.launch(name, {
      cluster: { address: cluster.address(name), membership },
      ...(flows !== undefined && { flows }),
    });
    await eventually(
      `${name} to start`,
      () => instance.attach(program).then(() => true, nothingYet(program)),
      WAIT_MS_MAX,
    );
    running.set(name, instance);
    ids.set(name, (await instance.status()).id);
  }

  /** It leaves in order. */
  async function stop(name: string): Promise<void> {
    assert.deepEqual(await running.get(name)?.program.stop(), { code: 0, signal: null });
    running.delete(name);
  }

  /** Every instance runs, hears all others, has the same state, and an id that no other has. */
  async function checkWhole(what: string): Promise<void> {
    const names = [...running.keys()].sort();
    for (const [name, instance] of running) {
      await eventually(
        `${name} to hear all others, ${what}`,
        async () => {
          if (!instance.program.running) throw new Error(`${name} ended`);
          const rows = (await askJson(instance.socket, 'member list')) as MemberRow[];
          const heard = rows
            .filter(({ role, state }) => role === 'member' && state === 'reachable')
            .map((row) => row.name);
          return heard.sort().join() === names.filter((other) => other !== name).join() ? true : null;
        },
        WAIT_MS_MAX,
      );
      const { state, id } = await instance.status();
      assert.deepEqual([state, id], ['ready', ids.get(name)], `${name}, ${what}`);
    }
    assert.equal(new Set(ids.values()).size, ids.size, [...ids].join(' '));
    await eventually(
      `the same state, ${what}`,
      async () => {
        const digests = await Promise.all(
          [...running.values()].map(async (instance) => (await instance.objects())[0].digest),
        );
        return new Set(digests).size === 1 ? true : null;
      },
      WAIT_MS_MAX,
    );
    assert.doesNotMatch(cluster.report(), /is evicted: its present incarnation is declared dead/, what);
  }

  /** No member stays only because it is heard: all have claimed their places. */
  async function checkClaimed(): Promise<void> {
    const settled = async (): Promise<true | null> => {
      for (const instance of running.values())
        if (/not followed|kept though/.test((await instance.status()).membership)) return null;
      return true;
    };
    await eventually('all to have claimed their places', settled, WAIT_MS_MAX);
  }

  it('go on with all members when etcd cannot be reached for longer, and claim their places again', async function () {
    this.timeout(TEST_MS_MAX);
    await start('a', FLOWS);
    await etcd.backUp();
    await start('b');
    await checkWhole('at the start');
    gate.cut();
    await sleep(2 * TTL_S * 1000);
    await checkWhole('while etcd is away');
    gate.mend();
    // A newcomer comes before the others may have claimed their places.
    await start('c');
    await checkWhole('after etcd was away');
    await checkClaimed();
    await stop('c');
  });

  for (const [newcomer, from] of [
    ['d', 'nothing'],
    ['e', 'backup'],
  ] as const)
    it(`write their records again into an etcd restored from ${from}, and no newcomer is given an id of theirs`, async function () {
      this.timeout(TEST_MS_MAX);
      await etcd.restore(from);
      await start(newcomer);
      await checkWhole(`after etcd was restored from ${from}`);
      assert.match(cluster.report(), /records are older than what was seen/);
      await sleep(2 * TTL_S * 1000);
      await checkWhole('two leases later');
      await checkClaimed();
      await stop(newcomer);
    });

  it('write their records again when all keys are deleted', async function () {
    this.timeout(TEST_MS_MAX);
    const all = { key: Buffer.from('/').toString('base64'), range_end: Buffer.from('0').toString('base64') };
    await fetch(`${etcd.endpoint}/v3/kv/deleterange`, { method: 'POST', body: JSON.stringify(all) });
    await start('f');
    await checkWhole('after all keys were deleted');
    await checkClaimed();
    await stop('f');
  });
});

/** A newcomer that ends at once was refused; one that is slow is asked again. */
function nothingYet(program: Program): (error: Error) => null {
  return (error) => {
    if (!program.running) throw error;
    return null;
  };
}
