/**
 * Members whose configurations differ in what must be the same at all sites: each names the option
 * and both values.
 */

import { strict as assert } from 'node:assert';
import { askJson } from '../../../daemon/admin/client.js';
import type { Standing } from '../../../daemon/views/source.js';
import { clusterForEach, type LoopbackCluster } from '../../support/loopback-cluster.js';
import { eventually, type Instance } from '../../testbed/instance.js';

const members = ['a', 'b'];

describe('members that differ in what must be the same at all sites', () => {
  let cluster: LoopbackCluster;

  clusterForEach((made) => {
    cluster = made;
  });

  const says = (instance: Instance, what: RegExp): Promise<string> =>
    eventually(`${instance.name} to say ${what}`, async () => {
      const reason = (await instance.status().catch(() => null))?.state_reason ?? '';
      return what.test(reason) ? reason : null;
    });

  it('name the option and both values, although they understand each other', async () => {
    const sections = { transport: { mtu_bytes: 1400 } };
    const [a, b] = await Promise.all([cluster.start('a', { members }), cluster.start('b', { members, sections })]);
    const reason = await says(a, /transport\.mtu_bytes: 1500B here, 1400B there \(a member refuses messages/);
    assert.match(reason, /member b differs in what must be the same at all sites: transport\.mtu_bytes/);
    await says(b, /member a differs .*: transport\.mtu_bytes: 1400B here, 1500B there/);
    const [joined] = (await askJson(a.socket, 'join')) as Standing[];
    assert.match(joined.reason, /transport\.mtu_bytes: 1500B here, 1400B there/);
    assert.equal(joined.state, 'ready', 'packets are taken all the same');
    const lines = a.program.output.split('\n').filter((line) => line.includes('transport.mtu_bytes: 1500B here'));
    assert.equal(lines.length, 1, 'said once');
  });

  it('name it where they refuse each other’s messages, to one that waits to join as well', async () => {
    const a = await cluster.start('a', { members });
    const sections = { state: { counting: 'increments' }, middleboxes: [{ idps: {} }] };
    const { instance: b } = cluster.launch('b', { members, sections });
    const reason = await says(b, /does not begin without their state/);
    assert.match(reason, /state means something else/);
    await says(b, /state\.counting: increments here, totals there \(the records of counters/);
    await says(b, /middleboxes: idps here, nat there/);
    await says(a, /messages of member b .* are refused: .* state\.counting: totals here, increments there/);
  });

  it('name it also of one that had the same before it was started again', async () => {
    const [a, b] = await Promise.all([cluster.start('a', { members }), cluster.start('b', { members })]);
    await eventually('a to know b', async () => ((await a.peers())[0].build === null ? null : true));
    assert.deepEqual(await b.program.stop(), { code: 0, signal: null });
    const { instance: again } = cluster.launch('b', { members, sections: { middleboxes: [{ idps: {} }] } });
    await says(again, /middleboxes: idps here, nat there/);
    await says(a, /messages of member b .* are refused: .* middleboxes: nat here, idps there/);
  });

  it('say nothing where only what may differ differs', async () => {
    const nat = { inside: 'inside', outside: 'outside', external: ['203.0.113.1'], flows: 8192, udp: 200 };
    const sections = { middleboxes: [{ nat }], replication: { max_lag_ms: 5000 } };
    const [a, b] = await Promise.all([
      cluster.start('a', { members, flows: 100 }),
      cluster.start('b', { members, sections }),
    ]);
    await eventually('b to have the flows of a', async () =>
      ((await b.objects())[0].figures['used'] ?? 0) >= 100 ? true : null,
    );
    for (const instance of [a, b]) assert.doesNotMatch((await instance.status()).state_reason, /differs/);
    for (const { program } of [a, b]) assert.doesNotMatch(program.output, /differs in what must be the same/);
  });

  it('change their external addresses one after another, and lose no binding', async () => {
    const sectionsOf = (...external: string[]) => ({
      middleboxes: [{ nat: { inside: 'inside', outside: 'outside', external, flows: 4096 } }],
    });
    const [ONE, OTHER] = ['203.0.113.1', '203.0.113.9'];
    const start = (name: string, addresses: string[], flows?: number): Promise<Instance> =>
      cluster.start(name, { members, sections: sectionsOf(...addresses), ...(flows !== undefined && { flows }) });
    const external = async (instance: Instance): Promise<Map<string, string>> =>
      new Map(
        (await instance.flows()).map((flow) => [
          `${flow.inside.address}:${flow.inside.port}`,
          `${flow.external?.address}:${flow.external?.port}`,
        ]),
      );
    const has = (instance: Instance, flows: number): Promise<Map<string, string>> =>
      eventually(`${flows} bindings at ${instance.name}`, async () => {
        const found = await external(instance);
        return found.size >= flows ? found : null;
      });
    let [a, b] = await Promise.all([start('a', [ONE], 100), start('b', [ONE])]);
    const first = await has(b, 100);
    assert.deepEqual(await a.program.stop(), { code: 0, signal: null });
    a = await start('a', [OTHER, ONE], 200);
    assert.match(a.program.output, /took the state of b over entry by entry/);
    await says(a, /nat\.bindings: new bindings do not use 203\.0\.113\.9, which not every member/);
    const second = await has(a, 200);
    for (const [inside, outside] of first) assert.equal(second.get(inside), outside);
    assert.ok(
      [...second.values()].every((outside) => outside.startsWith(`${ONE}:`)),
      'b has only that one',
    );
    await has(b, 200);
    assert.deepEqual(await b.program.stop(), { code: 0, signal: null });
    b = await start('b', [ONE, OTHER]);
    await eventually('a to use both', async () =>
      (await a.status()).state_reason.includes('new bindings do not use') ? null : true,
    );
    assert.deepEqual(await external(b), second);
    assert.deepEqual(await a.program.stop(), { code: 0, signal: null });
    a = await start('a', [ONE, OTHER], 300);
    const third = await has(a, 300);
    for (const [inside, outside] of second) assert.equal(third.get(inside), outside);
    assert.ok(
      [...third.values()].some((outside) => outside.startsWith(`${OTHER}:`)),
      'the new one is used',
    );
    assert.deepEqual(await has(b, 300), third);
    for (const instance of [a, b]) {
      const [{ figures }] = await instance.objects();
      assert.deepEqual([figures['foreign_address'], figures['table_full']], [0, 0]);
    }
  });

  it('filter as loosely as the loosest, while it is changed at one after another, and say so', async () => {
    const start = (name: string, filtering: string): Promise<Instance> => {
      const nat = { inside: 'inside', outside: 'outside', external: ['203.0.113.1'], flows: 1024, sessions: 1024 };
      return cluster.start(name, { members, flows: 20, sections: { middleboxes: [{ nat: { ...nat, filtering } }] } });
    };
    const sessions = async (instance: Instance): Promise<Readonly<Record<string, number>>> =>
      (await instance.objects()).find(({ name }) => name === 'nat.sessions')?.figures ?? assert.fail();
    const filters = (instance: Instance, level: number): Promise<true> =>
      eventually(`${instance.name} to filter by level ${level}`, async () =>
        (await sessions(instance))['filtering'] === level ? true : null,
      );
    const [LOOSE, STRICT] = ['endpoint-independent', 'address-and-port-dependent'];
    const pending = /nat\.sessions: filtering is endpoint-independent and not yet address-and-port-dependent/;
    let [a, b] = await Promise.all([start('a', LOOSE), start('b', LOOSE)]);
    assert.deepEqual(await b.program.stop(), { code: 0, signal: null });
    b = await start('b', STRICT);
    assert.match((await b.status()).state_reason, pending, 'before it takes packets');
    await eventually('b to have sessions', async () => (((await sessions(b))['used'] ?? 0) > 0 ? true : null));
    assert.equal((await sessions(a))['used'], 0);
    assert.deepEqual(await a.program.stop(), { code: 0, signal: null });
    assert.equal((await sessions(b))['filtering'], 0, 'what one said last counts');
    a = await start('a', STRICT);
    for (const instance of [a, b]) await filters(instance, 2);
    assert.doesNotMatch((await b.status()).state_reason, pending);
    assert.match(b.program.output, /over: nat\.sessions: filtering is/);
    await eventually('a to have sessions', async () => (((await sessions(a))['used'] ?? 0) >= 20 ? true : null));
    assert.deepEqual(await a.program.stop(), { code: 0, signal: null });
    a = await start('a', LOOSE);
    await filters(b, 0);
    await says(b, pending);
  });
});
