/** Instances that come into a cluster that has state, and leave it. */

import { strict as assert } from 'node:assert';
import { LoopbackCluster } from '../../support/loopback-cluster.js';
import { converged, eventually, type Instance } from '../../testbed/instance.js';

const MEMBERS = ['a', 'b', 'c'];
const FLOWS = 300;

describe('an instance that joins', () => {
  let cluster: LoopbackCluster;

  beforeEach(async () => {
    cluster = await LoopbackCluster.create();
  });

  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(cluster.report());
    await cluster.down();
  });

  const used = async (instance: Instance): Promise<number> => (await instance.objects())[0].figures['used'] ?? 0;
  const start = (name: string, flows?: number): Promise<Instance> =>
    cluster.start(name, { members: MEMBERS, ...(flows !== undefined && { flows }) });

  /** Waits until all hold the same; there may be members that are not running. Returns the digest. */
  const same = (...instances: Instance[]): Promise<string> =>
    eventually('the same everywhere', async () => {
      const digests = await Promise.all(instances.map(async (instance) => (await instance.objects())[0].digest));
      return new Set(digests).size === 1 ? digests[0] : null;
    });

  it('begins together with the others, without waiting', async () => {
    const all = await Promise.all(MEMBERS.map((name) => start(name)));
    for (const instance of all)
      assert.match(instance.program.output, /joining: (began together|heard no|has the state)/);
    for (const instance of all) assert.equal((await instance.status()).state, 'ready');
  });

  it('has the state of the others by a snapshot, and what comes after it', async () => {
    const a = await start('a', FLOWS);
    const b = await start('b', FLOWS);
    await eventually('flows', async () => ((await used(a)) >= FLOWS ? true : null));
    await same(a, b);
    const c = await start('c', FLOWS);
    assert.match(c.program.output, /joining: takes a snapshot of [ab]/);
    assert.match(c.program.output, /joining: has the state of a member/);
    assert.match(`${a.program.output}${b.program.output}`, /snapshot for member 3 sent: 100 %/);
    await eventually('flows of its own', async () => ((await used(c)) >= FLOWS ? true : null));
    await converged([a, b, c]);
    const status = await c.status();
    assert.deepEqual(
      [status.phase, status.state, status.state_reason],
      ['running', 'ready', 'has the state of a member'],
    );
    assert.equal(
      (await c.threads()).every(({ restarts }) => restarts === 0),
      true,
    );
  });

  it('takes another donor when the first dies in the middle of the snapshot', async () => {
    const nat = { inside: 'inside', outside: 'outside', external: ['203.0.113.1', '203.0.113.2'], flows: 1 << 20 };
    const sections = { middleboxes: [{ nat }] };
    const [a, b] = await Promise.all([
      cluster.start('a', { members: MEMBERS, sections, flows: FLOWS }),
      cluster.start('b', { members: MEMBERS, sections }),
    ]);
    await eventually('flows', async () => ((await used(b)) >= FLOWS ? true : null));
    const before = await same(a, b);
    const { instance: c, program } = cluster.launch('c', { members: MEMBERS, sections });
    const [, donor] = await program.waitFor(/takes a snapshot of ([ab])"/);
    const [dies, other] = donor === 'a' ? [a, b] : [b, a];
    await program.waitFor(/snapshot from member \d: \d+ % of/);
    dies.program.kill('SIGKILL');
    await c.attach(program);
    assert.doesNotMatch(program.output.split('takes a snapshot of')[1], /100 %/, 'it was in the middle');
    assert.match(program.output, new RegExp(`takes a snapshot of ${other.name}"`));
    assert.match((await c.status()).state_reason, /^has the state of a member/);
    assert.equal(await same(c, other), before);
    assert.equal(await used(c), await used(other));
  });

  it('comes back after its clock was put back', async () => {
    const [a, b] = await Promise.all([start('a', FLOWS), start('b')]);
    await eventually('flows', async () => ((await used(b)) >= FLOWS ? true : null));
    const before = await same(a, b);
    await a.program.stop('SIGKILL');
    const again = await cluster.start('a', { members: MEMBERS, clockMs: -3_600_000 });
    // Within the time in which a member counts as heard, it goes on as the later start; after it, it is believed as it is.
    assert.match((await again.status()).state_reason, /^has the state of a member/);
    assert.equal(await same(again, b), before);
  });

  it('comes back after a crash and after an orderly end with what the others have', async () => {
    const [a, b] = await Promise.all([start('a', FLOWS), start('b')]);
    await eventually('flows', async () => ((await used(b)) >= FLOWS ? true : null));
    const before = await same(a, b);
    await a.program.stop('SIGKILL');
    const again = await start('a');
    assert.equal(await same(again, b), before);
    assert.deepEqual(await b.program.stop(), { code: 0, signal: null });
    const back = await start('b');
    assert.match(back.program.output, /joining: has the state of a member/);
    assert.equal(await same(again, back), before);
  });
});
