/** Members that are there and refused: seen by what is refused, and by whole instances. */

import { strict as assert } from 'node:assert';
import { createSocket } from 'node:dgram';
import { askAll, askJson, CommandError } from '../../../daemon/admin/client.js';
import { RefusalWatch } from '../../../daemon/membership/refusals.js';
import type { PeerRow, RejectRow as RejectsShown, Standing } from '../../../daemon/views/source.js';
import type { RejectRow } from '../../../shm/reject-table.js';
import type { PeerStatus } from '../../../workers/replication/membership/peers.js';
import { REFUSALS, type Refusal } from '../../../workers/replication/metrics.js';
import { clusterForEach, type LoopbackCluster } from '../../support/loopback-cluster.js';
import { eventually } from '../../testbed/instance.js';

const KEEPALIVE_MS = 100;
const SILENT_MS = 500;

describe('refused members', () => {
  const peer = (state: PeerStatus['state']): PeerStatus =>
    ({ name: 'b', id: 2, address: '10.0.0.2', state }) as unknown as PeerStatus;
  const row = (address: string, reason: Refusal, at: number): RejectRow => ({
    ...{ address, at, count: 1, inherited: 0, reason: REFUSALS.indexOf(reason) },
  });
  let watch: RefusalWatch;
  let warned: string[];

  beforeEach(() => {
    warned = [];
    watch = new RefusalWatch({ keepaliveMs: KEEPALIVE_MS, silentMs: SILENT_MS, warn: (text) => warned.push(text) });
  });

  /** One look at each time, with a row of that time. */
  function see(times: readonly number[], reason: Refusal, state: PeerStatus['state'] = 'never', address = '10.0.0.2') {
    for (const at of times) watch.look([row(address, reason, at)], [peer(state)], at);
  }

  it('are those refused again and again for what can be mended, and said once', () => {
    see([0, 100, 200, 300], 'seal_key');
    assert.match(
      watch.problem ?? '',
      /^messages of member b \(10\.0\.0\.2\) are refused: its key is not in our key file/,
    );
    assert.equal(warned.length, 1);
  });

  it('are named if they seal in the format of another release', () => {
    see([0, 100, 200, 300], 'seal_version');
    assert.match(
      warned.join(),
      /^messages of member b \(10\.0\.0\.2\) are refused: it does not send sealed format 2, .* run the same release/,
    );
  });

  it('are not made by one datagram, nor by a burst of them', () => {
    see([0], 'seal_forged');
    for (let now = 0; now <= SILENT_MS; now += 50)
      watch.look([row('10.0.0.2', 'seal_forged', 0)], [peer('never')], now);
    see([1000, 1001, 1002, 1003], 'seal_forged');
    assert.deepEqual([watch.problem, warned], [null, []]);
  });

  it('are no longer when nothing more comes, or when they are heard', () => {
    see([0, 100, 200], 'meaning');
    assert.notEqual(watch.problem, null);
    watch.look([row('10.0.0.2', 'meaning', 200)], [peer('never')], 200 + SILENT_MS + 1);
    assert.equal(watch.problem, null);
    see([1000, 1100, 1200], 'meaning', 'heard');
    assert.equal(watch.problem, null);
  });

  it('are not those whose messages are late, damaged or doubled', () => {
    for (const reason of ['incarnation', 'checksum', 'seal_replay', 'unclosed', 'own'] as const)
      see([0, 100, 200, 300], reason);
    assert.equal(watch.problem, null);
  });

  it('who are on no list are named once each, and not without end', () => {
    for (let i = 0; i < 100; i++) see([0, 100, 200, 300], 'sender', 'heard', `10.1.0.${i}`);
    assert.equal(warned.length, 16);
    assert.match(warned[0], /messages from 10\.1\.0\.0 are refused: .* give member add at this instance too/);
    see([0, 100, 200, 300], 'seal_forged', 'heard', '10.2.0.1');
    assert.equal(warned.length, 16, 'who has no key of ours is not named');
  });
});

async function sendFrom(source: string, address: string, port: number, count: number): Promise<void> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, source, resolve));
  for (let i = 0; i < count; i++)
    await new Promise((resolve) => socket.send(Buffer.alloc(64, i), port, address, resolve));
  await new Promise<void>((resolve) => socket.close(resolve));
}

describe('an instance whose messages and those of a member are refused', () => {
  let cluster: LoopbackCluster;

  clusterForEach((made) => {
    cluster = made;
  });

  it('does not begin without state, says what to mend, and begins alone when it is told', async () => {
    const members = ['a', 'b'];
    const a = await cluster.start('a', { members });
    const { instance: b, program } = cluster.launch('b', { members, cluster: { id: 'another' } });
    const status = await eventually('b to say why it waits', async () => {
      const found = await b.status().catch(() => null);
      return found?.state_reason.includes('does not begin') ? found : null;
    });
    assert.equal(status.state, 'waiting');
    assert.match(
      status.state_reason,
      /member a \(127\.0\.0\.1\) are refused: it is of another cluster; .* mend it, or give constellation join alone/,
    );
    assert.match(program.output, /joining: messages of member a .* does not begin without their state/);
    assert.equal(((await askJson(b.socket, 'show peers')) as PeerRow[])[0].state, 'refused');
    assert.match(
      (await a.status()).state_reason,
      /messages of member b \(127\.0\.0\.2\) are refused/,
      'a runs, and says so',
    );
    const [alone] = (await askJson(b.socket, 'join alone', { silence_ms: 20_000 })) as Standing[];
    assert.equal(alone.state, 'ready');
    assert.match(alone.reason, /began without the others, as ordered$/);
    await assert.rejects(askAll(b.socket, 'join anyhow'), CommandError);
  });

  it('counts refusals by source in a table of fixed size, whoever sends', async () => {
    const SOURCES = 200;
    const a = await cluster.start('a', { members: ['a', 'b'] });
    const { transport } = await a.status();
    const port = Number(/port (\d+)/.exec(transport)?.[1]);
    for (let i = 0; i < SOURCES; i++) await sendFrom(`127.0.1.${i + 1}`, cluster.address('a'), port, i === 7 ? 50 : 1);
    const rows = await eventually('all to be refused', async () => {
      const found = (await askJson(a.socket, 'show rejects')) as RejectsShown[];
      return found.reduce((sum, { refused }) => sum + refused, 0) >= SOURCES + 49 ? found : null;
    });
    assert.equal(rows.length, 32);
    assert.equal(rows[0].address, '127.0.1.8');
    assert.equal(rows[0].refused - rows[0].inherited <= 50 && rows[0].refused >= 50, true);
    assert.equal((await a.status()).state, 'ready');
  });

  it('that is not on the list at one member is named there', async () => {
    const slots = { slots: 3 };
    const [a] = await Promise.all(
      ['a', 'b'].map((name) => cluster.start(name, { members: ['a', 'b'], cluster: slots })),
    );
    const c = await cluster.start('c', { members: ['a', 'b', 'c'], cluster: slots });
    assert.match(c.program.output, /not heard yet: .*c on the list there/);
    await eventually('a to name it', async () =>
      a.program.output.includes('messages from 127.0.0.3 are refused: it speaks as a member, and is none here')
        ? true
        : null,
    );
  });
});
