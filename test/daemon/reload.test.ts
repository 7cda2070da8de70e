/** `constellation reload` of a real daemon, while packets pass. */

import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { askJson } from '../../daemon/admin/client.js';
import type { Reloaded } from '../../daemon/views/source.js';
import { PcapWriter } from '../../workers/drivers/pcap-file.js';
import { freePort } from '../support/ports.js';
import { eventually, Instance } from '../testbed/instance.js';
import { Program } from '../testbed/program.js';
import { DAEMON, makeKeyFile, siteConfig, writeConfig } from '../testbed/site.js';
import { frame } from '../workers/support/frames.js';

const MAC = { mac: '02:00:00:00:00:01', next_hop: '02:00:00:00:00:02' };
const PACKETS = 20_000;
const EVERY_MS = 10;

describe('reload', () => {
  let folder: string;
  let program: Program | null = null;
  let instance: Instance;
  let port = 0;

  /** The configuration with some settings, section by section. */
  function write(sections: Readonly<Record<string, unknown>> = {}, nat: Readonly<Record<string, unknown>> = {}): void {
    const config = siteConfig(
      {
        self: 'a',
        members: [
          { name: 'a', id: 1, address: '127.0.0.1' },
          { name: 'b', id: 2, address: '127.0.0.2' },
        ],
        ports: { inside: { ...MAC, in: 'in.pcap' }, outside: { ...MAC, mac: '02:00:00:00:00:03', in: 'out.pcap' } },
        external: ['203.0.113.1'],
        keyFile: makeKeyFile(folder),
        core: 0,
      },
      join(folder, 'a.sock'),
      {
        cluster: { slots: 4 },
        transport: { kind: 'unicast', port },
        packet_io: { driver: 'pcap', pace: 'recorded' },
        nat: { flows: 1024, ...nat },
      },
    );
    writeConfig(join(folder, 'a.yaml'), { ...config, ...sections });
  }

  const reload = async (words = ''): Promise<Reloaded> =>
    (await askJson(instance.socket, `reload ${words}`.trim(), { silence_ms: 30_000 }))[0] as Reloaded;

  before(async function () {
    this.timeout(60_000);
    folder = mkdtempSync(join(tmpdir(), 'constellation-reload-'));
    port = await freePort();
    const inside = new PcapWriter(join(folder, 'in.pcap'), false);
    const outside = new PcapWriter(join(folder, 'out.pcap'), false);
    for (let n = 0; n < PACKETS; n++) {
      const at = n * EVERY_MS;
      const [seconds, nanoseconds] = [Math.trunc(at / 1000), (at % 1000) * 1_000_000];
      const asked = frame('udp 10.0.0.5:4000 > 198.51.100.7:80');
      const unasked = frame(`tcp 198.51.100.7:${5000 + (n % 1000)} > 203.0.113.1:8080 S`);
      inside.write(asked, 0, asked.length, seconds, nanoseconds);
      outside.write(unasked, 0, unasked.length, seconds, nanoseconds);
    }
    inside.close();
    outside.close();
    write();
    instance = new Instance('a', join(folder, 'a.sock'));
    program = new Program('a', [process.execPath, DAEMON, '-c', join(folder, 'a.yaml')], join(folder, 'a.log'));
    await instance.attach(program);
  });
  after(async () => {
    await program?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('says what is lost if a value is reduced, and how that is confirmed', async () => {
    write({}, { flows: 512, external: ['203.0.113.2'] });
    const { restart } = await reload('check');
    const reasons = restart.map(({ option, change, reason }) => [option.split('.').at(-1), change, reason]);
    const confirm =
      'after the restart the instance waits, if there are such, until constellation join lossy confirms it';
    assert.deepEqual(reasons, [
      ['external', 'rolling', `bindings of an address that is taken out are lost: ${confirm}`],
      ['flows', 'rolling', `bindings that find no room are lost: ${confirm}`],
    ]);
    write({}, { flows: 2048, external: ['203.0.113.0/30'] });
    assert.deepEqual(
      (await reload('check')).restart.map(({ reason }) => reason),
      ['', ''],
      'nothing is lost if it is raised',
    );
    write();
  });

  const forwarded = async (): Promise<number> => (await instance.counters())['nat_inbound'];
  const statics = async (): Promise<number> => (await instance.flows('state=static')).length;
  const grows = (what: string, count: () => Promise<number>) =>
    eventually(what, async () => {
      const before = await count();
      return eventually('a packet', async () => ((await count()) > before ? true : null));
    });

  it('applies hot options to running threads, and names what waits for a restart', async function () {
    this.timeout(120_000);
    await grows('packets that nobody asked for', async () => (await instance.counters())['nat_unsolicited']);
    assert.equal(await forwarded(), 0);
    const forward = 'tcp 203.0.113.1:8080 -> 10.0.0.9:80';
    const changed = () =>
      write(
        {
          replication: { join_wait_ms: 500, keepalive_ms: '0.1s', bandwidth: '400M' },
          log: { level: 'debug' },
          threads: { workers: [0], idle: 'spin' },
        },
        { static: [forward], udp: '2m', flows: 2048 },
      );
    changed();
    const expected = {
      applied: [
        { option: 'replication.keepalive_ms', from: '200ms', to: '100ms' },
        { option: 'replication.bandwidth', from: '0', to: '400M' },
        { option: 'log.level', from: 'info', to: 'debug' },
        { option: 'middleboxes[0].nat.static', from: '[]', to: `[${forward}]` },
        { option: 'middleboxes[0].nat.udp', from: '5m', to: '2m' },
      ],
      restart: [
        { option: 'threads.idle', from: 'sleep', to: 'spin', change: 'rolling', reason: '' },
        {
          option: 'middleboxes[0].nat.flows',
          from: '1024',
          to: '2048',
          change: 'rolling',
          reason: '',
        },
      ],
    };
    const checked = await reload('check');
    assert.deepEqual({ ...checked, unchanged: 0 }, { ...expected, unchanged: 0 });
    assert.deepEqual([await forwarded(), await statics()], [0, 0], 'a check changes nothing');
    const done = await reload();
    assert.deepEqual(done, checked);
    await grows('packets that are forwarded', forwarded);
    assert.deepEqual(
      (await instance.flows('state=static')).map(({ object, inside, external, expires_s }) => [
        object,
        `${inside.address}:${inside.port}`,
        `${external?.address}:${external?.port}`,
        expires_s,
      ]),
      [['nat.static', '10.0.0.9:80', '203.0.113.1:8080', null]],
    );
    // What waits for a restart is named again; what was applied is not.
    const again = await reload();
    assert.deepEqual([again.applied, again.restart], [[], expected.restart]);
    assert.equal(again.unchanged, done.unchanged + done.applied.length);
  });

  it('gives a thread that starts again what was reloaded', async function () {
    this.timeout(120_000);
    const restarts = async () => (await instance.threads()).find(({ name }) => name === 'worker-0')?.restarts ?? 0;
    const before = await restarts();
    await askJson(instance.socket, 'restart worker-0', { silence_ms: 30_000 });
    await eventually('the worker', async () =>
      (await restarts()) > before && (await instance.isReady()) ? true : null,
    );
    await grows('packets that are forwarded', forwarded);
  });

  it('changes nothing if anything is wrong, and says where', async function () {
    this.timeout(60_000);
    write({ log: { level: 'warn' } }, { udp: 'soon' });
    await assert.rejects(
      reload(),
      /the configuration is wrong, and nothing was changed: \S+a\.yaml:\d+:\d+: middleboxes\[0\]\.nat\.udp: expected a time such as 30s, 5m or 2h, or a whole number of seconds, not "soon"/,
    );
    assert.equal(await statics(), 1);
    program?.kill('SIGHUP');
    await program?.waitFor(/SIGHUP: the configuration is wrong/);
    assert.equal(await statics(), 1);
  });

  it('adds and removes members, and by the signal goes back to what was', async function () {
    this.timeout(60_000);
    write({
      cluster: {
        id: 'testbed',
        self: 'a',
        slots: 4,
        key_file: makeKeyFile(folder),
        members: [
          { name: 'a', id: 1, address: '127.0.0.1' },
          { name: 'b', id: 2, address: '127.0.0.2' },
          { name: 'c', id: 9, address: '127.0.0.9' },
        ],
      },
    });
    program?.kill('SIGHUP');
    await eventually('the member', async () =>
      (await instance.peers()).some(({ name }) => name === 'c') ? true : null,
    );
    await eventually('the forward to be gone', async () => ((await statics()) === 0 ? true : null));
    await grows('packets that nobody asked for', async () => (await instance.counters())['nat_unsolicited']);
    write();
    const { applied, restart } = await reload();
    assert.deepEqual(
      applied.map(({ option }) => option),
      ['cluster.members'],
    );
    assert.deepEqual(restart, []);
    assert.ok(!(await instance.peers()).some(({ name }) => name === 'c'));
  });
});
