/** Members that come and go by an operator's commands, at instances that run. */

import { strict as assert } from 'node:assert';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { askJson, CommandError } from '../../../daemon/admin/client.js';
import type { LagRow, MemberChange, MemberRow, Standing } from '../../../daemon/views/source.js';
import { clusterForEach, type LoopbackCluster } from '../../support/loopback-cluster.js';
import { converged, eventually, type Instance } from '../../testbed/instance.js';

const ask = async <T>(instance: Instance, command: string): Promise<T[]> =>
  (await askJson(instance.socket, command, { silence_ms: 10_000 })) as T[];

async function refused(instance: Instance, command: string): Promise<string> {
  try {
    await ask(instance, command);
  } catch (error) {
    if (error instanceof CommandError) return error.message;
    throw error;
  }
  return assert.fail(`${command} was not refused`);
}

describe('members of a cluster that runs', () => {
  let cluster: LoopbackCluster;

  clusterForEach((made) => {
    cluster = made;
  });

  it('are listed, added, heard and removed', async () => {
    const members = ['a', 'b'];
    const slots = { slots: 3 };
    const hooks = { on_member_lost: ['/bin/true'] };
    const [a, b] = await Promise.all(
      members.map((name) => cluster.start(name, { members, cluster: slots, flows: 20, sections: { hooks } })),
    );
    const [joined] = await ask<Standing>(a, 'join');
    assert.equal(joined.state, 'ready');
    assert.match((await a.status()).membership, /^static, view 0$/);
    const add = `member add c ${cluster.id('c')} ${cluster.address('c')}`;
    const [added] = await ask<MemberChange>(a, add);
    assert.deepEqual([added.slot, added.role, added.state], [2, 'member', 'never']);
    assert.match(added.note, /still to be given at b \(127\.0\.0\.2\): member add c 3 127\.0\.0\.3 slot=2; and change/);
    await ask(b, add);
    const c = await cluster.start('c', { members: ['a', 'b', 'c'], cluster: slots });
    const rows = await eventually('all to hear each other', async () => {
      const all = await Promise.all([a, b, c].map((instance) => ask<MemberRow>(instance, 'member list')));
      return all.flat().every(({ state }) => state === 'ready' || state === 'reachable') ? all : null;
    });
    for (const list of rows) {
      assert.deepEqual(
        list.map(({ name, slot }) => [name, slot]),
        [
          ['a', 0],
          ['b', 1],
          ['c', 2],
        ],
      );
      assert.equal(list.filter(({ role }) => role === 'self').length, 1);
    }
    assert.match(await refused(a, 'member evict c'), /c was heard \d+ ms ago, so it is alive: .* member evict c force/);
    assert.match(await refused(a, 'member remove c'), /c was heard .* member remove c force takes it off/);
    await c.program.stop();
    for (const instance of [a, b]) {
      await eventually('it to have left', async () =>
        (await ask<MemberRow>(instance, 'member list')).some(({ name, state }) => name === 'c' && state === 'left')
          ? true
          : null,
      );
      await instance.program.waitFor(/member c has left/);
      assert.doesNotMatch(instance.program.output, /c is silent|on_member_lost/);
      assert.deepEqual(
        (await ask<LagRow>(instance, 'show lag')).filter(({ member }) => member === 'c'),
        [],
      );
    }
    for (const instance of [a, b]) {
      const [removed] = await ask<MemberChange>(instance, 'member remove c');
      assert.equal(removed.role, 'left');
    }
    assert.equal((await a.peers()).length, 1);
    await converged([a, b]);
  });

  it('are evicted, which runs a hook; what cannot be is refused', async () => {
    const lost = join(cluster.folder, 'lost');
    const hooks = {
      on_ready: ['/usr/bin/touch', join(cluster.folder, 'ready')],
      on_drain: ['/usr/bin/touch', join(cluster.folder, 'drain')],
    };
    const told = join(cluster.folder, 'told');
    const members = ['a', 'b', 'c'];
    const [a, b, c] = await Promise.all(
      members.map((name) => {
        const file = name === 'c' ? told : lost;
        const on_member_lost = ['/bin/sh', '-c', `echo $CONSTELLATION_REASON $CONSTELLATION_MEMBER >> ${file}`];
        return cluster.start(name, { members, sections: { hooks: { ...hooks, on_member_lost } } });
      }),
    );
    for (const instance of [a, c])
      await eventually('b to be heard', async () =>
        (await instance.peers()).every(({ state }) => state === 'reachable') ? true : null,
      );
    await eventually('the hook', async () => (existsSync(join(cluster.folder, 'ready')) ? true : null));
    await b.program.stop('SIGKILL');
    const [evicted] = await ask<MemberChange>(a, 'member evict b force');
    assert.deepEqual([evicted.name, evicted.role, evicted.state], ['b', 'member', 'dead']);
    await eventually('the hook', async () =>
      existsSync(lost) && readFileSync(lost, 'utf8').includes('evicted b\n') ? true : null,
    );
    await c.program.waitFor(/member b is evicted by another member|member b is silent/);
    await eventually('c to be told', async () =>
      (await c.peers()).some(({ name, state }) => name === 'b' && state === 'dead') ? true : null,
    );
    await eventually('its hook', async () => (existsSync(told) ? true : null));
    await ask<MemberChange>(c, 'member evict b');
    assert.equal(await refused(a, 'member evict b'), 'b is evicted already');
    assert.match(await refused(a, 'member remove a'), /a is this instance/);
    assert.match(await refused(a, 'member evict nobody'), /no member is called nobody; there are a, b, c/);
    assert.match(await refused(a, 'member add d 4 127.0.0.4'), /all 3 slots are taken/);
    assert.match(await refused(a, 'member add c'), /needs NAME ID ADDRESS/);
    assert.match(await refused(a, 'member add c 70000 127.0.0.3'), /ID is a whole number from 1 to 65535, not 70000/);
    assert.match(await refused(a, 'member add C 3 127.0.0.3'), /C cannot be a member's name/);
    assert.match(await refused(a, 'member add c 3 nowhere'), /nowhere is not an IPv4 address/);
    assert.equal(readFileSync(told, 'utf8').trim().split('\n').length, 1, 'the hook runs once, whoever is told twice');
    assert.equal(existsSync(join(cluster.folder, 'drain')), false);
    assert.deepEqual(await a.program.stop(), { code: 0, signal: null });
    assert.ok(existsSync(join(cluster.folder, 'drain')));
  });
});
