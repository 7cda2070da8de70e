/**
 * Files on a file system that does not answer: commands fail in time, the instance goes on, and it
 * stops.
 */

import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { askJson } from '../../daemon/admin/client.js';
import { generateKey } from '../../daemon/config/key-file.js';
import { HUNG_FOLDER_NEEDS, HungFolder } from '../support/hung-folder.js';
import { freePort } from '../support/ports.js';
import { needs } from '../support/require.js';
import { Instance } from '../testbed/instance.js';
import { Program } from '../testbed/program.js';
import { DAEMON, siteConfig, writeConfig } from '../testbed/site.js';

const MAC = { mac: '02:00:00:00:00:01', next_hop: '02:00:00:00:00:02' };
const PORTS = { inside: MAC, outside: { ...MAC, mac: '02:00:00:00:00:03' } };

describe('an instance whose files are on a file system that does not answer', function () {
  this.timeout(60_000);
  let folder = '';
  let hung: HungFolder;
  let program: Program | null = null;

  before(function () {
    needs(this, ...HUNG_FOLDER_NEEDS);
    folder = mkdtempSync(join(tmpdir(), 'constellation-hung-'));
    hung = new HungFolder();
  });
  after(async () => {
    if (folder === '') return;
    await program?.stop('SIGKILL');
    hung.release();
    rmSync(folder, { recursive: true });
  });

  it('refuses to reload them, says why, goes on, and stops when it is asked to', async () => {
    const at = (name: string): string => join(hung.path, name);
    generateKey(at('cluster.key'));
    writeFileSync(at('site.rules'), 'policy accept\n');
    const config = siteConfig(
      {
        ...{ self: 'a', members: [{ name: 'a', id: 1, address: '127.0.0.1' }], ports: PORTS, core: 0 },
        ...{ external: ['203.0.113.1'], keyFile: at('cluster.key') },
      },
      join(folder, 'a.sock'),
      {
        transport: { kind: 'unicast', port: await freePort() },
        packet_io: { driver: 'pcap' },
        middleboxes: [{ firewall: { rules: at('site.rules') } }],
        nat: { flows: 1024 },
      },
    );
    const file = join(folder, 'a.yaml');
    writeConfig(file, config);
    program = new Program('a', [process.execPath, DAEMON, '-c', file], join(folder, 'a.log'));
    const a = new Instance('a', join(folder, 'a.sock'));
    await a.attach(program);

    hung.hang();
    const reload = (what: string): Promise<unknown> => askJson(a.socket, `reload ${what}`, { silence_ms: 20_000 });
    await Promise.all([
      assert.rejects(reload('rules'), /the rules stay as they are: .*site\.rules could not be read within 5 s/),
      assert.rejects(reload('keys'), /the keys stay as they are: key file .*: it could not be read within 5 s/),
    ]);
    await assert.rejects(reload('rules'), /site\.rules is still being read: its file system does not answer/);
    assert.equal((await a.status()).state, 'ready');
    const { code, signal } = await program.stop();
    assert.deepEqual([code, signal], [0, null]);
    assert.match(program.output, /the process ends although this does not answer: .*site\.rules/);
  });
});
