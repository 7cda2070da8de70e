import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { askJson } from '../../daemon/admin/client.js';
import type { KeysInUse } from '../../daemon/views/source.js';
import { freePort } from '../support/ports.js';
import { eventually, Instance } from '../testbed/instance.js';
import { Program } from '../testbed/program.js';
import { DAEMON, siteConfig, writeConfig } from '../testbed/site.js';

const MEMBERS = ['a', 'b'].map((name, i) => ({ name, id: i + 1, address: `127.0.0.${i + 1}` }));
const MAC = { mac: '02:00:00:00:00:01', next_hop: '02:00:00:00:00:02' };
const PORTS = { inside: MAC, outside: { ...MAC, mac: '02:00:00:00:00:03' } };

describe('a cluster with a key', () => {
  let folder: string;
  let port: number;
  const programs: Program[] = [];

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-keys-'));
    port = await freePort();
  });
  afterEach(async () => {
    await Promise.all(programs.map((program) => program.stop()));
    programs.length = 0;
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const keyFile = (name: string): string => join(folder, `${name}.key`);

  function daemon(name: string): Program {
    const config = siteConfig(
      { self: name, members: MEMBERS, ports: PORTS, external: ['203.0.113.1'], keyFile: keyFile(name), core: 0 },
      join(folder, `${name}.sock`),
      { transport: { kind: 'unicast', port }, packet_io: { driver: 'pcap' }, nat: { flows: 1024 } },
    );
    const file = join(folder, `${name}.yaml`);
    writeConfig(file, config);
    const program = new Program(name, [process.execPath, DAEMON, '-c', file], join(folder, `${name}.log`));
    programs.push(program);
    return program;
  }

  async function start(name: string): Promise<Instance> {
    const instance = new Instance(name, join(folder, `${name}.sock`));
    await instance.attach(daemon(name));
    return instance;
  }

  /** The program that makes keys; returns its exit code and what it said. */
  function generate(name: string): { status: number | null; said: string } {
    const argv = [DAEMON, '--generate-key', keyFile(name)];
    const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' });
    return { status, said: stdout + stderr };
  }

  it('changes its key while it runs, by command and by signal', async () => {
    assert.equal(generate('a').status, 0);
    const spread = (): void => copyFileSync(keyFile('a'), keyFile('b'));
    const swap = (): void => {
      const lines = readFileSync(keyFile('a'), 'utf8').trim().split('\n');
      writeFileSync(keyFile('a'), `${lines.reverse().join('\n')}\n`);
    };
    spread();
    const [a, b] = await Promise.all([start('a'), start('b')]);
    const hears = (instance: Instance, key: number) =>
      eventually(`${instance.name} to hear key ${key}`, async () => {
        const [peer] = await instance.peers();
        return peer.state === 'reachable' && peer.key === key ? peer : null;
      });
    const reload = async ({ socket }: Instance): Promise<KeysInUse> =>
      (await askJson(socket, 'reload keys', { silence_ms: 10_000 }))[0] as KeysInUse;
    await Promise.all([hears(a, 1), hears(b, 1)]);

    const second = generate('a');
    assert.equal(second.status, 0);
    assert.match(second.said, /a\.key: added key 2, which is accepted from now on and not sent with/);
    spread();
    assert.deepEqual(await reload(a), { sending: 1, accepted: [1, 2] });
    b.program.kill('SIGHUP');
    await b.program.waitFor(/sending with key 1, accepting 1 and 2/);
    swap();
    spread();
    assert.deepEqual(await reload(a), { sending: 2, accepted: [2, 1] });
    await hears(b, 2);
    assert.deepEqual(await reload(b), { sending: 2, accepted: [2, 1] });
    await hears(a, 2);
    assert.equal((await a.status()).key, 2);

    // What is wrong changes nothing.
    chmodSync(keyFile('a'), 0o644);
    await assert.rejects(reload(a), /the keys stay as they are: key file .*a\.key: others than its owner may use it/);
    a.program.kill('SIGHUP');
    await a.program.waitFor(/SIGHUP: the keys stay as they are: key file/);
    assert.equal((await a.status()).key, 2);
    for (const instance of [a, b]) {
      const rejected = Object.entries(await instance.counters()).filter(([name]) => name.startsWith('state_rejected_'));
      assert.deepEqual(
        rejected.filter(([, count]) => count > 0),
        [],
      );
    }
  });

  it('hears nothing of who has another key, and tells from where it came', async () => {
    rmSync(keyFile('a'), { force: true });
    rmSync(keyFile('b'), { force: true });
    generate('a');
    generate('b');
    // Whether they are ready or held is a matter of who is heard when: refusals.test.ts.
    for (const name of ['a', 'b']) daemon(name);
    for (const instance of ['a', 'b'].map((name) => new Instance(name, join(folder, `${name}.sock`)))) {
      const [row] = await eventually('rejects', async () => {
        const rows = await askJson(instance.socket, 'show rejects', { silence_ms: 10_000 }).catch(() => []);
        return rows.length > 0 ? (rows as { address: string; reason: string }[]) : null;
      });
      assert.equal(row.reason, 'seal_forged');
      assert.match(row.address, /^127\.0\.0\.\d$/);
      await eventually('the other to be shown as refused', async () =>
        (await instance.peers())[0].state === 'refused' ? true : null,
      );
    }
  });

  it('does not start with a key file that is wrong, and exits 78 so that nobody tries again', async () => {
    writeFileSync(keyFile('a'), '1:secret\n', { mode: 0o600 });
    const program = daemon('a');
    const { code } = await program.exited;
    assert.equal(code, 78);
    assert.match(program.output, /a\.key:1: expected ID:SECRET/);
    assert.ok(!program.output.includes('1:secret'));
  });
});
