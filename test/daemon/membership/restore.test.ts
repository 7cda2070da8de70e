/** Instances that save their state when they stop, and go on from it. */

import { strict as assert } from 'node:assert';
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { askJson } from '../../../daemon/admin/client.js';
import type { Standing } from '../../../daemon/views/source.js';
import { LoopbackCluster, type LoopbackOptions } from '../../support/loopback-cluster.js';
import { PROJECT } from '../../testbed/compile.js';
import { eventually, type Instance } from '../../testbed/instance.js';

/** Counts packets, in increments, and says how many there were at all sites together. */
const TALLY = `import { counter, defineMiddlebox, option } from 'constellation';
export default defineMiddlebox({
  name: 'tally',
  help: 'Counts packets.',
  options: { inside: option.port('port whose packets are counted') },
  counters: {},
  state: () => ({ packets: counter({ form: 'increments' }) }),
  open: ({ options: { inside }, state: { packets }, batch, every, log }) => {
    every(0.2, () => log.info('tally', { packets: packets.value() }), { on: 'one' });
    return () => {
      for (let i = 0; i < batch.count; i++) if (batch.port[i] === inside) packets.add(1);
    };
  },
});
`;
/** Keeps the source ports of packets, in a set of the capacity that is configured. */
const SEEN = `import { defineMiddlebox, growSet, option } from 'constellation';
export default defineMiddlebox({
  name: 'seen',
  help: 'Keeps source ports.',
  options: { capacity: option.count('ports kept') },
  counters: {},
  state: ({ capacity }) => ({ ports: growSet({ capacity, keyWords: 2 }) }),
  open: ({ state: { ports }, batch }) => {
    const key = new Int32Array(2);
    return (now) => {
      for (let i = 0; i < batch.count; i++) {
        key[0] = batch.source[i];
        key[1] = batch.ports[i] & 0xffff;
        ports.add(ports.hash(key, 0), key, 0, now, now + 3600);
      }
    };
  },
});
`;
const FLOWS = 100;

describe('an instance with a state file', function () {
  this.timeout(180_000);
  let cluster: LoopbackCluster;

  beforeEach(async () => {
    cluster = await LoopbackCluster.create();
    mkdirSync(join(cluster.folder, 'node_modules'));
    symlinkSync(PROJECT, join(cluster.folder, 'node_modules/constellation'));
    writeFileSync(join(cluster.folder, 'tally.mjs'), TALLY);
    writeFileSync(join(cluster.folder, 'seen.mjs'), SEEN);
  });

  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(cluster.report());
    await cluster.down();
  });

  const fileOf = (name: string): string => join(cluster.folder, `${name}.state`);
  /** `capacity`: bindings that the NAT can hold. */
  const options = (name: string, members: readonly string[], flows?: number, capacity = 4096): LoopbackOptions => ({
    members,
    ...(flows !== undefined && { flows }),
    sections: {
      middleboxes: [
        { './tally.mjs': { inside: 'inside' } },
        { nat: { inside: 'inside', outside: 'outside', external: ['203.0.113.1'], flows: capacity } },
      ],
      state: { file: `./${name}.state` },
      // Members wait for each other, however slow the machine is.
      replication: { join_wait_ms: 100_000 },
    },
  });
  const start = (name: string, members: readonly string[], flows?: number, capacity?: number): Promise<Instance> =>
    cluster.start(name, options(name, members, flows, capacity));
  const startAll = (members: readonly string[], flows?: number): Promise<Instance[]> =>
    Promise.all(members.map((name) => start(name, members, flows)));
  const stopAll = async (instances: readonly Instance[]): Promise<void> => {
    for (const exit of await Promise.all(instances.map(({ program }) => program.stop())))
      assert.deepEqual(exit, { code: 0, signal: null });
  };
  const tally = ({ program }: Instance): number =>
    Number([...program.output.matchAll(/"packets":(\d+)/g)].at(-1)?.[1] ?? -1);
  const isTally = (instances: readonly Instance[], packets: number): Promise<boolean> =>
    eventually(`${packets} packets at each`, async () =>
      instances.every((instance) => tally(instance) === packets) ? true : null,
    );
  /** External ports by inside endpoint. */
  const bindings = async (instance: Instance): Promise<Record<string, number | undefined>> =>
    Object.fromEntries(
      (await instance.flows()).map(({ inside, external }) => [`${inside.address}:${inside.port}`, external?.port]),
    );

  it('goes on after an orderly stop, and after a save and a crash, and not with a damaged file', async () => {
    const a = await start('a', ['a'], FLOWS);
    await isTally([a], FLOWS);
    const before = await bindings(a);
    assert.equal(Object.keys(before).length, FLOWS);
    await stopAll([a]);
    assert.equal(statSync(fileOf('a')).mode & 0o777, 0o600);
    const second = await start('a', ['a'], FLOWS);
    assert.equal((await second.status()).state_reason, 'has restored its state file');
    assert.deepEqual(await bindings(second), before);
    await isTally([second], 2 * FLOWS);
    await askJson(second.socket, 'save', { silence_ms: 60_000 });
    await second.program.stop('SIGKILL');
    const third = await start('a', ['a'], undefined, 8192);
    assert.match(third.program.output, /took the state of the state file over entry by entry/);
    assert.deepEqual(await bindings(third), before, 'with another capacity, too');
    await isTally([third], 2 * FLOWS);
    await stopAll([third]);
    const file = readFileSync(fileOf('a'));
    file[file.length >>> 1] ^= 1;
    writeFileSync(fileOf('a'), file);
    const fourth = await start('a', ['a']);
    assert.match(fourth.program.output, /state file .* is not restored: it .*damaged/);
    assert.equal((await fourth.status()).state_reason, 'began as the only member');
    assert.deepEqual(await bindings(fourth), {});
    assert.deepEqual(readFileSync(`${fileOf('a')}.refused`), file);
  });

  it('goes on after its clock was put back or ahead while it was down', async () => {
    const HOUR_MS = 3_600_000;
    const first = await start('a', ['a'], FLOWS);
    await isTally([first], FLOWS);
    const before = await bindings(first);
    await stopAll([first]);
    const behind = await cluster.start('a', { ...options('a', ['a']), clockMs: -HOUR_MS });
    assert.equal((await behind.status()).state_reason, 'has restored its state file');
    assert.deepEqual(await bindings(behind), before, 'they end later by the difference');
    await stopAll([behind]);
    const ahead = await cluster.start('a', { ...options('a', ['a']), clockMs: 3 * HOUR_MS });
    assert.equal((await ahead.status()).state_reason, 'has restored its state file');
    assert.deepEqual(await bindings(ahead), {}, 'by this clock, they ended while it was down');
    await isTally([ahead], FLOWS);
  });

  it('waits for an operator where a smaller capacity would lose entries of the file', async () => {
    const SEEN_PORTS = 400;
    const optionsOf = (capacity: number, flows?: number): LoopbackOptions => ({
      members: ['a'],
      ...(flows !== undefined && { flows }),
      sections: {
        middleboxes: [
          { './seen.mjs': { capacity } },
          { nat: { inside: 'inside', outside: 'outside', external: ['203.0.113.1'], flows: 4096 } },
        ],
        state: { file: './a.state' },
      },
    });
    const held = async (instance: Instance): Promise<number> => (await instance.objects())[0].figures['used'] ?? 0;
    const a = await cluster.start('a', optionsOf(1000, SEEN_PORTS));
    await eventually('all ports', async () => ((await held(a)) >= SEEN_PORTS ? true : null));
    await stopAll([a]);
    const { instance, program } = cluster.launch('a', optionsOf(64));
    await eventually('it to wait, and say what would be lost', async () => {
      const found = await instance.status().catch(() => null);
      return found?.state === 'waiting' && found.state_reason.includes('constellation join lossy') ? true : null;
    });
    const [, lost] = /joining: seen\.ports: (\d+) entries of the state file found no room/.exec(program.output) ?? [];
    const [joined] = (await askJson(instance.socket, 'join lossy', { silence_ms: 20_000 })) as Standing[];
    assert.deepEqual([joined.state, joined.reason], ['ready', 'has restored its state file']);
    assert.equal((await held(instance)) + Number(lost), SEEN_PORTS, 'each was taken or counted');
  });

  it('restores one file where three start at once, counts nothing twice, and else joins', async () => {
    const members = ['a', 'b', 'c'];
    const first = await startAll(members, FLOWS);
    await isTally(first, 3 * FLOWS);
    const before = await bindings(first[0]);
    await stopAll(first);
    // One has lost its file: it does not begin empty.
    writeFileSync(fileOf('a'), 'damaged');
    const second = await startAll(members, FLOWS);
    assert.match(second[0].program.output, /state file .*a\.state is not restored: it is cut short; it is kept as/);
    assert.equal(readFileSync(`${fileOf('a')}.refused`, 'utf8'), 'damaged');
    const logs = second.map(({ program }) => program.output);
    assert.equal(logs.filter((log) => /joining: has restored its state file/.test(log)).length, 1, 'one restores');
    assert.equal(logs.filter((log) => /joining: has the state of a member/.test(log)).length, 2, 'two join it');
    for (const instance of second)
      for (const [inside, port] of Object.entries(before))
        assert.equal((await bindings(instance))[inside], port, `the port of ${inside} at ${instance.name}`);
    await isTally(second, 6 * FLOWS);
    await stopAll([second[1]]);
    const again = await start('b', members);
    assert.match(again.program.output, /state file .*b\.state is not needed: the state came from a member/);
    await isTally([second[0], again, second[2]], 6 * FLOWS);
  });
});
