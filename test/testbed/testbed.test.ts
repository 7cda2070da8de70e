/**
 * Tests the testbed itself on real namespaces: its networks work, the relay does to frames what it
 * is told to do, and nothing stays behind.
 */

import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { needs } from '../support/require.js';
import { findPing, ping } from './ping.js';
import { isStale, OWN_PREFIX, RUNS_FOLDER, sweep } from './sweep.js';
import { Testbed } from './testbed.js';
import type { Topology } from './topology.js';

const PROBE = fileURLToPath(new URL('udp-probe.js', import.meta.url));

const ACROSS: Topology = {
  nodes: { left: {}, right: {} },
  links: [
    {
      name: 'wan',
      relayed: { delay_ms: 25 },
      ends: [
        { node: 'left', interface: 'wan', addresses: ['10.9.0.1/24'] },
        { node: 'right', interface: 'wan', addresses: ['10.9.0.2/24'] },
      ],
    },
  ],
};

function ours(): string[] {
  return existsSync('/run/netns') ? readdirSync('/run/netns').filter((name) => name.startsWith(OWN_PREFIX)) : [];
}

describe('testbed', function () {
  this.timeout(60_000);
  let testbed: Testbed;

  before(async function () {
    needs(this, 'netns');
    testbed = await Testbed.build(ACROSS);
  });

  after(async () => {
    await testbed?.down();
    assert.deepEqual(ours(), []);
  });

  let port = 7000;

  /**
   * Sends datagrams from left to right. Returns `[id, delayUs]` of each that arrived, in order of
   * arrival.
   */
  async function probe(count: number, enough: number): Promise<[number, number][]> {
    port++;
    const receiver = testbed.start('right', `probe-${port}`, [process.execPath, PROBE, 'receive', String(port)]);
    try {
      await receiver.waitFor(/ready/);
      await testbed.run('left', [process.execPath, PROBE, 'send', '10.9.0.2', String(port), String(count)]);
      const lines = (): [number, number][] =>
        receiver.output
          .split('\n')
          .slice(1, -1)
          .map((line) => line.split(' ').map(Number) as [number, number]);
      await receiver.until(() => (lines().length >= enough ? true : null), `to receive ${enough}`, 20_000);
      await new Promise((resolve) => setTimeout(resolve, 200));
      return lines();
    } finally {
      await receiver.stop('SIGKILL');
    }
  }

  it('carries ping through the relay, which delays both ways', async function () {
    if (findPing() === null) needs(this, 'tool:ping');
    const { sent, received, rttMs } = await ping(testbed, 'left', '10.9.0.2', 5);
    assert.deepEqual([sent, received], [5, 5]);
    assert.ok(rttMs >= 50, `round trip of ${rttMs} ms through 25 ms each way`);
    console.log(`      round trip ${rttMs} ms through 2 x 25 ms`);
  });

  it('delays, and says how exactly', async () => {
    const got = await probe(200, 200);
    assert.equal(got.length, 200);
    assert.ok(got.every(([, delayUs]) => delayUs >= 25_000));
    const stats = await testbed.relay.stats('wan', 'left', 'right');
    console.log(`      relay late by ${stats.late_us_mean} us on average, ${stats.late_us_max} us at most`);
  });

  it('loses, and counts what it lost', async () => {
    const before = await testbed.relay.stats('wan', 'left', 'right');
    await testbed.relay.set('wan', 'left', 'right', { loss: 0.2, delay_ms: 5 });
    const got = await probe(500, 300);
    await testbed.relay.set('wan', 'left', 'right', { loss: 0 });
    const after = await testbed.relay.stats('wan', 'left', 'right');
    assert.equal(got.length + after.lost - before.lost, 500);
    assert.ok(after.lost > before.lost);
  });

  it('reorders and duplicates', async () => {
    await testbed.relay.set('wan', 'left', 'right', { reorder: 0.1, reorder_ms: 20, duplicate: 0.1 });
    const got = await probe(300, 301);
    await testbed.relay.set('wan', 'left', 'right', { reorder: 0, duplicate: 0 });
    const numbers = got.map(([id]) => id);
    assert.equal(new Set(numbers).size, 300);
    assert.ok(numbers.length > 300, 'some came twice');
    assert.ok(
      numbers.some((id, i) => i > 0 && id < numbers[i - 1]),
      'some came after later ones',
    );
  });

  it('cuts and heals', async () => {
    await testbed.relay.cut('wan', 'left', 'right');
    await testbed.run('left', [process.execPath, PROBE, 'send', '10.9.0.2', '7', '10']);
    const cut = await testbed.relay.stats('wan', 'left', 'right');
    assert.ok(cut.cut >= 10);
    await testbed.relay.heal('wan', 'left', 'right');
    assert.equal((await probe(10, 10)).length, 10);
  });

  it('tells the relay’s refusals', async () => {
    await assert.rejects(testbed.relay.command('set left right'), /the relay says: set FROM TO/);
    await assert.rejects(testbed.relay.cut('wan', 'left', 'nobody'), /no path/);
  });

  it('costs nothing while nothing passes', async () => {
    const start = testbed.relay.program.processorSeconds();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const used = testbed.relay.program.processorSeconds() - start;
    assert.ok(used < 0.5, `${used} s of processor time in an idle second`);
  });

  it('says what failed, and leaves nothing of it behind', async () => {
    const before = ours();
    const wrong = { nodes: { left: {}, right: { routes: ['default via 1.2.3.4'] } }, links: ACROSS.links };
    await assert.rejects(Testbed.build(wrong), /node right could not be set up/);
    await assert.rejects(testbed.run('left', ['false']), /in left, false ended with code 1/);
    assert.deepEqual(ours(), before);
  });

  it('sweeps what a killed run left: programs, namespaces, files', async () => {
    const url = JSON.stringify(new URL('testbed.js', import.meta.url).href);
    const script = `
      import { Testbed } from ${url};
      const testbed = await Testbed.build(${JSON.stringify(ACROSS)});
      const program = testbed.start('left', 'sleeper', ['sleep', '1000']);
      console.log(testbed.namespace('left'), program.pid, testbed.folder);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const line = await new Promise<string>((resolve) => child.stdout.once('data', (data) => resolve(String(data))));
    const [namespace, pid, folder] = line.trim().split(' ');
    assert.ok(existsSync(`/run/netns/${namespace}`) && existsSync(folder));
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    for (let i = 0; i < 100 && existsSync(`/proc/${pid}`); i++) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(!existsSync(`/proc/${pid}`), 'programs die with the process that started them');
    sweep(); // unless another run of the testbed, started this moment, was quicker
    assert.ok(!existsSync(`/run/netns/${namespace}`) && !existsSync(folder));
    assert.ok(existsSync(`/run/netns/${testbed.namespace('left')}`), 'what is in use stays');
  });

  it('tells its own names from those of the dead, and from others’', () => {
    assert.equal(isStale(`${OWN_PREFIX}0-left`), false);
    assert.equal(isStale(`ct-${process.pid}-zzzz-0-left`), true, 'this number, another process');
    assert.equal(isStale('ct-4194304-abc-0-left'), true);
    assert.equal(isStale('blue'), false);
    assert.equal(isStale('ct-probe-12'), false);
    mkdirSync(join(RUNS_FOLDER, 'ct-4194304-abc-0'), { recursive: true });
    assert.ok(sweep().includes('ct-4194304-abc-0'));
  });
});
