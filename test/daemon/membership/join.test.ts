/** Instances that come into a cluster that has state, and leave it. */

import { strict as assert } from 'node:assert';
import { LoopbackCluster } from '../../support/loopback-cluster.js';
import { converged, eventually, type Instance } from '../../testbed/instance.js';

const MEMBERS = ['a', 'b', 'c'];
const FLOWS = 300;

/** Waits until all hold the same; there may be members that are not running. Returns the digest. */
const same = (...instances: Instance[]): Promise<string> =>
  eventually('the same everywhere', async () => {
    const digests = await Promise.all(instances.map(async (instance) => (await instance.objects())[0].digest));
    return new Set(digests).size === 1 ? digests[0] : null;
  });

const used = async (instance: Instance): Promise<number> => (await instance.objects())[0].figures['used'] ?? 0;

/**
 * The tests of one cluster follow each other: an instance that has ended in one is started again in
 * it.
 */
describe('an instance that joins', () => {
  let cluster: LoopbackCluster;
  let a: Instance;
  let b: Instance;
  let c: Instance;

  before(async () => {
    cluster = await LoopbackCluster.create();
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') console.log(cluster.report());
  });

  after(() => cluster.down());

  const start = (name: string, flows?: number): Promise<Instance> =>
    cluster.start(name, { members: MEMBERS, ...(flows !== undefined && { flows }) });

  it('begins together with the others, without waiting', async () => {
    [a, b, c] = await Promise.all(MEMBERS.map((name) => start(name, name === 'c' ? undefined : FLOWS)));
    for (const instance of [a, b, c]) {
      assert.match(instance.program.output, /joining: (began together|heard no|has the state)/);
      assert.equal((await instance.status()).state, 'ready');
    }
    await c.program.stop('SIGKILL');
  });

  it('has the state of the others by a snapshot, and what comes after it', async () => {
    await eventually('flows', async () => ((await used(a)) >= FLOWS ? true : null));
    await same(a, b);
    c = await start('c', FLOWS);
    assert.match(c.program.output, /joining: takes a snapshot of [ab]/);
    assert.match(c.program.output, /joining: has the state of a member/);
    assert.match(`${a.program.output}${b.program.output}`, /snapshot for member 3 sent: 100 %/);
    await eventually('flows of its own', async () => ((await used(c)) >= FLOWS ? true : null));
    await converged([a, b, c]);
    const status = await c.status();
    assert.deepEqual([status.state, status.state_reason], ['ready', 'has the state of a member']);
    assert.equal(
      (await c.threads()).every(({ restarts }) => restarts === 0),
      true,
    );
  });

  it('comes back after a crash and after an orderly end with what the others have', async () => {
    const before = await same(a, b, c);
    await a.program.stop('SIGKILL');
    a = await start('a');
    assert.equal(await same(a, b, c), before);
    assert.deepEqual(await b.program.stop(), { code: 0, signal: null });
    b = await start('b');
    assert.match(b.program.output, /joining: has the state of a member/);
    assert.equal(await same(a, b, c), before);
  });

  it('comes back with another capacity, and has what the others have', async () => {
    const before = await same(a, b, c);
    await c.program.stop('SIGKILL');
    const nat = { inside: 'inside', outside: 'outside', external: ['203.0.113.1'], flows: 3 * 4096 };
    c = await cluster.start('c', { members: MEMBERS, sections: { middleboxes: [{ nat }] } });
    assert.match(c.program.output, /took the state of [ab] over entry by entry: its capacities or lists differ/);
    assert.equal(await same(a, b, c), before);
    assert.equal((await c.objects())[0].figures['capacity'], 3 * 4096);
  });

  it('comes back after its clock was put back', async () => {
    const before = await same(a, b, c);
    await c.program.stop('SIGKILL');
    c = await cluster.start('c', { members: MEMBERS, clockMs: -3_600_000 });
    // Within the time in which a member counts as heard, it goes on as the later start; after it,
    // it is believed as it is.
    assert.match((await c.status()).state_reason, /has the state of a member$/);
    assert.equal(await same(a, b, c), before);
  });
});

describe('an instance that joins with much state to come', () => {
  let cluster: LoopbackCluster;

  before(async () => {
    cluster = await LoopbackCluster.create();
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') console.log(cluster.report());
  });

  after(() => cluster.down());

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
});
